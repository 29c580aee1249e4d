"""Cells placed on patches, and the sampling of a batch of patches.

Shape letters: B patches, M cells of all patches together, Z latent dims (T of z1 first), P side of a patch in px, C channels.
"""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from sge2hist.data.spatial_index import CellIndex
from sge2hist.devices import fast_arithmetic
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.image.conditioning import MODE_ALL, MODE_SINGLE_CELL, PlacedCells
from sge2hist.models.image.samplers import SamplerConfig, Visit

HOMOTYPIC_STREAM = 5
"""Separates the samples of the cells of a homotypic patch from the noise of its image, which has the same seed."""


def single_cells(z_BZ: np.ndarray, depth_B: np.ndarray, side_um: float, slide: int = 0) -> PlacedCells:
    """One cell at the centre of each patch; the image is not conditioned on what else is there."""
    B = len(z_BZ)
    return PlacedCells(
        z_MZ=_float(z_BZ),
        depth_M=_float(depth_B),
        xy_um_M2=torch.full((B, 2), side_um / 2),
        image_M=torch.arange(B),
        mode_B=torch.full((B,), MODE_SINGLE_CELL),
        slide_B=torch.full((B,), slide),
    )


def homotypic_cells(
    z_BZ: np.ndarray,
    z1_std_BT: np.ndarray,
    depth_B: np.ndarray,
    seed_B: np.ndarray,
    *,
    side_um: float,
    receptive_radius_um: float,
    spacing_um: float,
) -> PlacedCells:
    """Each patch full of cells like one, on a lattice that continues beyond its edges: tissue of such cells.

    z1 of each cell is a sample of standard deviation `z1_std_BT` around that of `z_BZ`; identical copies would be more uniform
    than any tissue. The samples of image i are a function of `seed_B[i]`.
    """
    margin_um = side_um / 2 + receptive_radius_um
    start_um = side_um / 2 - spacing_um * np.ceil(margin_um / spacing_um)
    line_um = np.arange(start_um, side_um + receptive_radius_um, spacing_um)
    y, x = np.meshgrid(line_um, line_um, indexing="ij")
    xy_um = np.stack([x.ravel(), y.ravel()], 1)
    B, n_cells, n_type = len(z_BZ), len(xy_um), z1_std_BT.shape[1]
    z_BMZ = np.repeat(z_BZ[:, None].astype(np.float32), n_cells, 1)
    for z_MZ, std_T, seed in zip(z_BMZ, z1_std_BT, seed_B, strict=True):
        noise = np.random.default_rng([int(seed), HOMOTYPIC_STREAM]).standard_normal((n_cells, n_type), np.float32)
        z_MZ[:, :n_type] += std_T * noise
    return PlacedCells(
        z_MZ=_float(z_BMZ.reshape(B * n_cells, -1)),
        depth_M=_float(np.repeat(depth_B, n_cells)),
        xy_um_M2=_float(np.tile(xy_um, (B, 1))),
        image_M=torch.arange(B).repeat_interleave(n_cells),
        mode_B=torch.full((B,), MODE_ALL),
        slide_B=torch.zeros(B, dtype=torch.long),
    )


def neighbour_cells(
    index: CellIndex,
    slide_B: np.ndarray,
    centre_um_B2: np.ndarray,
    *,
    side_um: float,
    receptive_radius_um: float,
    slide: int = 0,
    outline_um_NV2: np.ndarray | None = None,
) -> tuple[np.ndarray, PlacedCells]:
    """Patches around points of a section, with all cells that condition them.

    `slide_B` are the slides of the section that the points lie on; `slide` is the stain to generate (`PlacedCells.slide_B`);
    `outline_um_NV2` are vertices of all cells of the section, from the centre of each (None: points).
    Returns the rows [M] of the cells in `index`, and the cells without latents: see :func:`with_latents`.
    """
    row_M, image_M = index.within(slide_B, centre_um_B2, side_um / 2 + receptive_radius_um)
    xy_um_M2 = index.centre_um_N2[row_M] - centre_um_B2[image_M] + side_um / 2
    outline_MV2 = None if outline_um_NV2 is None else _float(outline_um_NV2[row_M] + xy_um_M2[:, None])
    return row_M, PlacedCells(
        z_MZ=torch.zeros(len(row_M), 0),
        depth_M=torch.zeros(len(row_M)),
        xy_um_M2=_float(xy_um_M2),
        image_M=torch.from_numpy(image_M),
        mode_B=torch.full((len(slide_B),), MODE_ALL),
        slide_B=torch.full((len(slide_B),), slide),
        outline_MV2=outline_MV2,
    )


def with_latents(cells: PlacedCells, z_MZ: np.ndarray, depth_M: np.ndarray) -> PlacedCells:
    """The same cells with these latents and depths."""
    return replace(cells, z_MZ=_float(z_MZ), depth_M=_float(depth_M))


def _float(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))


def image_seed(seed: int, key: str, sample: int) -> int:
    """Seed of one image, below 2^62: a function of the user's seed, the cell or type, and the number of the sample."""
    return int(np.random.SeedSequence([seed, zlib.crc32(key.encode()), sample]).generate_state(1, np.uint64)[0] >> 2)


def sample_patches(
    bundle: ModelBundle, cells: PlacedCells, seeds: np.ndarray, sampler: SamplerConfig, visit: Visit | None = None
) -> np.ndarray:
    """Sample one image per patch, uint8 [B, P, P, C]; image i depends on its cells and seeds[i] alone.

    `visit` sees the denoised latents of every evaluation (:func:`sge2hist.models.image.samplers.sample`).
    """
    model, config = bundle.model.image, bundle.config
    device = next(model.parameters()).device
    side = config.patch_px // model.downsampling
    with fast_arithmetic(device):
        image = model.sample(cells.to(device), [int(s) for s in seeds], (side, side), sampler, visit)
    return _pixels(image)


def decode_patches(bundle: ModelBundle, latents: Tensor, seeds: np.ndarray) -> np.ndarray:
    """Images of latents [B, L, h, w], such as `visit` of :func:`sample_patches` sees: uint8 [B, P, P, C]."""
    with fast_arithmetic(latents.device):
        return _pixels(bundle.model.image.decoded(latents, [int(s) for s in seeds]))


def _pixels(image_BCHW: Tensor) -> np.ndarray:
    return ((image_BCHW + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
