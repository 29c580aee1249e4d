"""Run the search for copies: every training patch against generated and held-out real patches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sge2hist.evaluation import memorisation
from sge2hist.evaluation.cells import some
from sge2hist.evaluation.describe import Described, Progress, thumbnails
from sge2hist.evaluation.estimate import Estimate, make_resampling
from sge2hist.evaluation.reference import Reference


@dataclass(frozen=True, kw_only=True)
class Copies:
    """The outcome: share of copies by set, that of real patches, and how far the search went.

    Attributes:
        checked_N: positions among the evaluated cells that were looked at.
        nearest: set name -> distances and training rows for those cells.
    """

    shares: dict[str, Estimate]
    real: Estimate
    threshold: float
    n_train: int
    checked_N: np.ndarray
    nearest: dict[str, memorisation.Nearest]


def look_for_copies(
    reference: Reference, sets: dict[str, Described], rng: np.random.Generator, progress: Progress | None = None
) -> Copies:
    """Return the share of images in each set that lie closer to a training patch than held-out real patches do."""
    config, data = reference.config, reference.data
    rows = some(data.rows("train"), config.max_train_for_copies, rng)
    checked = some(np.arange(len(reference.real)), config.max_copies_checked, rng)
    queries = [
        reference.real.thumbnails_NK[checked],
        *(described.thumbnails_NK[checked] for described in sets.values()),
    ]
    done = 0

    def blocks():  # type: ignore[no-untyped-def]
        nonlocal done
        for part, small in memorisation.training_thumbnails(rows, reference.patches, thumbnails):
            done += len(part)
            if progress is not None:
                progress("search for copies", done, len(rows))
            yield part, small

    real, *others = memorisation.nearest_training(queries, blocks())
    threshold = memorisation.copy_threshold(real.distance_N)
    resampling = make_resampling(
        reference.block_N[checked], n_replicates=config.n_bootstrap, n_groups=config.n_groups, rng=rng
    )
    return Copies(
        shares={
            name: memorisation.copied_share(nearest.distance_N, threshold, resampling)
            for name, nearest in zip(sets, others, strict=True)
        },
        real=memorisation.copied_share(real.distance_N, threshold, resampling),
        threshold=threshold,
        n_train=len(rows),
        checked_N=checked,
        nearest=dict(zip(sets, others, strict=True)),
    )
