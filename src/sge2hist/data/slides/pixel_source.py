"""Sources of the pixels of a slide: an array in memory, or tiles decoded on demand."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from sge2hist.data.slides.colour_space import Alpha, on_white
from sge2hist.data.slides.stain_scale import StainScale
from sge2hist.data.slides.tiff_segment import alpha_of, decode_segment, is_planar, read_segment, ycbcr_pages_to_rgb
from sge2hist.data.virtual_he import render

CACHE_BYTES = 256 * 1024**2  # decoded tiles kept per open image
MAX_TILES = 64  # decoded to look at the values of an image


class PixelSource(Protocol):
    """Pixels of one resolution level, C channels (3 for RGB)."""

    height_px: int
    width_px: int

    def region(self, y0: int, x0: int, y1: int, x1: int) -> np.ndarray:
        """Return uint8 [y1 - y0, x1 - x0, C]; the region lies inside the image."""
        ...


class ChannelPage(Protocol):
    """One channel of one resolution level, numbers as in the file."""

    height_px: int
    width_px: int
    dtype: np.dtype

    def region(self, y0: int, x0: int, y1: int, x1: int) -> np.ndarray:
        """Return values [y1 - y0, x1 - x0, 1]; the region lies inside the image."""
        ...

    def close(self) -> None:
        """Close the files; they are reopened when pixels are requested again."""
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

    `pages` holds one page with interleaved or planar RGB(A) samples, one page per colour (and alpha), or one page of a single
    channel (of any type of number; see `ChannelPages`). Transparent pixels are composited on white glass. The file is reopened
    in every process, because a file position shared by forked data loaders would be a race.

    Attributes
    ----------
    alpha
        What the fourth sample is; None when there is none, or when it is to be ignored.
    """

    def __init__(self, path: Path, pages: list[Any], cache_bytes: int = CACHE_BYTES) -> None:
        self._path = path
        self._page_offsets = [int(page.offset) for page in pages]
        key = pages[0].keyframe
        height, width = int(key.imagelength), int(key.imagewidth)
        n_channels = 1 if len(pages) == 1 and key.samplesperpixel == 1 else 3
        self.alpha: Alpha | None = ("unspecified" if len(pages) > 3 else alpha_of(key)) if n_channels == 3 else None
        self._planar = is_planar(key)
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
        samples = self._samples(row * self._columns + column, 4 if self.alpha else self._n_channels)
        return on_white(samples, self.alpha) if self.alpha else samples

    def _samples(self, index: int, count: int) -> np.ndarray:
        """Samples [h, w, count] of a tile, RGB or RGBA."""
        if len(self._pages) == 1 and not self._planar:
            segments = [(self._pages[0], index)]
        elif self._planar:
            segments = [(self._pages[0], index + s * self._per_plane) for s in range(count)]
        else:
            segments = [(page, index) for page in self._pages[:count]]
        data = [read_segment(*segment) for segment in segments]
        if not any(data):  # sparse: white, or dark in a lone channel
            return np.full((self._tile_h, self._tile_w, count), 255 if self._n_channels == 3 else 0, self.dtype)
        planes = [
            decode_segment(page, stored, at)
            if stored
            else np.full((self._tile_h, self._tile_w, 1), 255 if self._n_channels == 3 else 0, self.dtype)
            for (page, at), stored in zip(segments, data, strict=True)
        ]
        samples = planes[0] if len(planes) == 1 else np.concatenate(planes, axis=-1)
        return ycbcr_pages_to_rgb(self._pages[0].keyframe, samples)[..., :count]

    def keep_none(self) -> None:
        """Keep no decoded tile."""
        self._cache_bytes = 0

    def try_first_tile(self) -> None:
        """Decode the first stored tile, so that a file that no codec can read is reported when it is opened."""
        self._open()
        stored = self._pages[0].databytecounts[: self._per_plane]
        self._samples(next((index for index, n_bytes in enumerate(stored) if n_bytes), 0), self._n_channels)
        self.close()

    def highest(self) -> float:
        """The highest colour value of some tiles, far apart."""
        self._open()
        found = [float(np.nanmax(self._samples(index, self._n_channels))) for index in self._spread()[:MAX_TILES]]
        return max(found)

    def _spread(self) -> list[int]:
        """All tiles, those far apart first: by the golden section."""
        n = self._per_plane
        stride = max(1, round(n * 0.618))
        while math.gcd(stride, n) > 1:
            stride += 1
        return [i * stride % n for i in range(n)]

    def alpha_tiles(self) -> Iterator[np.ndarray]:
        """The fourth sample of every tile [h, w] inside the image, those far apart first."""
        self._open()
        for index in self._spread():
            tile = self._samples(index, 4)[..., 3]
            top, left = index // self._columns * self._tile_h, index % self._columns * self._tile_w
            yield tile[: self.height_px - top, : self.width_px - left]


class ChannelPages:
    """One resolution level whose C channels lie in pages of their own; numbers as in the file."""

    def __init__(self, pages: Sequence[ChannelPage]) -> None:
        self.pages = list(pages)
        self.height_px, self.width_px = pages[0].height_px, pages[0].width_px
        self.dtype = pages[0].dtype

    def region(self, y0: int, x0: int, y1: int, x1: int) -> np.ndarray:
        """Return values [y1 - y0, x1 - x0, C]; the region lies inside the image."""
        out = np.empty((y1 - y0, x1 - x0, len(self.pages)), self.dtype)
        for channel, page in enumerate(self.pages):
            out[..., channel] = page.region(y0, x0, y1, x1)[..., 0]
        return out

    def close(self) -> None:
        """Close the files; they are reopened when pixels are requested again."""
        for page in self.pages:
            page.close()


class ScaledPixels:
    """Channels of 8 or 16 bits whose values become levels 0 to 255 by a scale for each."""

    def __init__(self, values: ChannelPages | ArrayPixels, scales: Sequence[StainScale]) -> None:
        self.values, self.scales = values, tuple(scales)
        self.height_px, self.width_px = values.height_px, values.width_px
        self.dtype = values.array.dtype if isinstance(values, ArrayPixels) else values.dtype
        every_value = np.arange(np.iinfo(self.dtype).max + 1)
        unchanged = self.dtype == np.uint8 and all(scale.is_identity for scale in self.scales)
        self._levels = None if unchanged else [scale.levels(every_value) for scale in self.scales]

    def region(self, y0: int, x0: int, y1: int, x1: int) -> np.ndarray:
        """See `PixelSource.region`."""
        values = self.values.region(y0, x0, y1, x1)
        if self._levels is None:
            return values
        out = np.empty(values.shape, np.uint8)
        for channel, levels in enumerate(self._levels):
            out[..., channel] = levels[values[..., channel]]
        return out

    def close(self) -> None:
        """Close the files; they are reopened when pixels are requested again."""
        if isinstance(self.values, ChannelPages):
            self.values.close()


class VirtualHEPixels:
    """Channels of 8 or 16 bits seen as virtual H&E, computed for each region that is read."""

    def __init__(self, values: ChannelPages | ArrayPixels, tables: Sequence[np.ndarray]) -> None:
        """`tables`: what each channel lets through, float32 [number of values, 3] (`virtual_he.tables_of_scales`)."""
        self.values, self.tables = values, tables
        self.height_px, self.width_px = values.height_px, values.width_px

    def region(self, y0: int, x0: int, y1: int, x1: int) -> np.ndarray:
        """See `PixelSource.region`."""
        return render(self.values.region(y0, x0, y1, x1), self.tables)

    def close(self) -> None:
        """Close the files; they are reopened when pixels are requested again."""
        if isinstance(self.values, ChannelPages):
            self.values.close()


def page_at(tiff: Any, offset: int) -> Any:
    """The page, or sub-page, whose directory starts at a byte offset (page numbers of sub-pages are ambiguous)."""
    for page in tiff.pages:
        if page.offset == offset:
            return page
        for sub_page in page.pages or ():
            if sub_page.offset == offset:
                return sub_page
    raise ValueError(f"no TIFF directory at byte {offset}: the file changed while it was open")
