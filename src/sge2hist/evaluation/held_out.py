"""How far the evaluated cells lie from those that a model was trained on: the same section, another one, another donor."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from sge2hist.data.paired import PairedDataset
from sge2hist.evaluation.images import ImageSet

TRAINED_ON = "trained_on"  # in the manifest of a generated set: data_fingerprint, slides, donors of the training cells
UNKNOWN, SECTION, OTHER_SECTION, OTHER_DONOR = "unknown", "same section", "other section", "other donor"
ORDER = (UNKNOWN, SECTION, OTHER_SECTION, OTHER_DONOR)
"""From the weakest evidence to the strongest; a set whose cells differ has the weakest of theirs."""
MEANING = {
    UNKNOWN: "not known whether the model has seen these sections",
    SECTION: "other places of sections that the model was trained on",
    OTHER_SECTION: "sections that the model was not trained on",
    OTHER_DONOR: "donors that the model was not trained on",
}


def held_out(images: ImageSet, rows: np.ndarray, data: PairedDataset) -> dict[str, Any]:
    """Return how independent the evaluated cells are of the training of the model of a set.

    Parameters
    ----------
    rows
        Evaluated cells, rows of `data`.

    Returns
    -------
    dict
        `level`: one of `ORDER`; `cells`: how many cells have each level; `text`: a headline.
    """
    trained = images.manifest.get(TRAINED_ON) or {}
    per_slide = [level_of_slide(trained, data, number) for number in range(len(data.slide_ids))]
    counts = Counter(per_slide[number] for number in data.slide_of_cell[rows])
    level = min(counts, key=ORDER.index)
    shares = ", ".join(f"{counts[name]:,} {name}" for name in ORDER if counts[name]) if len(counts) > 1 else ""
    text = f"Evaluated on: {level} ({MEANING[level]})" + (f"; cells: {shares}" if shares else "")
    if level == OTHER_SECTION and not _donors_known(trained, data, rows):
        text += "; donors are not stated, so they may be those of the training"
    return {"level": level, "cells": dict(counts), "text": text + "."}


def level_of_slide(trained: dict[str, Any], data: PairedDataset, number: int) -> str:
    """Return the level of the cells of one slide.

    Names of slides are compared within one dataset alone ("region_1" is the name of many); names of donors everywhere.
    """
    donor, donors = data.donors[number], trained.get("donors") or []
    if donor and donors and donor not in donors:
        return OTHER_DONOR
    slides = trained.get("slides")
    if slides is None or trained.get("data_fingerprint") != data.fingerprint:
        return UNKNOWN
    return SECTION if data.slide_ids[number] in slides else OTHER_SECTION


def _donors_known(trained: dict[str, Any], data: PairedDataset, rows: np.ndarray) -> bool:
    return bool(trained.get("donors")) and all(data.donors[n] for n in np.unique(data.slide_of_cell[rows]))
