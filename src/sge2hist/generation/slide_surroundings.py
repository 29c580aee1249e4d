"""What lies around the cells of a slide, found square by square, so that memory does not grow with their number.

Cells of a source come in any order: those around a few of them may be anywhere in it. Their coordinates on the axes of the gene
model are therefore written sorted by place, in one reading of the source; then each square is read with those around it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sge2hist.data.cell_index import JUST, CellIndex
from sge2hist.data.gene_panel import GenePanel
from sge2hist.generation.record_file import RecordFile
from sge2hist.generation.square_places import SquareFile, SquarePlaces
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.gene_surroundings import CHUNK, mean_around

if TYPE_CHECKING:
    from scipy.sparse import csr_array

COORDINATES, AROUND = "coordinates.npy", "around.npy"


def write_surroundings(
    folder: Path, bundle: ModelBundle, read_counts: Callable[[np.ndarray], csr_array], panel: GenePanel, xy_um_N2: np.ndarray,
    groups: Callable[[SquarePlaces], Iterable[np.ndarray]], side_um: float, within_um: tuple[np.ndarray, np.ndarray],
    progress: Callable[[int], None] = lambda n: None,
) -> RecordFile:  # fmt: skip
    """Find the rows of :func:`sge2hist.models.gene_surroundings.surroundings`; returns records "around",
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
        for start in range(0, len(group), CHUNK):
            cells = group[start : start + CHUNK]
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
