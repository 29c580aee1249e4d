"""Blocks of a comma-separated table that is almost all zeros: only the fields that are not "0" are parsed.

A general reader of csv converts every field: for a table of 1 million cells and 19,000 genes that is 19 billion numbers, of
which 98 % are 0. Here the separators of a block are found at once, and the fields between them that are not the one letter 0.
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
    row: np.ndarray  # int64: of each other field that is not the letter 0, rising
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
    ends = np.flatnonzero((letters == COMMA) | (letters == NEWLINE))
    is_last = letters[ends] == NEWLINE
    if len(ends) % n_columns or not is_last[n_columns - 1 :: n_columns].all() or is_last.sum() * n_columns != len(ends):
        lengths = np.diff(np.flatnonzero(is_last), prepend=-1)
        raise ValueError(f"a row with {lengths[lengths != n_columns][0]:,} fields, not {n_columns:,}")
    starts = np.concatenate([[0], ends[:-1] + 1])
    n_rows = len(ends) // n_columns
    ends = ends.copy()
    ends[n_columns - 1 :: n_columns] -= letters[ends[n_columns - 1 :: n_columns] - 1] == RETURN
    parsed = (ends - starts != 1) | (letters[starts] != ZERO)
    of_ids = np.zeros(n_columns, bool)
    of_ids[list(id_columns)] = True
    parsed.reshape(n_rows, n_columns)[:, of_ids] = False
    field = np.flatnonzero(parsed)
    return TextBlock(
        n_rows=n_rows,
        ids={number: _texts(text, starts[number::n_columns], ends[number::n_columns]) for number in id_columns},
        row=field // n_columns,
        column=field % n_columns,
        value=_numbers(letters, starts[field], ends[field] - starts[field]),
    )


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
