import numpy as np
import pytest

from sge2hist.evaluation.metrics.prdc import ball_radii, prdc_scores


def slow_scores(real: np.ndarray, fake: np.ndarray, k: int) -> tuple[float, float, float, float]:
    def d(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.array([[np.linalg.norm(a - b) for b in y] for a in x])

    radius_real, radius_fake = np.sort(d(real, real), axis=1)[:, k], np.sort(d(fake, fake), axis=1)[:, k]
    across = d(real, fake)
    return (
        float((across <= radius_real[:, None]).any(axis=0).mean()),
        float((across <= radius_fake[None, :]).any(axis=1).mean()),
        float((across <= radius_real[:, None]).sum() / k / len(fake)),
        float((across.min(axis=1) <= radius_real).mean()),
    )


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("block", [7, 1000])
def test_equals_a_slow_reference(k: int, block: int) -> None:
    rng = np.random.default_rng(k)
    real, fake = rng.normal(size=(60, 4)) + 10, rng.normal(0.4, 0.8, size=(60, 4)) + 10
    found = prdc_scores(real, fake, k, block)
    means = [found.precision_N.mean(), found.recall_N.mean(), found.density_N.mean(), found.coverage_N.mean()]
    np.testing.assert_allclose(means, slow_scores(real, fake, k), rtol=1e-10)


def test_identical_inputs_give_exactly_one() -> None:
    features = np.random.default_rng(0).normal(size=(100, 8)).astype(np.float32)
    found = prdc_scores(features, features.copy(), 5)
    assert found.precision_N.min() == found.recall_N.min() == found.coverage_N.min() == 1.0


def test_clouds_far_apart_give_exactly_zero() -> None:
    features = np.random.default_rng(1).normal(size=(50, 8))
    found = prdc_scores(features, features + 1000, 5)
    assert found.precision_N.max() == found.recall_N.max() == found.density_N.max() == found.coverage_N.max() == 0.0


def test_collapse_keeps_precision_and_loses_recall_and_coverage() -> None:
    rng = np.random.default_rng(2)
    real = rng.normal(size=(300, 4))
    found = prdc_scores(real, real[rng.integers(0, 5, 300)] + rng.normal(0, 0.01, (300, 4)), 5)
    assert found.precision_N.mean() > 0.95
    assert found.recall_N.mean() < 0.1
    assert found.coverage_N.mean() < 0.2


def test_k_beyond_the_images_is_refused() -> None:
    with pytest.raises(ValueError, match="between 1 and 4"):
        ball_radii(np.zeros((5, 2)), 5)
