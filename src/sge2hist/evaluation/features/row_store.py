"""What was computed of real patches, kept beside the dataset in `X.paired/cache/`, so that the next evaluation need not
compute it again.

A file's name holds a hash of everything that determines its values. A folder that cannot be written, or a damaged file,
costs time and nothing else. The folder may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from sge2hist.data.artifacts import atomic_path
from sge2hist.data.errors import InputError
from sge2hist.data.output_lock import remove_partial_files

FOLDER = "cache"
MAX_BYTES = 256 * 1024**2  # of one file; more rows are computed each time


class RowStore:
    """Vectors by row of the paired dataset.

    Parameters
    ----------
    path
        The file, read when it exists; None: only in memory.

    Example
    -------
    >>> store = RowStore(None)
    >>> store.complete(np.array([7, 3]), lambda missing: np.array([[0.75], [0.25]]))
    array([[0.75],
           [0.25]])
    >>> store.save()
    >>> known, values = store.lookup(np.array([3, 5]))
    >>> known.tolist(), values.tolist()
    ([True, False], [[0.25]])
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._rows = np.empty(0, np.int64)
        self._values: np.ndarray | None = None
        self._new: list[tuple[np.ndarray, np.ndarray]] = []
        if path is not None and path.is_file():
            try:
                with np.load(path, allow_pickle=False) as file:
                    rows, values = file["rows"], file["values"]
            except (OSError, ValueError, KeyError, BadZipFile, EOFError):
                return  # damaged: computed again and replaced
            if rows.ndim == 1 and values.ndim == 2 and len(rows) == len(values) and (np.diff(rows) > 0).all():
                self._rows, self._values = rows, values

    def lookup(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return which of the rows are stored (bool [n]), and the vectors of those [k, D]."""
        if self._values is None or len(self._rows) == 0:
            return np.zeros(len(rows), bool), np.empty((0, 0), np.float32)
        position = np.minimum(np.searchsorted(self._rows, rows), len(self._rows) - 1)
        known = self._rows[position] == rows
        return known, self._values[position[known]]

    def complete(self, rows: np.ndarray, compute: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Return the vectors [n, D] of rows.

        Parameters
        ----------
        compute
            Maps the positions among `rows` of those that are not stored to their vectors, which are kept.
        """
        known, values = self.lookup(rows)
        if known.all() and len(rows):
            return values
        new = np.asarray(compute(np.flatnonzero(~known)))
        self._new.append((rows[~known], new))
        if not known.any():
            return new
        out = np.empty((len(rows), new.shape[1]), new.dtype)
        out[known], out[~known] = values, new
        return out

    def save(self) -> None:
        """Sort in what was computed since, and write the file unless it is too large or the folder is read-only."""
        if not self._new:
            return
        old = [] if self._values is None else [(self._rows, self._values)]
        rows = np.concatenate([part for part, _ in (*old, *self._new)])
        values = np.concatenate([part for _, part in (*old, *self._new)])
        self._rows, first = np.unique(rows, return_index=True)
        self._values, self._new = values[first], []
        if self.path is None or self._values.nbytes > MAX_BYTES:
            return
        try:
            remove_partial_files(self.path.parent)
            with atomic_path(self.path) as partial, open(partial, "wb") as file:
                np.savez(file, rows=self._rows, values=self._values)
        except (OSError, InputError):
            return  # no permission, or no space


def store_beside(dataset: Path, name: str, keys: dict[str, Any] | None) -> RowStore:
    """Return the store of a dataset's folder for values that `keys` (plain values) determine; None: only in memory."""
    if keys is None:
        return RowStore(None)
    content = json.dumps(keys, sort_keys=True, default=str).encode()
    return RowStore(dataset / FOLDER / f"{name}-{hashlib.sha256(content).hexdigest()[:16]}.npz")
