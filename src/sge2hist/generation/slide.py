"""The H&E of a whole section, or of a region of it, from expression and positions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sge2hist.data.cell_index import CellIndex
from sge2hist.generation.canvas import NOISE_TILE, Area, CanvasDenoiser, PlaceCells, canvas_noise
from sge2hist.generation.cell_latents import CellLatents
from sge2hist.generation.drawing import fast_arithmetic
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.image_model import SamplerConfig
from sge2hist.models.placed_cells import MODE_ALL, PlacedCells
from sge2hist.models.samplers import SAMPLERS

DECODER_HALO = 16  # latent pixels around a tile that its decoded pixels may depend on
DEFAULT_GLASS = (243, 243, 243)


@dataclass(frozen=True, kw_only=True)
class SlideCells:
    """Cells of one slide, ready to be placed. Positions in um from the slide's top left corner."""

    index: CellIndex  # over source rows
    slide: int
    latents: CellLatents


def draw_region(
    bundle: ModelBundle,
    cells: SlideCells,
    region_um: tuple[float, float, float, float],
    *,
    seed: int = 0,
    sampler: SamplerConfig | None = None,
    glass_rgb: tuple[int, int, int] = DEFAULT_GLASS,
    batch: int = 64,
    progress: Callable[[int], None] = lambda n: None,
) -> tuple[Tensor, Area, Area]:
    """Draw the latents of a region (x, y, width, height in um).

    Returns (latents [1, L, h, w], the area they cover, the inner area that is wanted). The inner area does not depend on the
    region's size: the canvas is larger by all that it depends on (a window less one pixel per sampling step).
    """
    sampler = sampler or bundle.config.sampler
    model, config = bundle.model.image, bundle.config
    if sampler.sampler not in SAMPLERS or sampler.guidance != 1:
        raise ValueError("a slide is drawn by a deterministic sampler without guidance")
    side = config.patch_px // model.downsampling
    um = config.um_per_px * model.downsampling
    x, y, width, height = region_um
    top, left = int(np.floor(y / um)), int(np.floor(x / um))
    inner = Area(
        top=top, left=left, height=int(np.ceil((y + height) / um)) - top, width=int(np.ceil((x + width) / um)) - left
    ).grown(DECODER_HALO)
    sigmas = model.sigmas(sampler)
    n_evaluations = sum(sigma > 0 for sigma in sigmas)
    area = inner.grown(n_evaluations * (side - 1) + side).snapped(max(NOISE_TILE, side // 2))
    with fast_arithmetic(next(model.parameters()).device):
        denoise = CanvasDenoiser(
            model, area, inner, _placer(cells, config.reach_um, um, side), _glass(bundle, glass_rgb), sigmas,
            side=side, batch=batch, progress=progress,
        )  # fmt: skip
        noise = canvas_noise(area, model.latent_channels, seed)
        latents = SAMPLERS[sampler.sampler](denoise, noise * sigmas[0], sigmas)
    return latents, area, inner


def decode_tiles(
    bundle: ModelBundle, latents: Tensor, area: Area, top_left_px: tuple[int, int], shape: tuple[int, int], tile_px: int
) -> Iterator[np.ndarray]:
    """Pixels of a region, as full tiles uint8 [tile_px, tile_px, 3] in row-major order (edges padded with white)."""
    model = bundle.model.image
    d = model.downsampling
    device = next(model.parameters()).device
    for y in range(0, shape[0], tile_px):
        for x in range(0, shape[1], tile_px):
            top, left = top_left_px[0] + y, top_left_px[1] + x
            i = max(top // d - DECODER_HALO - area.top, 0)
            j = max(left // d - DECODER_HALO - area.left, 0)
            n = -(-tile_px // d) + 2 * DECODER_HALO + 1
            with torch.no_grad(), fast_arithmetic(device):
                image = model.to_image(latents[:, :, i : i + n, j : j + n].to(device))[0].cpu()
            dy, dx = top - (i + area.top) * d, left - (j + area.left) * d
            height, width = min(tile_px, shape[0] - y), min(tile_px, shape[1] - x)
            part = image[:, dy : dy + height, dx : dx + width]
            tile = np.full((tile_px, tile_px, 3), 255, np.uint8)
            tile[:height, :width] = ((part + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
            yield tile


def _placer(cells: SlideCells, reach_um: float, um: float, side: int) -> PlaceCells:
    half_um = side * um / 2

    def place(corners: np.ndarray) -> tuple[PlacedCells, np.ndarray]:
        centre_um_B2 = corners[:, ::-1] * um + half_um
        slide_B = np.full(len(corners), cells.slide)
        row_M, image_M = cells.index.within(slide_B, centre_um_B2, half_um + reach_um)
        occupied_B = np.bincount(image_M, minlength=len(corners)) > 0
        number = np.cumsum(occupied_B) - 1
        at = cells.latents.find(row_M)
        xy = cells.index.centre_um_N2[row_M] - centre_um_B2[image_M] + half_um
        n = int(occupied_B.sum())
        return PlacedCells(
            z_MZ=torch.from_numpy(cells.latents.mean_NZ[at]),
            depth_M=torch.from_numpy(cells.latents.depth_N[at]),
            xy_um_M2=torch.from_numpy(xy.astype(np.float32)),
            image_M=torch.from_numpy(number[image_M]),
            mode_B=torch.full((n,), MODE_ALL),
            slide_B=torch.zeros(n, dtype=torch.long),
        ), occupied_B

    return place


@torch.no_grad()
def _glass(bundle: ModelBundle, glass_rgb: tuple[int, int, int]) -> Tensor:
    """Latent of empty glass, [L]."""
    model = bundle.model.image
    device = next(model.parameters()).device
    colour = torch.tensor(glass_rgb, dtype=torch.float32, device=device) / 127.5 - 1
    latent = model.to_latent(colour[None, :, None, None].expand(1, 3, 128, 128))
    return latent[0, :, latent.shape[2] // 2, latent.shape[3] // 2].float().cpu()
