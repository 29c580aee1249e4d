import numpy as np
import pytest

from sge2hist.evaluation.resampling import (
    Estimate,
    balanced_groups,
    make_resampling,
    plain,
    spatial_blocks,
    spread,
    weighted_mean,
)


def test_bootstrap_of_a_mean_has_the_textbook_width() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(2, 3, 500)
    resampling = make_resampling(np.arange(500), n_replicates=2000, n_groups=10, rng=rng)
    found = resampling.mean(values)
    low, high = found.interval()
    assert found.value == pytest.approx(values.mean())
    assert high - low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(500), rel=0.08)


def test_blocks_of_equal_cells_widen_the_interval() -> None:
    """Copies of a cell carry no information: ten copies of each of 100 cells give the interval of 100 cells."""
    rng = np.random.default_rng(1)
    values = rng.normal(0, 1, 100)
    block = np.repeat(np.arange(100), 10)
    found = make_resampling(block, n_replicates=2000, n_groups=10, rng=rng).mean(values[block])
    low, high = found.interval()
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 10, rel=0.1)


def test_jackknife_of_a_mean_equals_the_closed_form() -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(0, 1, 40)
    resampling = make_resampling(np.arange(40), n_replicates=2, n_groups=40, rng=rng)
    found = resampling.jackknife(lambda w: float((w * values).sum() / w.sum()))
    low, high = found.interval()
    half = 2.0227 * values.std(ddof=1) / np.sqrt(40)  # t quantile with 39 degrees of freedom
    assert high - found.value == pytest.approx(half, rel=1e-4)
    assert found.value - low == pytest.approx(half, rel=1e-4)


def test_paired_differences_cancel_what_is_shared() -> None:
    rng = np.random.default_rng(3)
    shared = rng.normal(0, 10, 300)
    resampling = make_resampling(np.arange(300), n_replicates=500, n_groups=10, rng=rng)
    a, b = resampling.mean(shared + 1.0), resampling.mean(shared)
    low, high = a.minus(b).interval()
    assert (low, high) == pytest.approx((1.0, 1.0))
    assert np.diff(a.interval()) > 1.0


def test_unpaired_figures_get_no_interval() -> None:
    a = Estimate(value=1.0, replicates=np.ones(5), method="bootstrap", n=10)
    assert a.minus(plain(0.5, 3)).as_dict() == {"value": 0.5, "low": None, "high": None, "n": 3, "interval": "none"}


def test_few_blocks_fall_back_to_cells_and_say_so() -> None:
    found = make_resampling(np.zeros(30, int), n_replicates=5, n_groups=10, rng=np.random.default_rng(0))
    assert found.unit == "30 cells"
    assert found.n_groups == 10


def test_blocks_are_squares_on_each_slide() -> None:
    centre = np.array([[1.0, 1.0], [9.0, 9.0], [11.0, 1.0], [1.0, 1.0]])
    found = spatial_blocks(centre, np.array([0, 0, 0, 1]), 10.0)
    assert found[0] == found[1]
    assert len({found[0], found[2], found[3]}) == 3


def test_groups_are_balanced_and_keep_blocks_whole() -> None:
    block = np.repeat(np.arange(20), np.arange(1, 21))
    group = balanced_groups(block, 5, np.random.default_rng(0))
    assert np.bincount(group).max() - np.bincount(group).min() <= 3
    assert all(len(np.unique(group[block == b])) == 1 for b in range(20))


def test_unknown_values_are_ignored() -> None:
    found = weighted_mean(np.array([1.0, np.nan, 3.0]), np.array([[1.0, 5.0, 1.0], [0.0, 1.0, 0.0]]))
    assert found[0] == 2.0
    assert np.isnan(found[1])


def test_statistics_of_nothing_are_defined() -> None:
    from sge2hist.evaluation.resampling import finite_median, percentiles

    assert np.isnan(finite_median([]))
    assert np.isnan(finite_median([np.nan]))
    assert finite_median([np.nan, 3.0, 1.0]) == 2.0
    assert percentiles(np.full((3, 3), np.nan), 2, 98) == (0.0, 1.0)
    assert percentiles(np.array([0.0, np.nan, 10.0]), 0, 100) == (0.0, 10.0)


def test_spread_of_equal_values_is_zero_and_of_one_unknown() -> None:
    assert spread([0.1 + 0.2, 0.3, 0.3]) == 0.0
    assert spread([0.3]) is None
    assert spread([1.0, 3.0]) == pytest.approx(np.sqrt(2))
