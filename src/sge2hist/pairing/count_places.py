"""Where counts were caught, before bins become cells: what the registration of counts and image is measured on."""

from __future__ import annotations

import numpy as np

from sge2hist.data.section import CountPlaces, Section

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
