"""Outlines of cells from rows of vertices, as every instrument writes them: arrays of one shape for all cells."""

from __future__ import annotations

import numpy as np

MAX_VERTICES = 48
"""Outlines with more vertices are followed at so many places, equally far apart along the outline."""


def outlines_of_rows(cell_of_row: np.ndarray, xy_M2: np.ndarray, n_cells: int) -> np.ndarray:
    """Vertices of the outlines of `n_cells` cells: float64 [N, V, 2], V at most `MAX_VERTICES`.

    Outlines with fewer vertices repeat their last one; cells with fewer than three are NaN. A first vertex that is repeated at
    the end is dropped.

    Parameters
    ----------
    cell_of_row
        int64 [M]: cell that each row belongs to, -1 = none; the rows of a cell are in the order of its outline.
    xy_M2
        float [M, 2]: the vertices.
    """
    order = np.argsort(cell_of_row, kind="stable")  # the rows of a cell keep their order
    order = order[np.searchsorted(cell_of_row[order], 0) :]
    cell_of_row, xy_M2 = cell_of_row[order], xy_M2[order]
    count_N = np.bincount(cell_of_row, minlength=n_cells)
    start_N = np.cumsum(count_N) - count_N
    first, last = start_N.clip(max=max(len(xy_M2) - 1, 0)), (start_N + count_N - 1).clip(0)
    several = np.flatnonzero(count_N > 1)
    closed = (xy_M2[first[several]] == xy_M2[last[several]]).all(1)
    count_N[several] -= closed
    n_vertices = int(min(count_N.max(initial=0), MAX_VERTICES))
    out = np.full((n_cells, n_vertices, 2), np.nan)
    short = np.flatnonzero((count_N >= 3) & (count_N <= MAX_VERTICES))
    slot = np.minimum(np.arange(n_vertices), count_N[short, None] - 1)
    out[short] = xy_M2[start_N[short, None] + slot]
    for cell in np.flatnonzero(count_N > MAX_VERTICES):
        out[cell] = equidistant(xy_M2[start_N[cell] : start_N[cell] + count_N[cell]], n_vertices)
    return out


def equidistant(ring_V2: np.ndarray, n: int) -> np.ndarray:
    """`n` points equally far apart along a closed outline, from its first vertex on: float64 [n, 2]."""
    closed = np.concatenate([ring_V2, ring_V2[:1]])
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(closed, axis=0), axis=1))])
    at = np.linspace(0, length[-1], n, endpoint=False)
    return np.stack([np.interp(at, length, closed[:, i]) for i in (0, 1)], 1)
