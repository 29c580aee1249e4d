"""A slide drawn block by block: every piece of work reads a few small files and writes one.

So memory does not grow with the slide, a run that was killed goes on where it was, and any number of processes can share the
work. Two kinds of work: for each evaluation k of the network advance (run the windows of a block and take the sampler's step),
and at the end decode (latents -> tiles of pixels). L latent channels, B side of a block, S side of a window, T side of a tile.
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
from sge2hist.generation.parallel import parallel_batches
from sge2hist.generation.slide.cells import CellStore, PlacedRows
from sge2hist.generation.slide.tiling import GRAIN_DRAW, Area, Lattice, SlidePlan, Block, canvas_noise
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.image.conditioning import MODE_ALL, PlacedCells
from sge2hist.models.image.image_model import Condition, SamplerConfig
from sge2hist.models.image.samplers import Denoise, Evaluation, State, guided

GLASS_TILE = "glass.npy"
CELLS_STEP = 64  # windows take a multiple of so many cells
FAR_UM = -1e5  # where those lie that fill a window up


class SlideWorker:
    """All that is needed to do any piece of the work on one slide with one seed.

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

    # --- advance ---------------------------------------------------------------------------------------------------

    def advance(self, k: int, block: Block) -> int:
        """Denoise a block and store its next state. Returns the number of windows."""
        corners = self.plan.corners(k, block)
        path = self._file("state", k + 1, block)
        if not path.exists():
            state = self._state(k, block)
            assert state is not None, f"block {block} has no state {k}"
            own = self.lattice.block_area(*block)
            state = self.steps[k].update(state, self._denoised(k, block, corners), self._drawer(own, k + 1))
            _save(path, torch.stack(state).numpy())
        return len(corners)

    def _denoised(self, k: int, block: Block, corners: np.ndarray) -> Tensor:
        """What the windows that touch a block answer, each for its square [L, B, B]; glass elsewhere."""
        lattice, own = self.lattice, self.lattice.block_area(*block)
        step, rim = lattice.step, lattice.rim
        seen = own.grown(self.plan.overhang(k) + rim)
        noisy = self._canvas(k, seen)
        out = self.glass_L[:, None, None].expand(-1, lattice.block, lattice.block).clone()
        near = self.cells.near(block)

        def run(part: slice) -> Tensor:
            at = corners[part] - rim
            placed = cells_of_windows(at, near, lattice, self.bundle.config.reach_um)
            return self._run(noisy, at - (seen.top, seen.left), placed, self.steps[k].sigma)

        answers = chain.from_iterable(parallel_batches(run, len(corners), self.batch, self.device))
        for (top, left), answer in zip(corners.tolist(), answers, strict=True):
            square = Area(top=top, left=left, height=step, width=step)
            _paste(out, own, answer[:, rim : rim + step, rim : rim + step], square)
        return out

    @torch.no_grad()
    def _run(self, noisy: Tensor, at: np.ndarray, placed: tuple[PlacedCells, np.ndarray], sigma: float) -> Tensor:
        """Answers of the network [n, L, S, S], float32 on the CPU; glass for windows without cells."""
        side = self.lattice.side
        cells, occupied = placed
        out = self.glass_L[:, None, None].expand(len(at), -1, side, side).clone()
        if not occupied.any():
            return out
        x = torch.stack([noisy[:, i : i + side, j : j + side] for i, j in at[occupied]]).to(self.device)
        with fast_arithmetic(self.device):
            answer = self._guided(cells.to(self.device), sigma)(x, sigma)
        out[torch.from_numpy(occupied)] = answer.float().cpu()
        return out

    def _guided(self, cells: PlacedCells, sigma: float) -> Denoise:
        """Denoising under these cells at a noise level, with the sampler's guidance."""
        side, weight = (self.lattice.side, self.lattice.side), self.model.guidance_weight(self.sampler)
        told = self.model.encode_cells(cells, side)
        untold = told if weight(sigma) == 1 else self.model.encode_cells(cells.unconditioned(), side)

        def denoiser(condition: Condition) -> Denoise:
            return lambda x, sigma: self.model.denoise(x, torch.full((len(x),), sigma, device=x.device), condition)

        return guided(denoiser(told), denoiser(untold), weight)

    def _canvas(self, k: int, area: Area) -> Tensor:
        """What evaluation k denoises, [L, h, w] of an area; zero where nothing is kept."""
        out = torch.zeros(self.lattice.channels, area.height, area.width)
        for block in area.places(self.lattice.block):
            state = self._state(k, block)
            if state is not None:
                _paste(out, area, state[0], self.lattice.block_area(*block))
        return out

    def _drawer(self, area: Area, draw: int) -> Callable[[], Tensor]:
        return lambda: canvas_noise(area, self.lattice.channels, self.seed, draw)

    def _state(self, k: int, block: Block) -> State | None:
        """State before evaluation k, each [L, B, B]; None where none is kept."""
        if k == 0:
            if not self.plan.is_active(block):
                return None
            return (self._drawer(self.lattice.block_area(*block), 0)() * self.sigma_first,)
        path = self._file("state", k, block)
        return tuple(torch.from_numpy(np.load(path))) if path.exists() else None

    # --- decode ----------------------------------------------------------------------------------------------------

    def decode(self, tile: Block) -> int:
        """Decode and store a tile of pixels. Returns 0: no window was run."""
        path = self.tile_path(tile)
        if not path.exists():
            area = self.plan.tile_area(tile)
            latents = self.glass_L[:, None, None].expand(-1, area.height, area.width).clone()
            for block in area.places(self.lattice.block):
                stored = self._file("state", len(self.steps), block)
                if stored.exists():
                    _paste(latents, area, torch.from_numpy(np.load(stored))[0], self.lattice.block_area(*block))
            n_grain = self.model.n_grain
            _save(path, self._pixels(latents, canvas_noise(area, n_grain, self.seed, GRAIN_DRAW) if n_grain else None))
        return 0

    def decode_glass(self) -> None:
        """Store the tile of empty glass."""
        path = self.folder / GLASS_TILE
        if not path.exists():
            area = self.plan.tile_area((0, 0))
            _save(path, self._pixels(self.glass_L[:, None, None].expand(-1, area.height, area.width).clone()))

    @torch.no_grad()
    def _pixels(self, latents: Tensor, grain: Tensor | None = None) -> np.ndarray:
        """uint8 [T, T, C] of the latents of a tile and its halo, with the noise of their grain."""
        noise = None if grain is None else grain[None].to(self.device)
        with fast_arithmetic(self.device):
            image = self.model.to_image(latents[None].to(self.device), noise)[0].cpu()
        d, size = self.lattice.pixels, self.plan.tile * self.lattice.pixels
        margin = (latents.shape[1] * d - size) // 2
        inner = image[:, margin : margin + size, margin : margin + size]
        return ((inner + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()

    def tile_path(self, tile: Block) -> Path:
        """Where a tile of pixels is stored."""
        return self.folder / GLASS_TILE if self.plan.tile_is_glass(tile) else self._file("tile", 0, tile)

    # --- shared ----------------------------------------------------------------------------------------------------

    @cached_property
    @torch.no_grad()
    def glass_L(self) -> Tensor:
        """Latent of empty glass."""
        colour = torch.tensor(self.glass_rgb, dtype=torch.float32, device=self.device) / 127.5 - 1
        with fast_arithmetic(self.device):
            latent = self.model.to_latent(colour[None, :, None, None].expand(1, -1, 128, 128))
        return latent[0, :, latent.shape[2] // 2, latent.shape[3] // 2].float().cpu()

    def _file(self, kind: str, k: int, block: Block) -> Path:
        return self.folder / f"{kind}{k}" / f"{block[0]}_{block[1]}.npy"


def cells_of_windows(
    corners: np.ndarray, near: PlacedRows, lattice: Lattice, reach_um: float
) -> tuple[PlacedCells, np.ndarray]:
    """The cells of each window (corners int64 [n, 2]) out of those near its block; and bool [n]: has it any?

    Every window gets the same number of cells, a multiple of `CELLS_STEP`; those that fill it up lie out of reach and weigh
    nothing. Otherwise every call has shapes of its own, and libraries that keep a plan per shape keep ever more of them.
    """
    side_um = lattice.side * lattice.um
    centre_um_n2 = corners[:, ::-1] * lattice.um + side_um / 2
    reach = side_um / 2 + reach_um
    low, high = centre_um_n2.min(0, initial=np.inf) - reach, centre_um_n2.max(0, initial=-np.inf) + reach
    xy = near.xy_um_M2
    close = np.flatnonzero(((xy >= low) & (xy <= high)).all(1))
    xy = xy[close]
    inside = np.abs(xy[None, :, 0] - centre_um_n2[:, None, 0]) <= reach
    inside &= np.abs(xy[None, :, 1] - centre_um_n2[:, None, 1]) <= reach
    count = inside.sum(1)
    occupied = np.asarray(count > 0)
    window, cell = np.nonzero(inside)
    n, n_slots = int(occupied.sum()), -(-int(count.max(initial=0)) // CELLS_STEP) * CELLS_STEP
    slot = np.arange(len(window)) - (np.cumsum(count) - count)[window]
    place = (np.cumsum(occupied) - 1)[window] * n_slots + slot
    z = np.zeros((n * n_slots, near.z_MZ.shape[1]), np.float32)
    depth = np.zeros(n * n_slots, np.float32)
    xy_um = np.full((n * n_slots, 2), FAR_UM, np.float32)
    z[place], depth[place] = near.z_MZ[close][cell], near.depth_M[close][cell]
    xy_um[place] = xy[cell] - centre_um_n2[window] + side_um / 2
    return PlacedCells(
        z_MZ=torch.from_numpy(z),
        depth_M=torch.from_numpy(depth),
        xy_um_M2=torch.from_numpy(xy_um),
        image_M=torch.arange(n).repeat_interleave(n_slots),
        mode_B=torch.full((n,), MODE_ALL),
        slide_B=torch.zeros(n, dtype=torch.long),
    ), occupied


def _paste(out: Tensor, area: Area, part: Tensor, where: Area) -> None:
    """Copy the common part of `part`, which covers `where`, into `out`, which covers `area`."""
    top, left = max(area.top, where.top), max(area.left, where.left)
    bottom, right = min(area.bottom, where.bottom), min(area.right, where.right)
    if top < bottom and left < right:
        given = part[:, top - where.top : bottom - where.top, left - where.left : right - where.left]
        out[:, top - area.top : bottom - area.top, left - area.left : right - area.left] = given


def _save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as partial, open(partial, "wb") as file:
        np.save(file, array)
