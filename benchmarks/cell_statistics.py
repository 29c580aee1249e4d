"""Statistics over the cells of several patches, averaged over seeds, with intervals over patches; and tables of them.

A statistic maps weights, float64 [R, N] (or [R, B]: one per patch), to a value per resample, [R]. All share the same resamples of
whole patches, so that differences are paired.

Shape letters: R resamples, B patches, N cells, T types.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sge2hist.evaluation.metrics.expression_recovery import gene_correlations
from sge2hist.evaluation.resampling import Estimate, Resampling, weighted_mean

N_RESAMPLES = 200
MIN_OF_TYPE = 20  # cells of a type, for a statistic of types
Statistic = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class PatchResamples:
    """Resamples of B patches with replacement, as weights of patches and of what lies in them."""

    weight_RB: np.ndarray

    @classmethod
    def of(cls, n_patches: int, seed: int = 0, n_resamples: int = N_RESAMPLES) -> PatchResamples:
        """Resamples of `n_patches` patches."""
        rng = np.random.default_rng(seed)
        counts = rng.multinomial(n_patches, np.full(n_patches, 1 / n_patches), size=n_resamples)
        return cls(weight_RB=counts.astype(np.float64))

    def of_items(self, patch_N: np.ndarray) -> Resampling:
        """Weights of items (cells, tiles, nuclei) by the patch that each lies in."""
        B = self.weight_RB.shape[1]
        return Resampling(
            bootstrap_RN=self.weight_RB[:, patch_N], group_N=np.asarray(patch_N), n_groups=B, unit=f"{B} patches"
        )

    @property
    def of_patches(self) -> Resampling:
        """Weights of the patches themselves."""
        return self.of_items(np.arange(self.weight_RB.shape[1]))


def mean_of(statistics: Sequence[Statistic]) -> Statistic:
    """The mean of statistics, such as those of several seeds."""
    return lambda weights: np.mean([statistic(weights) for statistic in statistics], axis=0)


def ratio(over: Statistic, under: Statistic) -> Statistic:
    """The ratio of two statistics, on the same resamples."""
    return lambda weights: over(weights) / under(weights)


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's r over the pairs where both are known."""
    return float(r_of(x, y)(np.ones((1, len(x))))[0])


def r_of(x_N: np.ndarray, y_N: np.ndarray) -> Statistic:
    """Pearson's r over the items where both are known."""
    known = np.isfinite(x_N) & np.isfinite(y_N)
    x, y = x_N[known][:, None], y_N[known][:, None]

    def statistic(weights: np.ndarray) -> np.ndarray:
        w = weights[:, known]
        out = np.full(len(w), np.nan)
        some = (w > 0).sum(1) > 2
        out[some] = gene_correlations(x, y, w[some])[:, 0] if some.any() else 0.0
        return out

    return statistic


def level_over(x_N: np.ndarray, y_N: np.ndarray) -> Statistic:
    """Mean of y over the mean of x."""
    return lambda weights: weighted_mean(y_N, weights) / weighted_mean(x_N, weights)


def r_over_types(x_N: np.ndarray, y_N: np.ndarray, type_N: np.ndarray, least: int = MIN_OF_TYPE) -> Statistic:
    """Pearson's r over types with at least `least` cells where both are known, of the mean of each type."""
    known = np.isfinite(x_N) & np.isfinite(y_N)
    names, count = np.unique(type_N[known], return_counts=True)
    own = [known & (type_N == name) for name in names[count >= least]]

    def statistic(weights: np.ndarray) -> np.ndarray:
        means = [
            np.array([weighted_mean(values[rows], weights[:, rows]) for rows in own]).reshape(len(own), len(weights)).T
            for values in (x_N, y_N)
        ]
        return np.array([correlation_of_known(x, y) for x, y in zip(*means, strict=True)])

    return statistic


def correlation_of_known(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's r over the pairs where both are known; nan for fewer than three or where one does not vary."""
    known = np.isfinite(x) & np.isfinite(y)
    if known.sum() < 3 or min(np.ptp(x[known]), np.ptp(y[known])) == 0:
        return float("nan")
    return float(np.corrcoef(x[known], y[known])[0, 1])


def likeness(x_N: np.ndarray, y_N: np.ndarray, group_N: np.ndarray, least: int = MIN_OF_TYPE) -> Statistic:
    """1 less the Kolmogorov-Smirnov distance of x and y within each group (type), the mean over groups.

    x and y may be known for different items; a group counts with at least `least` known of either.
    """
    groups = []
    for name in np.unique(group_N):
        own = [np.flatnonzero((group_N == name) & np.isfinite(values)) for values in (x_N, y_N)]
        if min(map(len, own)) >= least:
            groups.append(own)

    def statistic(weights: np.ndarray) -> np.ndarray:
        if not groups:
            return np.full(len(weights), np.nan)
        distances = [ks_distance(x_N[a], y_N[b], weights[:, a], weights[:, b]) for a, b in groups]
        return 1 - _mean_of_known(np.array(distances))

    return statistic


def ks_distance(x: np.ndarray, y: np.ndarray, weights_x: np.ndarray, weights_y: np.ndarray) -> np.ndarray:
    """Largest difference of two weighted distribution functions, [R]; nan where one has no weight."""
    values = np.concatenate([x, y])
    order = np.argsort(values, kind="stable")
    last = np.append(np.diff(values[order]) > 0, True)  # the step after all equal values
    with np.errstate(invalid="ignore", divide="ignore"):
        steps = np.concatenate(
            [weights_x / weights_x.sum(1, keepdims=True), -weights_y / weights_y.sum(1, keepdims=True)], 1
        )
    return np.abs(steps[:, order].cumsum(1)[:, last]).max(1)


def _mean_of_known(values_KR: np.ndarray) -> np.ndarray:
    known = np.isfinite(values_KR)
    with np.errstate(invalid="ignore"):
        return np.where(known, values_KR, 0).sum(0) / known.sum(0)


def confusion(truth_N: np.ndarray, found_N: np.ndarray, patch_N: np.ndarray, n_patches: int, T: int) -> np.ndarray:
    """Cells by patch, true and found type (codes 0 to T - 1), float64 [B, T, T]."""
    flat = np.bincount((patch_N * T + truth_N) * T + found_N, minlength=n_patches * T * T)
    return flat.reshape(n_patches, T, T).astype(np.float64)


def macro_f1(confusion_BTT: np.ndarray, least: int = MIN_OF_TYPE) -> Statistic:
    """Mean F1 of the types with at least `least` cells in all patches; what is taken for another type counts against both.

    A type without any cell in a resample is not in its mean.
    """
    kept = confusion_BTT.sum((0, 2)) >= least

    def statistic(weights: np.ndarray) -> np.ndarray:
        counts = np.einsum("rb,btf->rtf", weights, confusion_BTT)
        right = np.einsum("rtt->rt", counts)
        with np.errstate(invalid="ignore"):
            f1 = np.where(counts.sum(2) > 0, 2 * right / (counts.sum(1) + counts.sum(2)), np.nan)
        return _mean_of_known(f1[:, kept].T)

    return statistic


def r_squared(truth_N: np.ndarray, found_N: np.ndarray) -> Statistic:
    """Share of the variance of the truth that is explained; below 0: worse than its mean."""

    def statistic(weights: np.ndarray) -> np.ndarray:
        mean = weighted_mean(truth_N, weights)
        rest = weighted_mean((found_N - truth_N) ** 2, weights)
        return 1 - rest / (weighted_mean(truth_N**2, weights) - mean**2)

    return statistic


def shown(estimate: Estimate, digits: int = 2) -> str:
    """Value and interval; a dash where it is not known."""
    low, high = estimate.interval()
    if np.isnan(estimate.value):
        return "-"
    interval = f" ({low:.{digits}f} to {high:.{digits}f})" if high - low > 1e-9 else ""
    return f"{estimate.value:.{digits}f}{interval}"


def table(header: list[str], rows: list[list[str]]) -> str:
    """Rows as a Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"
