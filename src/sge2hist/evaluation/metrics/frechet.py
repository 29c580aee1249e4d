"""Frechet distance between two clouds of features (Dowson & Landau 1982; Heusel et al. 2017).

`|mu_a - mu_b|^2 + Tr(S_a + S_b - 2 (S_a S_b)^(1/2))`, in float64, from means and covariances gathered in one pass. The
last trace is the sum of the singular values of `F_a' F_b` for any factors `S = F F'`: unlike the square root of the
eigenvalues of `S_a S_b` it loses no digits when there are fewer images than features. With fewer images than features
the centred features themselves are the factors, and each jackknife value needs the singular values of a part of one
matrix; otherwise they are Cholesky's, or the symmetric root where a covariance is singular. It is called FID only
with the original Inception weights.

Shape letters: N images, D features, G jackknife groups.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from scipy import linalg

from sge2hist.evaluation.resampling import Estimate, Resampling


@dataclass
class Moments:
    """Mean and scatter of features that arrive in batches (Chan et al. 1983: stable pairwise update)."""

    n: int = 0
    mean_D: np.ndarray = field(default_factory=lambda: np.zeros(0))
    scatter_DD: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))

    def update(self, features_ND: np.ndarray) -> Moments:
        """Add a batch and return self."""
        if len(features_ND):
            batch = features_ND.astype(np.float64)
            mean_D = batch.mean(axis=0)
            centred = batch - mean_D
            self.merge(Moments(n=len(batch), mean_D=mean_D, scatter_DD=centred.T @ centred))
        return self

    def merge(self, other: Moments) -> Moments:
        """Add the moments of other images and return self."""
        if self.n == 0:
            self.n, self.mean_D, self.scatter_DD = other.n, other.mean_D.copy(), other.scatter_DD.copy()
        elif other.n:
            n = self.n + other.n
            shift_D = other.mean_D - self.mean_D
            self.scatter_DD = self.scatter_DD + other.scatter_DD + np.outer(shift_D, shift_D) * (self.n * other.n / n)
            self.mean_D = self.mean_D + shift_D * (other.n / n)
            self.n = n
        return self

    @property
    def covariance_DD(self) -> np.ndarray:
        """Unbiased covariance; needs at least two images."""
        if self.n < 2:
            raise ValueError(f"a covariance needs at least 2 images, got {self.n}")
        return self.scatter_DD / (self.n - 1)


def moments(features_ND: np.ndarray, batch: int = 4096) -> Moments:
    """Return the moments of features, batch by batch."""
    gathered = Moments()
    for start in range(0, len(features_ND), batch):
        gathered.update(features_ND[start : start + batch])
    return gathered


def square_root(covariance_DD: np.ndarray) -> np.ndarray:
    """Return the symmetric square root; directions below numerical rank are exactly zero."""
    values_D, vectors_DD = linalg.eigh(covariance_DD)
    floor = max(values_D[-1], 0.0) * len(values_D) * np.finfo(np.float64).eps
    roots_D = np.sqrt(np.where(values_D > floor, values_D, 0.0))
    return (vectors_DD * roots_D) @ vectors_DD.T


def factor(covariance_DD: np.ndarray) -> np.ndarray:
    """Return F with `S = F F'`: Cholesky's where the covariance has full rank, else the symmetric root."""
    try:
        return np.asarray(linalg.cholesky(covariance_DD, lower=True))
    except linalg.LinAlgError:
        return square_root(covariance_DD)


def frechet_distance(a: Moments, b: Moments) -> float:
    """Return the Frechet distance; 0 exactly for equal moments."""
    if np.array_equal(a.mean_D, b.mean_D) and np.array_equal(a.scatter_DD * (b.n - 1), b.scatter_DD * (a.n - 1)):
        return 0.0
    covariance_a, covariance_b = a.covariance_DD, b.covariance_DD
    cross = linalg.svdvals(factor(covariance_a).T @ factor(covariance_b)).sum()
    shift_D = a.mean_D - b.mean_D
    return float(max(shift_D @ shift_D + np.trace(covariance_a) + np.trace(covariance_b) - 2 * cross, 0.0))


def frechet_of(features_a_ND: np.ndarray, features_b_ND: np.ndarray) -> float:
    """Return the Frechet distance of two feature arrays."""
    if len(features_a_ND) == len(features_b_ND) <= features_a_ND.shape[1]:
        return PairedFeatures(features_a_ND, features_b_ND).distance(np.ones(len(features_a_ND), bool))
    return frechet_distance(moments(features_a_ND), moments(features_b_ND))


class PairedFeatures:
    """Two sets of N images, N at most D; the distance of any part of the pairs comes from one N x N product."""

    def __init__(self, a_ND: np.ndarray, b_ND: np.ndarray) -> None:
        # One shift for both keeps the products small; it changes no distance.
        shift_D = a_ND.mean(axis=0, dtype=np.float64)
        self.a_ND, self.b_ND = a_ND - shift_D, b_ND - shift_D
        self.product_NN = self.a_ND @ self.b_ND.T
        self.square_a_N, self.square_b_N = (np.einsum("nd,nd->n", x, x) for x in (self.a_ND, self.b_ND))

    def distance(self, kept_N: np.ndarray) -> float:
        """Return the Frechet distance of the pairs that are kept (bool [N]); 0 exactly for equal images."""
        a, b, n = self.a_ND[kept_N], self.b_ND[kept_N], int(kept_N.sum())
        if n < 2:
            raise ValueError(f"a covariance needs at least 2 images, got {n}")
        if np.array_equal(a, b):
            return 0.0
        mean_a, mean_b = a.mean(axis=0), b.mean(axis=0)
        # (a - mean_a) (b - mean_b)' without forming the differences
        cross_NN = self.product_NN[np.ix_(kept_N, kept_N)] - (a @ mean_b)[:, None] - b @ mean_a + mean_a @ mean_b
        traces = self.square_a_N[kept_N].sum() + self.square_b_N[kept_N].sum() - n * (mean_a @ mean_a + mean_b @ mean_b)
        shift = mean_a - mean_b
        return float(max(shift @ shift + (traces - 2 * linalg.svdvals(cross_NN).sum()) / (n - 1), 0.0))


def grouped_moments(features_ND: np.ndarray, group_N: np.ndarray, n_groups: int) -> list[Moments]:
    """Return the moments of each jackknife group."""
    return [moments(features_ND[group_N == group]) for group in range(n_groups)]


def merged(parts: Iterable[Moments]) -> Moments:
    """Return the moments of all parts together."""
    total = Moments()
    for part in parts:
        total.merge(part)
    return total


def frechet_estimate(real_ND: np.ndarray, generated_ND: np.ndarray, resampling: Resampling) -> Estimate:
    """Return the Frechet distance of images paired by cell, with a jackknife that excludes the same cells from both
    sides.
    """
    if len(real_ND) <= real_ND.shape[1]:
        pairs = PairedFeatures(real_ND, generated_ND)
        return resampling.jackknife(lambda weights_N: pairs.distance(weights_N > 0))
    groups = range(resampling.n_groups)
    real_G = grouped_moments(real_ND, resampling.group_N, resampling.n_groups)
    generated_G = grouped_moments(generated_ND, resampling.group_N, resampling.n_groups)

    def without(excluded: int | None) -> float:
        kept = [group for group in groups if group != excluded]
        return frechet_distance(merged(real_G[k] for k in kept), merged(generated_G[k] for k in kept))

    return resampling.jackknifed(without(None), np.array([without(group) for group in groups]))
