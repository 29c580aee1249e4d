"""A region generated alone: one canvas with one fixed halo, which one call of the network denoises at every evaluation.

The slide of :mod:`sge2hist.generation.slide.tiling` has the same pixels whatever region is generated, at the price of a halo that
grows by a receptive radius with every evaluation. A stand-alone canvas costs little more than the region itself; its pixels
depend on the region that is asked for. Noise is a function of the position and the seed, as for a slide.

Shape letters: L latent channels, h w latent pixels, H W pixels, C image channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import numpy as np
import torch
from torch import Tensor

from sge2hist.devices import fast_arithmetic
from sge2hist.generation.slide.tiling import DECODER_NOISE_STREAM, Area, Lattice, canvas_noise
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.image.conditioning import PlacedCells
from sge2hist.models.image.samplers import SamplerConfig, Visit, sample

CANVAS_HALO = 8
"""Latent pixels beyond the region on every side; the decoder reads about as many."""
Rectangle = tuple[float, float, float, float]
RegionPx = tuple[int, int, int, int]


def canvas_area(lattice: Lattice, region_px: RegionPx, network_px: int) -> Area:
    """Latent pixels of the canvas of a region (x, y, width, height in px); its sides are multiples of `network_px` latent pixels,
    the coarsest pixel of the network.
    """
    x, y, width, height = region_px
    d = lattice.downsampling
    top, left = y // d, x // d
    region = Area(top=top, left=left, height=-(-(y + height) // d) - top, width=-(-(x + width) // d) - left)
    return region.grown(CANVAS_HALO).on_grid(network_px)


def canvas_um(lattice: Lattice, area: Area, receptive_radius_um: float) -> Rectangle:
    """x, y, width, height in um of the rectangle whose cells condition a canvas."""
    um, r = lattice.um_per_latent_px, receptive_radius_um
    return (area.left * um - r, area.top * um - r, area.width * um + 2 * r, area.height * um + 2 * r)


@torch.no_grad()
def sample_canvas(
    bundle: ModelBundle, cells: PlacedCells, area: Area, seed: int, sampler: SamplerConfig, visit: Visit | None = None
) -> Tensor:
    """Latents [1, L, h, w] of a canvas; `cells` are placed from its top left corner. `visit`: as of `samplers.sample`."""
    model = bundle.model.image
    device = next(model.parameters()).device
    steps = model.denoiser.evaluations(sampler)
    noises = _noises(area, model.latent_channels, seed, device)
    with fast_arithmetic(device):
        denoise = model.guided_denoiser(
            cells.to(device), (area.height, area.width), sampler, [step.sigma for step in steps]
        )
        first = next(noises) * model.denoiser.sigmas(sampler)[0]
        return sample(denoise, first, steps, lambda: next(noises), visit)


def _noises(area: Area, channels: int, seed: int, device: torch.device) -> Iterator[Tensor]:
    """Noise of the start and of each evaluation, [1, L, h, w]."""
    for stream in count():
        yield canvas_noise(area, channels, seed, stream)[None].to(device)


@torch.no_grad()
def canvas_pixels(bundle: ModelBundle, latents: Tensor, area: Area, region_px: RegionPx, seed: int) -> np.ndarray:
    """The region cut from the decoded canvas, uint8 [H, W, C]."""
    model = bundle.model.image
    n_noise = model.n_decoder_noise
    noise = canvas_noise(area, n_noise, seed, DECODER_NOISE_STREAM)[None].to(latents.device) if n_noise else None
    with fast_arithmetic(latents.device):
        image = model.to_image(latents, noise)[0].cpu()
    x, y, width, height = region_px
    left, top = x - area.left * model.downsampling, y - area.top * model.downsampling
    inner = image[:, top : top + height, left : left + width]
    return ((inner + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
