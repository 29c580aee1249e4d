"""What is shown: the patch of a cell, or a region; each generated as the command line generates it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from sge2hist.explorer.fields import as_number, fields_of, items, malformed, number, text, too_large
from sge2hist.explorer.limits import LIMITS
from sge2hist.explorer.tissue import Tissue
from sge2hist.generation.slide.canvas import canvas_pixels
from sge2hist.generation.slide.edits import Edit
from sge2hist.generation.slide.source import region_px
from sge2hist.generation.slide.stand_alone import StandAloneRegion
from sge2hist.generation.windows import decode_patches, image_seed, sample_patches

PATCH_THREADS = 1
"""CPU threads for one patch: more are slower (benchmarks/explorer.py: 0.5 s with one, 0.8 s with two)."""
DEFAULT_DOSES = [2 * i / 7 for i in range(8)]
Rectangle = tuple[float, float, float, float]
Decode = Callable[[Tensor], np.ndarray]
Look = Callable[[Tensor, Decode], None]
"""Sees the denoised latents of an evaluation and what makes pixels of them; what it raises ends the work."""


@dataclass(frozen=True)
class Target:
    """A cell of the data (its number and id), or a region in um."""

    cell: str | None = None
    number: int = -1
    region_um: Rectangle | None = None
    sample: int = 0


def read_target(values: dict[str, Any], tissue: Tissue, number_of: Callable[[str], int]) -> Target:
    """The target of a request, checked."""
    target = fields_of(values.get("target"), "target")
    sample = int(number(values, "sample", 0, LIMITS.samples - 1, 0, whole=True))
    if ("cell" in target) == ("region_um" in target):
        raise malformed("a target is a cell or a region_um")
    if "cell" in target:
        cell = text(target, "cell")
        return Target(cell=cell, number=number_of(cell), sample=sample)
    corners = [
        float(as_number(v, "region_um", -LIMITS.far_um, LIMITS.far_um))
        for v in items(target, "region_um", 4, at_least=4)
    ]
    x, y, width, height = corners
    if max(width, height) > LIMITS.region_um:
        raise too_large(f"a region of {width:g} x {height:g} um; at most {LIMITS.region_um:g} um a side")
    region_px(tissue.source, (x, y, width, height), tissue.bundle.config.um_per_px)  # an InputError outside the slide
    return Target(region_um=(x, y, width, height), sample=sample)


def read_dose(values: dict[str, Any]) -> tuple[list[str], list[float]]:
    """Genes and factors of a request, checked."""
    genes = [text({"genes": gene}, "genes") for gene in items(values, "genes", 50)]
    if values.get("factors") is None:
        return genes, DEFAULT_DOSES
    top = LIMITS.dose_max
    return genes, [float(as_number(f, "factors", 0, top)) for f in items(values, "factors", LIMITS.doses)]


def threads_of(tissue: Tissue, target: Target, *, dose: bool = False) -> int:
    """CPU threads that generate a target, or its dose strip: another number rounds otherwise."""
    return tissue.threads if dose or target.region_um is not None else PATCH_THREADS


def place_um(tissue: Tissue, target: Target) -> Rectangle:
    """x, y, width, height of what the image of a target shows."""
    config = tissue.bundle.config
    if target.region_um is None:
        x, y = tissue.source.xy_um_N2[target.number] - config.patch_um / 2
        return float(x), float(y), config.patch_um, config.patch_um
    x, y, width, height = region_px(tissue.source, target.region_um, config.um_per_px)
    um = config.um_per_px
    return x * um, y * um, width * um, height * um


def generate_target(
    tissue: Tissue, target: Target, edits: Sequence[Edit], settings: dict[str, Any], look: Look
) -> np.ndarray:
    """The image of a target after edits, uint8 [H, W, C]."""
    bundle, sampler = tissue.bundle, tissue.sampler(settings)
    if target.region_um is None:
        patch = tissue.patch(target.number, edits)
        seeds = np.array([image_seed(settings["seed"], str(target.cell), target.sample)])

        def decode(latents: Tensor) -> np.ndarray:
            return decode_patches(bundle, latents, seeds)[0]

        return sample_patches(bundle, patch.placed, seeds, sampler, lambda latents: look(latents, decode))[0]
    pixels = region_px(tissue.source, target.region_um, bundle.config.um_per_px)
    region, seed = StandAloneRegion(bundle, tissue.edited(edits), pixels), settings["seed"] + target.sample

    def decode_region(latents: Tensor) -> np.ndarray:
        return canvas_pixels(bundle, latents, region.area, pixels, seed)

    return region.generate(seed, sampler, lambda latents: look(latents, decode_region))
