"""Rows of arrays on disk, sorted by tile: the cells of a piece of the slide are one piece of a file.

Files are written in two passes: first count the rows of every tile (`TileLayout.count`), then write each row at its position
(`TileLayout.assign`). Files are never memory-mapped: mapped pages count as memory of the process while they are mapped, and the
cells of a slide are scattered, so that a few thousand of them touch the whole file.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

TileIndex = tuple[int, int]
"""Row and column of a tile (or block); tile (0, 0) starts at the origin of the slide."""


class ArrayFile:
    """A one-dimensional ``.npy`` file that is read and written row by row; nothing of it stays in memory."""

    def __init__(self, path: Path) -> None:
        with open(path, "rb") as file:
            np.lib.format.read_magic(file)
            (self._length,), _, self.dtype = np.lib.format.read_array_header_1_0(file)
            self._offset = file.seek(0, os.SEEK_CUR)
        self.path = path

    @classmethod
    def create(cls, path: Path, dtype: Any, length: int) -> ArrayFile:
        """Make a file of zeros."""
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": (length,)}
        with open(path, "wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            file.truncate(file.seek(0, os.SEEK_CUR) + length * np.dtype(dtype).itemsize)
        return cls(path)

    def __len__(self) -> int:
        return self._length

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows `start` to `stop`; fewer at the end of the file."""
        count = max(0, min(stop, self._length) - start)
        return np.fromfile(self.path, self.dtype, count, offset=self._offset + start * self.dtype.itemsize)

    def read_at(self, positions: np.ndarray) -> np.ndarray:
        """Rows at distinct positions, in the order of `positions`."""
        order, runs = _runs(positions)
        found = np.empty(len(positions), self.dtype)
        with open(self.path, "rb", buffering=0) as file:
            for position, start, stop in runs:
                file.seek(self._offset + position * self.dtype.itemsize)
                found[start:stop] = np.fromfile(file, self.dtype, stop - start)
        out = np.empty_like(found)
        out[order] = found
        return out

    def write_at(self, positions: np.ndarray, rows: np.ndarray) -> None:
        """Store rows at some positions."""
        order, runs = _runs(positions)
        content, size = rows[order].astype(self.dtype, copy=False).tobytes(), self.dtype.itemsize
        with open(self.path, "r+b", buffering=0) as file:
            for position, start, stop in runs:
                file.seek(self._offset + position * size)
                file.write(content[start * size : stop * size])


def _runs(positions: np.ndarray) -> tuple[np.ndarray, list[tuple[int, int, int]]]:
    """The order in which positions rise, and its runs of consecutive positions: (first position, start, stop)."""
    order = np.argsort(positions, kind="stable")
    if len(positions) == 0:
        return order, []
    rising = positions[order]
    start = np.concatenate([[0], np.flatnonzero(np.diff(rising) != 1) + 1])
    stop = np.append(start[1:], len(positions))
    return order, list(zip(rising[start].tolist(), start.tolist(), stop.tolist(), strict=True))


class TileLayout:
    """Which rows of a file belong to which tile: tiles in row-major order, rows of a tile in the order of the calls."""

    def __init__(self, low_um: np.ndarray, high_um: np.ndarray, side_um: float) -> None:
        """The tiles that a rectangle (corners `low_um` and `high_um`, y and x) touches, and one more on every side."""
        self.side_um = side_um
        self._first = np.floor(np.asarray(low_um) / side_um).astype(np.int64) - 1
        self._shape = np.ceil(np.asarray(high_um) / side_um).astype(np.int64) + 1 - self._first
        self._count = np.zeros(self._shape.prod(), np.int64)
        self._assigned = np.zeros_like(self._count)

    @property
    def bounds_um(self) -> tuple[np.ndarray, np.ndarray]:
        """Upper left and lower right corner of all tiles, y and x."""
        return self._first * self.side_um, (self._first + self._shape) * self.side_um

    def tile_number(self, xy_um_N2: np.ndarray) -> np.ndarray:
        """Running number of the tile of each position, int64 [N]; -1 outside."""
        tile = np.floor(xy_um_N2[:, ::-1] / self.side_um).astype(np.int64) - self._first
        inside = ((tile >= 0) & (tile < self._shape)).all(1)
        return np.where(inside, tile[:, 0] * self._shape[1] + tile[:, 1], -1)

    def index(self, number: int) -> TileIndex:
        """Row and column of the tile with a running number."""
        return int(number // self._shape[1] + self._first[0]), int(number % self._shape[1] + self._first[1])

    def count(self, xy_um_N2: np.ndarray) -> None:
        """Count rows by their positions on the slide, all of them inside."""
        self._count += np.bincount(self.tile_number(xy_um_N2), minlength=len(self._count))

    @property
    def n_rows(self) -> int:
        """Rows counted."""
        return int(self._count.sum())

    @property
    def _start(self) -> np.ndarray:
        return np.cumsum(self._count) - self._count

    def assign(self, xy_um_N2: np.ndarray) -> np.ndarray:
        """Positions in the file of the next rows, int64 [N]."""
        number = self.tile_number(xy_um_N2)
        order = np.argsort(number, kind="stable")
        before = np.arange(len(number)) - np.searchsorted(number[order], number[order])
        out = np.empty(len(number), np.int64)
        out[order] = self._start[number[order]] + self._assigned[number[order]] + before
        self._assigned += np.bincount(number, minlength=len(self._count))
        return out

    def table(self) -> np.ndarray:
        """Rows (row, column, start, stop) of the tiles that are not empty, int64: what :class:`TileStore` needs."""
        held = np.flatnonzero(self._count)
        i, j = held // self._shape[1] + self._first[0], held % self._shape[1] + self._first[1]
        return np.column_stack([i, j, self._start[held], self._start[held] + self._count[held]])


class TileStore:
    """A file of rows sorted by tile, with the table of :meth:`TileLayout.table`."""

    def __init__(self, file: ArrayFile, table: np.ndarray) -> None:
        self._file = file
        self._range = {(int(i), int(j)): (int(start), int(stop)) for i, j, start, stop in table}

    @property
    def tiles(self) -> list[TileIndex]:
        """Tiles that are not empty."""
        return list(self._range)

    def read(self, tile: TileIndex) -> np.ndarray:
        """Rows of a tile."""
        return self._file.read(*self._range.get(tile, (0, 0)))

    def read_3x3(self, tile: TileIndex) -> np.ndarray:
        """Rows of a tile and of its eight neighbours."""
        return np.concatenate([self.read((tile[0] + i, tile[1] + j)) for i in (-1, 0, 1) for j in (-1, 0, 1)])
