"""The results of an evaluation as the plain values of report.json (docs/evaluation.md has the schema).

`build_report` puts the report together; below it, in the order of the report, each of its tables.

Shape letters: N evaluated cells.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

import sge2hist
from sge2hist.data.generated import APPLICABILITY
from sge2hist.data.slides.channels import Channels, is_rgb
from sge2hist.data.virtual_he import MARK
from sge2hist.evaluation.cells import Cells
from sge2hist.evaluation.comparison import Comparison
from sge2hist.evaluation.features.descriptors import ImageDescriptors
from sge2hist.evaluation.features.extractor import Extractor
from sge2hist.evaluation.images import ImageSet
from sge2hist.evaluation.metrics import type_agreement as agreement
from sge2hist.evaluation.metrics.catalogue import CATALOGUE
from sge2hist.evaluation.metrics.clustering import latent_report, neighbourhood_composition
from sge2hist.evaluation.metrics.expression_recovery import BEST_GENES
from sge2hist.evaluation.metrics.frechet import frechet_of
from sge2hist.evaluation.metrics.memorisation import CopySearch
from sge2hist.evaluation.metrics.morphometry import morphometry_row
from sge2hist.evaluation.reference import MIN_COMPARISON, Reference
from sge2hist.evaluation.resampling import finite, spread
from sge2hist.evaluation.scores import MIN_OF_TYPE, Estimates, SetScores, score_set, type_kids

FORMAT_VERSION = 2  # 2: realism against the comparison patches; 1: against the own patches, which `frechet_own` keeps


def build_report(
    reference: Reference,
    sets: list[ImageSet],
    descriptors: dict[str, list[ImageDescriptors]],
    shuffled: dict[str, ImageDescriptors],
    scores_of: dict[str, SetScores],
    real: dict[str, Any],
    copies: CopySearch | None,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Return the report as plain values (docs/evaluation.md has its schema)."""
    data, cells, config = reference.data, reference.cells, reference.config
    first = {name: samples[0] for name, samples in descriptors.items()}
    report: dict[str, Any] = {
        "kind": "report",
        "format_version": FORMAT_VERSION,
        "sge2hist_version": sge2hist.__version__,
        "synthetic": True,
        "toy": bool(data.manifest.get("toy")) or any(images.is_toy for images in sets),
        "config": config.as_dict(),
        "data": data_entry(reference),
        "extractor": {
            "name": reference.extractor.name,
            "note": reference.extractor.note,
            **reference.extractor.details,
        },
        "notes": [images.note for images in sets if images.note]
        + cells.notes
        + channel_notes(data.channels, reference.extractor)
        + ([] if copies is not None else ["Evaluated cells are training cells: the search for copies is skipped."]),
        "sets": [set_description(images, cells, images.name in shuffled) for images in sets],
        "metrics": metric_table(scores_of, real, cells.own_cells),
        "differences": differences(scores_of),
        "per_type": per_type(reference, first),
        "types_omitted": types_omitted(reference),
        "omitted": omitted(reference),
        "morphometry": morphometry_tables(reference, first, shuffled) if cells.own_cells else {},
        "over_samples": sample_spread(reference, descriptors, scores_of),
        "over_slides": {name: over_slides(reference, found) for name, found in scores_of.items()}
        if len(data.slide_ids) > 1
        else {},
        "copies": None
        if copies is None
        else {"n_train_patches": copies.n_train, "n_checked": copies.n_checked, "threshold": copies.threshold},
        "latent": latent_reports(reference, sets, rng),
    }
    return report


def channel_notes(channels: Channels, extractor: Extractor) -> list[str]:
    """Return notes on images that are not H&E."""
    if is_rgb(channels):
        return []
    shown = "the negative of the colour composite" if extractor.bright_field else "the colour composite"
    return [
        f"Fluorescence ({', '.join(channels)}): features are those of {shown}; the light of each channel stands in "
        "place of stain, lumen and nuclei, which have no meaning here."
    ]


def data_entry(reference: Reference) -> dict[str, Any]:
    """Return the entry of the dataset and the cells."""
    data, cells = reference.data, reference.cells
    return {
        **({"look": MARK} if data.is_virtual_he else {}),
        "name": data.path.name,
        "fingerprint": data.fingerprint,
        "technology": data.manifest.get("technology", ""),
        "observation": data.manifest.get("observation", ""),
        "types_source": (data.manifest.get("types") or {}).get("source", ""),
        "split": reference.config.split,
        "n_cells": len(cells.rows_N),
        "n_centre": int(data.is_centre.sum()),
        "n_placed": len(data),
        "n_floor": len(cells.comparison.rows_K),
        "floor": cells.comparison.describe(),
        "comparison": comparison_entry(cells.comparison),
        "n_train": len(cells.train_rows),
        "n_val": len(cells.val_rows),
        "n_genes_read": int(reference.measured_NG.shape[1]),
        "patch_um": reference.geometry.patch_um,
        "patch_px": reference.geometry.patch_px,
        "um_per_px": reference.geometry.um_per_px,
        "channels": list(data.channels),
        "resampled": reference.resampling.unit,
    }


def comparison_entry(comparison: Comparison) -> dict[str, Any]:
    """Return the entry of the comparison patches."""
    return {
        "n": len(comparison.rows_K),
        "n_cells": comparison.n_cells,
        "n_blocks": comparison.n_blocks,
        "splits": comparison.splits,
        "median_difference": finite(comparison.gap),
        "problem": comparison.problem,
    }


def set_description(images: ImageSet, cells: Cells, own_shuffled: bool) -> dict[str, Any]:
    """Return the entry of one set."""
    kept = (
        "mode",
        "sampler",
        "seed",
        "n_samples",
        "model_fingerprint",
        "model",
        "guidance",
        "slide",
        "region_um",
        APPLICABILITY,
    )
    return {
        "name": images.name,
        "n_images": len(images),
        "n_samples_scored": len(cells.images[images.name]),
        "image_px": images.image_px,
        "shuffled_on_purpose": images.is_shuffled,
        "shuffled_baseline": "images generated from other cells' expression"
        if own_shuffled
        else "the same images given to other cells",
        "manifest": {key: images.manifest[key] for key in kept if key in images.manifest},
    }


def metric_table(scores_of: dict[str, SetScores], real: Estimates, own_cells: bool) -> list[dict[str, Any]]:
    """Return one entry per metric of the catalogue that any set has, in the catalogue's order."""
    table = []
    for metric in CATALOGUE:
        having = {name: found for name, found in scores_of.items() if metric.id in found.matched}
        if not having:
            continue
        baseline = real.get(metric.id)
        entry: dict[str, Any] = {
            field: getattr(metric, field) for field in ("id", "question", "name", "better", "definition", "share")
        }
        entry["real"] = None if baseline is None or not metric.real else {"kind": metric.real, **baseline.as_dict()}
        entry["sets"] = {name: set_entry(found, metric.id) for name, found in having.items()}
        table.append(entry)
    return table


def set_entry(found: SetScores, metric_id: str) -> dict[str, Any]:
    """Return matched, shuffled and their paired difference."""
    matched, shuffled = found.matched[metric_id], found.shuffled.get(metric_id)
    return {
        **matched.as_dict(),
        "shuffled": None if shuffled is None else shuffled.as_dict(),
        "conditioning_gain": None if shuffled is None else matched.minus(shuffled).as_dict(),
    }


def differences(scores_of: dict[str, SetScores]) -> list[dict[str, Any]]:
    """Return, for every metric, each set minus the first one, paired by cell."""
    names = list(scores_of)
    rows = []
    for metric in CATALOGUE:
        first = scores_of[names[0]].matched.get(metric.id)
        others = {
            name: scores_of[name].matched[metric.id] for name in names[1:] if metric.id in scores_of[name].matched
        }
        if first is not None and others:
            rows.append(
                {
                    "id": metric.id,
                    "minus": names[0],
                    "sets": {name: found.minus(first).as_dict() for name, found in others.items()},
                }
            )
    return rows


def per_type(reference: Reference, sets: dict[str, ImageDescriptors]) -> list[dict[str, Any]]:
    """Return, for every type with enough evaluated cells, F1 of each set and of real patches, and the distances of both
    from the comparison patches.
    """
    types_N, matched = reference.types_N, reference.matched
    type_K, compared_KD = types_N[matched], reference.comparison.features_ND
    everything = {"": reference.real, **sets}
    features_of = {name: descriptors.features_ND[matched] for name, descriptors in everything.items()}
    kids = {
        name: type_kids(compared_KD, type_K, features_KD, type_K) if len(matched) else {}
        for name, features_KD in features_of.items()
    }
    f1 = {}
    if reference.classifier is not None:
        f1 = {
            name: f1_by_type(types_N, reference.predict_types(descriptors.features_ND))
            for name, descriptors in everything.items()
        }
    rows = []
    for type_index, count in zip(*np.unique(types_N[types_N >= 0], return_counts=True), strict=True):
        t = int(type_index)
        if count < reference.config.min_type:
            continue
        mine = type_K == t

        def frechet(name: str, mine: np.ndarray = mine) -> float | None:
            return finite(frechet_of(compared_KD[mine], features_of[name][mine])) if mine.sum() >= MIN_OF_TYPE else None

        rows.append(
            {
                "type": reference.data.types[t],
                "n": int(count),
                "n_compared": int(mine.sum()),
                "real": {"f1": f1.get("", {}).get(t), "kid": optional(kids[""].get(t)), "frechet": frechet("")},
                "sets": {
                    name: {
                        "f1": f1.get(name, {}).get(t),
                        "kid": optional(kids[name].get(t)),
                        "frechet": frechet(name),
                    }
                    for name in sets
                },
            }
        )
    return sorted(rows, key=lambda row: -row["n"])


def types_omitted(reference: Reference) -> list[dict[str, Any]]:
    """Return the cell types that the table of types lacks, with the reason."""
    limit = reference.config.min_type
    found = []
    for number, name in enumerate(reference.data.types):
        count = int((reference.types_N == number).sum())
        if count < limit:
            found.append({"type": name, "n": count, "reason": f"fewer than {limit} evaluated cells"})
    unknown = int((reference.types_N < 0).sum())
    if unknown:
        found.append({"type": "unknown", "n": unknown, "reason": "no type in the dataset"})
    return found


def omitted(reference: Reference) -> list[str]:
    """Return what the report lacks and why, one sentence each."""
    found = []
    if reference.comparison_resampling is None:
        n = len(reference.matched)
        found.append(f"Realism: {n} evaluated cells have a comparison patch, at least {MIN_COMPARISON} are needed.")
    if reference.classifier is None:
        found.append("Type agreement: fewer than two cell types among the training cells.")
    elif len(np.unique(reference.types_N[reference.types_N >= 0])) < 2:
        found.append("Type agreement: fewer than two cell types among the evaluated cells.")
    n_genes = reference.measured_NG.shape[1]
    if n_genes < BEST_GENES[-1] and reference.cells.own_cells:
        found.append(f"Expression recovery over more than {n_genes} genes: the dataset counts no more.")
    statistics = reference.real.morphometry
    if "nuclei_count" in statistics and "nuclear_eccentricity" not in statistics:
        um = reference.geometry.um_per_px
        found.append(f"Eccentricity and solidity of nuclei: at {um:g} um/px a nucleus has too few pixels.")
    return found


def optional(value: float | None) -> float | None:
    """Return a JSON number or None."""
    return None if value is None else finite(value)


def f1_by_type(truth_N: np.ndarray, predicted_N: np.ndarray) -> dict[int, float | None]:
    """Return F1 of each type that occurs."""
    values = agreement.f1_per_type(truth_N, predicted_N, np.ones((1, len(truth_N))))[0]
    return {int(t): finite(value) for t, value in zip(np.unique(truth_N[truth_N >= 0]), values, strict=True)}


def morphometry_tables(
    reference: Reference, sets: dict[str, ImageDescriptors], shuffled: dict[str, ImageDescriptors]
) -> dict[str, list[dict[str, Any]]]:
    """Return, for each set, one entry per morphometric statistic."""
    tables: dict[str, list[dict[str, Any]]] = {}
    for name, descriptors in sets.items():
        mismatched = shuffled.get(name) or descriptors.take(reference.cells.shuffle_N)
        tables[name] = [
            morphometry_row(
                statistic,
                real_N,
                descriptors.morphometry[statistic],
                mismatched.morphometry[statistic],
                reference.comparison.morphometry.get(statistic, np.empty(0)),
                reference.resampling,
            )[0]
            for statistic, real_N in reference.real.morphometry.items()
        ]
    return tables


def over_samples(samples: list[Estimates]) -> dict[str, dict[str, Any]]:
    """Return mean, SD and values of every metric over the samples of a set (independent seeds)."""
    found = {}
    for metric in CATALOGUE:
        values = [sample[metric.id].value for sample in samples if metric.id in sample]
        if len(values) > 1:
            found[metric.id] = {
                "n_samples": len(values),
                "mean": float(np.mean(values)),
                "sd": spread(values),
                "values": values,
            }
    return found


def over_slides(reference: Reference, scores_of: SetScores) -> dict[str, Any]:
    """Return the mean retrieval rank by slide: how evenly a set follows the expression over slides (and so donors)."""
    slide = reference.data.slide_of_cell[reference.cells.rows_N]
    shares = scores_of.rank_share_N
    return {
        reference.data.slide_ids[s]: {
            "n": int((slide == s).sum()),
            "mean_rank_share": finite(np.nanmean(shares[slide == s])),
        }
        for s in np.unique(slide)
        if np.isfinite(shares[slide == s]).any()
    }


def sample_spread(
    reference: Reference, descriptors: dict[str, list[ImageDescriptors]], scores_of: dict[str, SetScores]
) -> dict[str, Any]:
    """Return the spread of every metric over samples, for sets with several."""
    compared = reference.comparison_resampling
    quick = replace(
        reference,
        resampling=reference.resampling.values_only(),
        comparison_resampling=None if compared is None else compared.values_only(),
    )
    spreads = {}
    for name, samples in descriptors.items():
        if len(samples) > 1:
            others = [score_set(quick, sample, None).matched for sample in samples[1:]]
            spreads[name] = over_samples([scores_of[name].matched, *others])
    return spreads


def latent_reports(reference: Reference, sets: list[ImageSet], rng: np.random.Generator) -> dict[str, Any]:
    """Return the report on stored latents of each set that has them."""
    data, cells = reference.data, reference.cells
    found: dict[str, Any] = {}
    for images in sets:
        if (images.z1 is None and images.z2 is None) or not cells.own_cells:
            continue
        index = cells.images[images.name][0]
        composition = neighbourhood_composition(
            cells.rows_N, data.centre_xy_px, data.slide_of_cell, data.type_of_cell, len(data.types)
        )
        found[images.name] = latent_report(
            None if images.z1 is None else images.z1[index],
            None if images.z2 is None else images.z2[index],
            None if images.predicted_type_M is None else images.predicted_type_M[index],
            data.counts(cells.rows_N),
            reference.types_N,
            composition,
            reference.block_N,
            rng,
        )
    return found
