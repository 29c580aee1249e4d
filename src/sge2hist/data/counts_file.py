"""Raw counts inside an .h5ad: rows of a CSR group read in chunks, without loading the rest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

from sge2hist.data.errors import InputError

if TYPE_CHECKING:
    from scipy.sparse import csr_array

CHUNK_NONZEROS = 4_000_000  # 32 MB of values and columns at a time


def read_csr_rows(path: Path, rows: np.ndarray | None = None, group: str = "X") -> csr_array:
    """Rows of the CSR matrix stored in `group`, in the given order.

    Parameters
    ----------
    rows
        int64 indices, in any order, repeats allowed; None reads everything.

    Raises
    ------
    InputError
        If the file is damaged or its matrix is not CSR.
    """
    from scipy.sparse import csr_array

    try:
        with h5py.File(path, "r") as file:
            matrix = file[group]
            n_columns = int(matrix.attrs["shape"][1])
            indptr = matrix["indptr"][:].astype(np.int64)
            if rows is None:
                data, indices = matrix["data"][:], matrix["indices"][:]
                return csr_array((data, indices, indptr), shape=(len(indptr) - 1, n_columns))
            return _gather_rows(matrix, indptr, np.asarray(rows, np.int64), n_columns)
    except (OSError, KeyError, RuntimeError, ValueError, AttributeError) as error:
        raise InputError(
            found=f"counts that cannot be read ({error})",
            where=str(path),
            expected="a CSR matrix in X",
            repair="prepare the dataset again",
        ) from error


def _gather_rows(matrix: h5py.Group, indptr: np.ndarray, rows: np.ndarray, n_columns: int) -> csr_array:
    from scipy.sparse import csr_array

    lengths = indptr[rows + 1] - indptr[rows]
    out_indptr = np.concatenate([[0], np.cumsum(lengths)])
    data = np.empty(out_indptr[-1], matrix["data"].dtype)
    indices = np.empty(out_indptr[-1], np.int32)
    order = np.argsort(rows, kind="stable")
    for first, last in _runs(indptr, rows[order]):
        # One read covers a run of rows; unwanted rows between are few and dropped.
        run = order[first:last]
        start, stop = indptr[rows[run[0]]], indptr[rows[run[-1]] + 1]
        values, columns = matrix["data"][start:stop], matrix["indices"][start:stop]
        source = _ranges(indptr[rows[run]] - start, lengths[run])
        target = _ranges(out_indptr[run], lengths[run])
        data[target], indices[target] = values[source], columns[source]
    return csr_array((data, indices, out_indptr), shape=(len(rows), n_columns))


def _runs(indptr: np.ndarray, sorted_rows: np.ndarray) -> list[tuple[int, int]]:
    """Cut sorted rows into runs that lie close in the file and hold at most `CHUNK_NONZEROS` values."""
    runs, first = [], 0
    for position in range(1, len(sorted_rows) + 1):
        if position < len(sorted_rows):
            gap = indptr[sorted_rows[position]] - indptr[sorted_rows[position - 1] + 1]
            span = indptr[sorted_rows[position] + 1] - indptr[sorted_rows[first]]
            if gap < 20_000 and span < CHUNK_NONZEROS:
                continue
        runs.append((first, position))
        first = position
    return runs if len(sorted_rows) else []


def _ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Concatenation of ``arange(start, start + length)``."""
    if lengths.sum() == 0:
        return np.empty(0, np.int64)
    before = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    return np.arange(lengths.sum()) + np.repeat(starts - before, lengths)
