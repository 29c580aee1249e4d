"""PSNR and SSIM against the one real patch, only for comparison with older work: both reward blur."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

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
