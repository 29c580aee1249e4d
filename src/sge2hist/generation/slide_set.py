"""A generated slide on disk: ``slide.ome.tif`` (pyramidal, marked synthetic) and the manifest that says how it was made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from sge2hist.data.cell_index import CellIndex
from sge2hist.data.errors import InputError
from sge2hist.data.files import atomic_directory, check_output, require_disk_space, write_manifest
from sge2hist.data.paired import PairedDataset
from sge2hist.data.slide_writer import TILE_PX, write_slide
from sge2hist.generation.cell_latents import encode_cells
from sge2hist.generation.set import KIND
from sge2hist.generation.slide import SlideCells, decode_tiles, draw_region
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.image_model import SamplerConfig
from sge2hist.models.samplers import SAMPLERS

SLIDE_NAME = "slide.ome.tif"


def generate_slide(
    bundle: ModelBundle,
    dataset: PairedDataset,
    output: str | Path,
    *,
    slide: int = 0,
    region_um: tuple[float, float, float, float] | None = None,
    seed: int = 0,
    sampler: SamplerConfig | None = None,
    batch: int = 64,
    overwrite: bool = False,
    progress: Callable[[int], None] = lambda n: None,
) -> Path:
    """Draw the whole section, or a region (x, y, width, height in um) of it, from the RNA and the positions of its cells.

    Returns the path of the written slide. `progress` counts denoised windows.

    Raises
    ------
    InputError
        If the output exists, the region is empty or off the slide, or the sampler needs fresh noise or guidance.
    """
    check_output(output, overwrite=overwrite)
    sampler = sampler or bundle.config.sampler
    if sampler.sampler not in SAMPLERS or sampler.guidance != 1 or bundle.config.image.condition.kind != "map":
        raise InputError(
            found=f"sampler {sampler.sampler}, guidance {sampler.guidance:g}, preset {bundle.config.preset}",
            expected=f"one of {', '.join(SAMPLERS)}, guidance 1 and a model of placed cells, for a slide",
        )
    region_um = _checked(region_um, dataset, slide)
    um_per_px = bundle.config.um_per_px
    x, y, width, height = (round(value / um_per_px) for value in region_um)
    require_disk_space(output, 3 * width * height)
    rows = np.flatnonzero(dataset.slide_of_cell == slide)
    latents = encode_cells(bundle, dataset.counts, dataset.genes, rows)
    index = CellIndex(dataset.centre_xy_px * dataset.um_per_px, dataset.slide_of_cell)
    canvas, area, _ = draw_region(
        bundle, SlideCells(index=index, slide=slide, latents=latents), region_um,
        seed=seed, sampler=sampler, batch=batch, progress=progress,
    )  # fmt: skip
    with atomic_directory(output, overwrite=overwrite) as partial:
        tiles = decode_tiles(bundle, canvas, area, (y, x), (height, width), TILE_PX)
        note = "synthetic image generated from gene expression by sge2hist; not for diagnosis"
        write_slide(partial / SLIDE_NAME, tiles, um_per_px, shape=(height, width), description=note)
        write_manifest(
            partial, KIND, synthetic=True, mode="slide", slide=dataset.slide_ids[slide], region_um=list(region_um),
            model_fingerprint=bundle.fingerprint, data_fingerprint=dataset.fingerprint, um_per_px=um_per_px,
            sampler=asdict(sampler), seed=seed, toy=bundle.is_toy or dataset.is_toy, n_images=0,
        )  # fmt: skip
    return Path(output) / SLIDE_NAME


def _checked(
    region_um: tuple[float, float, float, float] | None, dataset: PairedDataset, slide: int
) -> tuple[float, float, float, float]:
    """The region, by default the whole slide; it must lie on the slide."""
    width_um, height_um = (
        dataset.manifest["slides"][slide][side] * dataset.um_per_px for side in ("width_px", "height_px")
    )
    if region_um is None:
        return 0.0, 0.0, width_um, height_um
    x, y, width, height = region_um
    if width <= 0 or height <= 0 or x < 0 or y < 0 or x + width > width_um + 1 or y + height > height_um + 1:
        raise InputError(
            found=f"--region {x:g},{y:g},{width:g},{height:g}",
            expected=f"x,y,width,height in um on a slide of {width_um:g} x {height_um:g} um",
        )
    return region_um
