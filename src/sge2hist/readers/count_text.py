"""Blocks of a comma-separated table that is almost all zeros: only the fields that are not "0" are parsed.

A general reader of csv converts every field: for a table of 1 million cells and 19,000 genes that is 19 billion numbers, of
which 98 % are 0. Here the separators of a block are found at once, and the fields between them that hold another letter than 0.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import numpy as np

from sge2hist.readers.tables import damaged

BLOCK_BYTES = 16 * 1024**2
COMMA, NEWLINE, RETURN, ZERO = b",\n\r0"
WHAT = "table of counts"


@dataclass(frozen=True, kw_only=True)
class TextBlock:
    """Whole rows of the table."""

    n_rows: int
    ids: dict[int, np.ndarray]  # column -> text of each row, object [rows]
    row: np.ndarray  # int64: of each other field that is not made of zeros, rising
    column: np.ndarray  # int64
    value: np.ndarray  # float64, NaN for an empty field


def blocks_of(path: Path, n_columns: int, id_columns: tuple[int, ...]) -> Iterator[TextBlock]:
    """Blocks of the rows below the header.

    Raises
    ------
    InputError
        If the file is cut or damaged, a row has another number of fields than `n_columns`, or a count is no number.
    """
    try:
        with cast("IO[bytes]", gzip.open(path) if _is_gzip(path) else open(path, "rb")) as file:
            file.readline()
            rest = b""
            while piece := file.read(BLOCK_BYTES):
                end = piece.rfind(b"\n") + 1
                if not end:
                    rest += piece
                    continue
                yield _parsed(rest + piece[:end], n_columns, id_columns)
                rest = piece[end:]
            if rest.strip(b"\r\n"):
                yield _parsed(rest + b"\n", n_columns, id_columns)
    except (OSError, EOFError, zlib.error, ValueError, MemoryError) as error:
        raise damaged(path, WHAT, error) from error


def _is_gzip(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _parsed(text: bytes, n_columns: int, id_columns: tuple[int, ...]) -> TextBlock:
    """Parse whole rows; raises ValueError where they are none."""
    letters = np.frombuffer(text.rstrip(b"\r\n") + b"\n", np.uint8)
    is_comma, is_end = letters == COMMA, letters == NEWLINE
    separator = is_comma | is_end
    row_ends, ends = np.flatnonzero(is_end), np.flatnonzero(separator)
    n_rows = len(row_ends)
    if len(ends) != n_rows * n_columns or (ends[n_columns - 1 :: n_columns] != row_ends).any():
        lengths = np.diff(np.searchsorted(ends, row_ends), prepend=-1)
        raise ValueError(f"a row with {lengths[lengths != n_columns][0]:,} fields, not {n_columns:,}")
    field = _other_fields(letters, separator, ends)
    column = field % n_columns
    of_counts = np.ones(n_columns, bool)
    of_counts[list(id_columns)] = False
    field, column = field[of_counts[column]], column[of_counts[column]]
    starts, stops = _bounds(letters, ends, field)
    first = np.arange(n_rows) * n_columns
    return TextBlock(
        n_rows=n_rows,
        ids={number: _texts(text, *_bounds(letters, ends, first + number)) for number in id_columns},
        row=field // n_columns,
        column=column,
        value=_numbers(letters, starts, stops - starts),
    )


def _other_fields(letters: np.ndarray, separator: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Numbers of the fields that hold a letter other than 0, or none, rising; by passes over bytes, few of which are such."""
    other = (letters != ZERO) & ~separator
    other[1:] |= separator[1:] & separator[:-1]  # an empty field
    other[0] |= separator[0]
    field = np.searchsorted(ends, np.flatnonzero(other))
    return field[np.diff(field, prepend=-1) > 0]


def _bounds(letters: np.ndarray, ends: np.ndarray, field: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where fields begin and stop in the text, without the return before a newline."""
    starts = np.where(field > 0, ends[field - 1] + 1, 0)
    stops = ends[field]
    returned = (letters[stops] == NEWLINE) & (stops > starts) & (letters[stops - 1] == RETURN)
    return starts, stops - returned


def _texts(text: bytes, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    pairs = zip(starts.tolist(), ends.tolist(), strict=True)
    return np.array([text[start:end].decode("utf-8", "replace").strip().strip('"') for start, end in pairs], object)


def _numbers(letters: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Fields as float64, those of one length at once; an empty one is NaN."""
    values = np.full(len(starts), np.nan)
    for length in np.unique(lengths[lengths > 0]).tolist():
        chosen = np.flatnonzero(lengths == length)
        matrix = letters[starts[chosen][:, None] + np.arange(length)]
        if length == 1 and ((matrix >= ZERO) & (matrix <= ZERO + 9)).all():
            values[chosen] = matrix[:, 0] - ZERO
        else:
            values[chosen] = np.ascontiguousarray(matrix).view(f"S{length}")[:, 0].astype(np.float64)
    return values
