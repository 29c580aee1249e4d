"""Classifier, expression head, retrieval, morphometry and similarity against second libraries and known answers."""

import numpy as np
import pytest
from scipy import stats
from scipy.sparse import csr_array
from sklearn.linear_model import Ridge
from sklearn.metrics import f1_score

from sge2hist.evaluation.metrics import expression_recovery as recovery
from sge2hist.evaluation.metrics import type_agreement as agreement
from sge2hist.evaluation.metrics.morphometry import calibration, compare_distributions, pearson_estimate
from sge2hist.evaluation.metrics.retrieval import psnr, rank_shares, retrieval_estimates, ssim
from sge2hist.evaluation.resampling import make_resampling


def resampling_of(n: int):
    return make_resampling(np.arange(n), n_replicates=50, n_groups=5, rng=np.random.default_rng(0))


def test_macro_f1_equals_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 4, 300), rng.integers(0, 4, 300)
    ours = agreement.macro_f1(truth, predicted, np.ones((1, 300)))[0]
    assert ours == pytest.approx(f1_score(truth, predicted, average="macro"))


def test_weights_count_like_repeated_cells() -> None:
    rng = np.random.default_rng(1)
    truth, predicted, weights = rng.integers(0, 3, 50), rng.integers(0, 3, 50), rng.integers(1, 4, 50)
    again = f1_score(np.repeat(truth, weights), np.repeat(predicted, weights), average="macro")
    assert agreement.macro_f1(truth, predicted, weights[None].astype(float))[0] == pytest.approx(again)


def test_cells_of_unknown_type_do_not_count() -> None:
    truth, predicted = np.array([0, 0, 1, 1, -1, -1]), np.array([0, 0, 1, 1, 0, 1])
    assert agreement.macro_f1(truth, predicted, np.ones((1, 6)))[0] == 1.0


@pytest.mark.parametrize("n_types", [2, 4])
def test_classifier_learns_separable_types(n_types: int) -> None:
    rng = np.random.default_rng(2)
    labels = rng.integers(0, n_types, 300)
    features = (np.eye(n_types)[labels] * 6 + rng.normal(size=(300, n_types))).astype(np.float32)
    model = agreement.fit_type_classifier(features[:200], labels[:200], features[200:], labels[200:])
    assert model is not None
    assert (model.predict(features[200:]) == labels[200:]).mean() > 0.97


def test_one_type_gives_no_classifier() -> None:
    assert agreement.fit_type_classifier(np.zeros((9, 2)), np.zeros(9, int), np.zeros((2, 2)), np.zeros(2, int)) is None


def test_ridge_equals_scikit_learn() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(200, 6)).astype(np.float32), rng.normal(size=(200, 3)).astype(np.float32)
    y += x[:, :3]
    head = recovery.fit_expression_head(x, y, x[:50], y[:50])
    scaled = (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-6)
    model = Ridge(alpha=head.penalty * len(x)).fit(scaled, y)
    np.testing.assert_allclose(head.predict(x), model.predict(scaled), rtol=1e-3, atol=1e-4)


def test_gene_correlations_equal_scipy_and_weights_repeat_cells() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.normal(size=(40, 3)), rng.normal(size=(40, 3))
    b += a
    weights = rng.integers(0, 3, 40)
    found = recovery.gene_correlations(a, b, np.stack([np.ones(40), weights.astype(float)]))
    for gene in range(3):
        assert found[0, gene] == pytest.approx(stats.pearsonr(a[:, gene], b[:, gene])[0])
        repeated = np.repeat(np.arange(40), weights)
        assert found[1, gene] == pytest.approx(stats.pearsonr(a[repeated, gene], b[repeated, gene])[0])


def test_constant_prediction_recovers_nothing() -> None:
    measured = np.random.default_rng(5).normal(size=(30, 4))
    found = recovery.recovery_estimates(np.zeros((30, 4)), measured, np.arange(4), resampling_of(30))
    assert found[50].value == 0.0


def test_expression_is_log1p_of_counts_per_ten_thousand() -> None:
    counts = csr_array(np.array([[1, 3, 0], [0, 0, 0]]))
    found = recovery.log_normalised(counts, np.array([0, 2]))
    np.testing.assert_allclose(found, [[np.log1p(2500), 0], [0, 0]], rtol=1e-6)
    assert recovery.frequent_genes(counts, 5).tolist() == [0, 1]


def test_retrieval_finds_itself_and_chance_is_a_half() -> None:
    rng = np.random.default_rng(6)
    real = rng.normal(size=(200, 8)).astype(np.float32)
    own = retrieval_estimates(rank_shares(real, real), resampling_of(200))
    assert own["top_1"].value == 1.0
    assert own["median_rank"].value == 0.0
    chance = retrieval_estimates(rank_shares(rng.normal(size=(200, 8)), real), resampling_of(200))
    assert chance["median_rank"].value == pytest.approx(0.5, abs=0.1)
    assert chance["top_10"].value == pytest.approx(0.1, abs=0.06)


def test_equal_distances_rank_in_the_middle() -> None:
    """A generator that ignores its input cannot be lucky by the order of the file."""
    real = np.random.default_rng(7).normal(size=(101, 4)).astype(np.float32)
    shares = rank_shares(np.repeat(real[:1], 101, axis=0), real)
    assert shares.mean() == pytest.approx(0.5)


def test_distribution_distances_equal_scipy() -> None:
    rng = np.random.default_rng(8)
    a, b = rng.normal(0, 1, 150), rng.normal(0.5, 2, 130)
    found = compare_distributions(a, np.append(b, np.nan))
    assert found.one_minus_ks == pytest.approx(1 - stats.ks_2samp(a, b).statistic)
    assert found.w1 == pytest.approx(stats.wasserstein_distance(a, b))
    assert found.spread_ratio == pytest.approx(b.std() / a.std())
    same = compare_distributions(a, a)
    assert (same.one_minus_ks, same.w1, same.spread_ratio) == (1.0, 0.0, 1.0)


def test_correlation_leaves_unknown_out_and_is_zero_for_a_constant() -> None:
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


def test_psnr_and_ssim_equal_scikit_image() -> None:
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    rng = np.random.default_rng(10)
    a = rng.integers(0, 256, (2, 40, 40, 3)).astype(np.uint8)
    b = np.clip(a + rng.normal(0, 20, a.shape), 0, 255).astype(np.uint8)
    for i in range(2):
        assert psnr(a, b)[i] == pytest.approx(peak_signal_noise_ratio(a[i], b[i]), rel=1e-6)
        other = structural_similarity(a[i], b[i], channel_axis=-1, gaussian_weights=True, use_sample_covariance=False)
        assert ssim(a, b)[i] == pytest.approx(other, rel=1e-4)
    assert psnr(a, a).tolist() == [100.0, 100.0]
    np.testing.assert_allclose(ssim(a, a), 1.0)
