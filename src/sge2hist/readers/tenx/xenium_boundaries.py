"""Outlines of the cells of a Xenium run: ``cell_boundaries.parquet``, one row per vertex.

Columns cell_id, vertex_x and vertex_y (um); the rows of a cell follow each other, the first vertex is repeated at the end
("Xenium Onboard Analysis outputs", 10x Genomics). Since version 2 a cell has at most 25 rows; others may have any number.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from sge2hist.data.errors import InputError
from sge2hist.readers.outlines import outlines_of_rows
from sge2hist.readers.tables import as_float, as_text, read_parquet


def read_boundaries(path: Path, cells: pd.Index) -> np.ndarray:
    """Vertices of the outlines of `cells`, in their order: float64 [N, V, 2] in um (see `outlines_of_rows`).

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
    return outlines_of_rows(row_of_vertex, xy, len(cells))
