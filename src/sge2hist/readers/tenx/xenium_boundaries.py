"""Outlines of the cells of a Xenium run: ``cell_boundaries.parquet``, one row per vertex.

Columns cell_id, vertex_x and vertex_y (um); the rows of a cell follow each other, the first vertex is repeated at the end
("Xenium Onboard Analysis outputs", 10x Genomics). Since version 2 a cell has at most 25 rows; others may have any number.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from sge2hist.data.errors import InputError
from sge2hist.readers.tables import as_float, as_text, read_parquet

MAX_VERTICES = 48
"""Outlines with more vertices are followed at so many places, equally far apart along the outline."""


def read_boundaries(path: Path, cells: pd.Index) -> np.ndarray:
    """Vertices of the outlines of `cells`, in their order: float64 [N, V, 2] in um, V at most `MAX_VERTICES`.

    Outlines with fewer vertices repeat their last one; cells without an outline are NaN.

    Raises
    ------
    InputError
        If the file is damaged, or holds none of the cells.
    """
    columns = read_parquet(path, ["cell_id", "vertex_x", "vertex_y"])
    row_of_vertex = cells.get_indexer(pd.Index(as_text(columns["cell_id"])))
    if len(row_of_vertex) and not (row_of_vertex >= 0).any():
        raise InputError(
            found="outlines of other cells", where=str(path), expected="the cell_boundaries.parquet of the same run"
        )
    xy = np.stack([as_float(columns[name], name, path) for name in ("vertex_x", "vertex_y")], 1)
    order = np.argsort(row_of_vertex, kind="stable")  # the rows of a cell keep their order
    order = order[np.searchsorted(row_of_vertex[order], 0) :]
    row_M, xy_M2 = row_of_vertex[order], xy[order]
    count_N = np.bincount(row_M, minlength=len(cells))
    start_N = np.cumsum(count_N) - count_N
    closed = (count_N > 1) & (xy_M2[start_N.clip(max=len(xy_M2) - 1)] == xy_M2[(start_N + count_N - 1).clip(0)]).all(1)
    count_N = count_N - closed  # without the repeated first vertex
    n_vertices = int(min(count_N.max(initial=0), MAX_VERTICES))
    out = np.full((len(cells), n_vertices, 2), np.nan)
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
