import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import cKDTree

from sge2hist.data.errors import InputError
from sge2hist.pairing.segmentation.bins_to_cells import (
    ExpansionConfig,
    bins_to_cells,
    destripe_factors,
    grow,
    keep_largest_piece,
)


def nuclei_grid(seed: int, shape: tuple[int, int] = (60, 70), n: int = 12) -> np.ndarray:
    rng = np.random.default_rng(seed)
    grid = np.zeros(shape, np.int32)
    row, column = np.mgrid[: shape[0], : shape[1]]
    for label in range(1, n + 1):
        y, x = rng.uniform(0, shape)
        grid[((row - y) ** 2 + (column - x) ** 2 <= rng.uniform(1, 4) ** 2) & (grid == 0)] = label
    return grid


@pytest.mark.parametrize("seed", range(4))
def test_growth_is_to_the_nearest_bin_within_the_limit(seed):
    grid = nuclei_grid(seed)
    limit = np.random.default_rng(seed).uniform(1, 6, grid.max())
    grown = grow(grid, limit)
    bins = np.argwhere(grid > 0)
    tree = cKDTree(bins)
    for row, column in np.argwhere(grid == 0):
        distance, _ = tree.query([row, column])
        nearest = np.unique(grid[tuple(bins[tree.query_ball_point([row, column], distance + 1e-9)].T)])
        allowed = {int(label) if distance <= limit[label - 1] + 1e-9 else 0 for label in nearest}
        assert int(grown[row, column]) in allowed
    np.testing.assert_array_equal(grown[grid > 0], grid[grid > 0])


def test_four_bins_are_exactly_four_bins():
    grid = np.zeros((1, 20), np.int32)
    grid[0, 10] = 1
    np.testing.assert_array_equal(np.flatnonzero(grow(grid, np.array([4.0]))[0]), np.arange(6, 15))


def test_largest_piece_agrees_with_scipy_label_by_label():
    grid = np.random.default_rng(3).integers(0, 3, (25, 25)).astype(np.int32)
    kept = keep_largest_piece(grid)
    for label in (1, 2):
        pieces, n_pieces = ndimage.label(grid == label, np.ones((3, 3)))
        sizes = np.bincount(pieces.ravel())[1:]
        assert n_pieces > 1
        assert (kept == label).sum() == sizes.max()
        assert len(np.unique(pieces[kept == label])) == 1


def test_diagonal_neighbours_are_one_piece():
    np.testing.assert_array_equal(keep_largest_piece(np.eye(5, dtype=np.int32)), np.eye(5, dtype=np.int32))


def test_bins_in_any_order_with_gaps_and_an_offset():
    grid = nuclei_grid(5)
    row, column = np.nonzero(np.random.default_rng(0).random(grid.shape) < 0.9)
    order = np.random.default_rng(1).permutation(len(row))
    row, column = row[order], column[order]
    cells = bins_to_cells(grid[row, column] - 1, row + 500, column + 900, bin_um=2.0)
    present = np.zeros_like(grid)
    present[row, column] = grid[row, column]
    pieces = keep_largest_piece(present)
    np.testing.assert_array_equal(cells.in_nucleus, pieces[row, column] > 0)
    np.testing.assert_array_equal(cells.nucleus_of_cell, np.unique(pieces[pieces > 0]) - 1)
    np.testing.assert_array_equal(
        cells.nucleus_of_cell[cells.group_of_obs[cells.in_nucleus]], pieces[row, column][cells.in_nucleus] - 1
    )
    assert (cells.n_bins() >= cells.n_nucleus_bins()).all()
    assert cells.n_nucleus_bins().min() > 0


def test_no_expansion_keeps_nuclei_only():
    grid = nuclei_grid(6)
    row, column = np.indices(grid.shape).reshape(2, -1)
    cells = bins_to_cells(grid.ravel() - 1, row, column, bin_um=2.0, expansion=ExpansionConfig(distance_um=0))
    np.testing.assert_array_equal(cells.group_of_obs >= 0, keep_largest_piece(grid).ravel() > 0)


def test_volume_ratio_of_a_lonely_disc():
    row, column = np.mgrid[:101, :101]
    distance = np.hypot(row - 50, column - 50)
    grid = (distance <= 15).astype(np.int32)
    expansion = ExpansionConfig(volume_ratio=8.0, max_distance_um=100.0)
    cells = bins_to_cells(grid.ravel() - 1, row.ravel(), column.ravel(), bin_um=2.0, expansion=expansion)
    # eight times the volume of a sphere is twice its radius, four times the area of its section
    assert cells.n_bins()[0] / cells.n_nucleus_bins()[0] == pytest.approx(4.0, rel=0.03)


def test_volume_ratio_is_limited_by_the_largest_distance():
    row, column = np.mgrid[:61, :61]
    grid = (np.hypot(row - 30, column - 30) <= 10).astype(np.int32)
    by_ratio = ExpansionConfig(volume_ratio=500.0, max_distance_um=8.0)
    arguments = (grid.ravel() - 1, row.ravel(), column.ravel())
    grown = bins_to_cells(*arguments, bin_um=2.0, expansion=by_ratio)
    np.testing.assert_array_equal(grown.group_of_obs, bins_to_cells(*arguments, bin_um=2.0).group_of_obs)


def test_no_nucleus_and_no_bin():
    row, column = np.indices((3, 3)).reshape(2, -1)
    assert len(bins_to_cells(np.full(9, -1), row, column, bin_um=2.0)) == 0
    empty = np.empty(0, np.int64)
    assert len(bins_to_cells(empty, empty, empty, bin_um=2.0)) == 0


def test_impossible_arrays_and_ranges_are_refused():
    zeros = np.zeros(2, int)
    with pytest.raises(InputError, match="two bins at one position"):
        bins_to_cells(np.array([0, 1]), zeros, zeros, bin_um=2.0)
    with pytest.raises(InputError, match="negative"):
        bins_to_cells(np.array([0]), np.array([-1]), np.array([0]), bin_um=2.0)
    for bad in ({"distance_um": -1.0}, {"volume_ratio": 0.5}, {"max_distance_um": 0.0}, {"distance_um": float("nan")}):
        with pytest.raises(InputError):
            ExpansionConfig(**bad)


def test_destriping_is_the_published_rule():
    rng = np.random.default_rng(0)
    row, column = (index.ravel() for index in np.indices((12, 15)))
    keep = rng.random(len(row)) < 0.8
    row, column = row[keep], column[keep]
    total = rng.poisson(6, len(row)) * (row != 4)
    share = np.empty(len(total))
    for value in np.unique(row):
        at = row == value
        share[at] = total[at] / (np.quantile(total[at], 0.99) or 1)
    for value in np.unique(column):
        at = column == value
        share[at] = share[at] / (np.quantile(share[at], 0.99) or 1)
    expected = share * np.quantile(total, 0.99)
    np.testing.assert_allclose(destripe_factors(total, row, column) * total, expected)


def test_destriping_removes_stripes():
    row, column = (index.ravel() for index in np.indices((40, 50)))
    gain = np.random.default_rng(1).uniform(0.5, 2.0, 40)[row] * np.random.default_rng(2).uniform(0.5, 2.0, 50)[column]
    total = 100 * gain
    np.testing.assert_allclose(destripe_factors(total, row, column) * gain, np.quantile(gain, 0.99))
    assert destripe_factors(np.zeros(5), np.arange(5), np.arange(5)).tolist() == [0] * 5
