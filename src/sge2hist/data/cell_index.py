"""Which cells lie in a window of a slide."""

from __future__ import annotations

import numpy as np


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

    def distance_um(self, point_um_B2: np.ndarray, slide_B: np.ndarray) -> np.ndarray:
        """Chebyshev distance max(|dx|, |dy|) of each point to the nearest indexed cell of its slide; inf if none."""
        out = np.full(len(point_um_B2), np.inf)
        for slide, tree in self._trees.items():
            own = np.flatnonzero(slide_B == slide)
            if len(own):
                out[own] = tree.query(point_um_B2[own], p=np.inf)[0]
        return out
