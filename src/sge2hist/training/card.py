"""The model card that every model folder carries."""

from __future__ import annotations

import textwrap
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

import sge2hist
from sge2hist.data.paired import PairedDataset
from sge2hist.data.slides.channels import describe_channels, is_rgb
from sge2hist.data.slides.glass import glass_colour
from sge2hist.data.spatial_index import CellIndex
from sge2hist.data.virtual_he import MANIFEST_KEY, mark_of
from sge2hist.models.bundle import ModelBundle
from sge2hist.training.config import TrainConfig
from sge2hist.training.sufficiency import describe

CARD_WIDTH = 120  # characters of a line


def model_card(bundle: ModelBundle) -> str:
    """Return README.md of a model folder: what it is, what it was trained on, what it is not for."""
    config, provenance = bundle.config, bundle.provenance
    seconds = provenance.get("stage_seconds", {})
    toy = "**Trained on toy tissue: its images show no real tissue.**\n\n" if bundle.is_toy else ""
    steps = provenance.get("stage_steps", {})
    stages = ", ".join(
        f"{name} {value / 60:.1f} min" + (f" ({steps[name]:,} steps)" if name in steps else "")
        for name, value in seconds.items()
    )
    shortfall = describe(provenance.get("undertrained", {}))
    short = f"**{shortfall.capitalize()}: its images may follow the tissue little.**\n\n" if shortfall else ""
    he = mark_of(provenance) or "H&E"
    stain = he if is_rgb(config.channels) else f"fluorescence ({describe_channels(config.channels)})"
    source = f"\n- source of the data: {provenance['source']}" if "source" in provenance else ""
    proteins = "" if bundle.proteins is None else f" and {len(bundle.proteins):,} proteins"
    what = (
        f"Generates {stain} patches of {config.patch_px} x {config.patch_px} px ({config.patch_um:g} um, "
        f"{config.um_per_px:g} um/px) from the expression of {len(bundle.genes):,} genes{proteins}, or from a cell type's name. "
        "Its images are synthetic: not for diagnosis."
    )
    names = "\n".join(f"- {name}" for name in bundle.types.names)
    return f"""# SGE2Hist model ({config.preset})

{toy}{short}{textwrap.fill(what, CARD_WIDTH)}

- data: {provenance.get("technology", "unknown")}, {provenance.get("n_train_cells", 0):,} training cells,
  slides {", ".join(provenance.get("slides", []))}, fingerprint `{str(provenance.get("data_fingerprint", ""))[:16]}`{source}
- training: {stages}; seed {provenance.get("seed")}
- made with sge2hist {provenance.get("sge2hist_version")}, torch {provenance.get("torch_version")}
- it holds weights, gene names, type names, summary statistics, and examples of which types lie where around cells of each
  type; no expression and no images

Cell types that it generates by name:

{names}

```
sge2hist generate MODEL --data cells.h5ad -o images.generated
sge2hist generate MODEL --types "{bundle.types.names[0] if bundle.types.names else "NAME"}" -n 16 -o type.generated
```
"""


def provenance(dataset: PairedDataset, config: TrainConfig, stage_seconds: dict[str, float]) -> dict[str, Any]:
    """Where a model comes from, for its config.json: data, colour of the glass, settings, and seconds of each stage."""
    return {
        "data_fingerprint": dataset.fingerprint,
        "technology": dataset.manifest.get("technology", ""),
        "slides": dataset.slide_ids,
        **_trained_on(dataset),
        "glass_rgb": next(filter(None, map(glass_colour, dataset.slides)), None),
        "cell_spacing_um": CellIndex(dataset.centre_xy_px * dataset.um_per_px, dataset.slide_of_cell).spacing_um(),
        "toy": dataset.is_toy,
        **({} if is_rgb(dataset.channels) else {"stain_transform": dataset.stain_transform}),
        **({MANIFEST_KEY: True} if dataset.is_virtual_he else {}),
        "seed": config.seed,
        "training": asdict(config),
        "stage_seconds": stage_seconds,
        "n_train_cells": len(dataset.rows("train")),
        "sge2hist_version": sge2hist.__version__,
        "torch_version": torch.__version__,
    }


def _trained_on(dataset: PairedDataset) -> dict[str, list[str]]:
    """The slides that hold training cells, and their donors where all of them are stated."""
    numbers = np.unique(dataset.slide_of_cell[dataset.rows("train")])
    donors = sorted({dataset.donors[number] for number in numbers})
    return {
        "train_slides": [dataset.slide_ids[number] for number in numbers],
        "train_donors": donors if all(donors) else [],
    }
