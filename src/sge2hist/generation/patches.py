"""Draws a job's images in batches, into memory or onto disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np

from sge2hist.data.artifacts import check_output, require_disk_space
from sge2hist.data.errors import InputError
from sge2hist.data.generated import KIND, GeneratedSet, generated_set_writer
from sge2hist.generation.parallel import parallel_batches
from sge2hist.generation.requests import GenerationRequest
from sge2hist.generation.upsample import check_upsampler, upsample_images
from sge2hist.generation.windows import draw
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.image.image_model import SamplerConfig
from sge2hist.models.upsampler_bundle import UpsamplerBundle

BATCH = 64


def image_batches(
    bundle: ModelBundle,
    job: GenerationRequest,
    sampler: SamplerConfig | None = None,
    *,
    batch: int = BATCH,
    upsampler: UpsamplerBundle | None = None,
) -> Iterator[np.ndarray]:
    """Yield images, uint8 [<= batch, P, P, C], in the order of the job's table; P is the model's, or as enlarged.

    `batch`: images under way, on a CPU shared among its threads.
    """

    def drawn(part: slice) -> np.ndarray:
        seeds = job.obs["seed"].to_numpy()[part]
        images = draw(bundle, job.windows(part), seeds, sampler or bundle.config.sampler)
        return images if upsampler is None else upsample_images(upsampler, images, seeds)

    return parallel_batches(drawn, len(job), batch, next(bundle.model.parameters()).device)


def generate(
    bundle: ModelBundle,
    job: GenerationRequest,
    output: str | Path,
    *,
    sampler: SamplerConfig | None = None,
    upsampler: UpsamplerBundle | None = None,
    seed: int = 0,
    batch: int = BATCH,
    overwrite: bool = False,
    progress: Callable[[int], None] = lambda n: None,
) -> GeneratedSet:
    """Draw all images of a job into the folder `output`; memory does not grow with their number.

    Raises
    ------
    InputError
        If `output` exists and `overwrite` is false, if the disk is too small, or if the upsampler enlarges other images.
    """
    check_output(output, overwrite=overwrite, kind=KIND)
    if len(job) == 0:
        raise InputError(found="no cell to draw", expected="at least one")
    factor = 1
    if upsampler is not None:
        check_upsampler(upsampler, bundle)
        factor = upsampler.config.factor
    patch_px = bundle.config.patch_px * factor
    require_disk_space(output, len(job) * patch_px**2 * len(bundle.config.channels))  # at most
    sampler = sampler or bundle.config.sampler
    manifest = {
        "model_fingerprint": bundle.fingerprint,
        "model_preset": bundle.config.preset,
        "upsampler_fingerprint": None if upsampler is None else upsampler.fingerprint,
        "um_per_px": bundle.config.um_per_px / factor,
        "patch_um": bundle.config.patch_um,
        "patch_px": patch_px,
        "channels": bundle.config.channels,
        "n_samples": int(job.obs["sample"].max()) + 1 if len(job) else 0,
        "sampler": asdict(sampler),
        "seed": seed,
        **job.manifest,
    }
    with generated_set_writer(output, job.obs, job.latents, manifest, overwrite=overwrite) as writer:
        for images in image_batches(bundle, job, sampler, batch=batch, upsampler=upsampler):
            writer.add(images)
            progress(len(images))
    return GeneratedSet.open(output)
