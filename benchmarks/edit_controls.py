"""Controls of an edit of genes: matched random sets, differences with intervals, and the verdict.

Shape letters: N cells, K random sets, S genes of a set, G genes, R resamples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.evaluation.resampling import Estimate, Resampling, weighted_mean

NEAREST = 20  # genes of the most similar mean expression, one of which is taken at random


def matched_sets(
    mean_G: np.ndarray, genes: np.ndarray, excluded: np.ndarray, n_sets: int, rng: np.random.Generator
) -> np.ndarray:
    """Random sets of genes outside `excluded`, int64 [K, S]: the j-th of a set is about as expressed as the j-th of `genes`.

    No set holds a gene twice.
    """
    allowed = np.setdiff1d(np.flatnonzero(mean_G > 0), np.union1d(excluded, genes))
    if len(allowed) < len(genes) + NEAREST:
        raise InputError(
            found=f"{len(allowed)} genes outside the signatures",
            expected=f"at least {len(genes) + NEAREST}",
            repair="fewer --genes",
        )
    level = np.log(mean_G[allowed])
    sets = np.empty((n_sets, len(genes)), np.int64)
    for one in sets:
        free = np.ones(len(allowed), bool)
        for j in rng.permutation(len(genes)):
            distance = np.where(free, np.abs(level - np.log(max(mean_G[genes[j]], 1e-12))), np.inf)
            taken = rng.choice(np.argpartition(distance, NEAREST)[:NEAREST])
            one[j], free[taken] = allowed[taken], False
    return sets


def beyond_random(
    effect_N: np.ndarray, random_KN: np.ndarray, resampling: Resampling, rng: np.random.Generator
) -> Estimate:
    """Mean effect less that of the random sets; cells and sets are resampled."""
    weights_RN = resampling.bootstrap_RN
    own_R, random_KR = weighted_mean(effect_N, weights_RN), np.stack([weighted_mean(x, weights_RN) for x in random_KN])
    chosen_KR = rng.integers(0, len(random_KN), random_KR.shape)
    return Estimate(
        value=float(effect_N.mean() - random_KN.mean()),
        replicates=own_R - np.take_along_axis(random_KR, chosen_KR, 0).mean(0),
        method="bootstrap",
        n=len(effect_N),
        unit=f"{resampling.unit} and {len(random_KN)} sets",
    )


def beyond_other(effect_N: np.ndarray, others: dict[str, np.ndarray], resampling: Resampling) -> tuple[str, Estimate]:
    """The other edit with the strongest effect, and the mean effect less its."""
    strongest = max(others, key=lambda name: others[name].mean())
    return strongest, resampling.mean(effect_N - others[strongest])


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """An effect, its controls, and whether it beats them."""

    effect: Estimate
    random_K: np.ndarray
    beyond_random: Estimate
    other: tuple[str, Estimate]
    reverse: Estimate
    lost_to: tuple[str, ...]  # the controls that it does not beat

    @property
    def text(self) -> str:
        """ "yes", or what it does not beat."""
        return "**yes**" if not self.lost_to else "no: " + ", ".join(self.lost_to)


def verdict_of(
    effect: Estimate, random_K: np.ndarray, beyond: Estimate, other: tuple[str, Estimate], reverse: Estimate
) -> Verdict:
    """Compare an effect with its controls; an interval that is not known beats nothing."""
    beaten = {
        "random sets": beyond.interval()[0] > 0 and effect.value > random_K.max(),
        "other signature": other[1].interval()[0] > 0,
        "reverse": reverse.interval()[1] < 0,
    }
    lost_to = tuple(name for name, is_beaten in beaten.items() if not is_beaten)
    return Verdict(
        effect=effect, random_K=random_K, beyond_random=beyond, other=other, reverse=reverse, lost_to=lost_to
    )
