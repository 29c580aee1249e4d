"""Distances between distributions against SciPy, and the calibration curve."""

import numpy as np
import pytest
from scipy import stats

from sge2hist.evaluation.metrics.morphometry import calibration, compare_distributions, pearson_estimate
from sge2hist.evaluation.resampling import make_resampling


def resampling_of(n: int):
    return make_resampling(np.arange(n), n_replicates=50, n_groups=5, rng=np.random.default_rng(0))


def test_distribution_distances_equal_scipy() -> None:
    rng = np.random.default_rng(8)
    a, b = rng.normal(0, 1, 150), rng.normal(0.5, 2, 130)
    found = compare_distributions(a, np.append(b, np.nan))
    assert found.one_minus_ks == pytest.approx(1 - stats.ks_2samp(a, b).statistic)
    assert found.w1 == pytest.approx(stats.wasserstein_distance(a, b))
    assert found.spread_ratio == pytest.approx(b.std() / a.std())
    same = compare_distributions(a, a)
    assert (same.one_minus_ks, same.w1, same.spread_ratio) == (1.0, 0.0, 1.0)


def test_correlation_ignores_unknown_values_and_is_zero_for_a_constant() -> None:
    x = np.array([1.0, 2.0, 3.0, np.nan, 5.0])
    y = np.array([2.0, 4.0, 6.0, 100.0, 10.0])
    assert pearson_estimate(x, y, resampling_of(5)).value == pytest.approx(1.0)
    assert pearson_estimate(x, y, resampling_of(5)).n == 4
    assert pearson_estimate(np.ones(5), y, resampling_of(5)).value == 0.0


def test_calibration_of_the_truth_is_the_diagonal() -> None:
    values = np.random.default_rng(9).normal(size=100)
    for group in calibration(values, values):
        assert group["generated_mean"] == pytest.approx(group["real_mean"])
        assert group["n"] == 10
