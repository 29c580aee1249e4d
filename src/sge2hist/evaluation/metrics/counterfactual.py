"""Do edits act? Images of edited cells between the unedited images and the target of the edit.

An edit (another type, a gene changed, a neighbour moved) is generated with the same noise as the unedited cell. For
each morphometric statistic: `1 - W1(edited, target) / W1(start, target)`: 1 when edited images are distributed like the
target, 0 when the edit has no effect, negative when it goes the wrong way.

Shape letters: N images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import wasserstein_distance

from sge2hist.evaluation.resampling import Estimate

# Start and target closer than this share of the target's spread leave nothing to edit, and the ratio would be noise.
MIN_STEP = 0.1


@dataclass(frozen=True, kw_only=True)
class EditEffect:
    """The effect of an edit on one statistic: the covered share of the distance to the target, and that distance
    (in target SD).
    """

    statistic: str
    covered: Estimate
    step_in_sd: float


def covered_share(start_N: np.ndarray, edited_N: np.ndarray, target_N: np.ndarray) -> float:
    """Return `1 - W1(edited, target) / W1(start, target)`; nan when start and target are the same."""
    finite = [values[np.isfinite(values)] for values in (start_N, edited_N, target_N)]
    if min(map(len, finite)) == 0:
        return float("nan")
    start, edited, target = finite
    step = wasserstein_distance(start, target)
    return float(1 - wasserstein_distance(edited, target) / step) if step > 0 else float("nan")


def edit_effects(
    start: dict[str, np.ndarray],
    edited: dict[str, np.ndarray],
    target: dict[str, np.ndarray],
    *,
    n_bootstrap: int = 200,
    seed: int = 0,
) -> list[EditEffect]:
    """Return the effect of an edit on every statistic on which start and target differ by at least a tenth of a
    standard deviation.

    Parameters
    ----------
    start, edited
        Morphometry of the same cells before and after the edit (name -> float64 [N], same order, same noise).
    target
        Morphometry of the target: real patches of the other type, or images generated for it.
    n_bootstrap
        Resamples over cells (start and edited together, target apart) for the intervals.
    """
    rng = np.random.default_rng(seed)
    effects = []
    for name, target_N in target.items():
        finite = target_N[np.isfinite(target_N)]
        before = start[name][np.isfinite(start[name])]
        sd = float(finite.std()) if len(finite) else 0.0
        step = wasserstein_distance(before, finite) / sd if sd > 0 and len(before) else float("nan")
        if not step >= MIN_STEP:
            continue
        replicates = []
        for _ in range(n_bootstrap):
            cells = rng.integers(0, len(start[name]), len(start[name]))
            others = rng.integers(0, len(target_N), len(target_N))
            replicates.append(covered_share(start[name][cells], edited[name][cells], target_N[others]))
        covered = Estimate(
            value=covered_share(start[name], edited[name], target_N),
            replicates=np.array(replicates),
            method="bootstrap" if n_bootstrap > 1 else "none",
            n=len(start[name]),
        )
        effects.append(EditEffect(statistic=name, covered=covered, step_in_sd=float(step)))
    return effects
