"""Samples a slide block by block: every piece of work reads a few small files and writes one.

So memory does not grow with the slide, a killed run resumes, and any number of processes can share the work. There are two
kinds of work: for each evaluation k of the network *advance* a block (run its windows and take the sampler's step), and at the
end *decode* output tiles (latents -> pixels).

Shape letters: L latent channels, B side of a block, S side of a window, P side of an output tile in px, C image channels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sge2hist.data.artifacts import atomic_path
from sge2hist.devices import fast_arithmetic
from sge2hist.generation.slide.cells import CellRows, CellStore
from sge2hist.generation.slide.tile_store import TileIndex
from sge2hist.generation.slide.tiling import DECODER_NOISE_STREAM, Area, Lattice, SlidePlan, canvas_noise
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.image.conditioning import MODE_ALL, PlacedCells
from sge2hist.models.image.samplers import Evaluation, SamplerConfig, State
from sge2hist.parallel import parallel_batches

GLASS_TILE = "glass.npy"
GLASS_PX = 128  # side of the image of empty glass whose latent is used
CELLS_MULTIPLE = 64  # windows are padded to a multiple of this number of cells
PADDING_UM = -1e5  # position of the cells that pad a window


class SlideWorker:
    """Does any piece of the work on one slide with one seed.

    `folder` takes the files. `glass_rgb` is the colour of empty glass, one level per channel of the image.
    """

    def __init__(
        self,
        bundle: ModelBundle,
        plan: SlidePlan,
        cells: CellStore,
        steps: list[Evaluation],
        sigma_first: float,
        *,
        seed: int,
        folder: Path,
        glass_rgb: tuple[int, ...],
        sampler: SamplerConfig,
        batch: int = 64,
    ) -> None:
        self.bundle, self.plan, self.cells, self.steps, self.sigma_first = bundle, plan, cells, steps, sigma_first
        self.seed, self.folder, self.glass_rgb, self.sampler, self.batch = seed, folder, glass_rgb, sampler, batch
        self.lattice = plan.lattice
        self.model = bundle.model.image
        self.device = next(self.model.parameters()).device

    @cached_property
    @torch.no_grad()
    def glass_L(self) -> Tensor:
        """Latent of empty glass."""
        colour = torch.tensor(self.glass_rgb, dtype=torch.float32, device=self.device) / 127.5 - 1
        with fast_arithmetic(self.device):
            latent = self.model.to_latent(colour[None, :, None, None].expand(1, -1, GLASS_PX, GLASS_PX))
        return latent[0, :, latent.shape[2] // 2, latent.shape[3] // 2].float().cpu()

    def _glass(self, height: int, width: int) -> Tensor:
        """Latents of empty glass, [L, height, width]."""
        return self.glass_L[:, None, None].expand(-1, height, width).clone()

    def _state_file(self, k: int, block: TileIndex) -> Path:
        return self.folder / f"state{k}" / f"{block[0]}_{block[1]}.npy"

    # --- advance ---------------------------------------------------------------------------------------------------

    def advance(self, k: int, block: TileIndex) -> int:
        """Denoise a block and store its next state. Returns the number of windows."""
        corners = self.plan.tile_corners(k, block)
        path = self._state_file(k + 1, block)
        if not path.exists():
            state = self._state(k, block)
            assert state is not None, f"block {block} has no state {k}"
            noise = self._noise(self.lattice.block_area(block), k + 1)
            state = self.steps[k].update(state, self._denoised(k, block, corners), noise)
            _save(path, torch.stack(state).numpy())
        return len(corners)

    def _state(self, k: int, block: TileIndex) -> State | None:
        """State before evaluation k, each tensor [L, B, B]; None for blocks that are not stored."""
        if k == 0:
            if not self.plan.is_active(block):
                return None
            return (self._noise(self.lattice.block_area(block), 0)() * self.sigma_first,)
        path = self._state_file(k, block)
        return tuple(torch.from_numpy(np.load(path))) if path.exists() else None

    def _noise(self, area: Area, stream: int) -> Callable[[], Tensor]:
        return lambda: canvas_noise(area, self.lattice.latent_channels, self.seed, stream)

    def _canvas(self, k: int, area: Area) -> Tensor:
        """What evaluation k denoises, [L, h, w] of an area; zero where no block is stored."""
        out = torch.zeros(self.lattice.latent_channels, area.height, area.width)
        for block in area.tiles(self.lattice.block_side):
            state = self._state(k, block)
            if state is not None:
                _paste(out, area, state[0], self.lattice.block_area(block))
        return out

    def _denoised(self, k: int, block: TileIndex, corners: np.ndarray) -> Tensor:
        """The denoised block [L, B, B]: each window's answer for its tile; glass elsewhere."""
        area, side, halo = self.lattice.block_area(block), self.lattice.tile_side, self.lattice.halo
        read = area.grown(self.plan.overhang(k) + halo)
        noisy = self._canvas(k, read)
        cells = self.cells.neighbourhood(block)
        out = self._glass(area.height, area.width)

        def run(part: slice) -> Tensor:
            windows = corners[part] - halo
            placed = cells_of_windows(windows, cells, self.lattice, self.bundle.config.receptive_radius_um)
            return self._run_windows(noisy, windows - (read.top, read.left), placed, self.steps[k].sigma)

        answers = chain.from_iterable(parallel_batches(run, len(corners), self.batch, self.device))
        for (top, left), answer in zip(corners.tolist(), answers, strict=True):
            tile = Area(top=top, left=left, height=side, width=side)
            _paste(out, area, answer[:, halo : halo + side, halo : halo + side], tile)
        return out

    @torch.no_grad()
    def _run_windows(
        self, noisy: Tensor, corners: np.ndarray, placed: tuple[PlacedCells, np.ndarray], sigma: float
    ) -> Tensor:
        """Answers of the network [n, L, S, S], float32 on the CPU; glass for windows without cells."""
        side = self.lattice.window_side
        cells, occupied = placed
        out = self.glass_L[:, None, None].expand(len(corners), -1, side, side).clone()
        if not occupied.any():
            return out
        x = torch.stack([noisy[:, i : i + side, j : j + side] for i, j in corners[occupied]]).to(self.device)
        with fast_arithmetic(self.device):
            denoise = self.model.guided_denoiser(cells.to(self.device), (side, side), self.sampler, [sigma])
            answer = denoise(x, sigma)
        out[torch.from_numpy(occupied)] = answer.float().cpu()
        return out

    # --- decode ----------------------------------------------------------------------------------------------------

    def output_file(self, tile: TileIndex) -> Path:
        """Where the pixels of an output tile are stored."""
        if self.plan.is_glass(tile):
            return self.folder / GLASS_TILE
        return self.folder / "tile0" / f"{tile[0]}_{tile[1]}.npy"

    def decode(self, tile: TileIndex) -> None:
        """Decode and store an output tile."""
        path = self.output_file(tile)
        if not path.exists():
            area = self.plan.decoded_area(tile)
            latents = self._glass(area.height, area.width)
            for block in area.tiles(self.lattice.block_side):
                stored = self._state_file(len(self.steps), block)
                if stored.exists():
                    _paste(latents, area, torch.from_numpy(np.load(stored))[0], self.lattice.block_area(block))
            n_noise = self.model.n_decoder_noise
            noise = canvas_noise(area, n_noise, self.seed, DECODER_NOISE_STREAM) if n_noise else None
            _save(path, self._pixels(latents, noise))

    def decode_glass(self) -> None:
        """Decode and store the output tile of empty glass."""
        path = self.folder / GLASS_TILE
        if not path.exists():
            area = self.plan.decoded_area((0, 0))
            _save(path, self._pixels(self._glass(area.height, area.width)))

    @torch.no_grad()
    def _pixels(self, latents: Tensor, decoder_noise: Tensor | None = None) -> np.ndarray:
        """uint8 [P, P, C] of the latents of an output tile and its halo."""
        noise = None if decoder_noise is None else decoder_noise[None].to(self.device)
        with fast_arithmetic(self.device):
            image = self.model.to_image(latents[None].to(self.device), noise)[0].cpu()
        d = self.lattice.downsampling
        size = self.lattice.output_tile_side * d
        margin = (latents.shape[1] * d - size) // 2
        inner = image[:, margin : margin + size, margin : margin + size]
        return ((inner + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()


def cells_of_windows(
    corners: np.ndarray, cells: CellRows, lattice: Lattice, receptive_radius_um: float
) -> tuple[PlacedCells, np.ndarray]:
    """The cells that condition each window, and which windows have any.

    `corners`: int64 [n, 2], top and left of each window. Every window gets the same number of cells, a multiple of
    `CELLS_MULTIPLE`; the padding lies too far away to have a weight. Otherwise every call has its own shapes, and libraries
    that keep a plan per shape keep ever more of them. Returns the cells of the windows that have any, and bool [n].
    """
    um, side_um = lattice.um_per_latent_px, lattice.window_side * lattice.um_per_latent_px
    centre_um_n2 = corners[:, ::-1] * um + side_um / 2
    radius_um = side_um / 2 + receptive_radius_um
    low, high = centre_um_n2.min(0, initial=np.inf) - radius_um, centre_um_n2.max(0, initial=-np.inf) + radius_um
    xy = cells.xy_um_M2
    close = np.flatnonzero(((xy >= low) & (xy <= high)).all(1))
    xy = xy[close]
    inside = np.abs(xy[None, :, 0] - centre_um_n2[:, None, 0]) <= radius_um
    inside &= np.abs(xy[None, :, 1] - centre_um_n2[:, None, 1]) <= radius_um
    count = inside.sum(1)
    occupied = np.asarray(count > 0)
    window, cell = np.nonzero(inside)
    n, n_slots = int(occupied.sum()), -(-int(count.max(initial=0)) // CELLS_MULTIPLE) * CELLS_MULTIPLE
    slot = np.arange(len(window)) - (np.cumsum(count) - count)[window]
    row = (np.cumsum(occupied) - 1)[window] * n_slots + slot
    z = np.zeros((n * n_slots, cells.z_MZ.shape[1]), np.float32)
    depth = np.zeros(n * n_slots, np.float32)
    xy_um = np.full((n * n_slots, 2), PADDING_UM, np.float32)
    z[row], depth[row] = cells.z_MZ[close][cell], cells.depth_M[close][cell]
    xy_um[row] = xy[cell] - centre_um_n2[window] + side_um / 2
    outline = None
    if cells.outline_um_MV2 is not None:
        outline = np.full((n * n_slots, *cells.outline_um_MV2.shape[1:]), np.nan, np.float32)
        outline[row] = cells.outline_um_MV2[close][cell] + xy_um[row][:, None]
    return PlacedCells(
        z_MZ=torch.from_numpy(z),
        depth_M=torch.from_numpy(depth),
        xy_um_M2=torch.from_numpy(xy_um),
        image_M=torch.arange(n).repeat_interleave(n_slots),
        mode_B=torch.full((n,), MODE_ALL),
        slide_B=torch.zeros(n, dtype=torch.long),
        outline_MV2=None if outline is None else torch.from_numpy(outline),
    ), occupied


def _paste(out: Tensor, out_area: Area, part: Tensor, part_area: Area) -> None:
    """Copy the common part of `part`, which covers `part_area`, into `out`, which covers `out_area`."""
    top, left = max(out_area.top, part_area.top), max(out_area.left, part_area.left)
    bottom, right = min(out_area.bottom, part_area.bottom), min(out_area.right, part_area.right)
    if top < bottom and left < right:
        rows, columns = (
            slice(top - part_area.top, bottom - part_area.top),
            slice(left - part_area.left, right - part_area.left),
        )
        out[:, top - out_area.top : bottom - out_area.top, left - out_area.left : right - out_area.left] = part[
            :, rows, columns
        ]


def _save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as partial, open(partial, "wb") as file:
        np.save(file, array)
