"""What has to be computed to draw a region of a slide: which windows at which step, which blocks, which tiles of pixels.

A pixel of the last step depends on its window, that on the windows of the squares that it sees at the step before, and so on: at
every earlier step a square and a rim more are needed. Windows without a cell in reach are empty glass and are not run; blocks
that no other window touches do not exist.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

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


# The canvas of a slide: a lattice of latent pixels without end, its squares, the windows that denoise them, and noise of places.
#
# At every sampling step each square is denoised by a window that sees a rim more on every side; the squares side by side are the
# denoised canvas. At some of the first steps they stand half a square aside. The lattice starts at the slide's corner, so a place
# has the same window, block and noise whatever is drawn around it.
# Shape letters: L latent channels, h w latent pixels, S side of a window.


NOISE_TILE = 16  # latent pixels; noise is drawn tile by tile, each from its own seed
GRAIN_DRAW = 2**20  # number of the draw that grain is made of, far from those of the sampler's steps
RULE = 2  # which cells are told of which, and how: raised when the same request draws other pixels
BLOCK = 64  # latent pixels, at least: a block is the piece of canvas that is worked on at one time


@dataclass(frozen=True, kw_only=True)
class Area:
    """A rectangle of latent pixels on the lattice of the whole slide."""

    top: int
    left: int
    height: int
    width: int

    @property
    def bottom(self) -> int:
        """First row below."""
        return self.top + self.height

    @property
    def right(self) -> int:
        """First column to the right."""
        return self.left + self.width

    def on_grid(self, step: int) -> Area:
        """The least area around it whose edges are multiples of `step`."""
        top, left = self.top // step * step, self.left // step * step
        return Area(
            top=top, left=left, height=-(-self.bottom // step) * step - top, width=-(-self.right // step) * step - left
        )

    def grown(self, by: int) -> Area:
        """The area with a margin on every side."""
        return Area(top=self.top - by, left=self.left - by, height=self.height + 2 * by, width=self.width + 2 * by)

    def meets(self, other: Area) -> bool:
        """Whether the two have a pixel in common."""
        return (
            self.top < other.bottom and other.top < self.bottom and self.left < other.right and other.left < self.right
        )

    def places(self, step: int) -> list[tuple[int, int]]:
        """Numbers (row, column) of the squares of side `step` that the area touches, in row-major order."""
        rows = range(self.top // step, -(-self.bottom // step))
        columns = range(self.left // step, -(-self.right // step))
        return [(i, j) for i in rows for j in columns]


@dataclass(frozen=True, kw_only=True)
class Lattice:
    """Sizes that windows and blocks share."""

    step: int  # side of a square, latent pixels: that of the patches that the network was trained on
    um: float  # side of a latent pixel
    pixels: int  # image pixels per latent pixel, along a side
    channels: int  # L

    @property
    def rim(self) -> int:
        """What a window sees beyond its square on every side, latent pixels: an eighth of the square, or a little more.

        It is even, so that the network can halve a window.
        """
        return 2 * math.ceil(self.step / 16)

    @property
    def side(self) -> int:
        """Side of a window, latent pixels."""
        return self.step + 2 * self.rim

    def aside(self, k: int, n_evaluations: int) -> int:
        """How far down and to the right the squares of evaluation k of n stand off the lattice, latent pixels.

        In the first half, where it is decided what lies where, every other evaluation looks across the borders of the last one.
        """
        return self.step // 2 if k % 2 and 2 * k < n_evaluations else 0

    def told(self, n_evaluations: int) -> list[int]:
        """All that decides where windows lie and what they are told; pictures of other numbers do not fit together."""
        return [RULE, self.step, self.rim, self.block, *(self.aside(k, n_evaluations) for k in range(n_evaluations))]

    @property
    def reach(self) -> int:
        """How far a denoised pixel may lie from a noisy one that it depends on, latent pixels, along an axis."""
        return self.step - 1 + self.rim

    @property
    def block(self) -> int:
        """Side of a block, latent pixels: whole squares and whole tiles of noise, and no less than a window."""
        unit = math.lcm(self.step, NOISE_TILE)
        return unit * -(-max(BLOCK, self.side) // unit)

    def block_area(self, i: int, j: int) -> Area:
        """Area of block (i, j)."""
        return Area(top=i * self.block, left=j * self.block, height=self.block, width=self.block)


def canvas_noise(area: Area, channels: int, seed: int, draw: int = 0) -> Tensor:
    """Standard normal noise [L, h, w] of an area; the same at the same place.

    `draw` numbers independent draws at one place.
    """
    tiles = area.on_grid(NOISE_TILE)
    out = torch.empty(channels, tiles.height, tiles.width)
    for i in range(0, tiles.height, NOISE_TILE):
        for j in range(0, tiles.width, NOISE_TILE):
            # places left of and above the slide have negative numbers; seed sequences take none
            place = [seed, tiles.top + i + 2**30, tiles.left + j + 2**30, *([draw] if draw else [])]
            tile_seed = int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0] >> 2)
            shape = (channels, NOISE_TILE, NOISE_TILE)
            tile = torch.randn(shape, generator=torch.Generator().manual_seed(tile_seed))
            out[:, i : i + NOISE_TILE, j : j + NOISE_TILE] = tile
    top, left = area.top - tiles.top, area.left - tiles.left
    return out[:, top : top + area.height, left : left + area.width]
