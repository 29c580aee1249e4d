"""Writing slides: tiled, pyramidal, lossless OME-TIFF that QuPath, napari and Bio-Formats open."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from sge2hist.data.errors import InputError

TILE_PX = 512
SMALLEST_LEVEL_PX = 512
BUFFER_TILES = 16  # compressed at one time


def write_slide(
    path: str | Path,
    image: np.ndarray | Iterator[np.ndarray],
    um_per_px: float,
    shape: tuple[int, int] | None = None,
    description: str = "",
    *,
    tile_px: int = TILE_PX,
    on_tile: Callable[[], None] | None = None,
) -> str:
    """Write a slide and return a hash of its pixels (independent of compression and metadata).

    Parameters
    ----------
    image
        uint8 [H, W, 3], or full tiles uint8 [tile_px, tile_px, 3] in row-major order (border tiles padded).
    um_per_px
        Written as PhysicalSizeX and PhysicalSizeY in um.
    shape
        (height, width) in px; needed when `image` is an iterator.
    on_tile
        Called after each full-resolution tile, for progress bars.

    The smaller levels are gathered in temporary files, a row of tiles at a time: memory grows with the slide's width alone.
    """
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise InputError(found=f"{image.dtype} {image.shape}", where=str(path), expected="uint8 [H, W, 3]")
        shape = image.shape[:2]
        tiles = _tiles_of(image, tile_px)
    elif shape is None:
        raise ValueError("shape is needed with an iterator of tiles")
    else:
        tiles = image
    digest = blake2b(digest_size=16)
    with tempfile.TemporaryDirectory(dir=Path(path).absolute().parent, prefix=".pyramid.") as scratch:
        watched = _watch(tiles, shape, tile_px, digest, on_tile)
        _write_pyramid(path, watched, shape, Path(scratch), tile_px, um_per_px, description)
    return digest.hexdigest()


def _write_pyramid(
    path: str | Path,
    tiles: Iterator[np.ndarray],
    shape: tuple[int, int],
    scratch: Path,
    tile_px: int,
    um_per_px: float,
    description: str,
) -> None:
    """Write full-resolution tiles, then the levels below; each is gathered while the tiles of the one before pass."""
    import tifffile

    height, width = shape
    options: dict[str, Any] = {
        "photometric": "rgb", "compression": "adobe_deflate", "predictor": True, "tile": (tile_px, tile_px),
        "dtype": np.uint8, "resolutionunit": "CENTIMETER", "buffersize": BUFFER_TILES * tile_px**2 * 3,
    }  # fmt: skip
    metadata = {
        "axes": "YXS", "PhysicalSizeX": um_per_px, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": um_per_px,
        "PhysicalSizeYUnit": "µm", "Description": description,
    }  # fmt: skip
    levels = _level_shapes(height, width)
    files = [scratch / str(number) for number in range(len(levels))]
    with tifffile.TiffWriter(path, ome=True, bigtiff=height * width * 3 > 2 * 1024**3) as writer:
        for number, (rows, columns) in enumerate(levels):
            if number:
                tiles = _stored_tiles(files[number], (rows, columns), tile_px)
            if number + 1 < len(levels):
                tiles = _gather_half(tiles, (rows, columns), tile_px, files[number + 1])
            own: dict[str, Any] = {"metadata": None, "subfiletype": 1}
            if number == 0:
                own = {"metadata": metadata, "subifds": len(levels) - 1}
            resolution = (1e4 / um_per_px / 2**number, 1e4 / um_per_px / 2**number)
            writer.write(tiles, shape=(rows, columns, 3), resolution=resolution, **own, **options)


def _level_shapes(height: int, width: int) -> list[tuple[int, int]]:
    """Height and width of every level, the first is the whole image."""
    shapes = [(height, width)]
    while max(height, width) > SMALLEST_LEVEL_PX and min(height, width) > 1:
        height, width = -(-height // 2), -(-width // 2)
        shapes.append((height, width))
    return shapes


def _gather_half(tiles: Iterator[np.ndarray], shape: tuple[int, int], tile_px: int, file: Path) -> Iterator[np.ndarray]:
    """Pass tiles through and store the image at half its size, row-major, in a file."""
    height, width = shape
    with open(file, "wb", buffering=0) as half:
        for top in range(0, height, tile_px):
            band = np.empty((-(-min(tile_px, height - top) // 2), -(-width // 2), 3), np.uint8)
            for left in range(0, width, tile_px):
                tile = next(tiles)
                small = _halve(tile[: min(tile_px, height - top), : min(tile_px, width - left)])
                band[:, left // 2 : left // 2 + small.shape[1]] = small
                if left + tile_px >= width:  # before the tile goes: nobody may ask for more after the last one
                    half.write(band.data)
                yield tile


def _stored_tiles(file: Path, shape: tuple[int, int], tile_px: int) -> Iterator[np.ndarray]:
    """Tiles of an image stored row-major in a file, one row of tiles in memory at a time."""
    height, width = shape
    for top in range(0, height, tile_px):
        rows = min(tile_px, height - top)
        band = np.fromfile(file, np.uint8, rows * width * 3, offset=top * width * 3)
        yield from _tiles_of(band.reshape(rows, width, 3), tile_px)


def _tiles_of(image: np.ndarray, tile_px: int) -> Iterator[np.ndarray]:
    height, width = image.shape[:2]
    for top in range(0, height, tile_px):
        for left in range(0, width, tile_px):
            part = image[top : top + tile_px, left : left + tile_px]
            tile = np.full((tile_px, tile_px, 3), 255, np.uint8)
            tile[: part.shape[0], : part.shape[1]] = part
            yield tile


def _watch(
    tiles: Iterator[np.ndarray], shape: tuple[int, int], tile_px: int, digest: Any, on_tile: Callable[[], None] | None
) -> Iterator[np.ndarray]:
    """Pass tiles through and hash their pixels."""
    height, width = shape
    for top in range(0, height, tile_px):
        for left in range(0, width, tile_px):
            tile = next(tiles)
            digest.update(np.ascontiguousarray(tile[: min(tile_px, height - top), : min(tile_px, width - left)]))
            if on_tile is not None:
                on_tile()
            yield np.ascontiguousarray(tile)


def _halve(image: np.ndarray) -> np.ndarray:
    """2 x 2 means, rounded; an odd last row or column is repeated."""
    height, width = image.shape[:2]
    whole = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge").astype(np.uint16)
    total = whole[::2, ::2] + whole[1::2, ::2] + whole[::2, 1::2] + whole[1::2, 1::2]
    return ((total + 2) // 4).astype(np.uint8)
