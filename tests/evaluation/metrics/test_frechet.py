import numpy as np
import pytest
import torch
from scipy import linalg

from sge2hist.evaluation.metrics.frechet import (
    Moments,
    PairedFeatures,
    frechet_distance,
    frechet_estimate,
    frechet_of,
    moments,
)
from sge2hist.evaluation.resampling import make_resampling


class Passed(torch.nn.Module):
    """Hands features through: 'images' for torchmetrics are the features themselves."""

    num_features = 16

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(len(x), -1)


def test_equals_torchmetrics() -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance

    rng = np.random.default_rng(0)
    a = rng.normal(size=(400, 16)) @ rng.normal(size=(16, 16))
    b = rng.normal(size=(300, 16)) @ rng.normal(size=(16, 16)) + 0.5
    metric = FrechetInceptionDistance(feature=Passed(), normalize=True, input_img_size=(1, 4, 4))
    metric.set_dtype(torch.float64)
    metric.update(torch.from_numpy(a).reshape(-1, 1, 4, 4), real=True)
    metric.update(torch.from_numpy(b).reshape(-1, 1, 4, 4), real=False)
    assert frechet_of(a, b) == pytest.approx(float(metric.compute()), rel=1e-6)


def gaussian(mean: np.ndarray, covariance: np.ndarray) -> Moments:
    return Moments(n=1001, mean_D=mean, scatter_DD=covariance * 1000)


def test_closed_form_for_commuting_gaussians() -> None:
    rng = np.random.default_rng(1)
    rotation, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    sd_a, sd_b, shift = rng.uniform(0.1, 3, 6), rng.uniform(0.1, 3, 6), rng.normal(size=6)
    a = gaussian(np.zeros(6), rotation * sd_a**2 @ rotation.T)
    b = gaussian(shift, rotation * sd_b**2 @ rotation.T)
    assert frechet_distance(a, b) == pytest.approx(shift @ shift + ((sd_a - sd_b) ** 2).sum(), rel=1e-10)


def test_equals_the_textbook_formula_for_any_gaussians() -> None:
    rng = np.random.default_rng(2)
    roots = rng.normal(size=(2, 5, 5))
    a, b = (gaussian(np.zeros(5), root @ root.T) for root in roots)
    cross = np.trace(linalg.sqrtm(a.covariance_DD @ b.covariance_DD)).real
    expected = np.trace(a.covariance_DD) + np.trace(b.covariance_DD) - 2 * cross
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-8)


def test_identical_is_exactly_zero_and_fewer_images_than_features_is_stable() -> None:
    features = np.random.default_rng(3).normal(size=(20, 64)).astype(np.float32)
    assert frechet_of(features, features.copy()) == 0.0
    # The same cloud moved by a vector: the distance is its squared length, whatever the rank.
    assert frechet_of(features, features + 2.0) == pytest.approx(64 * 4.0, rel=1e-6)


def test_moments_in_batches_equal_numpy() -> None:
    features = np.random.default_rng(4).normal(5, 2, size=(1000, 7))
    gathered = moments(features, batch=130)
    np.testing.assert_allclose(gathered.mean_D, features.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(gathered.covariance_DD, np.cov(features.T), rtol=1e-10)


def test_floor_falls_as_one_over_n() -> None:
    """Between two samples of one Gaussian the expected distance is, to first order, proportional to 1/N."""
    rng = np.random.default_rng(5)
    mean = {
        n: np.mean([frechet_of(rng.normal(size=(n, 8)), rng.normal(size=(n, 8))) for _ in range(30)])
        for n in (200, 800)
    }
    assert mean[200] / mean[800] == pytest.approx(4.0, rel=0.15)


def test_estimate_has_the_plain_value_and_covers_it() -> None:
    rng = np.random.default_rng(6)
    a, b = rng.normal(size=(400, 6)), rng.normal(0.3, 1, size=(400, 6))
    resampling = make_resampling(np.arange(400) // 10, n_replicates=5, n_groups=10, rng=rng)
    found = frechet_estimate(a, b, resampling)
    low, high = found.interval()
    assert found.value == pytest.approx(frechet_of(a, b), rel=1e-9)
    assert low < found.value < high
    assert low < 6 * 0.09 < high


def test_one_image_has_no_covariance() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        frechet_of(np.zeros((1, 3)), np.ones((5, 3)))


@pytest.mark.parametrize(("n", "offset"), [(30, 0.0), (30, 40.0), (64, 0.5)])
def test_the_form_for_few_images_equals_that_of_covariances(n: int, offset: float) -> None:
    """Any part of the pairs, and features far from zero."""
    rng = np.random.default_rng(n)
    a, b = rng.normal(size=(n, 64)) + offset, rng.normal(size=(n, 64)) * rng.uniform(0.5, 2, 64) + offset + 0.3
    pairs = PairedFeatures(a, b)
    for kept in (np.ones(n, bool), rng.random(n) < 0.6):
        expected = frechet_distance(moments(a[kept]), moments(b[kept]))
        assert pairs.distance(kept) == pytest.approx(expected, rel=1e-9)
    assert frechet_of(a, b) == pytest.approx(frechet_distance(moments(a), moments(b)), rel=1e-9)


def test_jackknife_of_few_images_equals_that_of_covariances() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.normal(size=(40, 64)), rng.normal(size=(40, 64)) + 0.2
    resampling = make_resampling(np.arange(40), n_replicates=0, n_groups=8, rng=rng)
    found = frechet_estimate(a, b, resampling)
    for group, value in enumerate(found.replicates):
        kept = resampling.group_N != group
        assert value == pytest.approx(frechet_distance(moments(a[kept]), moments(b[kept])), rel=1e-9)
