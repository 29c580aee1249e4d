"""The expression head against scikit-learn and SciPy."""

import numpy as np
import pytest
from scipy import stats
from scipy.sparse import csr_array
from sklearn.linear_model import Ridge

from sge2hist.data.errors import InputError
from sge2hist.evaluation.metrics import expression_recovery as recovery
from sge2hist.evaluation.resampling import make_resampling


def resampling_of(n: int):
    return make_resampling(np.arange(n), n_replicates=50, n_groups=5, rng=np.random.default_rng(0))


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


@pytest.mark.parametrize(("n_train", "n_val"), [(0, 9), (19, 9), (30, 1), (30, 0)])
def test_reference_models_need_training_and_validation_cells(n_train, n_val) -> None:
    rng = np.random.default_rng(0)
    features, expression = rng.normal(size=(40, 3)), rng.normal(size=(40, 5))
    with pytest.raises(InputError, match=rf"{n_train} training and {n_val} validation cells"):
        recovery.fit_expression_head(features[:n_train], expression[:n_train], features[:n_val], expression[:n_val])


def test_genes_that_do_not_vary_recover_nothing() -> None:
    rng = np.random.default_rng(0)
    features, expression = rng.normal(size=(60, 3)), np.ones((60, 5))
    head = recovery.fit_expression_head(features[:40], expression[:40], features[40:], expression[40:])
    assert np.isfinite(head.predict(features)).all()
