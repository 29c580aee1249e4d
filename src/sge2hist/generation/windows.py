"""Placed cells and seeds -> images, batch by batch."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from sge2hist.data.spatial_index import CellIndex
from sge2hist.devices import fast_arithmetic
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.image.conditioning import MODE_ALL, MODE_CENTRE, PlacedCells
from sge2hist.models.image.image_model import SamplerConfig

FIELD_STREAM = 5
"""Sets the draws of the cells of a field apart from the noise of its image, which has the same seed."""


@dataclass(frozen=True, kw_only=True)
class Windows:
    """B canvases and the cells of each: what :class:`PlacedCells` needs, as arrays."""

    z_MZ: np.ndarray
    depth_M: np.ndarray
    xy_um_M2: np.ndarray
    image_M: np.ndarray
    mode_B: np.ndarray
    slide_B: np.ndarray

    def placed(self, device: torch.device) -> PlacedCells:
        """Return the same as tensors."""
        return PlacedCells(
            z_MZ=torch.from_numpy(self.z_MZ.astype(np.float32)),
            depth_M=torch.from_numpy(self.depth_M.astype(np.float32)),
            xy_um_M2=torch.from_numpy(self.xy_um_M2.astype(np.float32)),
            image_M=torch.from_numpy(self.image_M.astype(np.int64)),
            mode_B=torch.from_numpy(self.mode_B.astype(np.int64)),
            slide_B=torch.from_numpy(self.slide_B.astype(np.int64)),
        ).to(device)


def image_seed(seed: int, key: str, sample: int) -> int:
    """Seed of one image, below 2^62: a function of the user's seed, what the image is of, and the sample's number."""
    return int(np.random.SeedSequence([seed, zlib.crc32(key.encode()), sample]).generate_state(1, np.uint64)[0] >> 2)


def lone_cells(z_BZ: np.ndarray, depth_B: np.ndarray, side_um: float, slide: int = 0) -> Windows:
    """One cell at the centre of each canvas, and nothing known around it."""
    B = len(z_BZ)
    return Windows(
        z_MZ=z_BZ,
        depth_M=depth_B,
        xy_um_M2=np.full((B, 2), side_um / 2),
        image_M=np.arange(B),
        mode_B=np.full(B, MODE_CENTRE),
        slide_B=np.full(B, slide),
    )


def cell_fields(
    z_BZ: np.ndarray,
    spread_BT: np.ndarray,
    depth_B: np.ndarray,
    seed_B: np.ndarray,
    *,
    side_um: float,
    reach_um: float,
    spacing_um: float,
) -> Windows:
    """Each canvas full of cells like one, on a lattice that goes on beyond its edges: tissue of such cells.

    The leading T dims of each cell are its own draw, of standard deviation `spread_BT` around `z_BZ`; identical copies would be
    purer than any tissue. The draws of image i are a function of `seed_B[i]`.
    """
    line_um = np.arange(
        side_um / 2 - spacing_um * np.ceil((side_um / 2 + reach_um) / spacing_um), side_um + reach_um, spacing_um
    )
    y, x = np.meshgrid(line_um, line_um, indexing="ij")
    xy_um = np.stack([x.ravel(), y.ravel()], 1)
    B, m = len(z_BZ), len(xy_um)
    z_BMZ = np.repeat(z_BZ[:, None].astype(np.float32), m, 1)
    n_drawn = spread_BT.shape[1]
    for z_MZ, spread_T, seed in zip(z_BMZ, spread_BT, seed_B, strict=True):
        noise = np.random.default_rng([int(seed), FIELD_STREAM]).standard_normal((m, n_drawn), np.float32)
        z_MZ[:, :n_drawn] += spread_T * noise
    return Windows(
        z_MZ=z_BMZ.reshape(B * m, -1),
        depth_M=np.repeat(depth_B, m).astype(np.float32),
        xy_um_M2=np.tile(xy_um, (B, 1)),
        image_M=np.repeat(np.arange(B), m),
        mode_B=np.full(B, MODE_ALL),
        slide_B=np.zeros(B, np.int64),
    )


def neighbourhoods(
    index: CellIndex,
    slide_B: np.ndarray,
    centre_um_B2: np.ndarray,
    *,
    side_um: float,
    reach_um: float,
    stain: int,
) -> tuple[np.ndarray, Windows]:
    """Canvases around points with all cells in and near them. Returns (rows [M] of the cells, windows without latents)."""
    row_M, image_M = index.within(slide_B, centre_um_B2, side_um / 2 + reach_um)
    xy_um_M2 = index.centre_um_N2[row_M] - centre_um_B2[image_M] + side_um / 2
    empty = np.zeros((len(row_M), 0), np.float32)
    return row_M, Windows(
        z_MZ=empty,
        depth_M=np.zeros(len(row_M), np.float32),
        xy_um_M2=xy_um_M2,
        image_M=image_M,
        mode_B=np.full(len(slide_B), MODE_ALL),
        slide_B=np.full(len(slide_B), stain),
    )


def draw(bundle: ModelBundle, windows: Windows, seeds: np.ndarray, sampler: SamplerConfig) -> np.ndarray:
    """Draw one image per canvas, uint8 [B, P, P, C]; image i depends on its cells and seeds[i] alone."""
    model, config = bundle.model.image, bundle.config
    device = next(model.parameters()).device
    side = config.patch_px // model.downsampling
    with fast_arithmetic(device):
        image = model.sample(windows.placed(device), [int(s) for s in seeds], (side, side), sampler)
    return ((image + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()


def batches(n: int, size: int) -> Iterator[slice]:
    """Slices that cover range(n)."""
    for start in range(0, n, size):
        yield slice(start, min(n, start + size))
