"""Latents and positions of the cells of a slide on disk, sorted by block, so that a block reads its own and its neighbours'."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sge2hist.data.files import atomic_path
from sge2hist.generation.canvas import Area, Lattice
from sge2hist.generation.cell_latents import CHUNK, encode_cells
from sge2hist.generation.slide_edits import Edit, added_cells, edited_counts, kept_cells
from sge2hist.generation.slide_source import SlideSource
from sge2hist.models.bundle import ModelBundle

GROUP = 16 * CHUNK  # cells encoded between two looks at the disk
ADDED = -1  # source position of a cell that an edit put in
XY, Z, DEPTH, SOURCE, BLOCKS = "xy.npy", "z.npy", "depth.npy", "source.npy", "blocks.npy"


@dataclass(frozen=True, kw_only=True)
class PlacedRows:
    """Some cells: order is that of the source, cells put in come last."""

    xy_um_M2: np.ndarray  # float64
    z_MZ: np.ndarray  # float32
    depth_M: np.ndarray  # float32
    source_M: np.ndarray  # int64, position in the source or ADDED


class CellStore:
    """The folder written by :func:`write_cells`, opened for reading; nothing but a table of blocks stays in memory."""

    def __init__(self, folder: Path, lattice: Lattice) -> None:
        self.folder, self.lattice = folder, lattice
        table = np.load(folder / BLOCKS)
        self._range = {(int(i), int(j)): (int(start), int(stop)) for i, j, start, stop in table}

    @property
    def blocks(self) -> list[tuple[int, int]]:
        """Blocks that hold cells."""
        return list(self._range)

    def positions(self) -> np.ndarray:
        """All positions, float64 [N, 2] in um."""
        return np.load(self.folder / XY)

    def near(self, block: tuple[int, int]) -> PlacedRows:
        """Cells of a block and of the eight around it."""
        around = [(block[0] + i, block[1] + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
        ranges = [self._range[place] for place in around if place in self._range]
        xy, z, depth, source = (self._read(name, ranges) for name in (XY, Z, DEPTH, SOURCE))
        # ties (cells put in) keep the order of the positions
        order = np.lexsort((xy[:, 0], xy[:, 1], np.where(source == ADDED, np.iinfo(np.int64).max, source)))
        return PlacedRows(xy_um_M2=xy[order], z_MZ=z[order], depth_M=depth[order], source_M=source[order])

    def _read(self, name: str, ranges: list[tuple[int, int]]) -> np.ndarray:
        stored = np.load(self.folder / name, mmap_mode="r")  # mapped for the moment only: memory is that of the parts
        if not ranges:
            return np.array(stored[:0])
        return np.concatenate([np.array(stored[start:stop]) for start, stop in ranges])


def write_cells(
    folder: Path,
    bundle: ModelBundle,
    source: SlideSource,
    lattice: Lattice,
    area: Area,
    edits: list[Edit],
    progress: Callable[[int], None] = lambda n: None,
) -> str:
    """Encode the cells in and near an area (latent pixels) and write them; returns one line about the genes.

    Cells are encoded in groups that depend on the source alone: the latents of a cell are the same whatever the area.
    """
    folder.mkdir(parents=True, exist_ok=True)
    chosen = np.flatnonzero(kept_cells(edits, source.xy_um_N2) & _inside(source.xy_um_N2, area, lattice))
    extra = [(edit, xy[_inside(xy, area, lattice)]) for edit, xy in added_cells(edits)]
    xy_um = np.concatenate([source.xy_um_N2[chosen], *(xy for _, xy in extra)])
    source_row = np.concatenate([chosen, np.full(len(xy_um) - len(chosen), ADDED)])
    order, table = _by_block(xy_um, lattice)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    np.save(folder / XY, xy_um[order])
    np.save(folder / SOURCE, source_row[order])
    n_latent = bundle.config.gene.n_latent
    np.lib.format.open_memmap(folder / Z, "w+", np.float32, (len(order), n_latent)).flush()
    np.lib.format.open_memmap(folder / DEPTH, "w+", np.float32, (len(order),)).flush()
    report = _encode(folder, bundle, source, edits, chosen, place[: len(chosen)], progress)
    _set_types(folder, bundle, edits)
    start = len(chosen)
    for edit, xy in extra:
        _put_in(folder, bundle, edit, place[start : start + len(xy)])
        start += len(xy)
    with atomic_path(folder / BLOCKS) as partial, open(partial, "wb") as file:
        np.save(file, table)  # last: its presence says that the rest is whole
    return report


def _inside(xy_um_N2: np.ndarray, area: Area, lattice: Lattice) -> np.ndarray:
    """bool [N]: within the blocks around the blocks of an area."""
    size = lattice.block * lattice.um
    block = np.floor(xy_um_N2[:, ::-1] / size).astype(np.int64)
    low = (area.top // lattice.block - 1, area.left // lattice.block - 1)
    high = (-(-area.bottom // lattice.block), -(-area.right // lattice.block))
    return np.asarray(((block >= low) & (block <= high)).all(1))


def _by_block(xy_um_N2: np.ndarray, lattice: Lattice) -> tuple[np.ndarray, np.ndarray]:
    """Order that sorts cells by block, and rows (i, j, start, stop) int64 of the blocks that hold any."""
    block = np.floor(xy_um_N2[:, ::-1] / (lattice.block * lattice.um)).astype(np.int64)
    order = np.lexsort((block[:, 1], block[:, 0]))
    kinds, first, count = np.unique(block[order], axis=0, return_index=True, return_counts=True)
    return order, np.column_stack([kinds, first, first + count])


def _encode(
    folder: Path, bundle: ModelBundle, source: SlideSource, edits: list[Edit], chosen: np.ndarray, place: np.ndarray,
    progress: Callable[[int], None],
) -> str:  # fmt: skip
    """Encode whole groups of the source, and store the chosen cells of each at their places."""
    read_counts = edited_counts(source.read_counts, edits, source.genes, source.xy_um_N2)
    report = bundle.genes.align(source.genes).summary()
    chunks = np.unique(chosen // CHUNK)
    for first in range(0, len(chunks), GROUP // CHUNK):
        wanted = chunks[first : first + GROUP // CHUNK]
        rows = (wanted[:, None] * CHUNK + np.arange(CHUNK)).ravel()
        latents = encode_cells(bundle, read_counts, source.genes, rows[rows < len(source.xy_um_N2)])
        mine = np.flatnonzero(np.isin(chosen // CHUNK, wanted))
        at = latents.find(chosen[mine])
        for name, values in ((Z, latents.mean_NZ), (DEPTH, latents.depth_N)):
            np.load(folder / name, mmap_mode="r+")[place[mine]] = values[at]
        progress(len(mine))
    return report


def _set_types(folder: Path, bundle: ModelBundle, edits: list[Edit]) -> None:
    """Move the type latent of covered cells to the centre of their new type; the microenvironment stays."""
    chosen = [edit for edit in edits if edit.set_type is not None]
    xy = np.load(folder / XY) if chosen else np.empty((0, 2))
    for edit in chosen:
        inside = edit.covers(xy)
        stored = np.load(folder / Z, mmap_mode="r+")
        stored[inside, : bundle.config.gene.n_type] = type_centre(bundle, str(edit.set_type))


def _put_in(folder: Path, bundle: ModelBundle, edit: Edit, places: np.ndarray) -> None:
    """Latents of added cells: the centre of their type, and the mean microenvironment of the cells around them."""
    source, xy = np.load(folder / SOURCE), np.load(folder / XY)
    around = edit.covers(xy) & (source != ADDED)
    stored = np.load(folder / Z, mmap_mode="r+")
    n_type = bundle.config.gene.n_type
    stored[places, :n_type] = type_centre(bundle, str(edit.add_type))
    stored[places, n_type:] = stored[around, n_type:].mean(0) if around.any() else 0.0


def type_centre(bundle: ModelBundle, name: str) -> np.ndarray:
    """z1 float32 [n_type] at the mean of the component with most cells of a type."""
    components, weights = bundle.components_of(name)
    means_KT = bundle.model.gene.mixture.means_KT.detach().cpu().numpy()
    return means_KT[components[np.argmax(weights)]].astype(np.float32)
