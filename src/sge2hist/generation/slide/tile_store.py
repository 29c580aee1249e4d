"""Where the cells of a slide go in a file that is sorted by square: a piece of the slide is one piece of the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

Square = tuple[int, int]  # row, column; square (0, 0) begins at the origin


class SquarePlaces:
    """Square after square, row-major; first all cells are counted, then places are taken."""

    def __init__(self, low_um: np.ndarray, high_um: np.ndarray, side_um: float) -> None:
        """The squares that a rectangle (from `low_um` to `high_um`, y and x) touches, and one more on every side."""
        self.side_um = side_um
        self._first = np.floor(np.asarray(low_um) / side_um).astype(np.int64) - 1
        self._shape = np.ceil(np.asarray(high_um) / side_um).astype(np.int64) + 1 - self._first
        self._count = np.zeros(self._shape.prod(), np.int64)
        self._taken = np.zeros_like(self._count)

    def square(self, xy_um_N2: np.ndarray) -> np.ndarray:
        """Number of the square of each position, int64 [N]; -1 outside."""
        square = np.floor(xy_um_N2[:, ::-1] / self.side_um).astype(np.int64) - self._first
        inside = ((square >= 0) & (square < self._shape)).all(1)
        return np.where(inside, square[:, 0] * self._shape[1] + square[:, 1], -1)

    def named(self, number: int) -> Square:
        """Row and column of a square."""
        return int(number // self._shape[1] + self._first[0]), int(number % self._shape[1] + self._first[1])

    def count(self, xy_um_N2: np.ndarray) -> None:
        """Count cells, all of them inside."""
        self._count += np.bincount(self.square(xy_um_N2), minlength=len(self._count))

    def take(self, xy_um_N2: np.ndarray) -> np.ndarray:
        """Places of the next cells, int64 [N]; within a square in the order of the calls."""
        square = self.square(xy_um_N2)
        order = np.argsort(square, kind="stable")
        before = np.arange(len(square)) - np.searchsorted(square[order], square[order])
        out = np.empty(len(square), np.int64)
        out[order] = self._start[square[order]] + self._taken[square[order]] + before
        self._taken += np.bincount(square, minlength=len(self._count))
        return out

    @property
    def bounds_um(self) -> tuple[np.ndarray, np.ndarray]:
        """Upper left and lower right corner of all squares, y and x."""
        return self._first * self.side_um, (self._first + self._shape) * self.side_um

    @property
    def n_cells(self) -> int:
        """Cells counted."""
        return int(self._count.sum())

    @property
    def _start(self) -> np.ndarray:
        return np.cumsum(self._count) - self._count

    def table(self) -> np.ndarray:
        """Rows (row, column, start, stop) of the squares that hold cells, int64."""
        held = np.flatnonzero(self._count)
        i, j = held // self._shape[1] + self._first[0], held % self._shape[1] + self._first[1]
        return np.column_stack([i, j, self._start[held], self._start[held] + self._count[held]])


class SquareFile:
    """Records sorted by square, and the table that says where each square lies."""

    def __init__(self, records: RecordFile, table: np.ndarray) -> None:
        self._records = records
        self._range = {(int(i), int(j)): (int(start), int(stop)) for i, j, start, stop in table}

    @property
    def squares(self) -> list[Square]:
        """Squares that hold cells."""
        return list(self._range)

    def read(self, square: Square) -> np.ndarray:
        """Records of a square."""
        return self._records.read(*self._range.get(square, (0, 0)))

    def near(self, square: Square) -> np.ndarray:
        """Records of a square and of the eight around it."""
        return np.concatenate([self.read((square[0] + i, square[1] + j)) for i in (-1, 0, 1) for j in (-1, 0, 1)])


# Records of one kind in an ``.npy`` file, read and written by place.
#
# The file is never mapped: mapped pages count as memory of the process for as long as they are mapped, and cells of a slide lie
# scattered, so that a few thousand of them would touch the whole file.


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
