"""Writing slides: tiled, pyramidal, lossless OME-TIFF that QuPath, napari and Bio-Formats open.

RGB is written with interleaved samples (axes y,x,c), other channels one page each with their names (axes c,y,x): so these readers
expect it. Tiles come with all channels; for the second layout they wait in a temporary file until a channel is written.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from sge2hist.data.channels import RGB, Channels, is_rgb
from sge2hist.data.errors import InputError

TILE_PX = 512
SMALLEST_LEVEL_PX = 512


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

    The half-size level is gathered in a temporary memory-mapped file, so memory stays bounded for any slide size.
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
    height, width = shape
    digest = blake2b(digest_size=16)
    with tempfile.TemporaryDirectory(dir=Path(path).absolute().parent, prefix=".pyramid.") as scratch:
        half = (
            _store(Path(scratch) / "half", (-(-height // 2), -(-width // 2), n))
            if _n_levels(height, width) > 1
            else None
        )
        watched = _watch(tiles, shape, tile_px, digest, half, on_tile)
        if not is_rgb(channels):
            watched = _by_channel(watched, _store(Path(scratch) / "whole", (height, width, n)), tile_px)
        _write_pyramid(path, watched, shape, half, tile_px, um_per_px, description, channels)
        del half, watched  # release the memory maps before their folder goes
    return digest.hexdigest()


def _write_pyramid(
    path: str | Path,
    tiles: Iterator[np.ndarray],
    shape: tuple[int, int],
    half: np.ndarray | None,
    tile_px: int,
    um_per_px: float,
    description: str,
    channels: Channels,
) -> None:
    """Write full-resolution tiles, then the levels below; `half` is filled while the tiles pass."""
    import tifffile

    height, width = shape
    n, rgb = len(channels), is_rgb(channels)
    n_levels = _n_levels(height, width)
    options: dict[str, Any] = {
        "photometric": "rgb" if rgb else "minisblack", "compression": "adobe_deflate", "predictor": True,
        "tile": (tile_px, tile_px), "dtype": np.uint8, "resolutionunit": "CENTIMETER",
    }  # fmt: skip
    metadata: dict[str, Any] = {
        "axes": "YXS" if rgb else "CYX", "PhysicalSizeX": um_per_px, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": um_per_px,
        "PhysicalSizeYUnit": "µm", "Description": description,
    }  # fmt: skip
    if not rgb:
        metadata["Channel"] = {"Name": list(channels)}
    resolution = (1e4 / um_per_px, 1e4 / um_per_px)
    bigtiff = height * width * n > 2 * 1024**3
    with tifffile.TiffWriter(path, ome=True, bigtiff=bigtiff) as writer:
        writer.write(
            tiles, shape=_file_shape((height, width, n), rgb), subifds=n_levels - 1, resolution=resolution,
            metadata=metadata, **options,
        )  # fmt: skip
        level = half
        for number in range(1, n_levels):
            assert level is not None
            tiles = _tiles_of(level, tile_px) if rgb else _planes_of(level, tile_px)
            writer.write(
                tiles, shape=_file_shape(level.shape, rgb), subfiletype=1, metadata=None,
                resolution=tuple(r / 2**number for r in resolution), **options,
            )  # fmt: skip
            level = _halve(level)


def _n_levels(height: int, width: int) -> int:
    levels = 1
    while max(height, width) > SMALLEST_LEVEL_PX and min(height, width) > 1:
        height, width, levels = -(-height // 2), -(-width // 2), levels + 1
    return levels


def _file_shape(shape: tuple[int, ...], rgb: bool) -> tuple[int, ...]:
    """Shape [H, W, C] in the order of the file's axes."""
    return shape if rgb else (shape[2], *shape[:2])


def _store(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
    return np.memmap(path, np.uint8, "w+", shape=shape)


def _by_channel(tiles: Iterator[np.ndarray], whole: np.ndarray, tile_px: int) -> Iterator[np.ndarray]:
    """Tiles of all channels -> all tiles of the first channel, then of the second, ..."""
    height, width = whole.shape[:2]
    for top in range(0, height, tile_px):
        for left in range(0, width, tile_px):
            target = whole[top : top + tile_px, left : left + tile_px]
            target[:] = next(tiles)[: target.shape[0], : target.shape[1]]
    yield from _planes_of(whole, tile_px)


def _planes_of(image: np.ndarray, tile_px: int) -> Iterator[np.ndarray]:
    for channel in range(image.shape[2]):
        for tile in _tiles_of(image[..., channel : channel + 1], tile_px):
            yield np.ascontiguousarray(tile[..., 0])


def _tiles_of(image: np.ndarray, tile_px: int) -> Iterator[np.ndarray]:
    height, width = image.shape[:2]
    for top in range(0, height, tile_px):
        for left in range(0, width, tile_px):
            part = image[top : top + tile_px, left : left + tile_px]
            tile = np.full((tile_px, tile_px, image.shape[2]), 255, np.uint8)
            tile[: part.shape[0], : part.shape[1]] = part
            yield tile


def _watch(
    tiles: Iterator[np.ndarray],
    shape: tuple[int, int],
    tile_px: int,
    digest: Any,
    half: np.ndarray | None,
    on_tile: Callable[[], None] | None,
) -> Iterator[np.ndarray]:
    """Pass tiles through, hash their pixels and gather the half-size level on the way."""
    height, width = shape
    for top in range(0, height, tile_px):
        for left in range(0, width, tile_px):
            tile = next(tiles)
            part = tile[: min(tile_px, height - top), : min(tile_px, width - left)]
            digest.update(np.ascontiguousarray(part))
            if half is not None:
                small = _halve(part)
                half[top // 2 : top // 2 + small.shape[0], left // 2 : left // 2 + small.shape[1]] = small
            if on_tile is not None:
                on_tile()
            yield np.ascontiguousarray(tile)


def _halve(image: np.ndarray) -> np.ndarray:
    """2 x 2 means, rounded; an odd last row or column is repeated. In bands, so that temporaries stay small."""
    height, width = image.shape[:2]
    out = np.empty((-(-height // 2), -(-width // 2), image.shape[2]), np.uint8)
    for top in range(0, height, 2048):
        band = np.asarray(image[top : top + 2048])
        band = np.pad(band, ((0, band.shape[0] % 2), (0, width % 2), (0, 0)), mode="edge").astype(np.uint16)
        total = band[::2, ::2] + band[1::2, ::2] + band[::2, 1::2] + band[1::2, 1::2]
        out[top // 2 : top // 2 + total.shape[0]] = (total + 2) // 4
    return out
