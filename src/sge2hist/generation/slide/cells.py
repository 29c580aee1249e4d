"""Latents and positions of the cells of a slide on disk, sorted by block, so that a block reads its own and its neighbours'.

Cells come and go in groups of the source: nothing here grows with their number but the files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sge2hist.data.artifacts import atomic_path
from sge2hist.data.gene_panel import GenePanel
from sge2hist.data.spatial_index import JUST, CellIndex
from sge2hist.generation.encode import CHUNK, encode_cells
from sge2hist.generation.slide.edits import Edit, added_cells, edited_counts, kept_cells
from sge2hist.generation.slide.source import SlideSource
from sge2hist.generation.slide.tile_store import RecordFile, Square, SquareFile, SquarePlaces
from sge2hist.generation.slide.tiling import Area, Lattice
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.gene.neighbours import CHUNK as COUNTS_CHUNK
from sge2hist.models.gene.neighbours import mean_around

if TYPE_CHECKING:
    from scipy.sparse import csr_array


GROUP = 16 * CHUNK  # cells that are in memory at one time
MIN_AROUND_UM = 50.0  # of the cells whose microenvironment a cell that is put in takes over
ROWS, ORDER, BLOCKS = "rows.npy", "order.npy", "blocks.npy"


@dataclass(frozen=True, kw_only=True)
class PlacedRows:
    """Some cells: order is that of the source, cells put in come last."""

    xy_um_M2: np.ndarray  # float64
    z_MZ: np.ndarray  # float32
    depth_M: np.ndarray  # float32
    source_M: np.ndarray  # int64, position in the source; -1 - i for a cell that the i-th edit put in


class CellStore:
    """The folder written by :func:`write_cells`, opened for reading; nothing but a table of blocks stays in memory."""

    def __init__(self, folder: Path, lattice: Lattice) -> None:
        self.folder, self.lattice = folder, lattice
        self._rows, self._order = RecordFile(folder / ROWS), RecordFile(folder / ORDER)
        self._by_block = SquareFile(self._rows, np.load(folder / BLOCKS))

    @property
    def blocks(self) -> list[Square]:
        """Blocks that hold cells."""
        return self._by_block.squares

    def positions(self) -> Iterator[np.ndarray]:
        """All positions, group by group, float64 [n, 2] in um."""
        for start in range(0, len(self._rows), GROUP):
            yield self._rows.read(start, start + GROUP)["xy_um"]

    def in_source_order(self) -> Iterator[PlacedRows]:
        """All cells, group by group, in the order of the source; cells put in come last."""
        for start in range(0, len(self._order), GROUP):
            yield _placed(self._rows.take(self._order.read(start, start + GROUP)))

    def near(self, block: Square) -> PlacedRows:
        """Cells of a block and of the eight around it."""
        rows = self._by_block.near(block)
        xy, source = rows["xy_um"], rows["source"]
        # ties (cells put in) keep the order of the positions
        order = np.lexsort((xy[:, 0], xy[:, 1], np.where(source < 0, np.iinfo(np.int64).max, source)))
        return _placed(rows[order])


def _placed(rows: np.ndarray) -> PlacedRows:
    xy, z, depth, source = (np.ascontiguousarray(rows[name]) for name in ("xy_um", "z", "depth", "source"))
    return PlacedRows(xy_um_M2=xy, z_MZ=z, depth_M=depth, source_M=source)


def write_cells(
    folder: Path,
    bundle: ModelBundle,
    source: SlideSource,
    lattice: Lattice,
    area: Area,
    edits: list[Edit],
    progress: Callable[[int], None] = lambda n: None,
) -> None:
    """Encode the cells in and near an area (latent pixels) and write them.

    Cells are encoded in groups that depend on the source alone: the latents of a cell are the same whatever the area.
    `progress` counts cells, first those whose counts are read for what is around others, then those that are encoded.
    """
    folder.mkdir(parents=True, exist_ok=True)
    low, high = np.array([area.top, area.left]), np.array([area.bottom, area.right])
    places = SquarePlaces(low * lattice.um, high * lattice.um, lattice.block * lattice.um)
    for chosen in _groups(source, edits, places):
        places.count(source.xy_um_N2[chosen])
    extra = [(number, xy[places.square(xy) >= 0]) for number, xy in added_cells(edits)]
    for _, xy in extra:
        places.count(xy)
    n = places.n_cells
    n_latent = bundle.config.gene.n_latent
    kind = [("xy_um", "<f8", (2,)), ("source", "<i8"), ("depth", "<f4"), ("z", "<f4", (n_latent,))]
    rows, order = RecordFile.create(folder / ROWS, kind, n), RecordFile.create(folder / ORDER, "<i8", n)
    done = 0
    read_counts = edited_counts(source.read_counts, edits, source.genes, source.xy_um_N2)
    around = None
    if bundle.model.gene.config.n_around:
        around = write_surroundings(
            folder,
            bundle,
            read_counts,
            source.genes,
            source.xy_um_N2,
            partial(_groups, source, edits),
            side_um=lattice.block * lattice.um,
            within_um=places.bounds_um,
            progress=progress,
        )
    for chosen in _groups(source, edits, places):
        records = _encoded(bundle, source, read_counts, edits, chosen, rows.dtype, around)
        at = places.take(records["xy_um"])
        rows.put(at, records)
        order.put(np.arange(done, done + len(at)), at)
        done += len(at)
        progress(len(at))
    _put_in(bundle, edits, extra, places, rows, order, done)
    if around is not None:
        around.path.unlink()
    with atomic_path(folder / BLOCKS) as unfinished, open(unfinished, "wb") as file:
        np.save(file, places.table())  # last: its presence says that the rest is whole


def _groups(source: SlideSource, edits: list[Edit], places: SquarePlaces) -> Iterator[np.ndarray]:
    """Source positions of the cells that are kept and inside, group by group of the source."""
    for start in range(0, len(source.xy_um_N2), GROUP):
        xy = source.xy_um_N2[start : start + GROUP]
        chosen = start + np.flatnonzero(kept_cells(edits, xy) & (places.square(xy) >= 0))
        if len(chosen):
            yield chosen


def _encoded(
    bundle: ModelBundle,
    source: SlideSource,
    read_counts: Callable[[np.ndarray], csr_array],
    edits: list[Edit],
    chosen: np.ndarray,
    kind: np.dtype,
    around: RecordFile | None,
) -> np.ndarray:
    """Records of some cells of a group. Chunks of the source are encoded whole."""
    rows = (np.unique(chosen // CHUNK)[:, None] * CHUNK + np.arange(CHUNK)).ravel()
    rows = rows[rows < len(source.xy_um_N2)]

    def known(cells: np.ndarray) -> np.ndarray:
        assert around is not None
        return around.read(cells[0], cells[-1] + 1)["around"][cells - cells[0]]

    latents = encode_cells(bundle, read_counts, source.genes, rows, around=None if around is None else known)
    at = latents.find(chosen)
    records = np.empty(len(chosen), kind)
    records["xy_um"], records["source"] = source.xy_um_N2[chosen], chosen
    records["z"], records["depth"] = latents.mean_NZ[at], latents.depth_N[at]
    for edit in edits:
        if edit.set_type is not None:  # the type latent moves to the centre of the new type; the microenvironment stays
            inside = edit.covers(records["xy_um"])
            records["z"][inside, : bundle.config.gene.n_type] = type_centre(bundle, edit.set_type)
    return records


def _put_in(
    bundle: ModelBundle,
    edits: list[Edit],
    extra: list[tuple[int, np.ndarray]],
    places: SquarePlaces,
    rows: RecordFile,
    order: RecordFile,
    done: int,
) -> None:
    """Store added cells: the centre of their type, and the mean microenvironment of the cells around each."""
    from scipy.spatial import cKDTree

    n_type = bundle.config.gene.n_type
    by_block = SquareFile(rows, places.table())
    taken = []
    for number, xy in extra:
        records = np.zeros(len(xy), rows.dtype)
        records["xy_um"], records["source"] = xy, -1 - number
        records["z"][:, :n_type] = type_centre(bundle, str(edits[number].add_type))
        taken.append((places.take(xy), records))
        rows.put(*taken[-1])
    reach_um = max(bundle.model.gene.config.around_um, MIN_AROUND_UM)
    for at, records in taken:
        block_N = places.square(records["xy_um"])
        for block in np.unique(block_N):
            own = np.flatnonzero(block_N == block)
            near = by_block.near(places.named(block))
            near = near[near["source"] >= 0]
            if len(near) == 0:
                continue
            found = cKDTree(near["xy_um"]).query_ball_point(records["xy_um"][own], reach_um, return_sorted=True)
            for cell, around in zip(own, found, strict=True):
                if around:
                    records["z"][cell, n_type:] = near["z"][around, n_type:].mean(0)
        rows.put(at, records)
    if taken:
        order.put(np.arange(done, len(order)), np.sort(np.concatenate([at for at, _ in taken])))


def type_centre(bundle: ModelBundle, name: str) -> np.ndarray:
    """z1 float32 [n_type] at the mean of the component with most cells of a type."""
    components, weights = bundle.components_of(name)
    means_KT = bundle.model.gene.mixture.means_KT.detach().cpu().numpy()
    return means_KT[components[np.argmax(weights)]].astype(np.float32)


# What lies around the cells of a slide, found square by square, so that memory does not grow with their number.
#
# Cells of a source come in any order: those around a few of them may be anywhere in it. Their coordinates on the axes of the gene
# model are therefore written sorted by place, in one reading of the source; then each square is read with those around it.


COORDINATES, AROUND = "coordinates.npy", "around.npy"


def write_surroundings(
    folder: Path,
    bundle: ModelBundle,
    read_counts: Callable[[np.ndarray], csr_array],
    panel: GenePanel,
    xy_um_N2: np.ndarray,
    groups: Callable[[SquarePlaces], Iterable[np.ndarray]],
    side_um: float,
    within_um: tuple[np.ndarray, np.ndarray],
    progress: Callable[[int], None] = lambda n: None,
) -> RecordFile:
    """Find the rows of :func:`sge2hist.models.gene.neighbours.surroundings`; returns records "around",
    float32 [A], by number of the cell.

    Parameters
    ----------
    read_counts : rising cell numbers -> raw counts on the genes of `panel`, CSR [n, G].
    xy_um_N2 : positions of all N cells.
    groups : numbers of the cells that have a place and are around others, rising, a group at a time.
    side_um : least side of the squares.
    within_um : corners (y, x) of the rectangle whose cells are asked for; rows of cells outside are zeros.
    progress : counts cells.
    """
    radius_um = bundle.model.gene.config.around_um
    places = SquarePlaces(*within_um, max(side_um, radius_um))

    def near_enough() -> Iterator[np.ndarray]:
        for group in groups(places):
            cells = group[_within(xy_um_N2[group], *within_um, margin_um=radius_um * JUST)]
            if len(cells):
                yield cells

    for cells in near_enough():
        places.count(xy_um_N2[cells])
    encoder, alignment = bundle.model.gene.encoder, bundle.genes.align(panel)
    kind = [("cell", "<i8"), ("coordinates", "<f4", (encoder.n_axes,))]
    stored = RecordFile.create(folder / COORDINATES, kind, places.n_cells)
    for group in near_enough():
        for start in range(0, len(group), COUNTS_CHUNK):
            cells = group[start : start + COUNTS_CHUNK]
            counts, observed_G = bundle.genes.gather(read_counts(cells), alignment)
            records = np.empty(len(cells), stored.dtype)
            records["cell"], records["coordinates"] = cells, encoder.coordinates(counts, observed_G)
            stored.put(places.take(xy_um_N2[cells]), records)
            progress(len(cells))
    around = RecordFile.create(folder / AROUND, [("around", "<f4", (encoder.n_axes + 1,))], len(xy_um_N2))
    by_square = SquareFile(stored, places.table())
    for square in by_square.squares:
        own = np.sort(by_square.read(square)["cell"])
        own = own[_within(xy_um_N2[own], *within_um)]
        if len(own) == 0:  # a square of the rim, there for its neighbours
            continue
        near = by_square.near(square)
        corner = np.array(square) * places.side_um
        near = near[_within(xy_um_N2[near["cell"]], corner, corner + places.side_um, margin_um=radius_um * JUST)]
        near = near[np.argsort(near["cell"])]  # sums in one order, whatever the squares
        index = CellIndex(xy_um_N2[near["cell"]], np.zeros(len(near), np.int64))
        who = index.around(np.searchsorted(near["cell"], own), radius_um)
        records = np.empty(len(own), around.dtype)
        records["around"] = mean_around(near["coordinates"].__getitem__, who)
        around.put(own, records)
    stored.path.unlink()
    return around


def _within(xy_um_N2: np.ndarray, low_um: np.ndarray, high_um: np.ndarray, *, margin_um: float = 0.0) -> np.ndarray:
    """Which positions lie in a rectangle (corners y, x) or within a margin of it."""
    yx = xy_um_N2[:, ::-1]
    return np.asarray(((yx >= low_um - margin_um) & (yx <= high_um + margin_um)).all(1))
