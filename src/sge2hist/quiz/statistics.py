"""The statistics of a reader study.

Answers of one reader are not independent of each other, nor are answers to one image. Pooled intervals therefore come from a
bootstrap that resamples readers and, within real and generated ones, images (Owen 2007, the pigeonhole bootstrap).

Shape letters: R readers, K images.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import stats

Interval = tuple[float, float]
COVERAGE = 0.95


def wilson(successes: int, n: int) -> Interval:
    """Return the 95 % interval of a share (Wilson 1927).

    >>> tuple(round(limit, 3) for limit in wilson(8, 10))
    (0.49, 0.943)
    """
    if n == 0:
        return float("nan"), float("nan")
    found = stats.binomtest(successes, n).proportion_ci(COVERAGE, method="wilson")
    return float(found.low), float(found.high)


def suspicion(says_real: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """Return how strongly an image is called generated: -5 (certainly real) to 5 (certainly generated), without 0."""
    return np.where(says_real == 1, -1, 1) * confidence


def auc(is_real: np.ndarray, score: np.ndarray) -> float:
    """Return the share of pairs (generated, real) of which the generated one has the higher score; ties count half.

    NaN where one of both is missing.
    """
    n_real, n_generated = int(is_real.sum()), int((~is_real).sum())
    if n_real == 0 or n_generated == 0:
        return float("nan")
    ranks = stats.rankdata(score)
    return float((ranks[~is_real].sum() - n_generated * (n_generated + 1) / 2) / (n_real * n_generated))


def roc(is_real: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Return the curve, float64 [n, 2]: the share of real and the share of generated ones called generated, from 0, 0 to 1, 1."""
    levels = np.concatenate([[np.inf], np.unique(score)[::-1]])
    called = score[None] >= levels[:, None]
    return np.stack([called[:, is_real].mean(1), called[:, ~is_real].mean(1)], 1)


def bootstrap(
    statistic: Callable[[np.ndarray, np.ndarray], float],
    is_real_K: np.ndarray,
    n_readers: int,
    n_resamples: int,
    rng: np.random.Generator,
) -> Interval:
    """Return the 95 % interval of `statistic(readers, images)`, both given as the numbers of those resampled.

    Images are resampled within the real and within the generated ones, so that both stay there; one reader alone is not
    resampled. (nan, nan) where the statistic is not defined, or all resamples are equal: no answer, or no mistake, to vary.
    """
    real, generated = np.flatnonzero(is_real_K), np.flatnonzero(~is_real_K)
    values = []
    for _ in range(n_resamples):
        readers = rng.integers(0, n_readers, n_readers)
        images = np.concatenate([rng.choice(real, len(real)), rng.choice(generated, len(generated))])
        values.append(statistic(readers, images))
    finite = [value for value in values if np.isfinite(value)]
    if len(finite) < 2:
        return float("nan"), float("nan")
    low, high = np.percentile(finite, [50 * (1 - COVERAGE), 50 * (1 + COVERAGE)])
    return (float(low), float(high)) if low < high else (float("nan"), float("nan"))


def cohen_kappa(first: np.ndarray, second: np.ndarray) -> float:
    """Return the agreement of two readers beyond chance (Cohen 1960); NaN where both gave one and the same answer throughout.

    >>> cohen_kappa(np.array([1, 1, 0, 0]), np.array([1, 1, 0, 1]))
    0.5
    """
    if len(first) == 0:
        return float("nan")
    agreed = float((first == second).mean())
    chance = sum(float((first == value).mean() * (second == value).mean()) for value in (0, 1))
    return (agreed - chance) / (1 - chance) if chance < 1 else float("nan")


def fleiss_kappa(counts_KC: np.ndarray) -> float:
    """Return the agreement of several readers beyond chance (Fleiss 1971).

    Parameters
    ----------
    counts_KC
        How many readers put each of K images into each of C classes; the same number of readers for all, at least 2.

    Returns
    -------
    float
        NaN where all gave one and the same answer throughout, or there is no image.
    """
    if len(counts_KC) == 0:
        return float("nan")
    n_readers = counts_KC[0].sum()
    per_image = ((counts_KC**2).sum(1) - n_readers) / (n_readers * (n_readers - 1))
    chance = float(((counts_KC.sum(0) / counts_KC.sum()) ** 2).sum())
    return (float(per_image.mean()) - chance) / (1 - chance) if chance < 1 else float("nan")
