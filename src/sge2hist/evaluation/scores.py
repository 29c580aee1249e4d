"""Every metric of one set of images against the reference.

The same functions score generated images, the cells' own real patches (the floor of realism, the ceiling of the rest) and
images given to the wrong cells (shuffled).

Shape letters: N evaluated cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sge2hist.evaluation.features.descriptors import ImageDescriptors
from sge2hist.evaluation.metrics import retrieval
from sge2hist.evaluation.metrics import type_agreement as agreement
from sge2hist.evaluation.metrics.frechet import frechet_estimate
from sge2hist.evaluation.metrics.kid import grouped_kid, kid_estimate, kid_of
from sge2hist.evaluation.metrics.morphometry import compare_distributions, pearson_estimate
from sge2hist.evaluation.metrics.prdc import prdc_scores
from sge2hist.evaluation.reference import Reference
from sge2hist.evaluation.resampling import Estimate, Resampling, finite_median, plain

Estimates = dict[str, Estimate]
MIN_OF_TYPE = 20


@dataclass(frozen=True, kw_only=True)
class SetScores:
    """Scores of one set: matched and shuffled estimates by metric id, and per-cell values for galleries."""

    matched: Estimates
    shuffled: Estimates
    rank_share_N: np.ndarray


def realism_scores(reference: Reference, features_ND: np.ndarray) -> Estimates:
    """Return Frechet distance, KID (also within types), precision, recall, density and coverage against the comparison
    patches; nothing when these are fewer than 20.

    Parameters
    ----------
    features_ND
        One image for each evaluated cell; those whose cell has a comparison patch count.
    """
    resampling = reference.comparison_resampling
    if resampling is None:
        return {}
    compared, other = reference.comparison.features_ND, features_ND[reference.matched]
    k = min(reference.config.neighbours, len(compared) - 1)
    return {
        "frechet": frechet_estimate(compared, other, resampling),
        "kid": kid_estimate(compared, other, resampling),
        **prdc_scores(compared, other, k).estimates(resampling),
        **type_realism(reference, features_ND),
    }


def type_realism(reference: Reference, features_ND: np.ndarray) -> Estimates:
    """Return KID within types against the comparison patches; nothing when no type has enough of them."""
    if reference.comparison_resampling is None:
        return {}
    matched = reference.matched
    found = type_kid_estimate(
        reference.comparison.features_ND,
        features_ND[matched],
        reference.types_N[matched],
        reference.comparison_resampling,
    )
    return {} if found is None else {"type_kid": found}


def own_patch_distances(reference: Reference, features_ND: np.ndarray) -> Estimates:
    """Return Frechet distance and KID against the evaluated cells' own patches, as versions up to 0.1 gave them."""
    real, resampling = reference.real.features_ND, reference.resampling
    return {
        "frechet_own": frechet_estimate(real, features_ND, resampling),
        "kid_own": kid_estimate(real, features_ND, resampling),
    }


def type_kids(
    real_ND: np.ndarray, type_real_N: np.ndarray, other_ND: np.ndarray, type_other_N: np.ndarray
) -> dict[int, float]:
    """Return KID within each type that has at least 20 patches on both sides."""
    result = {}
    for type_index in np.unique(type_real_N[type_real_N >= 0]):
        real, other = real_ND[type_real_N == type_index], other_ND[type_other_N == type_index]
        if min(len(real), len(other)) >= MIN_OF_TYPE:
            result[int(type_index)] = kid_of(real, other)
    return result


def type_kid_estimate(
    real_ND: np.ndarray, other_ND: np.ndarray, types_N: np.ndarray, resampling: Resampling
) -> Estimate | None:
    """Return the mean over types of KID within the type, with the jackknife; None when no type has enough cells."""
    values, replicates = [], []
    for type_index in np.unique(types_N[types_N >= 0]):
        mine = types_N == type_index
        if mine.sum() >= MIN_OF_TYPE:
            value, without = grouped_kid(real_ND[mine], other_ND[mine], resampling.group_N[mine], resampling.n_groups)
            values.append(value)
            replicates.append(without)
    # A type that lies in one group only cannot be excluded: its own value replaces the replicate.
    filled = [np.where(np.isfinite(without), without, value) for value, without in zip(values, replicates, strict=True)]
    return resampling.jackknifed(float(np.mean(values)), np.mean(filled, axis=0)) if values else None


def type_scores(reference: Reference, features_ND: np.ndarray) -> Estimates:
    """Return macro-F1 and its normalised form; nothing when the data has fewer than two types."""
    if reference.classifier is None or len(np.unique(reference.types_N[reference.types_N >= 0])) < 2:
        return {}
    f1 = agreement.f1_estimate(reference.types_N, reference.predict_types(features_ND), reference.resampling)
    return {"type_f1": f1, "type_f1_normalised": agreement.normalised(f1, reference.real_f1, reference.chance_f1)}


def expression_scores(reference: Reference, features_ND: np.ndarray) -> Estimates:
    """Return expression recovery and its ratio to real patches."""
    found: Estimates = {}
    for n_genes, estimate in reference.recovered(features_ND).items():
        found[f"expression_{n_genes}"] = estimate
        found[f"expression_ratio_{n_genes}"] = estimate.combined(reference.real_recovery[n_genes], agreement.safe_ratio)
    return found


def retrieval_scores(reference: Reference, features_ND: np.ndarray) -> tuple[Estimates, np.ndarray]:
    """Return the retrieval scores and each cell's rank."""
    share_N = retrieval.rank_shares(features_ND, reference.real.features_ND)
    by_name = retrieval.retrieval_estimates(share_N, reference.resampling)
    return {f"retrieval_{name}": estimate for name, estimate in by_name.items()}, share_N


def morphometry_scores(reference: Reference, images: ImageDescriptors) -> Estimates:
    """Return the median over the morphometric statistics of the per-cell correlation."""
    parts = [
        pearson_estimate(images.morphometry[name], real, reference.resampling)
        for name, real in reference.real.morphometry.items()
    ]
    replicates = np.median([part.replicates for part in parts], axis=0)
    value = float(np.median([part.value for part in parts]))
    first = parts[0]
    return {
        "morphometry_correlation": Estimate(
            value=value, replicates=replicates, method=first.method, n=first.n, unit=first.unit
        )
    }


def distribution_scores(real: ImageDescriptors, other: ImageDescriptors) -> Estimates:
    """Return the medians over the statistics of 1 - KS and of the ratio of spreads."""
    compared = [compare_distributions(values, other.morphometry[name]) for name, values in real.morphometry.items()]
    return {
        "morphometry_one_minus_ks": plain(finite_median(c.one_minus_ks for c in compared), len(other)),
        "morphometry_spread_ratio": plain(finite_median(c.spread_ratio for c in compared), len(other)),
    }


def own_cell_scores(reference: Reference, images: ImageDescriptors) -> tuple[Estimates, np.ndarray]:
    """Return every metric that compares an image with its own cell."""
    place, share_N = retrieval_scores(reference, images.features_ND)
    return expression_scores(reference, images.features_ND) | place | morphometry_scores(reference, images), share_N


def score_set(reference: Reference, images: ImageDescriptors, shuffled: ImageDescriptors | None) -> SetScores:
    """Return the scores of one set.

    Parameters
    ----------
    images
        Described in the order of the evaluated cells.
    shuffled
        Images that the same model made from other cells' expression, in the same order; None = the same images, each
        given to another cell.
    """
    matched = realism_scores(reference, images.features_ND) | own_patch_distances(reference, images.features_ND)
    matched |= distribution_scores(reference.real, images) | type_scores(reference, images.features_ND)
    unmatched: Estimates = {}
    if shuffled is None:
        shuffled = images.take(reference.cells.shuffle_N)
        # The same images: only what depends on the pairing differs.
        unmatched = type_realism(reference, shuffled.features_ND)
    else:
        unmatched = realism_scores(reference, shuffled.features_ND)
        unmatched |= own_patch_distances(reference, shuffled.features_ND)
    unmatched |= type_scores(reference, shuffled.features_ND)
    share_N = np.full(len(images), np.nan)
    if reference.cells.own_cells:
        own, share_N = own_cell_scores(reference, images)
        matched |= own
        unmatched |= own_cell_scores(reference, shuffled)[0]
    return SetScores(matched=matched, shuffled=unmatched, rank_share_N=share_N)


def real_estimates(reference: Reference) -> Estimates:
    """Return the scores of real tissue: the floor of the realism metrics and the ceiling of the others."""
    found = realism_scores(reference, reference.real.features_ND)
    if len(reference.matched):
        found |= distribution_scores(reference.real.take(reference.matched), reference.comparison)
    found |= type_scores(reference, reference.real.features_ND)
    found |= {f"expression_{n}": estimate for n, estimate in reference.real_recovery.items()}
    found |= {f"expression_ratio_{n}": plain(1.0, len(reference.real)) for n in reference.real_recovery}
    return found
