"""Latents and positions of the cells of a slide, in files sorted by block: a window reads its block and the eight next to it.

``rows.npy`` holds the cells, ``order.npy`` the position of each cell in ``rows.npy`` in the order of the source, ``blocks.npy``
which rows belong to which block. Cells are processed in groups of the source: memory does not grow with their number.
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
from sge2hist.data.spatial_index import RADIUS_TOLERANCE, CellIndex
from sge2hist.generation.encode import CHUNK, encode_cells, protein_reader
from sge2hist.generation.slide.edited_source import EditedSource, type_mean
from sge2hist.generation.slide.edits import Edit
from sge2hist.generation.slide.source import SlideSource
from sge2hist.generation.slide.tile_store import ArrayFile, TileIndex, TileLayout, TileStore
from sge2hist.generation.slide.tiling import Area, Lattice
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.gene.neighbours import CHUNK as COUNTS_CHUNK
from sge2hist.models.gene.neighbours import mean_of_neighbours

if TYPE_CHECKING:
    from scipy.sparse import csr_array

ROWS, ORDER, BLOCKS = "rows.npy", "order.npy", "blocks.npy"
COORDINATES, NEIGHBOUR_FEATURES = "coordinates.npy", "neighbour_features.npy"  # while cells are encoded
OUTLINE = "outline"  # field of the rows, where cells have outlines
GROUP = 16 * CHUNK  # cells in memory at one time
MIN_NEIGHBOUR_UM = 50.0  # an added cell takes the mean microenvironment of the cells within this distance, at least


@dataclass(frozen=True, kw_only=True)
class CellRows:
    """M cells in the order of the source; added cells come last."""

    xy_um_M2: np.ndarray  # float64
    z_MZ: np.ndarray  # float32
    depth_M: np.ndarray  # float32
    outline_um_MV2: np.ndarray | None = (
        None  # float32, vertices from each cell's centre; NaN: a point. None: all are points
    )
    source_M: np.ndarray  # int64, position in the source; -1 - i for a cell that edit i added


class CellStore:
    """The folder written by :func:`write_cells`, opened for reading; only a table of blocks stays in memory."""

    def __init__(self, folder: Path, lattice: Lattice) -> None:
        self.folder, self.lattice = folder, lattice
        self._rows, self._order = ArrayFile(folder / ROWS), ArrayFile(folder / ORDER)
        self._by_block = TileStore(self._rows, np.load(folder / BLOCKS))

    def positions_um(self) -> Iterator[np.ndarray]:
        """All positions, group by group, float64 [n, 2]."""
        for start in range(0, len(self._rows), GROUP):
            yield self._rows.read(start, start + GROUP)["xy_um"]

    def in_source_order(self) -> Iterator[CellRows]:
        """All cells, group by group, in the order of the source; added cells come last."""
        for start in range(0, len(self._order), GROUP):
            yield _cell_rows(self._rows.read_at(self._order.read(start, start + GROUP)))

    def neighbourhood(self, block: TileIndex) -> CellRows:
        """Cells of a block and of the eight next to it."""
        rows = self._by_block.read_3x3(block)
        xy, source = rows["xy_um"], rows["source"]
        # ties (added cells) keep the order of the positions
        order = np.lexsort((xy[:, 0], xy[:, 1], np.where(source < 0, np.iinfo(np.int64).max, source)))
        return _cell_rows(rows[order])


def _cell_rows(rows: np.ndarray) -> CellRows:
    xy, z, depth, source = (np.ascontiguousarray(rows[name]) for name in ("xy_um", "z", "depth", "source"))
    outline = np.ascontiguousarray(rows[OUTLINE]) if OUTLINE in (rows.dtype.names or ()) else None
    return CellRows(xy_um_M2=xy, z_MZ=z, depth_M=depth, outline_um_MV2=outline, source_M=source)


# --- writing --------------------------------------------------------------------------------------------------------


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
    `progress` counts cells: first those whose counts are read as neighbours of others, then those that are encoded.
    """
    folder.mkdir(parents=True, exist_ok=True)
    um, block_um = lattice.um_per_latent_px, lattice.block_side * lattice.um_per_latent_px
    layout = TileLayout(np.array([area.top, area.left]) * um, np.array([area.bottom, area.right]) * um, block_um)
    edited = EditedSource(source, edits)
    for chosen in _groups(edited, layout):
        layout.count(edited.xy_um_N2[chosen])
    added = [(number, xy[layout.tile_number(xy) >= 0]) for number, xy in edited.added]
    for _, xy in added:
        layout.count(xy)
    dtype: list[tuple] = [("xy_um", "<f8", (2,)), ("source", "<i8"), ("depth", "<f4")]
    dtype.append(("z", "<f4", (bundle.config.gene.n_latent,)))
    if source.outline_um_NV2 is not None:
        dtype.append((OUTLINE, "<f4", source.outline_um_NV2.shape[1:]))
    rows = ArrayFile.create(folder / ROWS, dtype, layout.n_rows)
    order = ArrayFile.create(folder / ORDER, "<i8", layout.n_rows)
    neighbours = None
    if bundle.model.gene.config.n_neighbour_features:
        neighbours = write_neighbour_features(
            folder,
            bundle,
            edited.read_counts,
            source.genes,
            edited.xy_um_N2,
            partial(_groups, edited),
            min_tile_um=block_um,
            within_um=layout.bounds_um,
            progress=progress,
        )
    n_written = 0
    for chosen in _groups(edited, layout):
        records = _encode_group(bundle, edited, chosen, rows.dtype, neighbours)
        positions = layout.assign(records["xy_um"])
        rows.write_at(positions, records)
        order.write_at(np.arange(n_written, n_written + len(positions)), positions)
        n_written += len(positions)
        progress(len(positions))
    _write_added(bundle, edited, added, layout, rows, order, n_written)
    if neighbours is not None:
        neighbours.path.unlink()
    with atomic_path(folder / BLOCKS) as unfinished, open(unfinished, "wb") as file:
        np.save(file, layout.table())  # last: the folder is complete once this file exists


def _groups(edited: EditedSource, layout: TileLayout) -> Iterator[np.ndarray]:
    """Source positions of the cells that are kept and inside, group by group of the source."""
    for start in range(0, len(edited.xy_um_N2), GROUP):
        part = slice(start, start + GROUP)
        chosen = start + np.flatnonzero(edited.kept_N[part] & (layout.tile_number(edited.xy_um_N2[part]) >= 0))
        if len(chosen):
            yield chosen


def _encode_group(
    bundle: ModelBundle, edited: EditedSource, chosen: np.ndarray, dtype: np.dtype, neighbours: ArrayFile | None
) -> np.ndarray:
    """Rows of some cells of a group. Chunks of the source are encoded whole."""
    cells = (np.unique(chosen // CHUNK)[:, None] * CHUNK + np.arange(CHUNK)).ravel()
    cells = cells[cells < len(edited.xy_um_N2)]

    def stored_features(rows: np.ndarray) -> np.ndarray:
        assert neighbours is not None
        return neighbours.read(rows[0], rows[-1] + 1)["features"][rows - rows[0]]

    reader = None if neighbours is None else stored_features
    proteins = protein_reader(bundle, edited.source)
    latents = encode_cells(bundle, edited.read_counts, edited.source.genes, cells, neighbours=reader, proteins=proteins)
    at = latents.find(chosen)
    records = np.empty(len(chosen), dtype)
    records["xy_um"], records["source"] = edited.xy_um_N2[chosen], chosen
    records["z"], records["depth"] = latents.mean_NZ[at], latents.depth_N[at]
    edited.set_types(bundle, chosen, records["z"])
    if edited.source.outline_um_NV2 is not None:
        records[OUTLINE] = edited.source.outline_um_NV2[chosen]
    return records


def _write_added(
    bundle: ModelBundle,
    edited: EditedSource,
    added: list[tuple[int, np.ndarray]],
    layout: TileLayout,
    rows: ArrayFile,
    order: ArrayFile,
    n_written: int,
) -> None:
    """Write added cells: z1 is the mean of their type, z2 the mean over the cells near each."""
    from scipy.spatial import cKDTree

    n_type = bundle.config.gene.n_type
    by_block = TileStore(rows, layout.table())
    written = []
    for number, xy in added:
        records = np.zeros(len(xy), rows.dtype)
        records["xy_um"], records["source"] = xy, -1 - number
        if OUTLINE in (records.dtype.names or ()):
            records[OUTLINE] = edited.added_outlines(number, xy)
        records["z"][:, :n_type] = type_mean(bundle, str(edited.edits[number].add_type))
        written.append((layout.assign(xy), records))
        rows.write_at(*written[-1])
    radius_um = max(bundle.model.gene.config.neighbour_um, MIN_NEIGHBOUR_UM)
    for positions, records in written:
        block_N = layout.tile_number(records["xy_um"])
        for block in np.unique(block_N):
            own = np.flatnonzero(block_N == block)
            near = by_block.read_3x3(layout.index(block))
            near = near[near["source"] >= 0]
            if len(near) == 0:
                continue
            found = cKDTree(near["xy_um"]).query_ball_point(records["xy_um"][own], radius_um, return_sorted=True)
            for cell, neighbours in zip(own, found, strict=True):
                if neighbours:
                    records["z"][cell, n_type:] = near["z"][neighbours, n_type:].mean(0)
        rows.write_at(positions, records)
    if written:
        order.write_at(np.arange(n_written, len(order)), np.sort(np.concatenate([at for at, _ in written])))


# --- neighbours -----------------------------------------------------------------------------------------------------


def write_neighbour_features(
    folder: Path,
    bundle: ModelBundle,
    read_counts: Callable[[np.ndarray], csr_array],
    panel: GenePanel,
    xy_um_N2: np.ndarray,
    groups: Callable[[TileLayout], Iterable[np.ndarray]],
    min_tile_um: float,
    within_um: tuple[np.ndarray, np.ndarray],
    progress: Callable[[int], None] = lambda n: None,
) -> ArrayFile:
    """Compute what :func:`sge2hist.models.gene.neighbours.neighbour_features` gives, tile by tile, in bounded memory.

    Cells of a source come in any order: the neighbours of a few may be anywhere in it. One pass over the source writes their
    coordinates on the axes of the gene model sorted by tile; then each tile is read with its eight neighbours.

    Parameters
    ----------
    read_counts : rising cell numbers -> raw counts on the genes of `panel`, CSR [n, G].
    xy_um_N2 : positions of all N cells.
    groups : numbers of the cells that are inside a layout and count as neighbours, rising, a group at a time.
    min_tile_um : smallest side of the tiles.
    within_um : corners (y, x) of the rectangle whose cells are computed; rows of cells outside are zeros.
    progress : counts cells.

    Returns
    -------
    Rows "features", float32 [A], by number of the cell.
    """
    radius_um = bundle.model.gene.config.neighbour_um
    layout = TileLayout(*within_um, max(min_tile_um, radius_um))

    def possible_neighbours() -> Iterator[np.ndarray]:
        for group in groups(layout):
            cells = group[_within(xy_um_N2[group], *within_um, margin_um=radius_um * RADIUS_TOLERANCE)]
            if len(cells):
                yield cells

    for cells in possible_neighbours():
        layout.count(xy_um_N2[cells])
    encoder, alignment = bundle.model.gene.encoder, bundle.genes.align(panel)
    dtype = [("cell", "<i8"), ("coordinates", "<f4", (encoder.n_axes,))]
    stored = ArrayFile.create(folder / COORDINATES, dtype, layout.n_rows)
    for group in possible_neighbours():
        for start in range(0, len(group), COUNTS_CHUNK):
            cells = group[start : start + COUNTS_CHUNK]
            counts, observed_G = bundle.genes.gather(read_counts(cells), alignment)
            records = np.empty(len(cells), stored.dtype)
            records["cell"], records["coordinates"] = cells, encoder.coordinates(counts, observed_G)
            stored.write_at(layout.assign(xy_um_N2[cells]), records)
            progress(len(cells))

    features_dtype = [("features", "<f4", (encoder.n_axes + 1,))]
    out = ArrayFile.create(folder / NEIGHBOUR_FEATURES, features_dtype, len(xy_um_N2))
    by_tile = TileStore(stored, layout.table())
    for tile in by_tile.tiles:
        own = np.sort(by_tile.read(tile)["cell"])
        own = own[_within(xy_um_N2[own], *within_um)]
        if len(own) == 0:  # a tile at the border, there for its neighbours
            continue
        near = by_tile.read_3x3(tile)
        corner = np.array(tile) * layout.side_um
        near = near[
            _within(xy_um_N2[near["cell"]], corner, corner + layout.side_um, margin_um=radius_um * RADIUS_TOLERANCE)
        ]
        near = near[np.argsort(near["cell"])]  # one order of summation, whatever the tiles
        index = CellIndex(xy_um_N2[near["cell"]], np.zeros(len(near), np.int64))
        weights = index.neighbour_weights(np.searchsorted(near["cell"], own), radius_um)
        records = np.empty(len(own), out.dtype)
        records["features"] = mean_of_neighbours(near["coordinates"].__getitem__, weights)
        out.write_at(own, records)
    stored.path.unlink()
    return out


def _within(xy_um_N2: np.ndarray, low_um: np.ndarray, high_um: np.ndarray, *, margin_um: float = 0.0) -> np.ndarray:
    """Which positions lie in a rectangle (corners y, x) or within a margin of it."""
    yx = xy_um_N2[:, ::-1]
    return np.asarray(((yx >= low_um - margin_um) & (yx <= high_um + margin_um)).all(1))
