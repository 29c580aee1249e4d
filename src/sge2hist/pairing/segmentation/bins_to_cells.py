"""From 2 um bins to cells: which nucleus holds a bin, one connected piece for each nucleus, growth into the cytoplasm.

The rule is Space Ranger 4's: a bin belongs to a nucleus if its centre lies inside the outline; the largest
8-connected piece stays; then bins go to the nearest nucleus within 4 bins (8 um). Distances are between bin centres
on the array, so they do not depend on how the array lies on the image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.measure import label as label_pieces

from sge2hist.data.errors import InputError, Problems, refuse_wrong_types
from sge2hist.data.section import Section


@dataclass(frozen=True, kw_only=True)
class ExpansionConfig:
    """How far a cell extends beyond its nucleus."""

    distance_um: float = 8.0  # bins up to this far from the nearest bin of the nucleus; 0 = nuclei only
    volume_ratio: float | None = None  # cell volume / nucleus volume, which sets the distance of each nucleus instead
    max_distance_um: float = 20.0  # no cell extends further than this by its volume ratio

    @refuse_wrong_types
    def __post_init__(self) -> None:
        problems = Problems()
        if not 0 <= self.distance_um < 1000:
            problems.add(found=f"distance_um = {self.distance_um}", expected="0 or more um")
        if self.volume_ratio is not None and not 1 <= self.volume_ratio < 1000:
            problems.add(found=f"volume_ratio = {self.volume_ratio}", expected="1 or more (2 to 6 is usual)")
        if not 0 < self.max_distance_um < 1000:
            problems.add(found=f"max_distance_um = {self.max_distance_um}", expected="a positive number of um")
        problems.raise_if_any()


@dataclass(frozen=True, kw_only=True)
class BinCells:
    """Cells made of bins. N bins, C cells."""

    group_of_obs: np.ndarray  # int64 [N]: cell of each bin, -1 = none
    in_nucleus: np.ndarray  # bool [N]: the bin lies in the nucleus of its cell
    nucleus_of_cell: np.ndarray  # int64 [C]: number of the nucleus that the cell was grown from

    def __len__(self) -> int:
        return len(self.nucleus_of_cell)

    def n_bins(self) -> np.ndarray:
        """Bins of each cell: int64 [C]."""
        return np.bincount(self.group_of_obs[self.group_of_obs >= 0], minlength=len(self))

    def n_nucleus_bins(self) -> np.ndarray:
        """Bins in the nucleus of each cell: int64 [C]."""
        return np.bincount(self.group_of_obs[self.in_nucleus], minlength=len(self))


def bins_to_cells(
    nucleus_of_bin: np.ndarray,
    array_row: np.ndarray,
    array_col: np.ndarray,
    *,
    bin_um: float,
    expansion: ExpansionConfig | None = None,
) -> BinCells:
    """Make cells of bins.

    Parameters
    ----------
    nucleus_of_bin
        int64 [N], number of the nucleus whose outline holds the centre of the bin, -1 = none.
    array_row, array_col
        int [N], indices of each bin on the array; each pair at most once.
    bin_um
        Side of a bin in um.
    expansion
        Growth beyond the nucleus; None = Space Ranger's 8 um.

    Returns
    -------
    BinCells
        Cells in ascending order of their nucleus; nuclei without a bin make no cell.

    Raises
    ------
    InputError
        Two bins with the same indices, or a negative index.
    """
    expansion = expansion or ExpansionConfig()
    row, column = np.asarray(array_row, np.int64), np.asarray(array_col, np.int64)
    grid, bins = _grid(nucleus_of_bin, row, column)
    nuclei = keep_largest_piece(grid)
    present, index = np.unique(nuclei[nuclei > 0], return_inverse=True)
    cell_at = np.zeros(nuclei.shape, np.int32)
    cell_at[nuclei > 0] = index + 1  # 1..C
    limit_bins = _expansion_um(np.bincount(index, minlength=len(present)), bin_um, expansion) / bin_um
    grown = grow(cell_at, limit_bins) if len(present) else cell_at
    return BinCells(
        group_of_obs=grown[bins].astype(np.int64) - 1,
        in_nucleus=cell_at[bins] > 0,
        nucleus_of_cell=present.astype(np.int64) - 1,
    )


def _grid(
    nucleus_of_bin: np.ndarray, row: np.ndarray, column: np.ndarray
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Nucleus + 1 on the smallest grid that holds all bins (0 = none), and the indices of each bin in it."""
    if len(row) == 0:
        return np.zeros((1, 1), np.int32), (row, column)
    if min(row.min(), column.min()) < 0:
        raise InputError(found="a negative array_row or array_col", expected="indices on the array, from 0")
    row, column = row - row.min(), column - column.min()
    shape = (int(row.max()) + 1, int(column.max()) + 1)
    taken = np.zeros(shape, bool)
    taken[row, column] = True
    if int(taken.sum()) != len(row):
        raise InputError(found="two bins at one position of the array", expected="each array_row, array_col once")
    grid = np.zeros(shape, np.int32)
    grid[row, column] = nucleus_of_bin + 1
    return grid, (row, column)


def keep_largest_piece(grid: np.ndarray) -> np.ndarray:
    """Largest 8-connected piece of each positive label (of equal ones, the first in reading order): int [R, C]."""
    piece, n_pieces = label_pieces(grid, background=0, connectivity=2, return_num=True)
    if n_pieces == 0:
        return grid
    size = np.bincount(piece.ravel(), minlength=n_pieces + 1)[1:]
    label_of_piece = np.zeros(n_pieces + 1, grid.dtype)
    label_of_piece[piece.ravel()] = grid.ravel()
    # pieces sorted by label, then by falling size, then by number: the first of each label is kept
    order = np.lexsort((np.arange(n_pieces), -size, label_of_piece[1:]))
    first = np.ones(n_pieces, bool)
    first[1:] = label_of_piece[1:][order][1:] != label_of_piece[1:][order][:-1]
    keep = np.zeros(n_pieces + 1, bool)
    keep[order[first] + 1] = True
    return np.where(keep[piece], grid, 0)


def _expansion_um(n_nucleus_bins: np.ndarray, bin_um: float, expansion: ExpansionConfig) -> np.ndarray:
    """How far each cell may extend from its nucleus, um [C].

    By volume ratio v, a sphere with the radius of a disc of the nucleus' area grows to v times its volume:
    its radius r grows by r (v^(1/3) - 1).
    """
    if expansion.volume_ratio is None:
        return np.full(len(n_nucleus_bins), expansion.distance_um)
    radius_um = np.sqrt(n_nucleus_bins / np.pi) * bin_um
    return np.minimum(radius_um * (expansion.volume_ratio ** (1 / 3) - 1), expansion.max_distance_um)


def grow(cells: np.ndarray, limit_bins: np.ndarray) -> np.ndarray:
    """Give free bins to the cell with the nearest bin, if it lies within that cell's limit.

    Parameters
    ----------
    cells
        int [R, C], 0 = free, 1..n = bins of cells, which stay.
    limit_bins
        float [n], largest distance between bin centres, in bins, for each cell.

    Returns
    -------
    int32 [R, C]
        One cell for each bin. A bin beyond the limit of its nearest cell stays free.
    """
    largest = float(limit_bins.max(initial=0))
    if largest < 1:
        return cells.astype(np.int32)
    nearest = np.empty((2, *cells.shape), np.int32)
    ndimage.distance_transform_edt(cells == 0, return_distances=False, return_indices=True, indices=nearest)  # type: ignore[call-overload]
    grown = cells[nearest[0], nearest[1]].astype(np.int32)
    rows, columns = np.ogrid[: cells.shape[0], : cells.shape[1]]
    squared = (nearest[0] - rows) ** 2 + (nearest[1] - columns) ** 2  # whole numbers: exact comparison at the limit
    limit = np.append(0.0, limit_bins)[grown]
    grown[squared > limit**2 + 1e-9] = 0
    return grown


# Destriping of the 2 um array: rows and columns of bins that captured more or fewer UMI than their neighbours.
#
# Rule (bin2cell, Polański et al. 2024): with c the UMI of a bin, f = c / Q99(c | row), then f / Q99(f | column), then
# c' = f Q99(c). Counts are not whole numbers after that, so the dataset keeps the raw counts and has the destriped
# totals beside them.


QUANTILE = 0.99


def destripe_factors(total: np.ndarray, array_row: np.ndarray, array_col: np.ndarray) -> np.ndarray:
    """Factor that multiplies each bin's counts: float64 [N]; 0 for an empty bin.

    Parameters
    ----------
    total
        UMI of each bin, [N].
    array_row, array_col
        Indices of each bin on the array, int [N].
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
    rank = QUANTILE * (length - 1)
    low = start + np.floor(rank).astype(np.int64)
    high = start + np.ceil(rank).astype(np.int64)
    quantile = ordered[low] + (rank - np.floor(rank)) * (ordered[high] - ordered[low])
    out = np.empty(len(values))
    out[order] = np.repeat(np.where(quantile > 0, quantile, 1.0), length)
    return out


def destriped_totals(section: Section, total: np.ndarray, group_of_obs: np.ndarray, n_groups: int) -> np.ndarray:
    """Sum of the destriped UMI over the bins of each group: float64 [n_groups]; `total` is the UMI of each bin, [N]."""
    factor = destripe_factors(total, section.obs["array_row"].to_numpy(), section.obs["array_col"].to_numpy())
    kept = group_of_obs >= 0
    return np.bincount(group_of_obs[kept], (factor * total)[kept], n_groups)
