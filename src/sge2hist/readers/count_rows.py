"""Parts of `Section.read_counts`: rows summed by group, regrouped, and totals of a 10x matrix."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import h5py
import numpy as np
from scipy.sparse import csr_array

from sge2hist.readers.tenx.tenx_matrix import TenxMatrix, hdf5_errors, whole_counts

CountReader = Callable[[np.ndarray | None, int | None], csr_array]


def grouped_rows(counts_NG: csr_array) -> CountReader:
    """Reader of int32 counts [N, G] as `Section.read_counts` defines it: whole, or summed by group (-1 = dropped)."""
    counts_NG = csr_array(counts_NG).astype(np.int32)

    def read_counts(group_of_obs: np.ndarray | None = None, n_groups: int | None = None) -> csr_array:
        if group_of_obs is None:
            return counts_NG
        return sum_rows(
            counts_NG, group_of_obs, int(group_of_obs.max(initial=-1)) + 1 if n_groups is None else n_groups
        )

    return read_counts


def sum_rows(counts_NG: csr_array, group_of_obs: np.ndarray, n_groups: int) -> csr_array:
    """Sum rows by group: int32 CSR [n_groups, G]; group -1 is dropped."""
    kept = np.flatnonzero(group_of_obs >= 0)
    ones = np.ones(len(kept), dtype=np.int32)
    summing = csr_array((ones, (group_of_obs[kept], kept)), shape=(n_groups, counts_NG.shape[0]))
    summed = csr_array(summing @ counts_NG).astype(np.int32)
    summed.sort_indices()
    return summed


def sum_pieces(pieces: Iterable[tuple[np.ndarray, csr_array]], n_groups: int, n_genes: int) -> csr_array:
    """Sum rows that are read piece by piece, by group: int32 CSR [n_groups, G]; time and memory grow with the counts alone.

    Parameters
    ----------
    pieces
        Group of each row, int64 [rows], -1 = dropped; counts, int32 CSR [rows, G]. Rows of a group may lie in several pieces.
    """
    parts, groups = [], [np.empty(0, np.int64)]
    for group_of_row, counts in pieces:
        present, local = np.unique(group_of_row[group_of_row >= 0], return_inverse=True)
        of_part = np.full(len(group_of_row), -1, np.int64)
        of_part[group_of_row >= 0] = local
        part = sum_rows(counts, of_part, len(present))
        parts.append((part.data, part.indices.astype(np.int32), np.diff(part.indptr)))  # scipy's indices may be int64
        groups.append(present)
    stacked = _stack(parts, n_genes)
    group_of_row = np.concatenate(groups)
    if np.array_equal(group_of_row, np.arange(n_groups)):
        return stacked
    return sum_rows(stacked, group_of_row, n_groups)


def _stack(parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]], n_columns: int) -> csr_array:
    """Values, columns and lengths of rows, one part below the other; `parts` is emptied, each when it is copied."""
    indptr = np.cumsum(np.concatenate([np.zeros(1, np.int64), *(lengths for _, _, lengths in parts)]), dtype=np.int64)
    data, indices = np.empty(indptr[-1], np.int32), np.empty(indptr[-1], np.int32)
    start = 0
    parts.reverse()
    while parts:
        values, columns, _ = parts.pop()
        data[start : start + len(values)], indices[start : start + len(values)] = values, columns
        start += len(values)
    if indptr[-1] <= np.iinfo(np.int32).max:
        indptr = indptr.astype(np.int32)  # else scipy makes int64 of the indices too
    return csr_array((data, indices, indptr), shape=(len(indptr) - 1, n_columns))


def regrouped(read_rows: CountReader, observation_of_row: np.ndarray, n_obs: int) -> CountReader:
    """`read_counts` of observations made of rows (-1 = row dropped), from that of the rows.

    Parameters
    ----------
    observation_of_row
        int64 [rows]: observation that each row of the file belongs to.
    """

    def read_counts(group_of_obs: np.ndarray | None = None, n_groups: int | None = None) -> csr_array:
        if group_of_obs is None:
            return read_rows(observation_of_row, n_obs)
        n_groups = int(group_of_obs.max(initial=-1)) + 1 if n_groups is None else n_groups
        return read_rows(np.append(group_of_obs, -1)[observation_of_row], n_groups)  # index -1 stays -1

    return read_counts


def row_totals(matrix: TenxMatrix) -> np.ndarray:
    """UMI of each barcode of a 10x matrix over features of type "Gene Expression": int64 [N].

    A third of the work of reading the counts.

    Raises
    ------
    InputError
        If the file is damaged or its values are no counts.
    """
    totals = np.zeros(matrix.n_obs, np.int64)
    is_gene = matrix.column_of_feature >= 0
    with hdf5_errors(matrix.path), h5py.File(matrix.path, "r") as file:
        stored = file["matrix"]
        for first, last in matrix.row_chunks():
            start, stop = int(matrix.indptr[first]), int(matrix.indptr[last])
            values = whole_counts(matrix.path, stored["data"][start:stop]).astype(np.int64)
            if not is_gene.all():
                values *= is_gene[stored["indices"][start:stop]]
            running = np.concatenate([[0], np.cumsum(values)])
            totals[first:last] = np.diff(running[matrix.indptr[first : last + 1] - start])
    return totals
