import numpy as np
import pytest

from sge2hist.evaluation.metrics.counterfactual import covered_share, edit_effects


def test_known_answers_for_shifted_samples() -> None:
    """W1 between a sample and its shift is the shift, so half the way is exactly 0.5."""
    start = np.random.default_rng(0).normal(size=200)
    target = start + 4
    assert covered_share(start, target, target) == 1.0
    assert covered_share(start, start, target) == 0.0
    assert covered_share(start, start + 2, target) == pytest.approx(0.5)
    assert covered_share(start, start - 4, target) == pytest.approx(-1.0)


def test_unknown_values_are_ignored_and_nothing_gives_nan() -> None:
    values = np.array([1.0, np.nan, 2.0])
    assert covered_share(values, values + 1, values + 1) == 1.0
    assert np.isnan(covered_share(values, values, values))
    assert np.isnan(covered_share(np.array([np.nan]), values, values))


def test_effects_are_listed_where_there_is_a_way_to_go() -> None:
    rng = np.random.default_rng(1)
    start = {"lumen": rng.normal(size=300), "eosin": rng.normal(size=300)}
    target = {"lumen": rng.normal(3, 1, 300), "eosin": start["eosin"].copy()}
    edited = {"lumen": start["lumen"] + 2, "eosin": start["eosin"]}
    (effect,) = edit_effects(start, edited, target, n_bootstrap=50)
    low, high = effect.covered.interval()
    assert effect.statistic == "lumen"
    assert effect.covered.value == pytest.approx(2 / 3, abs=0.06)
    assert low < 2 / 3 < high
    assert effect.step_in_sd == pytest.approx(3, rel=0.15)
