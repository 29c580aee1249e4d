"""10x Genomics ``*_matrix.h5``: features x barcodes in CSC, read straight as barcodes x genes in CSR, in chunks.

Layout (Cell Ranger 3+, Space Ranger, Xenium Onboard Analysis)::

    /matrix/barcodes            fixed ASCII [N]
    /matrix/data                int32 [nnz]
    /matrix/indices             int64 [nnz], feature index
    /matrix/indptr              int64 [N + 1]
    /matrix/shape               int32 [2] = n_features, n_barcodes
    /matrix/features/{id,name,feature_type,genome}    fixed ASCII [n_features]
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pandas as pd

from sge2hist.data.errors import InputError
from sge2hist.data.table.genes import unique_names
from sge2hist.readers.hdf5_probe import probe_hdf5
from sge2hist.readers.tenx.proteins import SCALING_ATTRIBUTE, ProteinColumns, protein_columns

if TYPE_CHECKING:
    from scipy.sparse import csr_array

CHUNK_NONZEROS = 4_000_000  # 48 MB of values and int64 indices at a time
GENE_EXPRESSION = "Gene Expression"


@contextmanager
def hdf5_errors(path: str | Path) -> Iterator[None]:
    """Turn whatever h5py raises on a damaged file into one `InputError`."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(found="no such file", where=str(path), expected="a *_matrix.h5 of 10x Genomics") from None
    except (
        OSError,
        LookupError,
        ArithmeticError,
        RuntimeError,
        ValueError,
        TypeError,
        AttributeError,
        MemoryError,
    ) as error:
        detail = str(error).strip("'\"") or type(error).__name__
        raise InputError(
            found=f"an HDF5 file that cannot be read ({detail})",
            where=str(path),
            expected="a complete *_matrix.h5 of 10x Genomics",
            repair="copy or download it again and compare its size or md5 with the original",
        ) from error


@dataclass(frozen=True, kw_only=True)
class TenxMatrix:
    """An opened matrix: names in memory, counts left in the file until `read_counts`."""

    path: Path
    barcodes: np.ndarray  # bytes [N]
    genes: pd.DataFrame  # index: unique id; column "symbol"; only "Gene Expression" features
    column_of_feature: np.ndarray  # int64 [n_features]: column among `genes`, -1 = another feature type
    indptr: np.ndarray  # int64 [N + 1]
    software: str
    notes: list[str]
    proteins: ProteinColumns | None = None  # features that are proteins; see `proteins.proteins_of`

    @classmethod
    def open(cls, path: str | Path) -> TenxMatrix:
        """Read names and row pointers and check that all parts agree.

        Raises
        ------
        InputError
            If the file is truncated or damaged, is no 10x matrix, or holds no gene or no barcode.
        """
        path = Path(path)
        probe_hdf5(path)
        with hdf5_errors(path), h5py.File(path, "r") as file:
            if "matrix" not in file:
                raise InputError(
                    found=f"an HDF5 file with {', '.join(list(file)[:5]) or 'nothing'} at its root",
                    where=str(path),
                    expected="a group 'matrix' (Cell Ranger 3 or later, Space Ranger, Xenium)",
                )
            matrix = file["matrix"]
            n_features, n_barcodes = (int(n) for n in matrix["shape"][:])
            _check_lengths(path, matrix, n_features, n_barcodes)
            features = matrix["features"]
            ids = _text(features["id"][:])
            symbols = _text(features["name"][:]) if "name" in features else ids
            feature_types = (
                _text(features["feature_type"][:]) if "feature_type" in features else [GENE_EXPRESSION] * len(ids)
            )
            barcodes = matrix["barcodes"][:]
            if barcodes.dtype.kind == "O":
                barcodes = barcodes.astype(bytes)
            indptr = matrix["indptr"][:].astype(np.int64)
            software = _attribute(file, "software_version")
            scaling = float(file.attrs[SCALING_ATTRIBUTE]) if SCALING_ATTRIBUTE in file.attrs else None
            n_nonzero = matrix["data"].shape[0]
        if len(indptr) == 0 or indptr[0] != 0 or indptr[-1] != n_nonzero or (np.diff(indptr) < 0).any():
            raise InputError(found="row pointers out of order", where=str(path), repair="copy or download it again")
        proteins = protein_columns(path, symbols, feature_types, scaling)
        genes, column_of_feature, notes = gene_table(path, ids, symbols, feature_types, proteins)
        return cls(
            path=path,
            barcodes=barcodes,
            genes=genes,
            column_of_feature=column_of_feature,
            indptr=indptr,
            software=software,
            notes=notes,
            proteins=proteins,
        )

    @property
    def n_obs(self) -> int:
        """Number of barcodes N."""
        return len(self.indptr) - 1

    @property
    def n_values(self) -> int:
        """Number of values stored."""
        return int(self.indptr[-1])

    def without_names(self) -> TenxMatrix:
        """The same matrix without its barcodes, which can take more memory than anything else of it."""
        return dataclasses.replace(self, barcodes=self.barcodes[:0].copy())

    def read_counts(self, group_of_obs: np.ndarray | None = None, n_groups: int | None = None) -> csr_array:
        """Counts as `Section.read_counts` defines them: int32 CSR [N, G], or summed by group [n_groups, G].

        Chunks of about `CHUNK_NONZEROS` values are read; a chunk whose rows are all dropped is skipped.
        """
        if group_of_obs is None:
            return self._concatenate(list(self._chunks()))
        group_of_obs = np.asarray(group_of_obs, np.int64)
        if group_of_obs.shape != (self.n_obs,):
            raise ValueError(f"group_of_obs has shape {group_of_obs.shape}, expected ({self.n_obs},)")
        size = int(group_of_obs.max(initial=-1)) + 1 if n_groups is None else n_groups
        return self._sum_groups(group_of_obs, size)

    def _sum_groups(self, group_of_obs: np.ndarray, n_groups: int) -> csr_array:
        from scipy.sparse import csr_array

        pieces, piece_groups = [], []
        for first, last, chunk in self._chunks(keep=group_of_obs >= 0):
            group = group_of_obs[first:last]
            kept = np.flatnonzero(group >= 0)
            present, local = np.unique(group[kept], return_inverse=True)
            ones = np.ones(len(kept), np.int32)
            summing = csr_array((ones, (local, kept)), shape=(len(present), last - first))
            pieces.append((first, last, csr_array(summing @ chunk)))
            piece_groups.append(present)
        if not pieces:
            return _no_counts(n_groups, len(self.genes))
        stacked = self._concatenate(pieces)
        # A group whose observations fell into several chunks has several rows here: add them up.
        rows = np.concatenate(piece_groups)
        ones = np.ones(len(rows), np.int32)
        merging = csr_array((ones, (rows, np.arange(len(rows)))), shape=(n_groups, len(rows)))
        total = csr_array(merging @ stacked)
        total.sort_indices()
        return total

    def _concatenate(self, pieces: list[tuple[int, int, csr_array]]) -> csr_array:
        """Stack the pieces, freeing each when it is copied."""
        from scipy.sparse import csr_array

        n_nonzero = sum(piece.nnz for _, _, piece in pieces)
        lengths = [np.diff(piece.indptr) for _, _, piece in pieces]
        indptr = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]) if pieces else np.zeros(1, np.int64)
        data, indices = np.empty(n_nonzero, np.int32), np.empty(n_nonzero, np.int32)
        start = 0
        empty = _no_counts(0, 0)
        for position in range(len(pieces)):
            piece = pieces[position][2]
            data[start : start + piece.nnz], indices[start : start + piece.nnz] = piece.data, piece.indices
            start += piece.nnz
            pieces[position] = (0, 0, empty)
        return csr_array((data, indices, indptr), shape=(len(indptr) - 1, len(self.genes)))

    def row_chunks(self) -> Iterator[tuple[int, int]]:
        """First and last row of pieces of about `CHUNK_NONZEROS` values."""
        first = 0
        while first < self.n_obs:
            last = int(np.searchsorted(self.indptr, self.indptr[first] + CHUNK_NONZEROS, side="right")) - 1
            last = min(max(last, first + 1), self.n_obs)
            yield first, last
            first = last

    def _chunks(self, keep: np.ndarray | None = None) -> Iterator[tuple[int, int, csr_array]]:
        """Yield (first row, last row, int32 CSR of these rows), skipping chunks without a row to keep."""
        from scipy.sparse import csr_array

        with hdf5_errors(self.path), h5py.File(self.path, "r") as file:
            matrix = file["matrix"]
            for first, last in self.row_chunks():
                if keep is None or keep[first:last].any():
                    start, stop = int(self.indptr[first]), int(self.indptr[last])
                    data = whole_counts(self.path, matrix["data"][start:stop])
                    columns, data, indptr = self._columns(
                        matrix["indices"][start:stop], data, self.indptr[first : last + 1] - start
                    )
                    rows = csr_array((data, columns, indptr), shape=(last - first, len(self.genes)))
                    rows.sum_duplicates()
                    yield first, last, rows

    def _columns(
        self, features: np.ndarray, data: np.ndarray, indptr: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Feature indices -> gene columns; entries of other feature types go."""
        if len(features) and (features.min() < 0 or features.max() >= len(self.column_of_feature)):
            raise InputError(
                found="feature indices outside the feature table",
                where=str(self.path),
                repair="copy or download it again",
            )
        if len(self.genes) == len(self.column_of_feature):
            return features.astype(np.int32), data, indptr
        columns = self.column_of_feature[features]
        keep = columns >= 0
        kept_before = np.concatenate([[0], np.cumsum(keep)])
        return columns[keep].astype(np.int32), data[keep], kept_before[indptr]


def _no_counts(n_rows: int, n_columns: int) -> csr_array:
    from scipy.sparse import csr_array

    nothing = np.empty(0, np.int32)
    return csr_array((nothing, nothing, np.zeros(n_rows + 1, np.int32)), shape=(n_rows, n_columns))


def _check_lengths(path: Path, matrix: h5py.Group, n_features: int, n_barcodes: int) -> None:
    """Compare lengths before anything is allocated: a damaged length could ask for any amount of memory."""
    found = {
        "barcodes": (matrix["barcodes"].shape, (n_barcodes,)),
        "indptr": (matrix["indptr"].shape, (n_barcodes + 1,)),
        "features/id": (matrix["features/id"].shape, (n_features,)),
        "indices": (matrix["indices"].shape, matrix["data"].shape),
    }
    wrong = [
        f"{name} of shape {shape}, not {expected}" for name, (shape, expected) in found.items() if shape != expected
    ]
    if wrong:
        raise InputError(found="; ".join(wrong), where=str(path), repair="copy or download it again")
    if n_barcodes == 0 or n_features == 0:
        raise InputError(
            found=f"{n_barcodes} barcodes x {n_features} features", where=str(path), expected="at least one of each"
        )


def gene_table(
    path: Path, ids: list[str], symbols: list[str], feature_types: list[str], proteins: ProteinColumns | None
) -> tuple[pd.DataFrame, np.ndarray, list[str]]:
    """Gene table with unique ids, column of each feature, notes for people."""
    is_gene = np.array([name == GENE_EXPRESSION for name in feature_types])
    if not is_gene.any():
        raise InputError(
            found=f"feature types {', '.join(sorted(set(feature_types)))}",
            where=str(path),
            expected=f"'{GENE_EXPRESSION}'",
        )
    notes = []
    n_excluded = int((~is_gene).sum()) - (0 if proteins is None else len(proteins.names))
    if proteins is not None:
        notes.append(proteins.note)
    if n_excluded:
        notes.append(f"{n_excluded:,} features of other types than '{GENE_EXPRESSION}' excluded")
    kept_ids = [ids[i] for i in np.flatnonzero(is_gene)]
    kept_symbols = [symbols[i] for i in np.flatnonzero(is_gene)]
    n_repeated_symbols = len(kept_symbols) - len(set(kept_symbols))
    unique = unique_names(kept_ids)
    n_renamed = sum(new != old for new, old in zip(unique, kept_ids, strict=True))
    if n_renamed:
        notes.append(f"{n_renamed} repeated gene ids made unique by a suffix")
    if n_repeated_symbols:
        notes.append(f"{n_repeated_symbols} repeated gene symbols kept under their own ids")
    column_of_feature = np.where(is_gene, np.cumsum(is_gene) - 1, -1)
    return pd.DataFrame({"symbol": kept_symbols}, index=pd.Index(unique, name="gene_id")), column_of_feature, notes


def whole_counts(path: Path, data: np.ndarray) -> np.ndarray:
    """Values as int32; `InputError` if they are no counts."""
    if data.dtype.kind not in "iuf":
        raise InputError(found=f"counts of type {data.dtype}", where=str(path), expected="whole numbers")
    if len(data) and not (np.isfinite(data).all() and data.min() >= 0 and data.max() < 2**31):
        raise InputError(found="counts that are negative or out of range", where=str(path), expected="counts >= 0")
    whole = data.astype(np.int32)
    if data.dtype.kind == "f" and (whole != data).any():
        raise InputError(found="counts with fractions", where=str(path), expected="raw counts, not normalised ones")
    return whole


def _text(values: np.ndarray) -> list[str]:
    return [value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in values]


def _attribute(file: h5py.File, name: str) -> str:
    value = file.attrs.get(name, "")
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
