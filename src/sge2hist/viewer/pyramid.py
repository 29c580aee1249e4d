"""Deep zoom: a layer written as tiles of every resolution, in one pass and in constant memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

TILE_PX = 512
JPEG_QUALITY = 90


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One picture of the section.

    `read(x, y, width, height)` returns uint8 [height, width, 3] of px that lie inside `width_px` x `height_px`;
    4 channels, with transparency, where the suffix is "png".
    """

    key: str  # folder name
    title: str
    note: str  # one line below the title
    width_px: int
    height_px: int
    read: Callable[[int, int, int, int], np.ndarray]
    suffix: str = "jpg"  # "jpg", or "png" where colours have a meaning


def n_levels(width_px: int, height_px: int, tile_px: int = TILE_PX) -> int:
    """Number of resolutions, each half as fine as the next, until all fits into one tile."""
    levels = 1
    while max(width_px, height_px) > tile_px:
        width_px, height_px, levels = -(-width_px // 2), -(-height_px // 2), levels + 1
    return levels


def write_pyramid(
    folder: Path, layer: Layer, *, tile_px: int = TILE_PX, progress: Callable[[int], None] = lambda n: None
) -> dict[str, Any]:
    """Write ``LEVEL/COLUMN_ROW.jpg`` under `folder`, level 0 the coarsest; returns what a viewer must know of the layer.

    A coarse tile is made of the four tiles below it while they are in memory. `progress` counts tiles of the finest level.
    """
    levels = n_levels(layer.width_px, layer.height_px, tile_px)
    for level in range(levels):
        (folder / str(level)).mkdir(parents=True)

    def build(level: int, column: int, row: int) -> np.ndarray | None:
        """Write a tile and all below it; returns its pixels, None outside the layer."""
        step = 2 ** (levels - 1 - level)
        width, height = -(-layer.width_px // step), -(-layer.height_px // step)
        x, y = column * tile_px, row * tile_px
        if x >= width or y >= height:
            return None
        w, h = min(tile_px, width - x), min(tile_px, height - y)
        if level == levels - 1:
            tile = layer.read(x, y, w, h)
            progress(1)
        else:
            tile = _joined([build(level + 1, 2 * column + i % 2, 2 * row + i // 2) for i in range(4)], w, h, tile_px)
        _save(folder / str(level) / f"{column}_{row}.{layer.suffix}", tile)
        return tile

    build(0, 0, 0)
    return {
        "key": layer.key,
        "title": layer.title,
        "note": layer.note,
        "suffix": layer.suffix,
        "width": layer.width_px,
        "height": layer.height_px,
        "tile": tile_px,
        "levels": levels,
    }


def _joined(parts: list[np.ndarray | None], width: int, height: int, tile_px: int) -> np.ndarray:
    """The half-size tile uint8 [height, width, 3 or 4] of its four finer ones (None: outside; the first never is)."""
    assert parts[0] is not None
    out = np.empty((height, width, parts[0].shape[2]), np.uint8)
    half = tile_px // 2
    for number, part in enumerate(parts):
        if part is None:
            continue
        small = _halved(part)
        top, left = number // 2 * half, number % 2 * half
        out[top : top + small.shape[0], left : left + small.shape[1]] = small
    return out


def _halved(image: np.ndarray) -> np.ndarray:
    """2 x 2 means, rounded; an odd last row or column is repeated. Transparent pixels have no part in the colour."""
    padded = np.pad(image, ((0, image.shape[0] % 2), (0, image.shape[1] % 2), (0, 0)), mode="edge").astype(np.uint32)
    if image.shape[2] == 3:
        return ((_sum_of_four(padded) + 2) // 4).astype(np.uint8)
    opacity = padded[..., 3:]
    colour, total = _sum_of_four(padded[..., :3] * opacity), _sum_of_four(opacity)
    colour = (colour + total // 2) // np.maximum(total, 1)
    return np.concatenate([colour, (total + 2) // 4], axis=2).astype(np.uint8)


def _sum_of_four(values: np.ndarray) -> np.ndarray:
    return np.asarray(values[::2, ::2] + values[1::2, ::2] + values[::2, 1::2] + values[1::2, 1::2])


def _save(path: Path, tile: np.ndarray) -> None:
    from PIL import Image

    picture = Image.fromarray(tile)
    if path.suffix == ".jpg":
        picture.save(path, quality=JPEG_QUALITY, subsampling=0)
    else:
        picture.save(path, compress_level=6)
