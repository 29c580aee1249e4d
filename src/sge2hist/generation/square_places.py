"""Where the cells of a slide go in a file that is sorted by square: a piece of the slide is one piece of the file."""

from __future__ import annotations

import numpy as np

from sge2hist.generation.record_file import RecordFile

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
