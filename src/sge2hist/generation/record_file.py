"""Records of one kind in an ``.npy`` file, read and written by place.

The file is never mapped: mapped pages count as memory of the process for as long as they are mapped, and cells of a slide lie
scattered, so that a few thousand of them would touch the whole file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


class RecordFile:
    """A one-dimensional ``.npy`` file, opened for reading and writing; nothing of it stays in memory."""

    def __init__(self, path: Path) -> None:
        with open(path, "rb") as file:
            np.lib.format.read_magic(file)
            (self._length,), _, self.dtype = np.lib.format.read_array_header_1_0(file)
            self._offset = file.tell()
        self.path = path

    @classmethod
    def create(cls, path: Path, dtype: Any, length: int) -> RecordFile:
        """Make a file of zeros."""
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": (length,)}
        with open(path, "wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            file.truncate(file.tell() + length * np.dtype(dtype).itemsize)
        return cls(path)

    def __len__(self) -> int:
        return self._length

    def read(self, start: int, stop: int) -> np.ndarray:
        """Records `start` to `stop`; fewer at the end of the file."""
        count = max(0, min(stop, self._length) - start)
        return np.fromfile(self.path, self.dtype, count, offset=self._offset + start * self.dtype.itemsize)

    def take(self, places: np.ndarray) -> np.ndarray:
        """Records at some places, each asked for once, in the order of `places`."""
        order, runs = _runs(places)
        found = np.empty(len(places), self.dtype)
        with open(self.path, "rb", buffering=0) as file:
            for place, start, stop in runs:
                file.seek(self._offset + place * self.dtype.itemsize)
                found[start:stop] = np.fromfile(file, self.dtype, stop - start)
        out = np.empty_like(found)
        out[order] = found
        return out

    def put(self, places: np.ndarray, records: np.ndarray) -> None:
        """Store records at some places."""
        order, runs = _runs(places)
        content, size = records[order].astype(self.dtype, copy=False).tobytes(), self.dtype.itemsize
        with open(self.path, "r+b", buffering=0) as file:
            for place, start, stop in runs:
                file.seek(self._offset + place * size)
                file.write(content[start * size : stop * size])


def _runs(places: np.ndarray) -> tuple[np.ndarray, list[tuple[int, int, int]]]:
    """The order in which places rise, and runs that follow one another in it: (first place, start, stop)."""
    order = np.argsort(places, kind="stable")
    if len(places) == 0:
        return order, []
    rising = places[order]
    start = np.concatenate([[0], np.flatnonzero(np.diff(rising) != 1) + 1])
    stop = np.append(start[1:], len(places))
    return order, list(zip(rising[start].tolist(), start.tolist(), stop.tolist(), strict=True))
