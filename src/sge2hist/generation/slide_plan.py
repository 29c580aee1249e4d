"""What has to be computed to draw a region of a slide: which windows at which step, which blocks, which tiles of pixels.

A pixel of the last step depends on its window, that on the windows of the squares that it sees at the step before, and so on: at
every earlier step a square and a rim more are needed. Windows without a cell in reach are empty glass and are not run; blocks
that no other window touches do not exist.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sge2hist.generation.canvas import Area, Lattice

DECODER_HALO = 16  # latent pixels around a tile that its decoded pixels may depend on
TILE_BLOCKS = 2  # blocks along a side of a tile of pixels
Block = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class SlidePlan:
    """A region (x, y, width, height in px of the slide) and the windows of it that hold cells."""

    lattice: Lattice
    region_px: tuple[int, int, int, int]
    n_evaluations: int
    occupied: np.ndarray  # bool [rows, columns] of squares whose window holds cells, the first as `window_grid` says

    @property
    def inner(self) -> Area:
        """What the decoder needs of the last step."""
        return inner_area(self.lattice, self.region_px)

    @property
    def tile(self) -> int:
        """Side of a tile of pixels, in latent pixels."""
        return TILE_BLOCKS * self.lattice.block

    def wanted(self, k: int) -> Area:
        """Where the denoised canvas of evaluation k still matters."""
        return self.inner.grown((self.n_evaluations - 1 - k) * self.lattice.reach)

    def aside(self, k: int) -> int:
        """How far down and to the right the squares of evaluation k stand off the lattice, latent pixels."""
        return self.lattice.aside(k, self.n_evaluations)

    def overhang(self, k: int) -> int:
        """How far squares of evaluation k that touch a block may lie outside of it, latent pixels."""
        return self.lattice.step - self.aside(k) if self.aside(k) else 0

    def corners(self, k: int, block: Block) -> np.ndarray:
        """Corners (top, left) of the squares that touch a block and whose windows evaluation k runs, int64 [n, 2]."""
        lattice, grid, aside = self.lattice, self._grid, self.aside(k)
        step, per, before = lattice.step, lattice.block // lattice.step, int(aside > 0)
        i, j = np.meshgrid(*(np.arange(first * per - before, (first + 1) * per) for first in block), indexing="ij")
        inside = (i >= grid.top) & (i < grid.bottom - before) & (j >= grid.left) & (j < grid.right - before)
        i, j = i[inside], j[inside]
        wanted = self.wanted(k)
        top, left = i * step + aside, j * step + aside
        matters = (
            (top > wanted.top - step) & (top < wanted.bottom) & (left > wanted.left - step) & (left < wanted.right)
        )
        # a window that stands aside lies in those of the four squares that its own square touches
        i, j = i - grid.top, j - grid.left
        beside = range(before + 1)
        run = matters & np.any([self.occupied[i + down, j + right] for down in beside for right in beside], axis=0)
        return np.stack([top[run], left[run]], 1)

    def blocks_to_advance(self, k: int) -> list[Block]:
        """Blocks whose state after evaluation k is read later on."""
        return [block for block in self.wanted(k).places(self.lattice.block) if self.is_active(block)]

    def is_active(self, block: Block) -> bool:
        """Whether a window with cells touches the block; the others are glass."""
        grid, per = self._grid, self.lattice.block // self.lattice.step
        top, left = block[0] * per - grid.top, block[1] * per - grid.left
        rows, columns = (slice(max(first - 1, 0), max(first + per + 1, 0)) for first in (top, left))
        return bool(self.occupied[rows, columns].any())

    def tiles(self) -> list[Block]:
        """Tiles of pixels that the region touches, row-major."""
        x, y, width, height = self.region_px
        return Area(top=y, left=x, height=height, width=width).places(self.tile * self.lattice.pixels)

    def tile_is_glass(self, tile: Block) -> bool:
        """Whether all that a tile is decoded from is empty."""
        return not any(self.is_active(block) for block in self.tile_area(tile).places(self.lattice.block))

    def tile_area(self, tile: Block) -> Area:
        """What a tile is decoded from."""
        own = Area(top=tile[0] * self.tile, left=tile[1] * self.tile, height=self.tile, width=self.tile)
        return own.grown(DECODER_HALO)

    @cached_property
    def n_windows(self) -> int:
        """Windows of all evaluations together."""
        return sum(
            len(self.corners(k, block)) for k in range(self.n_evaluations) for block in self.blocks_to_advance(k)
        )

    @cached_property
    def _grid(self) -> Area:
        return window_grid(self.lattice, self.region_px, self.n_evaluations)


def inner_area(lattice: Lattice, region_px: tuple[int, int, int, int]) -> Area:
    """Latent pixels that the pixels of a region depend on."""
    x, y, width, height = region_px
    d = lattice.pixels
    top, left = y // d, x // d
    area = Area(top=top, left=left, height=-(-(y + height) // d) - top, width=-(-(x + width) // d) - left)
    return area.grown(DECODER_HALO)


def window_grid(lattice: Lattice, region_px: tuple[int, int, int, int], n_evaluations: int) -> Area:
    """All squares that any evaluation could denoise, and those around them, in squares of the lattice."""
    area = inner_area(lattice, region_px).grown(n_evaluations * lattice.reach + lattice.side)
    step = lattice.step
    top, left = area.top // step, area.left // step
    return Area(top=top, left=left, height=-(-area.bottom // step) - top, width=-(-area.right // step) - left)


def occupied_windows(grid: Area, lattice: Lattice, reach_um: float, xy_um: Iterable[np.ndarray]) -> np.ndarray:
    """Which squares have a cell within `reach_um` of their window: bool [rows, columns]; `xy_um` yields [n, 2] in um.

    A window is never missed; one whose cell lies on the very edge of its reach may be counted though it is empty.
    """
    count = np.zeros((grid.height + 1, grid.width + 1), np.int64)
    step = lattice.step * lattice.um
    margin = lattice.rim * lattice.um + reach_um + 1e-6
    for part in xy_um:
        first = np.ceil((part[:, ::-1] - margin - step) / step).astype(np.int64) - (grid.top, grid.left)
        last = np.floor((part[:, ::-1] + margin) / step).astype(np.int64) - (grid.top, grid.left) + 1
        first = first.clip(0, (grid.height, grid.width))
        last = last.clip(0, (grid.height, grid.width))
        for sign, rows, columns in ((1, first, first), (-1, first, last), (-1, last, first), (1, last, last)):
            np.add.at(count, (rows[:, 0], columns[:, 1]), sign)
    return count.cumsum(0).cumsum(1)[:-1, :-1] > 0
