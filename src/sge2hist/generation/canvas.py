"""A canvas of any size, denoised by overlapping windows that are fused at every sampling step (Bar-Tal et al. 2023).

The windows have the size that the network was trained on and stand on one fixed lattice; noise is a function of the place. So
what is drawn at a place does not depend on how large the canvas is, as long as it holds everything that the place depends on.
Shape letters: L latent channels, h w latent pixels of the canvas, S side of a window in latent pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sge2hist.models.image_model import ImageModel
from sge2hist.models.placed_cells import PlacedCells

NOISE_TILE = 16  # latent pixels; noise is drawn tile by tile, each from its own seed


@dataclass(frozen=True, kw_only=True)
class Area:
    """A rectangle of latent pixels on the lattice of the whole slide."""

    top: int
    left: int
    height: int
    width: int

    def grown(self, by: int) -> Area:
        """The area with a margin on every side."""
        return Area(top=self.top - by, left=self.left - by, height=self.height + 2 * by, width=self.width + 2 * by)

    def snapped(self, step: int) -> Area:
        """The smallest area around it whose edges are multiples of `step`."""
        top, left = self.top // step * step, self.left // step * step
        bottom, right = -(-(self.top + self.height) // step) * step, -(-(self.left + self.width) // step) * step
        return Area(top=top, left=left, height=bottom - top, width=right - left)


def canvas_noise(area: Area, channels: int, seed: int) -> Tensor:
    """Standard normal noise [1, L, h, w] of an area whose edges are multiples of `NOISE_TILE`; the same at the same place."""
    out = torch.empty(1, channels, area.height, area.width)
    for i in range(0, area.height, NOISE_TILE):
        for j in range(0, area.width, NOISE_TILE):
            # places left of and above the slide have negative numbers; seed sequences take none
            place = [seed, area.top + i + 2**30, area.left + j + 2**30]
            tile_seed = int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0] >> 2)
            shape = (channels, NOISE_TILE, NOISE_TILE)
            tile = torch.randn(shape, generator=torch.Generator().manual_seed(tile_seed))
            out[0, :, i : i + NOISE_TILE, j : j + NOISE_TILE] = tile
    return out


def fusion_weights(side: int) -> Tensor:
    """Weight of each pixel of a window [S, S]: a pyramid. On a lattice of half a window the weights sum to one."""
    ramp = 1 - (torch.arange(side) + 0.5 - side / 2).abs() / (side / 2)
    return ramp[:, None] * ramp[None]


PlaceCells = Callable[[np.ndarray], tuple[PlacedCells, np.ndarray]]
"""Window corners int64 [B, 2] (top, left in latent pixels) -> their placed cells, and bool [B]: has it any cell?"""


class CanvasDenoiser:
    """`denoise(x, sigma)` of a whole canvas [1, L, h, w], as samplers want it.

    Windows without any cell are not run: they are empty glass. `sigmas` are the sampler's levels: at step k of n only what the
    inner area still depends on is denoised, a window's width less at every step.
    """

    def __init__(
        self, model: ImageModel, area: Area, inner: Area, place: PlaceCells, glass_L: Tensor, sigmas: list[float],
        *, side: int, batch: int = 64, progress: Callable[[int], None] = lambda n: None,
    ) -> None:  # fmt: skip
        self.model, self.area, self.place, self.glass_L = model, area, place, glass_L
        self.side, self.batch, self.progress = side, batch, progress
        self.weights = fusion_weights(side)
        steps = [sigma for sigma in sigmas if sigma > 0]
        self.reach_of = {sigma: (len(steps) - 1 - k) * (side - 1) for k, sigma in enumerate(steps)}
        self.inner = inner

    def corners(self, sigma: float) -> np.ndarray:
        """Corners (top, left) of the windows that matter at a noise level, int64 [n, 2]; on the lattice of the slide."""
        wanted = self.inner.grown(self.reach_of[sigma])
        half = self.side // 2
        top = max(self.area.top, (wanted.top // half - 1) * half)
        left = max(self.area.left, (wanted.left // half - 1) * half)
        bottom = min(self.area.top + self.area.height - self.side, wanted.top + wanted.height - 1)
        right = min(self.area.left + self.area.width - self.side, wanted.left + wanted.width - 1)
        i, j = np.meshgrid(np.arange(top, bottom + 1, half), np.arange(left, right + 1, half), indexing="ij")
        return np.stack([i.ravel(), j.ravel()], 1)

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """Expected clean canvas; places that no longer matter are left at zero."""
        fused, mass = torch.zeros_like(x), torch.zeros_like(x[:, :1])
        corners = self.corners(sigma)
        for start in range(0, len(corners), self.batch):
            part = corners[start : start + self.batch]
            for (top, left), window in zip(part, self._windows(x, part, sigma), strict=True):
                i, j = top - self.area.top, left - self.area.left
                fused[0, :, i : i + self.side, j : j + self.side] += self.weights * window
                mass[0, :, i : i + self.side, j : j + self.side] += self.weights
            self.progress(len(part))
        return fused / mass.clamp_min(1e-6)

    @torch.no_grad()
    def _windows(self, x: Tensor, corners: np.ndarray, sigma: float) -> Tensor:
        """Denoised windows [B, L, S, S], float32 on the CPU."""
        device = next(self.model.parameters()).device
        out = self.glass_L[None, :, None, None].expand(len(corners), -1, self.side, self.side).clone()
        cells, occupied_B = self.place(corners)
        if not occupied_B.any():
            return out
        own = corners[occupied_B] - [self.area.top, self.area.left]
        noisy = torch.stack([x[0, :, i : i + self.side, j : j + self.side] for i, j in own]).to(device)
        condition = self.model.encode_cells(cells.to(device), (self.side, self.side))
        denoised = self.model.denoise(noisy, torch.full((len(noisy),), sigma, device=device), condition)
        out[torch.from_numpy(occupied_B)] = denoised.float().cpu()
        return out
