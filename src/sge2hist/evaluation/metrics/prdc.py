"""Precision and recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020), by k nearest neighbours
in feature space.

A ball around each real image reaches to its k-th nearest other real image. Precision: share of generated images in at
least one real ball. Recall: share of real images in at least one generated ball. Density: number of real balls that
hold a generated image, over k. Coverage: share of real balls that hold a generated image. Distances are computed in
blocks; memory is linear in the number of images.

Shape letters: N images, D features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sge2hist.evaluation.resampling import Estimate, Resampling


@dataclass(frozen=True, kw_only=True)
class PRDCScores:
    """Per-image values whose means are the four scores (float64 [N] each)."""

    precision_N: np.ndarray
    recall_N: np.ndarray
    density_N: np.ndarray
    coverage_N: np.ndarray

    def estimates(self, resampling: Resampling) -> dict[str, Estimate]:
        """Return the four scores with block-bootstrap intervals (the balls are kept fixed)."""
        return {
            "precision": resampling.mean(self.precision_N),
            "recall": resampling.mean(self.recall_N),
            "density": resampling.mean(self.density_N),
            "coverage": resampling.mean(self.coverage_N),
        }


def squared_distances(a_ND: np.ndarray, b_ND: np.ndarray) -> np.ndarray:
    """Return [Na, Nb] squared Euclidean distances, never negative, and exactly 0 for equal rows up to rounding of the
    same products.
    """
    square_a, square_b = (np.einsum("nd,nd->n", x, x) for x in (a_ND, b_ND))
    distances = square_a[:, None] + square_b[None, :] - 2 * (a_ND @ b_ND.T)
    return np.maximum(distances, 0, out=distances)


def ball_radii(features_ND: np.ndarray, k: int, block: int = 1024) -> np.ndarray:
    """Return squared distances [N] to the k-th nearest other image."""
    if not 1 <= k < len(features_ND):
        raise ValueError(f"k must be between 1 and {len(features_ND) - 1} for {len(features_ND)} images, got {k}")
    radii = np.empty(len(features_ND), features_ND.dtype)
    for start in range(0, len(features_ND), block):
        distances = squared_distances(features_ND[start : start + block], features_ND)
        own = np.arange(len(distances))
        distances[own, start + own] = np.inf
        radii[start : start + block] = np.partition(distances, k - 1, axis=1)[:, k - 1]
    return radii


def prdc_scores(real_ND: np.ndarray, generated_ND: np.ndarray, k: int = 5, block: int = 1024) -> PRDCScores:
    """Return the per-image values of precision, recall, density and coverage.

    Features are centred on the real mean first: distances do not change, rounding gets smaller. Identical inputs give
        precision, recall and coverage 1.
    """
    shift_D = real_ND.mean(axis=0, dtype=np.float64)
    real, generated = (
        (x - shift_D).astype(np.float64 if len(x) <= 2000 else np.float32) for x in (real_ND, generated_ND)
    )
    real_radii, generated_radii = ball_radii(real, k, block), ball_radii(generated, k, block)
    precision, density = np.zeros(len(generated)), np.zeros(len(generated))
    recall, nearest = np.zeros(len(real), bool), np.full(len(real), np.inf)
    for start in range(0, len(generated), block):
        part = slice(start, start + block)
        distances = squared_distances(generated[part], real)
        inside_real = distances <= real_radii[None, :]
        precision[part] = inside_real.any(axis=1)
        density[part] = inside_real.sum(axis=1) / k
        recall |= (distances <= generated_radii[part, None]).any(axis=0)
        nearest = np.minimum(nearest, distances.min(axis=0))
    return PRDCScores(
        precision_N=precision,
        recall_N=recall.astype(np.float64),
        density_N=density,
        coverage_N=(nearest <= real_radii).astype(np.float64),
    )
