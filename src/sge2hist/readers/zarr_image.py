"""The pixels of an OME-NGFF image (multiscale, axes c, y, x) as levels of a slide."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.data.slides.pixel_source import CACHE_BYTES, PixelSource


class ZarrPixels:
    """One resolution level; decoded chunks are kept in a bounded least-recently-used cache (chunks can be large)."""

    def __init__(self, array: Any, cache_bytes: int = CACHE_BYTES) -> None:
        self._array = array
        _, self.height_px, self.width_px = (int(side) for side in array.shape)
        _, self._chunk_h, self._chunk_w = (int(side) for side in array.chunks)
        self._cache: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()
        self._cache_bytes = cache_bytes
        self._cached_bytes = 0

    def region(self, y0: int, x0: int, y1: int, x1: int) -> np.ndarray:
        """See `PixelSource.region`."""
        out = np.empty((y1 - y0, x1 - x0, 3), np.uint8)
        for row in range(y0 // self._chunk_h, -(-y1 // self._chunk_h)):
            for column in range(x0 // self._chunk_w, -(-x1 // self._chunk_w)):
                chunk = self._chunk(row, column)
                top, left = row * self._chunk_h, column * self._chunk_w
                ya, yb = max(y0, top), min(y1, top + chunk.shape[0])
                xa, xb = max(x0, left), min(x1, left + chunk.shape[1])
                out[ya - y0 : yb - y0, xa - x0 : xb - x0] = chunk[ya - top : yb - top, xa - left : xb - left]
        return out

    def _chunk(self, row: int, column: int) -> np.ndarray:
        key = (row, column)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        top, left = row * self._chunk_h, column * self._chunk_w
        planes = self._array[:3, top : top + self._chunk_h, left : left + self._chunk_w]
        chunk = np.ascontiguousarray(np.moveaxis(np.asarray(planes), 0, 2))
        self._cache[key] = chunk
        self._cached_bytes += chunk.nbytes
        while self._cached_bytes > self._cache_bytes and len(self._cache) > 1:
            self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes
        return chunk


def multiscale(group: Any, where: str) -> dict[str, Any]:
    """The first `multiscales` entry of an image or labels group (OME-NGFF 0.4 in .zattrs, 0.5 under "ome")."""
    attributes = dict(group.attrs)
    entries = attributes.get("ome", attributes).get("multiscales") or attributes.get("multiscales")
    if not isinstance(entries, list) or not entries or not isinstance(entries[0], dict):
        raise InputError(found="no multiscales", where=where, expected="an OME-NGFF image")
    return dict(entries[0])


def colour_levels(group: Any, path: str | Path) -> list[PixelSource]:
    """Levels of an image, largest first; empty when it is not 8-bit RGB or RGBA with axes c, y, x.

    Raises
    ------
    InputError
        If the group is no OME-NGFF image.
    """
    entry = multiscale(group, str(path))
    names = [str(axis.get("name") if isinstance(axis, dict) else axis) for axis in entry.get("axes", [])]
    arrays = [group[str(dataset["path"])] for dataset in entry.get("datasets", [])]
    if names != ["c", "y", "x"] or not arrays:
        return []
    if any(array.dtype != np.uint8 or len(array.shape) != 3 or array.shape[0] not in (3, 4) for array in arrays):
        return []
    return [ZarrPixels(array) for array in arrays]
