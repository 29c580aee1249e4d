"""Geometry of a slide: tiles, windows and blocks on a lattice of latent pixels, noise by position, and the work of a region.

The lattice is unbounded and starts at the slide's corner. At every evaluation of the network each *tile* is denoised by a
*window*, the tile and a halo on every side; the tiles together are the denoised canvas. In some of the first evaluations the
tiles are offset by half a tile. A *block* is a group of tiles that is processed at one time; *output tiles* are decoded to
pixels. A position has the same tile, block and noise whatever region is generated.

A latent pixel of the last evaluation depends on its window, that window on the windows of the tiles that it covers in the
evaluation before, and so on: every earlier evaluation needs one receptive radius more. Windows without a cell in reach are
empty glass and are not evaluated; blocks that no other window touches are not stored.

Shape letters: L latent channels, h w latent pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from sge2hist.data.errors import InputError
from sge2hist.generation.slide.tile_store import TileIndex
from sge2hist.models.image.autoencoder import DECODER_REACH

NOISE_TILE = 16  # latent pixels; noise is sampled tile by tile, each tile from its own seed
DECODER_NOISE_STREAM = 2**20  # number of the noise field of the decoder, far from those of the sampler's steps
MAX_HALO = 4  # latent pixels
MIN_BLOCK = 64  # latent pixels
TILES_PER_BLOCK = 4  # at least, along a side: windows of offset tiles run for both blocks at a border
MAX_DECODED = 256  # latent pixels: two blocks along a side are decoded together if they are no larger
LAYOUT_VERSION = 2  # which cells condition which window, and how: raised when the same request gives other pixels


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

    def grown(self, by: int) -> Area:
        """The area with a margin on every side."""
        return Area(top=self.top - by, left=self.left - by, height=self.height + 2 * by, width=self.width + 2 * by)

    def on_grid(self, side: int) -> Area:
        """The smallest area that covers it and whose edges are multiples of `side`."""
        top, left = self.top // side * side, self.left // side * side
        return Area(
            top=top, left=left, height=-(-self.bottom // side) * side - top, width=-(-self.right // side) * side - left
        )

    def tiles(self, side: int) -> list[TileIndex]:
        """Row and column of the tiles of this side that the area touches, row-major."""
        rows = range(self.top // side, -(-self.bottom // side))
        columns = range(self.left // side, -(-self.right // side))
        return [(i, j) for i in rows for j in columns]


@dataclass(frozen=True, kw_only=True)
class Lattice:
    """Sizes of tiles, windows and blocks, in latent pixels."""

    tile_side: int  # usually the side of the patches that the network was trained on
    um_per_latent_px: float
    downsampling: int  # image pixels per latent pixel, along a side
    latent_channels: int  # L
    decoded_halo: int = DECODER_REACH  # around an output tile: what its decoded pixels may depend on

    @property
    def halo(self) -> int:
        """What a window covers beyond its tile on every side: an eighth of the tile or a little more, up to `MAX_HALO`.

        It is even, so that the network can halve a window.
        """
        return min(2 * math.ceil(self.tile_side / 16), MAX_HALO)

    @property
    def window_side(self) -> int:
        """Side of a window."""
        return self.tile_side + 2 * self.halo

    @property
    def block_side(self) -> int:
        """Side of a block: whole tiles and whole tiles of noise, and at least `TILES_PER_BLOCK` tiles."""
        unit = math.lcm(self.tile_side, NOISE_TILE)
        return unit * -(-max(MIN_BLOCK, TILES_PER_BLOCK * self.tile_side) // unit)

    @property
    def output_tile_side(self) -> int:
        """Side of an output tile: two blocks, or one that is large."""
        return self.block_side * (2 if 2 * self.block_side <= MAX_DECODED else 1)

    @property
    def receptive_radius(self) -> int:
        """Largest distance along an axis between a denoised latent pixel and a noisy one that it depends on."""
        return self.tile_side - 1 + self.halo

    def tile_offset(self, k: int, n_evaluations: int) -> int:
        """How far down and to the right the tiles of evaluation k of n are shifted.

        In the first half, which decides the layout of the tissue, every other evaluation covers the borders of the one before.
        """
        return self.tile_side // 2 if k % 2 and 2 * k < n_evaluations else 0

    def fingerprint(self, n_evaluations: int) -> list[int]:
        """All that decides where windows lie and which cells condition them; only slides of equal fingerprints fit together."""
        offsets = [self.tile_offset(k, n_evaluations) for k in range(n_evaluations)]
        return [LAYOUT_VERSION, self.tile_side, self.halo, self.block_side, *offsets]

    def block_area(self, block: TileIndex) -> Area:
        """Area of a block."""
        side = self.block_side
        return Area(top=block[0] * side, left=block[1] * side, height=side, width=side)


def canvas_noise(area: Area, channels: int, seed: int, stream: int = 0) -> Tensor:
    """Standard normal noise of an area, [channels, h, w]: a function of the position, the seed and the stream."""
    tiles = area.on_grid(NOISE_TILE)
    out = torch.empty(channels, tiles.height, tiles.width)
    for i in range(0, tiles.height, NOISE_TILE):
        for j in range(0, tiles.width, NOISE_TILE):
            # positions left of and above the slide are negative; seed sequences take no negative numbers
            key = [seed, tiles.top + i + 2**30, tiles.left + j + 2**30, *([stream] if stream else [])]
            tile_seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 2)
            shape = (channels, NOISE_TILE, NOISE_TILE)
            tile = torch.randn(shape, generator=torch.Generator().manual_seed(tile_seed))
            out[:, i : i + NOISE_TILE, j : j + NOISE_TILE] = tile
    top, left = area.top - tiles.top, area.left - tiles.left
    return out[:, top : top + area.height, left : left + area.width]


# --- what a region needs --------------------------------------------------------------------------------------------


def latent_area(lattice: Lattice, region_px: tuple[int, int, int, int]) -> Area:
    """Latent pixels that the pixels of a region (x, y, width, height) are decoded from."""
    x, y, width, height = region_px
    d = lattice.downsampling
    top, left = y // d, x // d
    area = Area(top=top, left=left, height=-(-(y + height) // d) - top, width=-(-(x + width) // d) - left)
    return area.grown(lattice.decoded_halo)


def sampled_area(lattice: Lattice, region_px: tuple[int, int, int, int], n_evaluations: int) -> Area:
    """Latent pixels that any evaluation for a region may read."""
    area = latent_area(lattice, region_px)
    return area.grown(n_evaluations * lattice.receptive_radius + lattice.window_side)


def tile_grid(lattice: Lattice, region_px: tuple[int, int, int, int], n_evaluations: int) -> Area:
    """All tiles that any evaluation may denoise, and their neighbours; counted in tiles."""
    area, side = sampled_area(lattice, region_px, n_evaluations), lattice.tile_side
    top, left = area.top // side, area.left // side
    return Area(top=top, left=left, height=-(-area.bottom // side) - top, width=-(-area.right // side) - left)


def occupied_tiles(
    grid: Area, lattice: Lattice, receptive_radius_um: float, positions_um: Iterable[np.ndarray]
) -> np.ndarray:
    """Tiles of `grid` that have a cell within `receptive_radius_um` of their window: bool [rows, columns].

    `positions_um` yields x, y of cells, [n, 2]. No such tile is missed; a tile whose cell lies exactly on the edge may be counted
    though the window has no cell.
    """
    count = np.zeros((grid.height + 1, grid.width + 1), np.int64)
    side_um = lattice.tile_side * lattice.um_per_latent_px
    margin_um = lattice.halo * lattice.um_per_latent_px + receptive_radius_um + 1e-6
    origin, shape = (grid.top, grid.left), (grid.height, grid.width)
    for xy_um in positions_um:
        yx_um = xy_um[:, ::-1]
        first = np.ceil((yx_um - margin_um - side_um) / side_um).astype(np.int64) - origin
        last = np.floor((yx_um + margin_um) / side_um).astype(np.int64) - origin + 1
        first, last = first.clip(0, shape), last.clip(0, shape)
        # each cell adds 1 to a rectangle of tiles: four corners of a summed-area table
        for sign, rows, columns in ((1, first, first), (-1, first, last), (-1, last, first), (1, last, last)):
            np.add.at(count, (rows[:, 0], columns[:, 1]), sign)
    return count.cumsum(0).cumsum(1)[:-1, :-1] > 0


@dataclass(frozen=True, kw_only=True)
class SlidePlan:
    """The windows, blocks and output tiles that a region (x, y, width, height in px of the slide) needs."""

    lattice: Lattice
    region_px: tuple[int, int, int, int]
    n_evaluations: int
    occupied: np.ndarray  # bool [rows, columns] of the tiles of `tile_grid`, see `occupied_tiles`

    @cached_property
    def _grid(self) -> Area:
        return tile_grid(self.lattice, self.region_px, self.n_evaluations)

    def area_needed(self, k: int) -> Area:
        """Where the denoised canvas of evaluation k still matters."""
        later = self.n_evaluations - 1 - k
        return latent_area(self.lattice, self.region_px).grown(later * self.lattice.receptive_radius)

    def tile_offset(self, k: int) -> int:
        """How far down and to the right the tiles of evaluation k are shifted, latent pixels."""
        return self.lattice.tile_offset(k, self.n_evaluations)

    def overhang(self, k: int) -> int:
        """How far tiles of evaluation k that touch a block may lie outside of it, latent pixels."""
        return self.lattice.tile_side - self.tile_offset(k) if self.tile_offset(k) else 0

    def tile_corners(self, k: int, block: TileIndex) -> np.ndarray:
        """Corners (top, left) of the tiles that touch a block and whose windows evaluation k runs, int64 [n, 2]."""
        side, grid, offset = self.lattice.tile_side, self._grid, self.tile_offset(k)
        per_block, before = self.lattice.block_side // side, int(offset > 0)
        ranges = (np.arange(first * per_block - before, (first + 1) * per_block) for first in block)
        i, j = np.meshgrid(*ranges, indexing="ij")
        inside = (i >= grid.top) & (i < grid.bottom - before) & (j >= grid.left) & (j < grid.right - before)
        i, j = i[inside], j[inside]
        needed = self.area_needed(k)
        top, left = i * side + offset, j * side + offset
        matters = (
            (top > needed.top - side) & (top < needed.bottom) & (left > needed.left - side) & (left < needed.right)
        )
        # an offset window lies within the windows of the four tiles that its own tile touches
        i, j = i - grid.top, j - grid.left
        touched = range(before + 1)
        run = matters & np.any([self.occupied[i + down, j + right] for down in touched for right in touched], axis=0)
        return np.stack([top[run], left[run]], 1)

    def blocks_to_advance(self, k: int) -> list[TileIndex]:
        """Blocks whose state after evaluation k is read later on."""
        return [block for block in self.area_needed(k).tiles(self.lattice.block_side) if self.is_active(block)]

    def is_active(self, block: TileIndex) -> bool:
        """Whether a window with cells touches the block; the others are glass."""
        grid, per_block = self._grid, self.lattice.block_side // self.lattice.tile_side
        top, left = block[0] * per_block - grid.top, block[1] * per_block - grid.left
        rows, columns = (slice(max(first - 1, 0), max(first + per_block + 1, 0)) for first in (top, left))
        return bool(self.occupied[rows, columns].any())

    @cached_property
    def n_windows(self) -> int:
        """Windows of all evaluations together."""
        return sum(
            len(self.tile_corners(k, block)) for k in range(self.n_evaluations) for block in self.blocks_to_advance(k)
        )

    def output_tiles(self) -> list[TileIndex]:
        """Output tiles that the region touches, row-major."""
        x, y, width, height = self.region_px
        side_px = self.lattice.output_tile_side * self.lattice.downsampling
        return Area(top=y, left=x, height=height, width=width).tiles(side_px)

    def decoded_area(self, tile: TileIndex) -> Area:
        """What an output tile is decoded from."""
        side = self.lattice.output_tile_side
        return Area(top=tile[0] * side, left=tile[1] * side, height=side, width=side).grown(self.lattice.decoded_halo)

    def is_glass(self, tile: TileIndex) -> bool:
        """Whether all that an output tile is decoded from is empty."""
        return not any(self.is_active(block) for block in self.decoded_area(tile).tiles(self.lattice.block_side))


def region_of_part(
    region: tuple[int, int, int, int], part: tuple[int, int], block_px: int
) -> tuple[int, int, int, int]:
    """The rows of a region (px) that the i-th of n parts generates; parts meet where blocks do.

    Raises
    ------
    InputError
        If there are more parts than rows of blocks.
    """
    x, y, width, height = region
    first, last = y // block_px, -(-(y + height) // block_px)
    (i, n), rows = part, last - first
    if n > rows:
        raise InputError(
            found=f"--part {i}/{n}", expected=f"at most {rows} parts: the region has {rows} rows of blocks"
        )
    top = max(y, (first + (i - 1) * rows // n) * block_px)
    bottom = min(y + height, (first + i * rows // n) * block_px)
    return x, top, width, bottom - top
