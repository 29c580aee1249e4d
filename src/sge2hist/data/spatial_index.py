"""Which cells lie in a window of a slide."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_array

QUERY = 16_384  # cells whose neighbours are looked up at one time
JUST = 1 + 1e-6  # a distance is never told more exactly
SAME = 1 + 1e-3  # distances within this factor are of one ring: positions are rounded, and lattices a little askew


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

    def within(self, slide_B: np.ndarray, centre_um_B2: np.ndarray, reach_um: float) -> tuple[np.ndarray, np.ndarray]:
        """Cells no farther than `reach_um` from each window centre in x and in y.

        Returns
        -------
        (cell int64 [M], window int64 [M]): windows rising, and cells rising within a window.
        """
        cells, windows = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for window, (slide, centre) in enumerate(zip(slide_B, centre_um_B2, strict=True)):
            tree = self._trees.get(int(slide))
            if tree is None:
                continue
            found = np.sort(np.asarray(tree.query_ball_point(centre, reach_um, p=np.inf), np.int64))
            cells.append(self._members[int(slide)][found])
            windows.append(np.full(len(found), window, np.int64))
        return np.concatenate(cells), np.concatenate(windows)

    def around(self, cells: np.ndarray, radius_um: float, most: int = 32) -> csr_array:
        """Who is around each of some cells: sparse float32 [len(cells), N].

        Row i holds 1/k at the k nearest cells of the same slide within the radius, never at the cell itself: `most` of them,
        and those that are as far as the last, so that on a lattice no order of cells decides who is around; of a ring that makes
        them more than twice as many, the first.
        Rows without neighbours are empty. Columns rise.
        """
        from scipy.sparse import csr_array

        rows, columns = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for slide in self._members:
            own = np.flatnonzero(self.slide_of_cell[cells] == slide)
            for start in range(0, len(own), QUERY):
                part = own[start : start + QUERY]
                for row, column in self._nearest(slide, cells[part], radius_um * JUST, most):
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
        self, slide: int, cells: np.ndarray, radius_um: float, most: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Pairs (position in `cells`, a cell around that one), in parts."""
        members, tree, left = self._members[slide], self._trees[slide], np.arange(len(cells))
        last_N1 = np.empty((0, 1))
        for wanted in (most + 2, 2 * most + 1):  # the second for those whose last ring is cut off by the first
            k = max(2, min(wanted, len(members)))
            points = self.centre_um_N2[cells[left]]
            distance, found = map(np.asarray, tree.query(points, k=k, distance_upper_bound=radius_um))
            cell = members[np.minimum(found, len(members) - 1)]
            other = (found < len(members)) & (cell != cells[left][:, None])
            last_N1 = np.where(other.cumsum(1) < most, np.inf, distance).min(1, keepdims=True)  # of the nearest `most`
            whole = np.isinf(distance[:, -1]) | (distance[:, -1] > last_N1[:, 0] * SAME) | (k == len(members))
            row, rank = np.nonzero(other & (distance <= last_N1 * SAME) & whole[:, None])
            yield left[row], cell[row, rank]
            left, last_N1 = left[~whole], last_N1[~whole]
        for position, last in zip(left.tolist(), last_N1[:, 0], strict=True):
            point = self.centre_um_N2[cells[position]]
            ring = members[np.sort(tree.query_ball_point(point, min(last * SAME, radius_um)))]
            ring = ring[ring != cells[position]]
            nearer = np.linalg.norm(self.centre_um_N2[ring] - point, axis=1) < last / SAME
            first = ring[np.argsort(~nearer, kind="stable")][: 2 * most]
            yield np.full(len(first), position), first

    def spacing_um(self, most: int = 20_000) -> float:
        """Median distance from a cell to the nearest other one of its slide, over at most `most` cells; 0 if all are alone."""
        distances = [np.empty(0)]
        for slide, members in self._members.items():
            if len(members) > 1:
                some = members[:: max(1, len(members) * len(self._members) // most)]
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
