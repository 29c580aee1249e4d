"""Statistics of single cells over patches: against libraries, slow references and planted truths."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ks_2samp
from sklearn.metrics import f1_score


@pytest.fixture
def statistics(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    import cell_statistics

    return cell_statistics


@pytest.fixture
def spatial(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    import spatial_statistics

    return spatial_statistics


def ones(n: int) -> np.ndarray:
    return np.ones((1, n))


def repeated(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Weights as numbers of repetitions, and the items repeated so often."""
    times = rng.integers(0, 4, n)
    return times[None].astype(float), np.repeat(np.arange(n), times)


def test_r_of_weights_is_that_of_repeated_items_and_skips_unknown_ones(statistics) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 50))
    x[3], y[7] = np.nan, np.nan
    weights, rows = repeated(50, rng)
    rows = rows[np.isfinite(x[rows]) & np.isfinite(y[rows])]
    assert statistics.r_of(x, y)(weights)[0] == pytest.approx(np.corrcoef(x[rows], y[rows])[0, 1])


def test_distance_of_distributions_is_that_of_scipy_and_a_mean_over_types(statistics) -> None:
    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 9, 90).astype(float), rng.integers(2, 12, 90).astype(float)  # many ties
    x[:5] = np.nan
    types = np.repeat([0, 1, 2], [40, 40, 10])  # the last one has too few
    weights, rows = repeated(90, rng)
    expected = []
    for name in (0, 1):
        own = rows[types[rows] == name]
        expected.append(1 - ks_2samp(x[own][np.isfinite(x[own])], y[own], method="asymp").statistic)
    assert statistics.likeness(x, y, types)(weights)[0] == pytest.approx(np.mean(expected))
    assert statistics.likeness(x, x, types)(ones(90))[0] == pytest.approx(1)


def test_macro_f1_is_that_of_scikit_learn_over_types_with_enough_cells(statistics) -> None:
    rng = np.random.default_rng(2)
    truth = np.repeat([0, 1, 2], [60, 40, 5])
    found = np.where(rng.random(105) < 0.7, truth, rng.integers(0, 3, 105))
    patch = rng.integers(0, 7, 105)
    counts = statistics.confusion(truth, found, patch, 7, 3)
    times = rng.integers(0, 3, 7)
    rows = np.repeat(np.arange(105), times[patch])
    expected = f1_score(truth[rows], found[rows], labels=[0, 1], average="macro")
    assert statistics.macro_f1(counts)(times[None].astype(float))[0] == pytest.approx(expected)


def test_macro_f1_of_a_resample_without_a_type_is_that_of_the_others(statistics) -> None:
    truth, patch = np.repeat([0, 1], 30), np.repeat([0, 1], 30)
    counts = statistics.confusion(truth, truth, patch, 2, 2)
    np.testing.assert_allclose(statistics.macro_f1(counts)(np.array([[1.0, 1], [2, 0]])), [1, 1])


def test_r_over_types_sees_types_alone(statistics) -> None:
    """Means of types agree exactly, cells not at all; a type of few cells is not heard."""
    rng = np.random.default_rng(3)
    types = np.repeat([0, 1, 2, 3], [200, 200, 200, 5])
    level = np.array([1.0, 3.0, 2.0, 50.0])[types]
    x, y = level + rng.normal(size=605), 2 * level + rng.normal(size=605)
    y[types == 3] = -100
    assert statistics.r_over_types(x, y, types)(ones(605))[0] > 0.99
    assert statistics.r_over_types(x, -y, types)(ones(605))[0] < -0.99


def test_intervals_are_over_patches_and_differences_are_paired(statistics) -> None:
    """Cells of a patch share their value: the interval is that of few patches, not of many cells."""
    rng = np.random.default_rng(4)
    patch = np.repeat(np.arange(16), 50)
    value = rng.normal(size=16)[patch]
    resampling = statistics.PatchResamples.of(16, n_resamples=800).of_items(patch)
    low, high = resampling.mean(value).interval()
    assert (high - low) / 2 == pytest.approx(1.96 * value[::50].std() / 4, rel=0.25)
    shifted = resampling.mean(value + 0.1).minus(resampling.mean(value))
    np.testing.assert_allclose(shifted.interval(), [0.1, 0.1])


def test_r_squared_is_share_of_explained_variance(statistics) -> None:
    rng = np.random.default_rng(5)
    truth = rng.normal(size=4000)
    found = truth + rng.normal(0, 0.5, 4000)
    assert statistics.r_squared(truth, found)(ones(4000))[0] == pytest.approx(0.75, abs=0.02)
    assert statistics.r_squared(truth, np.full(4000, truth.mean()))(ones(4000))[0] == pytest.approx(0)


def test_ripley_l_of_random_points_is_zero_at_any_radius_and_density(spatial) -> None:
    """A Poisson process, in windows of two densities: without edge correction L(20) would be some 2 um too low."""
    rng, side = np.random.default_rng(6), 90.0
    windows = [rng.uniform(0, side, (rng.poisson(mean), 2)) for mean in (30, 120) for _ in range(150)]
    sums, pairs = spatial.pair_sums(windows, side, (5.0, 10.0, 20.0))
    for column, radius in enumerate((5.0, 10.0, 20.0)):
        found = spatial.ripley_l(sums[:, column], pairs, side, radius)(ones(300))[0]
        assert found == pytest.approx(0, abs=0.06)


def test_ripley_l_knows_points_that_keep_apart_and_clusters(spatial) -> None:
    rng, side = np.random.default_rng(7), 90.0
    lattice = np.stack(np.meshgrid(*[np.arange(4.5, side, 9)] * 2), -1).reshape(-1, 2)
    apart = [lattice + rng.uniform(-1, 1, lattice.shape) for _ in range(20)]
    parents = [np.repeat(rng.uniform(10, 80, (20, 2)), 5, 0) for _ in range(20)]
    clusters = [xy + rng.normal(0, 2, xy.shape) for xy in parents]
    for windows, expected in ((apart, -5.0), (clusters, 5.0)):
        sums, pairs = spatial.pair_sums(windows, side, [5.0])
        found = spatial.ripley_l(sums[:, 0], pairs, side, 5.0)(ones(20))[0]
        assert found == pytest.approx(-5) if expected < 0 else found > 3


def test_nearest_neighbours_stay_in_their_window(spatial) -> None:
    windows = [np.array([[0.0, 0], [3, 4], [30, 40]]), np.array([[1.0, 1]]), np.array([[0.0, 0], [0, 2]])]
    distances, window = spatial.nearest_neighbours(windows)
    np.testing.assert_allclose(distances, [5, 5, 45, 2, 2])
    np.testing.assert_array_equal(window, [0, 0, 0, 2, 2])


def test_adjacency_is_zero_for_dealt_types_and_high_for_types_that_keep_together(spatial) -> None:
    rng = np.random.default_rng(8)
    places = [rng.uniform(0, 100, (300, 2)) for _ in range(10)]
    dealt = [rng.integers(0, 2, 300) for _ in places]
    split = [(xy[:, 0] > 50).astype(int) for xy in places]
    joins = spatial.join_counts(places, dealt, 10.0, 2)
    np.testing.assert_array_equal(joins, joins.transpose(0, 2, 1))
    assert joins.sum() == 2 * sum(
        (np.linalg.norm(xy[:, None] - xy[None], axis=2)[np.triu_indices(300, 1)] <= 10).sum() for xy in places
    )
    assert np.abs(spatial.adjacency(joins.sum(0))).max() < 0.1
    kept = spatial.adjacency(spatial.join_counts(places, split, 10.0, 2).sum(0))
    assert kept[0, 0] > 0.7
    assert kept[0, 1] < -2
    assert spatial.r_of_joins(joins, joins)(ones(10))[0] == pytest.approx(1)
