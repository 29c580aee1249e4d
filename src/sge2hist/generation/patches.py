"""Images of a request, batch by batch, in memory or as a folder ``X.generated``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np

from sge2hist.data.artifacts import check_output, require_disk_space
from sge2hist.data.errors import InputError
from sge2hist.data.generated import KIND, GeneratedSet, generated_set_writer
from sge2hist.data.output_lock import locks_output
from sge2hist.generation.look import look_of
from sge2hist.generation.requests import GenerationRequest
from sge2hist.generation.upsample import check_upsampler, upsample_images
from sge2hist.generation.windows import sample_patches
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.image.samplers import SamplerConfig
from sge2hist.models.upsampler_bundle import UpsamplerBundle
from sge2hist.parallel import parallel_batches

BATCH = 64


def image_batches(
    bundle: ModelBundle,
    request: GenerationRequest,
    sampler: SamplerConfig | None = None,
    *,
    batch: int = BATCH,
    upsampler: UpsamplerBundle | None = None,
) -> Iterator[np.ndarray]:
    """Yield images, uint8 [<= batch, P, P, C], in the order of the request's table; an upsampler multiplies P.

    `batch`: images in memory at one time; on a CPU its threads share them.
    """
    seed_N = request.obs["seed"].to_numpy()

    def generate_part(part: slice) -> np.ndarray:
        cells = request.placed_cells(part)
        images = sample_patches(bundle, cells, seed_N[part], sampler or bundle.config.sampler)
        return images if upsampler is None else upsample_images(upsampler, images, seed_N[part])

    return parallel_batches(generate_part, len(request), batch, next(bundle.model.parameters()).device)


@locks_output()
def generate(
    bundle: ModelBundle,
    request: GenerationRequest,
    output: str | Path,
    *,
    sampler: SamplerConfig | None = None,
    upsampler: UpsamplerBundle | None = None,
    render: str | None = None,
    roles: str | None = None,
    seed: int = 0,
    batch: int = BATCH,
    overwrite: bool = False,
    progress: Callable[[int], None] = lambda n: None,
) -> GeneratedSet:
    """Generate all images of a request into the folder `output`; memory does not grow with their number.

    `render` "virtual-he" writes the stains of a fluorescence model as H&E colours (`roles`: `data.virtual_he.choose_stains`).
    `seed` is written to the manifest; the seed of each image is in the request. `progress` counts images.

    Raises
    ------
    InputError
        If `output` exists and `overwrite` is false, if the disk is too small, or if the upsampler does not fit the model.
    """
    check_output(output, overwrite=overwrite, kind=KIND)
    look = look_of(bundle, render, roles)
    if len(request) == 0:
        raise InputError(found="no cell to generate", expected="at least one")
    factor = 1
    if upsampler is not None:
        check_upsampler(upsampler, bundle)
        factor = upsampler.config.factor
    patch_px = bundle.config.patch_px * factor
    require_disk_space(output, len(request) * patch_px**2 * len(look.channels))  # at most: without compression
    sampler = sampler or bundle.config.sampler
    manifest = {
        "model_fingerprint": bundle.fingerprint,
        "model_preset": bundle.config.preset,
        "trained_on": bundle.trained_on,
        "upsampler_fingerprint": None if upsampler is None else upsampler.fingerprint,
        "um_per_px": bundle.config.um_per_px / factor,
        "patch_um": bundle.config.patch_um,
        "patch_px": patch_px,
        **look.manifest,
        "n_samples": int(request.obs["sample"].max()) + 1,
        "sampler": asdict(sampler),
        "seed": seed,
        **request.manifest,
    }
    with generated_set_writer(output, request.obs, request.latents, manifest, overwrite=overwrite) as writer:
        for images in image_batches(bundle, request, sampler, batch=batch, upsampler=upsampler):
            writer.add(look.apply(images))
            progress(len(images))
    return GeneratedSet.open(output)
