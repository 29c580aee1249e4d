"""Destriping of the 2 um array: rows and columns of bins that caught more or less than their neighbours.

Rule (bin2cell, Polański et al. 2024): with c the UMI of a bin, f = c / Q99(c | row), then f / Q99(f | column), then
c' = f Q99(c). Counts are not whole numbers after that, so the raw counts stay in the dataset and the destriped totals
stand beside them.
"""

from __future__ import annotations

import numpy as np

from sge2hist.data.section import Section

QUANTILE = 0.99


def destripe_factors(total: np.ndarray, array_row: np.ndarray, array_col: np.ndarray) -> np.ndarray:
    """Factor that multiplies each bin's counts: float64 [N]; 0 for an empty bin.

    Parameters
    ----------
    total
        UMI of each bin, [N].
    array_row, array_col
        Place of each bin on the array, int [N].
    """
    total = np.asarray(total, float)
    if not total.any():
        return np.zeros(len(total))
    share = total / _quantile_by(total, np.asarray(array_row))
    share = share / _quantile_by(share, np.asarray(array_col))
    destriped = share * np.quantile(total, QUANTILE)
    return np.divide(destriped, total, out=np.zeros(len(total)), where=total > 0)


def _quantile_by(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """The quantile over each bin's own group (linear interpolation, as `numpy.quantile`); 1 where it is 0."""
    order = np.lexsort((values, group))
    ordered, sorted_group = values[order], group[order]
    start = np.flatnonzero(np.append(True, sorted_group[1:] != sorted_group[:-1]))
    length = np.diff(np.append(start, len(values)))
    place = QUANTILE * (length - 1)
    low = start + np.floor(place).astype(np.int64)
    high = start + np.ceil(place).astype(np.int64)
    quantile = ordered[low] + (place - np.floor(place)) * (ordered[high] - ordered[low])
    out = np.empty(len(values))
    out[order] = np.repeat(np.where(quantile > 0, quantile, 1.0), length)
    return out


def destriped_totals(section: Section, total: np.ndarray, group_of_obs: np.ndarray, n_groups: int) -> np.ndarray:
    """Sum of the destriped UMI over the bins of each group: float64 [n_groups]; `total` is the UMI of each bin, [N]."""
    factor = destripe_factors(total, section.obs["array_row"].to_numpy(), section.obs["array_col"].to_numpy())
    kept = group_of_obs >= 0
    return np.bincount(group_of_obs[kept], (factor * total)[kept], n_groups)
