"""Writing slides: tiled, pyramidal, lossless OME-TIFF that QuPath, napari and Bio-Formats open.

RGB is written with interleaved samples (axes y,x,c), other channels one page each with their names (axes c,y,x): so these readers
expect it. Tiles come with all channels; for the second layout they wait in a temporary file until their channel is written.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.data.slides.channels import RGB, Channels, is_rgb

TILE_PX = 512
MIN_LEVEL_PX = 512
BUFFER_TILES = 16  # compressed at one time


def write_slide(
    path: str | Path,
    image: np.ndarray | Iterator[np.ndarray],
    um_per_px: float,
    shape: tuple[int, int] | None = None,
    description: str = "",
    *,
    channels: Channels = RGB,
    tile_px: int = TILE_PX,
    on_tile: Callable[[], None] | None = None,
) -> str:
    """Write a slide and return a hash of its pixels (independent of compression and metadata).

    Parameters
    ----------
    image
        uint8 [H, W, C], or full tiles uint8 [tile_px, tile_px, C] in row-major order (border tiles padded).
    um_per_px
        Written as PhysicalSizeX and PhysicalSizeY in um.
    shape
        (height, width) in px; needed when `image` is an iterator.
    channels
        Names of the C channels.
    on_tile
        Called after each full-resolution tile, for progress bars.

    The smaller levels are gathered in temporary files, a row of tiles at a time: memory grows with the slide's width alone.
    """
    n = len(channels)
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != n:
            raise InputError(found=f"{image.dtype} {image.shape}", where=str(path), expected=f"uint8 [H, W, {n}]")
        shape = image.shape[:2]
        tiles = _tiles_of(image, tile_px)
    elif shape is None:
        raise ValueError("shape is needed with an iterator of tiles")
    else:
        tiles = image
    digest = blake2b(digest_size=16)
    with tempfile.TemporaryDirectory(dir=Path(path).absolute().parent, prefix=".pyramid.") as scratch:
        watched = _watch(tiles, shape, tile_px, digest, on_tile)
        _write_pyramid(path, watched, shape, Path(scratch), tile_px, um_per_px, description, channels)
    return digest.hexdigest()


def _write_pyramid(
    path: str | Path,
    tiles: Iterator[np.ndarray],
    shape: tuple[int, int],
    scratch: Path,
    tile_px: int,
    um_per_px: float,
    description: str,
    channels: Channels,
) -> None:
    """Write full-resolution tiles, then the levels below; each is gathered while the tiles of the one before pass."""
    import tifffile

    height, width = shape
    n, rgb = len(channels), is_rgb(channels)
    options: dict[str, Any] = {
        "photometric": "rgb" if rgb else "minisblack",
        "compression": "adobe_deflate",
        "predictor": True,
        "tile": (tile_px, tile_px),
        "dtype": np.uint8,
        "resolutionunit": "CENTIMETER",
        "buffersize": BUFFER_TILES * tile_px**2 * 3,
    }
    metadata: dict[str, Any] = {
        "axes": "YXS" if rgb else "CYX",
        "PhysicalSizeX": um_per_px,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": um_per_px,
        "PhysicalSizeYUnit": "µm",
        "Description": description,
    }
    if not rgb:
        metadata["Channel"] = {"Name": list(channels)}
    levels = _level_shapes(height, width)
    files = [scratch / str(number) for number in range(len(levels))]
    with tifffile.TiffWriter(path, ome=True, bigtiff=height * width * n > 2 * 1024**3) as writer:
        for number, (rows, columns) in enumerate(levels):
            if number:
                tiles = _stored_tiles(files[number], (rows, columns, n), tile_px)
            elif not rgb:
                tiles = _gather(tiles, (rows, columns, n), tile_px, files[number])
            if number + 1 < len(levels):
                tiles = _gather(tiles, (rows, columns, n), tile_px, files[number + 1], shrink=2)
            if not rgb:
                tiles = _by_channel(tiles, (rows, columns, n), tile_px, files[number])
            own: dict[str, Any] = {"metadata": None, "subfiletype": 1}
            if number == 0:
                own = {"metadata": metadata, "subifds": len(levels) - 1}
            resolution = (1e4 / um_per_px / 2**number, 1e4 / um_per_px / 2**number)
            in_file = (rows, columns, n) if rgb else (n, rows, columns)
            writer.write(tiles, shape=in_file, resolution=resolution, **own, **options)


def _level_shapes(height: int, width: int) -> list[tuple[int, int]]:
    """Height and width of every level, the first is the whole image."""
    shapes = [(height, width)]
    while max(height, width) > MIN_LEVEL_PX and min(height, width) > 1:
        height, width = -(-height // 2), -(-width // 2)
        shapes.append((height, width))
    return shapes


def _gather(
    tiles: Iterator[np.ndarray], shape: tuple[int, int, int], tile_px: int, file: Path, shrink: int = 1
) -> Iterator[np.ndarray]:
    """Pass tiles through and store the image, or (`shrink` 2) the image at half its size, row-major in a file."""
    height, width, n = shape
    with open(file, "wb", buffering=0) as stored:
        for top in range(0, height, tile_px):
            band = np.empty((-(-min(tile_px, height - top) // shrink), -(-width // shrink), n), np.uint8)
            for left in range(0, width, tile_px):
                tile = next(tiles)
                part = tile[: min(tile_px, height - top), : min(tile_px, width - left)]
                part = _halve(part) if shrink == 2 else part
                band[:, left // shrink : left // shrink + part.shape[1]] = part
                if left + tile_px >= width:  # before the tile goes: nobody may ask for more after the last one
                    stored.write(band.data)
                yield tile


def _by_channel(
    tiles: Iterator[np.ndarray], shape: tuple[int, int, int], tile_px: int, file: Path
) -> Iterator[np.ndarray]:
    """When all tiles have passed and the image lies in a file: all tiles of its first channel, then of the second, ..."""
    for _ in tiles:
        pass
    for channel in range(shape[2]):
        for tile in _stored_tiles(file, shape, tile_px):
            yield np.ascontiguousarray(tile[..., channel])


def _stored_tiles(file: Path, shape: tuple[int, int, int], tile_px: int) -> Iterator[np.ndarray]:
    """Tiles of an image stored row-major in a file, one row of tiles in memory at a time."""
    height, width, n = shape
    for top in range(0, height, tile_px):
        rows = min(tile_px, height - top)
        band = np.fromfile(file, np.uint8, rows * width * n, offset=top * width * n)
        yield from _tiles_of(band.reshape(rows, width, n), tile_px)


def _tiles_of(image: np.ndarray, tile_px: int) -> Iterator[np.ndarray]:
    height, width = image.shape[:2]
    for top in range(0, height, tile_px):
        for left in range(0, width, tile_px):
            part = image[top : top + tile_px, left : left + tile_px]
            tile = np.full((tile_px, tile_px, image.shape[2]), 255, np.uint8)
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
