"""Rows and columns of large sparse matrices, chosen with the memory of the result and one chunk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sge2hist.data.section import CountPlaces, Section

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


# Where counts were caught, before bins become cells: what the registration of counts and image is measured on.


PLACE_UM = 8.0  # bins are summed to squares of about this side: 2 um bins hold too few UMI, cells are this large
_BINS_AT_ONCE = 400_000


def bin_totals(section: Section) -> np.ndarray:
    """UMI of each observation: int64 [N]; read in pieces where the reader offers no shorter way."""
    if section.read_totals is not None:
        return section.read_totals()
    totals = np.zeros(section.n_obs, np.int64)
    for first in range(0, section.n_obs, _BINS_AT_ONCE):
        last = min(first + _BINS_AT_ONCE, section.n_obs)
        group = np.full(section.n_obs, -1, np.int64)
        group[first:last] = np.arange(last - first)
        totals[first:last] = np.asarray(section.read_counts(group, last - first).sum(axis=1)).ravel()
    return totals


def count_places(section: Section, totals: np.ndarray) -> CountPlaces:
    """Squares of about 8 um made of the section's bins.

    Parameters
    ----------
    section
        Bins with `array_row` and `array_col` in `obs`.
    totals
        UMI of each bin, [N]. A square at the edge of the tissue, with bins missing, counts as if it were full.
    """
    bin_um = float(section.observation_um or PLACE_UM)
    k = max(1, round(PLACE_UM / bin_um))
    row, column = (section.obs[name].to_numpy(np.int64) // k for name in ("array_row", "array_col"))
    place = (row - row.min()) * (int(column.max() - column.min()) + 1) + column - column.min()
    n_bins = np.bincount(place)
    present = np.flatnonzero(n_bins)
    share = 1 / n_bins[present]
    centre = [np.bincount(place, section.centre_xy_px[:, axis])[present] * share for axis in (0, 1)]
    n_counts = np.bincount(place, totals)[present] * share * k**2
    return CountPlaces(centre_xy_px=np.column_stack(centre), n_counts=n_counts, side_um=k * bin_um)
