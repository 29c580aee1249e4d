"""The canvas of a slide: a lattice of latent pixels without end, its squares, the windows that denoise them, and noise of places.

At every sampling step each square is denoised by a window that sees a rim more on every side; the squares side by side are the
denoised canvas. At some of the first steps they stand half a square aside. The lattice starts at the slide's corner, so a place
has the same window, block and noise whatever is drawn around it.
Shape letters: L latent channels, h w latent pixels, S side of a window.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

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
