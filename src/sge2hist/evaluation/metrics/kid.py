"""Kernel Inception Distance (Binkowski et al. 2018) on any features: the unbiased squared maximum mean discrepancy
with a cubic polynomial kernel.

`k(x, y) = (x.y / D + 1)^3`. All pairs are used (no random subsets), in blocks, so memory is linear in the number of
images. Sums are kept per pair of jackknife groups, from which every leave-one-group-out value follows by subtraction.

Shape letters: N images, D features, G groups.
"""

from __future__ import annotations

import numpy as np

from sge2hist.evaluation.resampling import Estimate, Resampling

# Above this many images the products are formed in float32 (sums stay in float64).
EXACT_UP_TO = 2000


def kernel_sums(
    a_ND: np.ndarray, b_ND: np.ndarray, group_a_N: np.ndarray, group_b_N: np.ndarray, n_groups: int, block: int = 1024
) -> np.ndarray:
    """Return float64 [G, G], the kernel summed over every pair of images in groups (g, h)."""
    dtype = np.float64 if max(len(a_ND), len(b_ND)) <= EXACT_UP_TO else np.float32
    b_ND = np.ascontiguousarray(b_ND, dtype)
    member_b_NG = (group_b_N[:, None] == np.arange(n_groups)).astype(dtype)
    sums_GG = np.zeros((n_groups, n_groups))
    scale = dtype(1 / a_ND.shape[1])
    for start in range(0, len(a_ND), block):
        kernel = a_ND[start : start + block].astype(dtype) @ b_ND.T
        kernel *= scale
        kernel += dtype(1)
        kernel **= 3
        by_group = (kernel @ member_b_NG).astype(np.float64)
        np.add.at(sums_GG, group_a_N[start : start + block], by_group)
    return sums_GG


def self_kernel_sums(features_ND: np.ndarray, group_N: np.ndarray, n_groups: int) -> np.ndarray:
    """Return float64 [G], the kernel of each image with itself, summed by group."""
    squared = np.einsum("nd,nd->n", features_ND, features_ND, dtype=np.float64)
    return np.bincount(group_N, weights=(squared / features_ND.shape[1] + 1) ** 3, minlength=n_groups)


def unbiased_mmd(
    within_a: float, self_a: float, n_a: int, within_b: float, self_b: float, n_b: int, across: float
) -> float:
    """Return the unbiased squared MMD from kernel sums; it may be slightly negative."""
    return (within_a - self_a) / (n_a * (n_a - 1)) + (within_b - self_b) / (n_b * (n_b - 1)) - 2 * across / (n_a * n_b)


def grouped_kid(
    real_ND: np.ndarray, generated_ND: np.ndarray, group_N: np.ndarray, n_groups: int
) -> tuple[float, np.ndarray]:
    """Return KID of images paired by cell, and float64 [G]: KID without the cells of each group (nan when too few are
    left).
    """
    sums = {
        "aa": kernel_sums(real_ND, real_ND, group_N, group_N, n_groups),
        "bb": kernel_sums(generated_ND, generated_ND, group_N, group_N, n_groups),
        "ab": kernel_sums(real_ND, generated_ND, group_N, group_N, n_groups),
    }
    self_a, self_b = (self_kernel_sums(features, group_N, n_groups) for features in (real_ND, generated_ND))
    sizes = np.bincount(group_N, minlength=n_groups)

    def over(kept: np.ndarray) -> float:
        n = int(sizes[kept].sum())
        if n < 2:
            return float("nan")
        grid = np.ix_(kept, kept)
        aa, bb, ab = (float(sums[pair][grid].sum()) for pair in ("aa", "bb", "ab"))
        return unbiased_mmd(aa, self_a[kept].sum(), n, bb, self_b[kept].sum(), n, ab)

    everything = np.arange(n_groups)
    return over(everything), np.array([over(np.delete(everything, group)) for group in everything])


def kid_estimate(real_ND: np.ndarray, generated_ND: np.ndarray, resampling: Resampling) -> Estimate:
    """Return KID of images paired by cell, with a jackknife that excludes the same cells from both sides."""
    return resampling.jackknifed(*grouped_kid(real_ND, generated_ND, resampling.group_N, resampling.n_groups))


def kid_of(a_ND: np.ndarray, b_ND: np.ndarray) -> float:
    """Return KID of two feature arrays of any lengths."""
    group_a, group_b = np.zeros(len(a_ND), np.int64), np.zeros(len(b_ND), np.int64)
    return unbiased_mmd(
        kernel_sums(a_ND, a_ND, group_a, group_a, 1)[0, 0],
        self_kernel_sums(a_ND, group_a, 1)[0],
        len(a_ND),
        kernel_sums(b_ND, b_ND, group_b, group_b, 1)[0, 0],
        self_kernel_sums(b_ND, group_b, 1)[0],
        len(b_ND),
        kernel_sums(a_ND, b_ND, group_a, group_b, 1)[0, 0],
    )
