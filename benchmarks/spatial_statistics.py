"""Statistics of points in square windows: distances to the nearest neighbour, Ripley's K, and which types are neighbours.

Shape letters: B windows, R resamples, T types.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from cell_statistics import Statistic, correlation_of_known, ks_distance
from scipy.spatial import KDTree

MIN_EXPECTED = 5.0  # neighbouring pairs of two types, for a ratio to be compared


def nearest_neighbours(windows: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Distance of each point to the nearest other of its window, and its window; points alone in a window are skipped."""
    distances, window = [np.zeros(0)], [np.zeros(0, np.int64)]
    for number, xy in enumerate(windows):
        if len(xy) > 1:
            distances.append(KDTree(xy).query(xy, k=2)[0][:, 1])
            window.append(np.full(len(xy), number))
    return np.concatenate(distances), np.concatenate(window)


def ks_of_windows(first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]) -> Statistic:
    """1 less the Kolmogorov-Smirnov distance of values [N] with their windows [N], of weights of windows."""

    def statistic(weights: np.ndarray) -> np.ndarray:
        (x, of_x), (y, of_y) = first, second
        return 1 - ks_distance(x, y, weights[:, of_x], weights[:, of_y])

    return statistic


def pair_sums(windows: Sequence[np.ndarray], side: float, radii: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Edge-corrected numbers of ordered pairs at most each radius apart, [B, radii], and of all ordered pairs, [B].

    Translation correction: a pair (dx, dy) apart counts side^2 / ((side - |dx|)(side - |dy|)) times (Ohser 1983).
    """
    sums, pairs = np.zeros((len(windows), len(radii))), np.zeros(len(windows))
    for number, xy in enumerate(windows):
        pairs[number] = len(xy) * (len(xy) - 1)
        if len(xy) < 2:
            continue
        first, second = KDTree(xy).query_pairs(max(radii), output_type="ndarray").T
        gap = np.abs(xy[first] - xy[second])
        weight = side**2 / np.prod(side - gap, axis=1)
        distance = np.hypot(*gap.T)
        sums[number] = [2 * weight[distance <= radius].sum() for radius in radii]
    return sums, pairs


def ripley_l(sum_B: np.ndarray, pairs_B: np.ndarray, side: float, radius: float) -> Statistic:
    """L(r) - r of all windows together: sqrt(K / pi) - r, with K = side^2 times the share of pairs at most r apart.

    Zero where points lie at random; below: they keep apart; above: clusters (Ripley 1977, Besag 1977). Each window counts with
    its own density, since the share is that of its pairs.
    """

    def statistic(weights: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.sqrt(side**2 * (weights @ sum_B) / (weights @ pairs_B) / np.pi) - radius

    return statistic


def join_counts(windows: Sequence[np.ndarray], types: Sequence[np.ndarray], within: float, n_types: int) -> np.ndarray:
    """Ordered pairs of points at most `within` apart, by the types (codes) of both: float64 [B, T, T], symmetric."""
    counts = np.zeros((len(windows), n_types, n_types))
    for number, (xy, code) in enumerate(zip(windows, types, strict=True)):
        if len(xy) > 1:
            first, second = code[KDTree(xy).query_pairs(within, output_type="ndarray").T]
            np.add.at(counts[number], (first, second), 1)
            np.add.at(counts[number], (second, first), 1)
    return counts


def adjacency(joins_TT: np.ndarray) -> np.ndarray:
    """Log2 of pairs over those expected if types were dealt to the same pairs at random, [T, T]."""
    return np.log2((joins_TT + 0.5) / (expected_joins(joins_TT) + 0.5))


def expected_joins(joins_TT: np.ndarray) -> np.ndarray:
    """Pairs of two types if neighbours had nothing to do with each other, from how often each type is in a pair."""
    ends = joins_TT.sum(1)
    return np.outer(ends, ends) / max(ends.sum(), 1.0)


def r_of_adjacency(first_BTT: np.ndarray, second_BTT: np.ndarray) -> Statistic:
    """Pearson's r of two `adjacency`, over pairs of types with at least 5 expected pairs in the first."""
    enough = np.triu(expected_joins(first_BTT.sum(0)) >= MIN_EXPECTED)

    def statistic(weights: np.ndarray) -> np.ndarray:
        one, other = (np.einsum("rb,btu->rtu", weights, joins) for joins in (first_BTT, second_BTT))
        return np.array(
            [correlation_of_known(adjacency(a)[enough], adjacency(b)[enough]) for a, b in zip(one, other, strict=True)]
        )

    return statistic


def r_of_joins(first_BTT: np.ndarray, second_BTT: np.ndarray) -> Statistic:
    """Pearson's r of the square roots of two join counts, over all pairs of types."""
    pairs = np.triu_indices(first_BTT.shape[1])

    def statistic(weights: np.ndarray) -> np.ndarray:
        one, other = (np.einsum("rb,btu->rtu", weights, joins) for joins in (first_BTT, second_BTT))
        return np.array(
            [correlation_of_known(np.sqrt(a[pairs]), np.sqrt(b[pairs])) for a, b in zip(one, other, strict=True)]
        )

    return statistic
