"""Sources of the pixels of a slide: an array in memory, or tiles decoded on demand."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import OrderedDict
from pathlib import Path
from typing import Any, Protocol

import numpy as np

CACHE_BYTES = 256 * 1024**2  # decoded tiles kept per open image


class PixelSource(Protocol):
    """Pixels of one resolution level, C channels (3 for RGB)."""

    height_px: int
    width_px: int

    def region(self, y0: int, x0: int, y1: int, x1: int) -> np.ndarray:
        """Return uint8 [y1 - y0, x1 - x0, C]; the region lies inside the image."""
        ...


class ArrayPixels:
    """Pixels already in memory (or memory-mapped), uint8 [H, W, C]."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.height_px, self.width_px = array.shape[:2]

    def region(self, y0: int, x0: int, y1: int, x1: int) -> np.ndarray:
        """See `PixelSource.region`."""
        return np.ascontiguousarray(self.array[y0:y1, x0:x1])


class TiledPixels(ABC):
    """Pixels decoded tile by tile, [H, W, C] of any type of number; a bounded least-recently-used cache holds decoded tiles."""

    def __init__(
        self, shape_HWC: tuple[int, int, int], tile_px: tuple[int, int], dtype: np.dtype, cache_bytes: int = CACHE_BYTES
    ) -> None:
        self.height_px, self.width_px, self._n_channels = shape_HWC
        self._tile_h, self._tile_w = tile_px
        self.dtype = dtype
        self._cache_bytes = cache_bytes
        self._clear_cache()

    def _clear_cache(self) -> None:
        self._cache: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()
        self._cached_bytes = 0

    @abstractmethod
    def _decode_tile(self, row: int, column: int) -> np.ndarray:
        """The tile at a row and column of tiles, [h, w, C]; one at the lower or right border may be padded or cut."""

    def region(self, y0: int, x0: int, y1: int, x1: int) -> np.ndarray:
        """See `PixelSource.region`."""
        out = np.empty((y1 - y0, x1 - x0, self._n_channels), self.dtype)
        for row in range(y0 // self._tile_h, -(-y1 // self._tile_h)):
            for column in range(x0 // self._tile_w, -(-x1 // self._tile_w)):
                tile = self._tile(row, column)
                top, left = row * self._tile_h, column * self._tile_w
                ya, yb = max(y0, top), min(y1, top + self._tile_h)
                xa, xb = max(x0, left), min(x1, left + self._tile_w)
                out[ya - y0 : yb - y0, xa - x0 : xb - x0] = tile[ya - top : yb - top, xa - left : xb - left]
        return out

    def _tile(self, row: int, column: int) -> np.ndarray:
        if (row, column) in self._cache:
            self._cache.move_to_end((row, column))
            return self._cache[row, column]
        tile = self._decode_tile(row, column)
        self._cache[row, column] = tile
        self._cached_bytes += tile.nbytes
        while self._cached_bytes > self._cache_bytes and len(self._cache) > 1:
            self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes
        return tile


class TiffPixels(TiledPixels):
    """Tiles or strips of TIFF pages.

    `pages` holds one page with interleaved or planar RGB samples, one page per colour, or one page of a single channel (of
    any type of number; see `StackedPixels`). The file is reopened in every process, because a file position shared by forked
    data loaders would be a race.
    """

    def __init__(self, path: Path, pages: list[Any], cache_bytes: int = CACHE_BYTES) -> None:
        self._path = path
        self._page_offsets = [int(page.offset) for page in pages]
        key = pages[0].keyframe
        height, width = int(key.imagelength), int(key.imagewidth)
        n_channels = 1 if len(pages) == 1 and key.samplesperpixel == 1 else 3
        self._planar = key.samplesperpixel > 1 and int(key.planarconfig) == 2
        if key.is_tiled:
            tile_px = int(key.tilelength), int(key.tilewidth)
        else:
            tile_px = min(int(key.rowsperstrip), height), width
        super().__init__((height, width, n_channels), tile_px, np.dtype(key.dtype), cache_bytes)
        self._columns = -(-width // self._tile_w)
        self._per_plane = self._columns * -(-height // self._tile_h)
        self._reset()

    def _reset(self) -> None:
        self._clear_cache()
        self._tiff: Any = None
        self._pages: list[Any] = []
        self._owner = -1

    def __getstate__(self) -> dict[str, Any]:
        drop = ("_cache", "_cached_bytes", "_tiff", "_pages", "_owner")
        return {name: value for name, value in self.__dict__.items() if name not in drop}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def _open(self) -> None:
        if self._owner == os.getpid():
            return
        import tifffile

        self.close()  # of a forked parent: this closes the copy of its descriptor, not the parent's
        self._tiff = tifffile.TiffFile(self._path)
        self._pages = [page_at(self._tiff, offset) for offset in self._page_offsets]
        self._owner = os.getpid()

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close the file of this process; it is reopened when pixels are requested again."""
        if self.__dict__.get("_tiff") is not None:
            self._tiff.close()
        self._reset()

    def _tile(self, row: int, column: int) -> np.ndarray:
        self._open()
        return super()._tile(row, column)

    def _decode_tile(self, row: int, column: int) -> np.ndarray:
        index = row * self._columns + column
        if len(self._pages) == 1 and not self._planar:
            return self._decode(self._pages[0], index)[..., :3]
        if self._planar:
            planes = [self._decode(self._pages[0], index + s * self._per_plane) for s in range(3)]
        else:
            planes = [self._decode(page, index) for page in self._pages[:3]]
        return np.concatenate(planes, axis=-1)

    def _decode(self, page: Any, index: int) -> np.ndarray:
        """Decode one segment to [tile height, tile width, samples]; a sparse (empty) one is white, or dark in a lone channel."""
        key = page.keyframe
        offset, n_bytes = page.dataoffsets[index], page.databytecounts[index]
        if n_bytes == 0:
            samples = 1 if self._planar else key.samplesperpixel
            return np.full((self._tile_h, self._tile_w, samples), 255 if self._n_channels == 3 else 0, self.dtype)
        handle = page.parent.filehandle
        handle.seek(offset)
        data = handle.read(n_bytes)
        if len(data) < n_bytes:
            raise ValueError(f"the file ends inside tile {index} ({len(data)} of {n_bytes} bytes)")
        arguments: dict[str, Any] = {}
        if int(key.compression) in (6, 7, 34892, 33007):  # the JPEG family keeps its tables apart from the tiles
            arguments = {"jpegtables": page.jpegtables, "jpegheader": key.jpegheader}
        decoded = key.decode(data, index, _fullsize=key.is_tiled, **arguments)[0]
        if decoded is None:
            raise ValueError(f"tile {index} could not be decoded")
        return decoded[0]


class StackedPixels:
    """One resolution level whose channels lie in pages of their own; values in `ranges` become 0 to 255."""

    def __init__(self, pages: list[TiffPixels], ranges: list[tuple[float, float]]) -> None:
        self.pages, self.ranges = pages, ranges
        self.height_px, self.width_px = pages[0].height_px, pages[0].width_px

    def region(self, y0: int, x0: int, y1: int, x1: int) -> np.ndarray:
        """See `PixelSource.region`."""
        out = np.empty((y1 - y0, x1 - x0, len(self.pages)), np.uint8)
        for channel, (page, (low, high)) in enumerate(zip(self.pages, self.ranges, strict=True)):
            values = page.region(y0, x0, y1, x1)[..., 0]
            if values.dtype != np.uint8:
                values = ((values.astype(np.float32) - low) * (255 / (high - low)) + 0.5).clip(0, 255)
            out[..., channel] = values
        return out

    def close(self) -> None:
        """Close the files; they are reopened when pixels are requested again."""
        for page in self.pages:
            page.close()


def page_at(tiff: Any, offset: int) -> Any:
    """The page, or sub-page, whose directory starts at a byte offset (page numbers of sub-pages are ambiguous)."""
    for page in tiff.pages:
        if page.offset == offset:
            return page
        for sub_page in page.pages or ():
            if sub_page.offset == offset:
                return sub_page
    raise ValueError(f"no TIFF directory at byte {offset}: the file changed while it was open")
