"""Rows and columns of large sparse matrices, chosen with the memory of the result and one chunk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_array

CHUNK_NONZEROS = 4_000_000


def select_rows(counts_NG: csr_array, rows: np.ndarray) -> csr_array:
    """``counts_NG[rows]`` for ascending rows, moved to the front of the same arrays: `counts_NG` is used up."""
    from scipy.sparse import csr_array

    indptr = counts_NG.indptr
    lengths = np.diff(indptr)[rows]
    new_indptr = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    for first, last in _chunks(new_indptr):
        picked = np.concatenate([np.arange(indptr[row], indptr[row + 1]) for row in rows[first:last]])
        for values in (counts_NG.data, counts_NG.indices):
            values[new_indptr[first] : new_indptr[last]] = values[picked]
    return _front(counts_NG, new_indptr, counts_NG.shape[1], csr_array)


def select_columns(counts_NG: csr_array, keep: np.ndarray) -> csr_array:
    """``counts_NG[:, keep]`` for a bool mask [G], moved to the front of the same arrays: `counts_NG` is used up."""
    from scipy.sparse import csr_array

    indptr = counts_NG.indptr.astype(np.int64)
    column = np.where(keep, np.cumsum(keep) - 1, -1).astype(counts_NG.indices.dtype)
    new_indptr = np.zeros_like(indptr)
    end = 0
    for first, last in _chunks(indptr):
        start, stop = indptr[first], indptr[last]
        moved = column[counts_NG.indices[start:stop]]
        kept = moved >= 0
        n_kept = np.concatenate([[0], np.cumsum(kept)])
        counts_NG.indices[end : end + n_kept[-1]] = moved[kept]
        counts_NG.data[end : end + n_kept[-1]] = counts_NG.data[start:stop][kept]
        new_indptr[first + 1 : last + 1] = end + n_kept[indptr[first + 1 : last + 1] - start]
        end += int(n_kept[-1])
    return _front(counts_NG, new_indptr, int(keep.sum()), csr_array)


def _chunks(indptr: np.ndarray) -> list[tuple[int, int]]:
    """Runs of rows that hold about `CHUNK_NONZEROS` values."""
    runs, first, n_rows = [], 0, len(indptr) - 1
    while first < n_rows:
        last = int(np.searchsorted(indptr, indptr[first] + CHUNK_NONZEROS, side="right")) - 1
        last = min(max(last, first + 1), n_rows)
        runs.append((first, last))
        first = last
    return runs


def _front(counts_NG: csr_array, indptr: np.ndarray, n_columns: int, make: type[csr_array]) -> csr_array:
    n = int(indptr[-1])
    return make((counts_NG.data[:n], counts_NG.indices[:n], indptr), shape=(len(indptr) - 1, n_columns))
