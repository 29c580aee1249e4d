"""Ranks of known cases; PSNR and SSIM against scikit-image."""

import numpy as np
import pytest

from sge2hist.evaluation.metrics.retrieval import psnr, rank_shares, retrieval_estimates, ssim
from sge2hist.evaluation.resampling import make_resampling


def resampling_of(n: int):
    return make_resampling(np.arange(n), n_replicates=50, n_groups=5, rng=np.random.default_rng(0))


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
