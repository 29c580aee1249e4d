"""Estimates with intervals: resampling by spatial blocks, shared by every metric, so that differences are paired.

Neighbouring cells share most of their pixels, so a bootstrap over single cells would give intervals that are far too
narrow. Cells are therefore resampled in square blocks of tissue. Every metric is a function of cell weights; the same
weights go to every metric, every generated set and every baseline, so that `a.minus(b)` is a paired difference.

Cheap statistics take bootstrap weights (blocks sampled with replacement). Statistics that are biased by repeated cells
(Frechet distance, KID, nearest neighbours) or slow take a delete-one-group jackknife (Efron 1982) instead.

Shape letters: N cells, R replicates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

MIN_BLOCKS = 8
COVERAGE = 0.95


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The value of one statistic with its sample size and its values on the resamples.

    Attributes:
        value: the statistic on all cells.
        replicates: float64 [R], the statistic on each resample (same resamples for every estimate of one evaluation).
        method: "bootstrap", "jackknife" or "none".
        n: number of images.
        unit: what was resampled ("43 spatial blocks", "500 cells").
    """

    value: float
    replicates: np.ndarray
    method: str
    n: int
    unit: str = "cells"

    def interval(self) -> tuple[float, float]:
        """Return the 95 % interval: percentiles of a bootstrap, value +- t SE of a jackknife; (nan, nan) without
        replicates.
        """
        replicates = self.replicates[np.isfinite(self.replicates)]
        if self.method == "none" or len(replicates) < 2:
            return float("nan"), float("nan")
        if self.method == "bootstrap":
            tail = 50 * (1 - COVERAGE)
            low, high = np.percentile(replicates, [tail, 100 - tail])
            return float(low), float(high)
        groups = len(replicates)
        standard_error = np.sqrt((groups - 1) / groups * ((replicates - replicates.mean()) ** 2).sum())
        half = stats.t.ppf(0.5 + COVERAGE / 2, groups - 1) * standard_error
        return float(self.value - half), float(self.value + half)

    def minus(self, other: Estimate) -> Estimate:
        """Return the paired difference; both must come from the same resampling."""
        return self.combined(other, np.subtract)

    def combined(self, other: Estimate, operation: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Estimate:
        """Return `operation(self, other)`, applied to the values and to each replicate."""
        paired = self.method == other.method and self.replicates.shape == other.replicates.shape
        replicates = operation(self.replicates, other.replicates) if paired else np.empty(0)
        value = float(operation(np.array(self.value), np.array(other.value)))
        return Estimate(
            value=value,
            replicates=replicates,
            method=self.method if paired else "none",
            n=min(self.n, other.n),
            unit=self.unit,
        )

    def as_dict(self) -> dict[str, float | int | str | None]:
        """Return value, low, high, n and the interval's description, for report.json (nan becomes None)."""
        low, high = self.interval()
        if self.method == "none" or not np.isfinite(low):
            interval = "none"
        else:
            interval = f"95 % {self.method}, {len(self.replicates)} resamples of {self.unit}"
        return {
            "value": finite(self.value),
            "low": finite(low),
            "high": finite(high),
            "n": self.n,
            "interval": interval,
        }


def finite(value: float) -> float | None:
    """Return a JSON number, or None for nan and infinity."""
    return float(value) if np.isfinite(value) else None


def finite_median(values: Iterable[float]) -> float:
    """Return the median of the finite values; nan where there is none."""
    known = [value for value in values if np.isfinite(value)]
    return float(np.median(known)) if known else float("nan")


def percentiles(values: np.ndarray, low: float, high: float) -> tuple[float, float]:
    """Return two percentiles of the finite values; (0, 1) where there is none, so that a colour scale exists."""
    known = values[np.isfinite(values)]
    if known.size == 0:
        return 0.0, 1.0
    first, last = np.percentile(known, [low, high])
    return float(first), float(last)


def spread(values: Sequence[float]) -> float | None:
    """Return the standard deviation of several values, 0 for values that are equal up to rounding; None for a single one."""
    if len(values) < 2:
        return None
    is_rounding = np.ptp(values) <= 1e-12 * np.abs(values).max()
    return 0.0 if is_rounding else float(np.std(values, ddof=1))


def plain(value: float, n: int) -> Estimate:
    """Return a value without interval."""
    return Estimate(value=float(value), replicates=np.empty(0), method="none", n=n)


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """Weights of the evaluated cells for bootstrap and jackknife.

    Attributes:
        bootstrap_RN: float64 [R, N], how often each cell was sampled.
        group_N: int [N], the jackknife group of each cell.
        n_groups: number of jackknife groups.
        unit: what was resampled ("43 spatial blocks").
    """

    bootstrap_RN: np.ndarray
    group_N: np.ndarray
    n_groups: int
    unit: str

    @property
    def n(self) -> int:
        """Number of cells."""
        return len(self.group_N)

    def values_only(self) -> Resampling:
        """Return the same cells with as few resamples as possible, where only values are needed."""
        halves = np.arange(self.n) % 2
        return Resampling(bootstrap_RN=np.empty((0, self.n)), group_N=halves, n_groups=2, unit=self.unit)

    @property
    def jackknife_GN(self) -> np.ndarray:
        """float64 [groups, N]: 0 for the cells of the excluded group, else 1."""
        return (self.group_N[None, :] != np.arange(self.n_groups)[:, None]).astype(np.float64)

    def bootstrap(self, statistic: Callable[[np.ndarray], np.ndarray], n: int | None = None) -> Estimate:
        """Return the estimate of a statistic that maps weights [R, N] to values [R]."""
        value = float(np.asarray(statistic(np.ones((1, self.n))))[0])
        replicates = np.asarray(statistic(self.bootstrap_RN), dtype=np.float64)
        return Estimate(
            value=value, replicates=replicates, method="bootstrap", n=self.n if n is None else n, unit=self.unit
        )

    def mean(self, value_N: np.ndarray) -> Estimate:
        """Return the estimate of the mean of a per-cell value; nan is ignored."""
        return self.bootstrap(lambda weights_RN: weighted_mean(value_N, weights_RN), int(np.isfinite(value_N).sum()))

    def jackknife(self, statistic: Callable[[np.ndarray], float]) -> Estimate:
        """Return the estimate of a statistic that maps one weight vector [N] (zeros and ones) to a value."""
        value = float(statistic(np.ones(self.n)))
        replicates = np.array([statistic(weights_N) for weights_N in self.jackknife_GN])
        return self.jackknifed(value, replicates)

    def jackknifed(self, value: float, replicates: np.ndarray) -> Estimate:
        """Return an estimate from a value and delete-one-group values that are computed elsewhere."""
        return Estimate(
            value=float(value),
            replicates=np.asarray(replicates, np.float64),
            method="jackknife",
            n=self.n,
            unit=f"groups of {self.unit}",
        )


def weighted_mean(value_N: np.ndarray, weights_RN: np.ndarray) -> np.ndarray:
    """Return [R] weighted means over the finite values; nan where no weight is left."""
    known = np.isfinite(value_N)
    total = weights_RN @ known.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (weights_RN @ np.where(known, value_N, 0.0)) / total


def spatial_blocks(centre_um: np.ndarray, slide_N: np.ndarray, side_um: float) -> np.ndarray:
    """Return the block of each cell, int [N]: squares of `side_um` on each slide.

    Parameters: centre_um float [N, 2] (x, y); slide_N int [N].
    """
    square = np.floor(centre_um / side_um).astype(np.int64)
    _, block = np.unique(np.column_stack([slide_N, square]), axis=0, return_inverse=True)
    return block.reshape(-1)


def make_resampling(block_N: np.ndarray, *, n_replicates: int, n_groups: int, rng: np.random.Generator) -> Resampling:
    """Return the weights for cells that lie in the given blocks; with fewer than 8 blocks single cells are resampled
    (and `unit` names them).
    """
    n_cells = len(block_N)
    blocks, block_N = np.unique(block_N, return_inverse=True)
    unit = f"{len(blocks)} spatial blocks"
    if len(blocks) < MIN_BLOCKS:
        block_N, unit = np.arange(n_cells), f"{n_cells} cells"
    n_blocks = int(block_N.max()) + 1 if n_cells else 0
    counts_RK = rng.multinomial(n_blocks, np.full(n_blocks, 1 / n_blocks), size=n_replicates)
    n_groups = max(2, min(n_groups, n_blocks))
    return Resampling(
        bootstrap_RN=counts_RK[:, block_N].astype(np.float64),
        group_N=balanced_groups(block_N, n_groups, rng),
        n_groups=n_groups,
        unit=unit,
    )


def balanced_groups(block_N: np.ndarray, n_groups: int, rng: np.random.Generator) -> np.ndarray:
    """Return a group per cell: whole blocks, largest first (ties at random), each into the smallest group so far."""
    sizes = np.bincount(block_N)
    order = np.lexsort((rng.random(len(sizes)), -sizes))
    group_of_block = np.zeros(len(sizes), np.int64)
    filled = np.zeros(n_groups)
    for block in order:
        group_of_block[block] = np.argmin(filled)
        filled[group_of_block[block]] += sizes[block]
    return group_of_block[block_N]
