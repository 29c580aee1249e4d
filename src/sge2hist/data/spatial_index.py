"""Cells by position: those in a window of a slide, and the nearest neighbours of a cell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_array

QUERY_CELLS = 16_384  # cells whose neighbours are looked up at one time
RADIUS_TOLERANCE = 1 + 1e-6  # rounding of distances
RING_TOLERANCE = 1 + 1e-3  # distances within this factor are equal: positions are rounded, lattices not exactly square
MAX_NEIGHBOURS = 32


class CellIndex:
    """Finds cells by position. Positions are in um, x and y, per slide.

    Parameters
    ----------
    centre_um_N2
        float64 [N, 2].
    slide_of_cell
        int64 [N].
    """

    def __init__(self, centre_um_N2: np.ndarray, slide_of_cell: np.ndarray) -> None:
        from scipy.spatial import cKDTree

        self.centre_um_N2 = np.asarray(centre_um_N2, np.float64)
        self.slide_of_cell = np.asarray(slide_of_cell, np.int64)
        self._members = {int(s): np.flatnonzero(slide_of_cell == s) for s in np.unique(slide_of_cell)}
        self._trees = {s: cKDTree(self.centre_um_N2[members]) for s, members in self._members.items()}

    def within(
        self, slide_B: np.ndarray, centre_um_B2: np.ndarray, half_side_um: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Cells no farther than `half_side_um` from each window centre in x and in y.

        Returns
        -------
        (cell int64 [M], window int64 [M]): sorted by window, then by cell.
        """
        cells, windows = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for window, (slide, centre) in enumerate(zip(slide_B, centre_um_B2, strict=True)):
            tree = self._trees.get(int(slide))
            if tree is None:
                continue
            found = np.sort(np.asarray(tree.query_ball_point(centre, half_side_um, p=np.inf), np.int64))
            cells.append(self._members[int(slide)][found])
            windows.append(np.full(len(found), window, np.int64))
        return np.concatenate(cells), np.concatenate(windows)

    def neighbour_weights(self, cells: np.ndarray, radius_um: float, max_neighbours: int = MAX_NEIGHBOURS) -> csr_array:
        """Weights that average over the neighbours of each given cell: sparse float32 [len(cells), N].

        Row i holds 1/k at the k nearest cells of the same slide within the radius, never at the cell itself. k is
        `max_neighbours`, or more where several cells are as far as the last one (a ring of a lattice), so that the order of cells
        does not decide; where the ring makes k more than twice `max_neighbours`, its first cells are taken.
        Rows without neighbours are empty. Columns are sorted.
        """
        from scipy.sparse import csr_array

        rows, columns = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for slide in self._members:
            own = np.flatnonzero(self.slide_of_cell[cells] == slide)
            for start in range(0, len(own), QUERY_CELLS):
                part = own[start : start + QUERY_CELLS]
                for row, column in self._nearest(slide, cells[part], radius_um * RADIUS_TOLERANCE, max_neighbours):
                    rows.append(part[row])
                    columns.append(column)
        row, column = np.concatenate(rows), np.concatenate(columns)
        order = np.lexsort((column, row))
        row, column = row[order], column[order]
        count = np.bincount(row, minlength=len(cells))
        weights = (1.0 / count[row]).astype(np.float32)
        pointers = np.concatenate([[0], np.cumsum(count)])
        return csr_array((weights, column, pointers), shape=(len(cells), len(self.centre_um_N2)))

    def _nearest(
        self, slide: int, cells: np.ndarray, radius_um: float, max_neighbours: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield pairs (position in `cells`, a neighbour of that cell)."""
        members, tree, left = self._members[slide], self._trees[slide], np.arange(len(cells))
        last_N1 = np.empty((0, 1))
        # the second number is for cells whose last ring is cut off by the first
        for wanted in (max_neighbours + 2, 2 * max_neighbours + 1):
            k = max(2, min(wanted, len(members)))
            points = self.centre_um_N2[cells[left]]
            distance, found = map(np.asarray, tree.query(points, k=k, distance_upper_bound=radius_um))
            cell = members[np.minimum(found, len(members) - 1)]
            other = (found < len(members)) & (cell != cells[left][:, None])
            # distance of the last of the nearest `max_neighbours`
            last_N1 = np.where(other.cumsum(1) < max_neighbours, np.inf, distance).min(1, keepdims=True)
            whole = np.isinf(distance[:, -1]) | (distance[:, -1] > last_N1[:, 0] * RING_TOLERANCE) | (k == len(members))
            row, rank = np.nonzero(other & (distance <= last_N1 * RING_TOLERANCE) & whole[:, None])
            yield left[row], cell[row, rank]
            left, last_N1 = left[~whole], last_N1[~whole]
        for position, last in zip(left.tolist(), last_N1[:, 0], strict=True):
            point = self.centre_um_N2[cells[position]]
            ring = members[np.sort(tree.query_ball_point(point, min(last * RING_TOLERANCE, radius_um)))]
            ring = ring[ring != cells[position]]
            nearer = np.linalg.norm(self.centre_um_N2[ring] - point, axis=1) < last / RING_TOLERANCE
            first = ring[np.argsort(~nearer, kind="stable")][: 2 * max_neighbours]
            yield np.full(len(first), position), first

    def spacing_um(self, max_cells: int = 20_000) -> float:
        """Median distance from a cell to its nearest neighbour, over at most `max_cells` cells; 0 without neighbours."""
        distances = [np.empty(0)]
        for slide, members in self._members.items():
            if len(members) > 1:
                some = members[:: max(1, len(members) * len(self._members) // max_cells)]
                distances.append(np.asarray(self._trees[slide].query(self.centre_um_N2[some], k=2)[0])[:, 1])
        found = np.concatenate(distances)
        return float(np.median(found)) if len(found) else 0.0

    def distance_um(self, point_um_B2: np.ndarray, slide_B: np.ndarray) -> np.ndarray:
        """Chebyshev distance max(|dx|, |dy|) of each point to the nearest indexed cell of its slide; inf if none."""
        out = np.full(len(point_um_B2), np.inf)
        for slide, tree in self._trees.items():
            own = np.flatnonzero(slide_B == slide)
            if len(own):
                out[own] = tree.query(point_um_B2[own], p=np.inf)[0]
        return out
