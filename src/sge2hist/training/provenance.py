"""Where a model comes from: what its config.json says of data, settings and time."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch

import sge2hist
from sge2hist.data.glass import glass_colour
from sge2hist.data.paired import PairedDataset
from sge2hist.training.config import TrainConfig


def provenance(dataset: PairedDataset, config: TrainConfig, stage_seconds: dict[str, float]) -> dict[str, Any]:
    """Plain values, for JSON: data, the colour of its glass, every setting, and the seconds that each stage took."""
    return {
        "data_fingerprint": dataset.fingerprint,
        "technology": dataset.manifest.get("technology", ""),
        "slides": dataset.slide_ids,
        "glass_rgb": next(filter(None, map(glass_colour, dataset.slides)), None),
        "toy": dataset.is_toy,
        "seed": config.seed,
        "training": asdict(config),
        "stage_seconds": stage_seconds,
        "n_train_cells": len(dataset.rows("train")),
        "sge2hist_version": sge2hist.__version__,
        "torch_version": torch.__version__,
    }
