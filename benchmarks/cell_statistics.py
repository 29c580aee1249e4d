"""Statistics over the cells of several patches, and tables of them."""

from __future__ import annotations

import numpy as np
from scipy.stats import ks_2samp

N_RESAMPLES = 200


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's r over the pairs where both are known."""
    known = np.isfinite(x) & np.isfinite(y)
    return float(np.corrcoef(x[known], y[known])[0, 1]) if known.sum() > 2 else float("nan")


def interval(patch_N: np.ndarray, x: np.ndarray, y: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95 % interval of r over cells, of patches sampled with replacement."""
    rng, rows = np.random.default_rng(seed), [np.flatnonzero(patch_N == patch) for patch in np.unique(patch_N)]
    found = []
    for _ in range(N_RESAMPLES):
        some = np.concatenate([rows[i] for i in rng.integers(len(rows), size=len(rows))])
        found.append(correlation(x[some], y[some]))
    return float(np.nanquantile(found, 0.025)), float(np.nanquantile(found, 0.975))


def type_means(values: np.ndarray, types: np.ndarray, least: int = 20) -> np.ndarray:
    """Mean of the known values of each type with enough of them."""
    known = np.isfinite(values)
    return np.array(
        [values[known & (types == t)].mean() for t in np.unique(types) if (known & (types == t)).sum() >= least]
    )


def distance_of_distributions(x: np.ndarray, y: np.ndarray, types: np.ndarray, least: int = 20) -> float:
    """Mean over types of 1 - KS."""
    scores = []
    for name in np.unique(types):
        own = types == name
        a, b = x[own & np.isfinite(x)], y[own & np.isfinite(y)]
        if min(len(a), len(b)) >= least:
            scores.append(1 - ks_2samp(a, b).statistic)
    return float(np.mean(scores)) if scores else float("nan")


def table(header: list[str], rows: list[list[str]]) -> str:
    """Rows as a Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"
