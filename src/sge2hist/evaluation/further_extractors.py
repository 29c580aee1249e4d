"""Scores of the extractors beside the main one: realism with its floor and retrieval, on the same cells and the same
comparison patches.

Type agreement, expression recovery, morphometry and copies are those of the main extractor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from sge2hist.evaluation.features.descriptors import ImageDescriptors, Progress, describe_images
from sge2hist.evaluation.features.extractor import Extractor
from sge2hist.evaluation.images import ImageSet
from sge2hist.evaluation.reference import Reference, stored_features
from sge2hist.evaluation.results import metric_table
from sge2hist.evaluation.scores import (
    SetScores,
    own_patch_distances,
    realism_scores,
    retrieval_scores,
    type_realism,
)
from sge2hist.evaluation.sensitivity import sensitivity


def score_with(
    extractor: Extractor,
    reference: Reference,
    sets: list[ImageSet],
    shuffled: dict[str, ImageSet],
    progress: Progress,
) -> dict[str, Any]:
    """Return the report's entry of one further extractor: what determines it, metrics with floor and baselines, and what
    small changes cost.
    """
    data, cells = reference.data, reference.cells
    stored = stored_features(data, reference.config, reference.geometry, extractor)

    def described(
        read: Callable[[np.ndarray], np.ndarray], indices: np.ndarray, stage: str, keep: bool
    ) -> ImageDescriptors:
        stage = f"{stage}, {extractor.name}"
        progress(stage, 0, len(indices))
        return describe_images(
            read,
            indices,
            extractor,
            channels=data.channels,
            stored=stored if keep else None,
            progress=progress,
            stage=stage,
        )

    other = replace(
        reference,
        extractor=extractor,
        real=described(reference.patches, cells.rows_N, "real patches", True),
        comparison=described(reference.patches, cells.comparison.rows_K, "comparison patches", True),
    )
    stored.save()
    scores_of = {}
    for images in sets:
        own = described(images.images, cells.images[images.name][0], images.name, False).features_ND
        baseline = shuffled.get(images.name)
        wrong = (
            None
            if baseline is None
            else described(baseline.images, cells.images[baseline.name][0], baseline.name, False).features_ND
        )
        scores_of[images.name] = score_features(other, own, wrong)
    progress(f"small changes, {extractor.name}", 0, 1)
    rows = sensitivity(other)
    progress(f"small changes, {extractor.name}", 1, 1)
    return {
        "name": extractor.name,
        "note": extractor.note,
        **extractor.details,
        "metrics": metric_table(scores_of, realism_scores(other, other.real.features_ND), cells.own_cells),
        "sensitivity": rows,
    }


def score_features(reference: Reference, features_ND: np.ndarray, shuffled_ND: np.ndarray | None) -> SetScores:
    """Return realism and retrieval of one set; `shuffled_ND` None: the same images, each given to another cell."""
    matched = realism_scores(reference, features_ND) | own_patch_distances(reference, features_ND)
    if shuffled_ND is None:
        shuffled_ND = features_ND[reference.cells.shuffle_N]
        unmatched = type_realism(reference, shuffled_ND)
    else:
        unmatched = realism_scores(reference, shuffled_ND) | own_patch_distances(reference, shuffled_ND)
    share_N = np.full(len(features_ND), np.nan)
    if reference.cells.own_cells:
        own, share_N = retrieval_scores(reference, features_ND)
        matched |= own
        unmatched |= retrieval_scores(reference, shuffled_ND)[0]
    return SetScores(matched=matched, shuffled=unmatched, rank_share_N=share_N)
