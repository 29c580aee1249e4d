"""A matrix of cells and genes, in memory or in a file, read in pieces of bounded size.

Shape letters: N cells, G genes, S sampled rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from sge2hist.data.errors import InputError

if TYPE_CHECKING:
    from scipy.sparse import csc_array, csr_array

CHUNK_ENTRIES = 8_000_000  # stored values (or dense entries) decoded at a time
SAMPLE_ENTRIES = 2_000_000  # of the rows that `sample` reads
SAMPLE_BLOCKS = 16  # places of the table that they come from


class StoredMatrix:
    """A matrix [N, G] that anndata stores: dense, CSR or CSC; a NumPy or SciPy array, or a dataset or group of HDF5 or zarr.

    Sources: https://anndata.readthedocs.io/en/stable/fileformat-prose.html; before anndata 0.7, attributes ``h5sparse_format``
    and ``h5sparse_shape`` of a sparse group.

    Raises
    ------
    InputError
        If it is something else, or a damaged sparse matrix.
    """

    def __init__(self, element: Any, where: str) -> None:
        self.where = where
        self.layout = "dense"
        element = _unwrapped(element)
        self._values: Any = element
        self._indices: Any = None  # of a sparse matrix
        if hasattr(element, "keys"):
            self._open_group(element)
        elif hasattr(element, "indptr"):
            self.layout = str(element.format)
            self._values, self._indices = element.data, element.indices
            self._set_pointers(element.indptr, element.shape)
        elif len(getattr(element, "shape", ())) == 2 and hasattr(element, "dtype"):
            self.shape = (int(element.shape[0]), int(element.shape[1]))
        else:
            shape = getattr(element, "shape", None)
            found = f"a {type(element).__name__}" + ("" if shape is None else f" of shape {tuple(shape)}")
            raise InputError(found=found, where=where, expected="a matrix of cells and genes")
        self.dtype = np.dtype(self._values.dtype)

    def _open_group(self, group: Any) -> None:
        attributes = dict(group.attrs)
        layout = _text(attributes.get("encoding-type", attributes.get("h5sparse_format", "")))[:3]
        shape = attributes.get("shape", attributes.get("h5sparse_shape"))
        if layout not in ("csr", "csc") or shape is None or not all(n in group for n in ("data", "indices", "indptr")):
            raise InputError(
                found=f"a group of {', '.join(group) or 'nothing'}", where=self.where, expected="a CSR or CSC matrix"
            )
        self.layout = layout
        self._values, self._indices = group["data"], group["indices"]
        self._set_pointers(group["indptr"][:], shape)

    def _set_pointers(self, indptr: Any, shape: Any) -> None:
        self.shape = (int(shape[0]), int(shape[1]))
        self._indptr = np.asarray(indptr, np.int64)
        n_major = self.shape[0] if self.layout == "csr" else self.shape[1]
        sound = len(self._indptr) == n_major + 1 and self._indptr[0] == 0 and not (np.diff(self._indptr) < 0).any()
        if not sound or self._indptr[-1] > min(self._values.shape[0], self._indices.shape[0]):
            raise InputError(
                found="row or column pointers that do not fit the matrix", where=self.where, expected="a sound matrix"
            )

    @property
    def n_stored(self) -> int:
        """Values that are stored; of a dense matrix, all."""
        return int(np.prod(self.shape)) if self.layout == "dense" else int(self._indptr[-1])

    def pieces(self) -> Iterator[tuple[int, csr_array | csc_array]]:
        """(first row, CSR of all columns) of a dense or CSR matrix; (first column, CSC of all rows) of a CSC matrix.

        Values are as stored, without repeated entries and zeros.
        """
        if self.layout == "dense":
            step = max(1, CHUNK_ENTRIES // max(1, self.shape[1]))
            for start in range(0, self.shape[0], step):
                yield start, self._piece(start, min(start + step, self.shape[0]))
            return
        start, n_major = 0, len(self._indptr) - 1
        while start < n_major:
            stop = int(np.searchsorted(self._indptr, self._indptr[start] + CHUNK_ENTRIES, side="right")) - 1
            stop = min(max(stop, start + 1), n_major)
            yield start, self._piece(start, stop)
            start = stop

    def _piece(self, start: int, stop: int) -> Any:
        """Rows (columns of a CSC matrix) start to stop."""
        from scipy.sparse import csc_array, csr_array

        if self.layout == "dense":
            return csr_array(np.asarray(self._values[start:stop]))
        first, last = int(self._indptr[start]), int(self._indptr[stop])
        indices, values = np.asarray(self._indices[first:last]), np.asarray(self._values[first:last])
        n_minor = self.shape[1] if self.layout == "csr" else self.shape[0]
        if indices.size and (indices.min() < 0 or indices.max() >= n_minor):
            raise InputError(
                found="indices outside the matrix", where=self.where, expected=f"0 to {n_minor - 1}, a sound matrix"
            )
        pointers = self._indptr[start : stop + 1] - first
        piece: Any
        if self.layout == "csr":
            piece = csr_array((values, indices, pointers), shape=(stop - start, n_minor))
        else:
            piece = csc_array((values, indices, pointers), shape=(n_minor, stop - start))
        if values.dtype.kind in "iufb" and not (piece.has_canonical_format and values.all()):
            piece = piece.copy()  # the arrays are the caller's
            piece.sum_duplicates()
            piece.eliminate_zeros()
        return piece

    def sample(self) -> csr_array:
        """Rows from all over the matrix with some two million entries, float64 CSR [S, G]; a small matrix whole."""
        from scipy.sparse import csr_array, vstack

        n_rows = self.shape[0]
        if self.dtype.kind not in "iufb" or 0 in self.shape:
            return csr_array((0, self.shape[1]), dtype=np.float64)
        per_row = self.shape[1] if self.layout == "dense" else max(1.0, self.n_stored / n_rows)
        wanted = min(n_rows, max(SAMPLE_BLOCKS, int(SAMPLE_ENTRIES / per_row)))
        edges = np.linspace(0, n_rows, SAMPLE_BLOCKS + 1).astype(np.int64)
        per_block = -(-wanted // SAMPLE_BLOCKS)
        blocks = [(int(a), int(min(b, a + per_block))) for a, b in pairwise(edges)]
        blocks = [(a, b) for a, b in blocks if b > a]
        if self.layout == "csc":
            return self._sample_columns(np.concatenate([np.arange(a, b) for a, b in blocks]))
        return csr_array(vstack([self._piece(a, b) for a, b in blocks], format="csr")).astype(np.float64)

    def first_rows(self, n: int) -> csr_array:
        """Up to n rows from the start, of a matrix that is not CSC."""
        return self._piece(0, min(n, self.shape[0]))

    def _sample_columns(self, rows: np.ndarray) -> csr_array:
        """Rows of a matrix that is stored by columns: all of it is read, in pieces."""
        from scipy.sparse import csr_array, hstack

        parts = [csr_array(piece.tocsr()[rows]).astype(np.float64) for _, piece in self.pieces()]
        sampled: csr_array = hstack(parts, format="csr")
        return sampled


def _unwrapped(element: Any) -> Any:
    """The stored form of what anndata wraps: matrices of files opened with `backed`, lazy arrays, other sparse formats."""
    from anndata.abc import CSCDataset, CSRDataset
    from scipy.sparse import issparse

    if isinstance(element, CSRDataset | CSCDataset):
        return element.group
    if hasattr(element, "compute"):  # dask
        return _unwrapped(element.compute())
    if issparse(element):
        sparse: Any = element
        return sparse if sparse.format in ("csr", "csc") else sparse.tocsr()
    return np.asarray(element) if isinstance(element, np.ndarray) else element  # a view of an AnnData has keys


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
