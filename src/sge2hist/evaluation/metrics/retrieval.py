"""Right place? Does a generated patch look more like its own cell's real patch than like those of the other cells?

Features are centred and scaled by the real patches' mean and SD; distance is Euclidean. The rank of a cell's own real
patch among all N is turned into a share: 0 = first, 1 = last, ties in the middle; chance is 0.5.

Shape letters: N cells, D features.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from sge2hist.evaluation.metrics.prdc import squared_distances
from sge2hist.evaluation.resampling import Estimate, Resampling

TOP_SHARES = (0.01, 0.05, 0.10)


def scaled(features_ND: np.ndarray, real_ND: np.ndarray) -> np.ndarray:
    """Return features in units of the real patches' standard deviation, float32."""
    mean, sd = real_ND.mean(axis=0, dtype=np.float64), real_ND.std(axis=0, dtype=np.float64)
    return ((features_ND - mean) / (sd + 1e-6)).astype(np.float32)


def rank_shares(
    generated_ND: np.ndarray, real_ND: np.ndarray, target_N: np.ndarray | None = None, block: int = 1024
) -> np.ndarray:
    """Return float64 [N]: share of the other real patches that are closer to the generated patch than `target_N` (its
    own by default).
    """
    target_N = np.arange(len(real_ND)) if target_N is None else target_N
    real, generated = scaled(real_ND, real_ND), scaled(generated_ND, real_ND)
    shares = np.empty(len(generated))
    for start in range(0, len(generated), block):
        distances = squared_distances(generated[start : start + block], real)
        own = distances[np.arange(len(distances)), target_N[start : start + block]][:, None]
        closer = (distances < own).sum(axis=1) + ((distances == own).sum(axis=1) - 1) / 2
        shares[start : start + block] = closer / max(len(real) - 1, 1)
    return shares


def retrieval_estimates(share_N: np.ndarray, resampling: Resampling) -> dict[str, Estimate]:
    """Return the share of cells whose own patch ranks in the top 1, 5 and 10 %, and the median rank (as a share)."""
    result = {f"top_{round(100 * top)}": resampling.mean((share_N <= top).astype(np.float64)) for top in TOP_SHARES}
    order = np.argsort(share_N, kind="stable")

    def median(weights_RN: np.ndarray) -> np.ndarray:
        cumulative = np.cumsum(weights_RN[:, order], axis=1)
        middle = (cumulative >= cumulative[:, -1:] / 2).argmax(axis=1)
        return share_N[order][middle]

    return result | {"median_rank": resampling.bootstrap(median)}


# PSNR and SSIM against the one real patch, only for comparison with older work: both reward blur.


SIGMA_PX = 1.5
K1, K2 = 0.01, 0.03


def psnr(a_NHWC: np.ndarray, b_NHWC: np.ndarray) -> np.ndarray:
    """Return float64 [N] in dB for uint8 images; capped at 100 dB, which equal images get."""
    error = ((a_NHWC.astype(np.float64) - b_NHWC) ** 2).mean(axis=(1, 2, 3))
    return np.minimum(10 * np.log10(255.0**2 / np.maximum(error, 1e-12)), 100.0)


def ssim(a_NHWC: np.ndarray, b_NHWC: np.ndarray) -> np.ndarray:
    """Return float64 [N]: structural similarity (Wang et al. 2004; Gaussian window of SD 1.5 px, mean over channels
    and pixels 5 px from the edge).
    """
    a, b = a_NHWC.astype(np.float64), b_NHWC.astype(np.float64)

    def local(values: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(values, sigma=(0, SIGMA_PX, SIGMA_PX, 0), truncate=3.5)

    mean_a, mean_b = local(a), local(b)
    var_a, var_b = local(a * a) - mean_a**2, local(b * b) - mean_b**2
    covariance = local(a * b) - mean_a * mean_b
    c1, c2 = (K1 * 255) ** 2, (K2 * 255) ** 2
    similarity = (
        (2 * mean_a * mean_b + c1) * (2 * covariance + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    )
    return similarity[:, 5:-5, 5:-5].mean(axis=(1, 2, 3))
