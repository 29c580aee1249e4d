"""Gather all results into the plain values of report.json (docs/evaluation.md has the schema)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

import sge2hist
from sge2hist.data.slides.channels import Channels, is_rgb
from sge2hist.evaluation import results
from sge2hist.evaluation.cells import Cells
from sge2hist.evaluation.features.descriptors import ImageDescriptors
from sge2hist.evaluation.features.extractors import Extractor
from sge2hist.evaluation.image_sets import ImageSet
from sge2hist.evaluation.metrics.clustering import latent_report, neighbourhood_composition
from sge2hist.evaluation.metrics.memorisation import CopySearch
from sge2hist.evaluation.reference import Reference
from sge2hist.evaluation.scores import SetScores, score_set

FORMAT_VERSION = 1


def assemble(
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
        + ([] if copies is not None else ["Evaluated cells are training cells: copies were not looked for."]),
        "sets": [set_description(images, cells, images.name in shuffled) for images in sets],
        "metrics": results.metric_table(scores_of, real, cells.own_cells),
        "differences": results.differences(scores_of),
        "per_type": results.per_type(reference, first),
        "morphometry": results.morphometry_tables(reference, first, shuffled) if cells.own_cells else {},
        "over_samples": sample_spread(reference, descriptors, scores_of),
        "over_slides": {name: results.over_slides(reference, found) for name, found in scores_of.items()}
        if len(data.slide_ids) > 1
        else {},
        "copies": None
        if copies is None
        else {"n_train_patches": copies.n_train, "n_checked": len(copies.checked_N), "threshold": copies.threshold},
        "latent": latent_reports(reference, sets, rng),
    }
    return report


def channel_notes(channels: Channels, extractor: Extractor) -> list[str]:
    """Return what a reader must know about images that are no H&E."""
    if is_rgb(channels):
        return []
    shown = "the negative of the colour composite" if extractor.bright_field else "the colour composite"
    return [
        f"Fluorescence ({', '.join(channels)}): features are those of {shown}; the light of each channel stands in "
        "place of stain, lumen and nuclei, which have no meaning here."
    ]


def data_entry(reference: Reference) -> dict[str, Any]:
    """Return what the report says about the dataset and the cells."""
    data, cells = reference.data, reference.cells
    return {
        "name": data.path.name,
        "fingerprint": data.fingerprint,
        "technology": data.manifest.get("technology", ""),
        "observation": data.manifest.get("observation", ""),
        "types_source": (data.manifest.get("types") or {}).get("source", ""),
        "split": reference.config.split,
        "n_cells": len(cells.rows_N),
        "n_floor": len(cells.floor_rows),
        "floor": cells.floor_note,
        "n_train": len(cells.train_rows),
        "n_val": len(cells.val_rows),
        "n_genes_read": int(reference.measured_NG.shape[1]),
        "patch_um": reference.geometry.patch_um,
        "patch_px": reference.geometry.patch_px,
        "um_per_px": reference.geometry.um_per_px,
        "channels": list(data.channels),
        "resampled": reference.resampling.unit,
    }


def set_description(images: ImageSet, cells: Cells, own_shuffled: bool) -> dict[str, Any]:
    """Return what the report says about one set."""
    kept = ("mode", "sampler", "seed", "n_samples", "model_fingerprint", "model", "guidance")
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


def sample_spread(
    reference: Reference, descriptors: dict[str, list[ImageDescriptors]], scores_of: dict[str, SetScores]
) -> dict[str, Any]:
    """Return the spread of every metric over samples, for sets with several."""
    quick = replace(reference, resampling=reference.resampling.values_only())
    spread = {}
    for name, samples in descriptors.items():
        if len(samples) > 1:
            others = [score_set(quick, sample, None).matched for sample in samples[1:]]
            spread[name] = results.over_samples([scores_of[name].matched, *others])
    return spread


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
