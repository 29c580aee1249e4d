"""Counts as text, as 10x Genomics writes them beside the .h5: ``barcodes.tsv``, ``features.tsv``, ``matrix.mtx``, also gzipped.

``matrix.mtx`` is Matrix Market, coordinate, general; features x barcodes. ``features.tsv`` has id, symbol and type; before
Cell Ranger 3 it is ``genes.tsv`` with id and symbol.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sge2hist.data.errors import InputError
from sge2hist.readers.count_rows import grouped_rows
from sge2hist.readers.tables import damaged, read_delimited
from sge2hist.readers.tenx.proteins import ProteinColumns, protein_columns
from sge2hist.readers.tenx.tenx_matrix import GENE_EXPRESSION, gene_table, whole_counts

if TYPE_CHECKING:
    from scipy.sparse import csr_array

EXPECTED = "Matrix Market: coordinate, general, features x barcodes"


@dataclass(frozen=True, kw_only=True)
class MtxMatrix:
    """An opened matrix: names in memory, counts in the file until `read_counts`; the same attributes as `TenxMatrix`."""

    path: Path
    barcodes: np.ndarray  # bytes [N]
    genes: pd.DataFrame  # index: unique id; column "symbol"; only "Gene Expression" features
    column_of_feature: np.ndarray  # int64 [n_features]: column among `genes`, -1 = another feature type
    is_transposed: bool  # barcodes x features
    n_values: int
    notes: list[str]
    software: str = ""
    proteins: ProteinColumns | None = None  # features that are proteins; see `proteins.proteins_of`

    @classmethod
    def open(cls, barcodes: Path, features: Path, matrix: Path) -> MtxMatrix:
        """Read names and the size of the matrix and check that they agree.

        Raises
        ------
        InputError
            If a file is damaged, sizes disagree, or there is no gene or no barcode.
        """
        names = _table(barcodes).iloc[:, 0]
        rows = _table(features)
        ids = rows.iloc[:, 0].tolist()
        symbols = rows.iloc[:, 1].tolist() if rows.shape[1] > 1 else ids
        types = rows.iloc[:, 2].tolist() if rows.shape[1] > 2 else [GENE_EXPRESSION] * len(ids)
        proteins = protein_columns(features, symbols, types)
        genes, column_of_feature, notes = gene_table(features, ids, symbols, types, proteins)
        shape, n_values = _size(matrix)
        wanted = (len(ids), len(names))
        if shape not in (wanted, wanted[::-1]):
            raise InputError(
                found=f"a matrix of {shape[0]:,} x {shape[1]:,} with {len(ids):,} features and {len(names):,} barcodes",
                where=str(matrix),
                expected="features x barcodes",
                repair="use the three files of one sample; a table with a line of headings has one line too many",
            )
        is_transposed = shape != wanted
        if is_transposed:
            notes.append(f"{matrix.name} is barcodes x features: read as such")
        return cls(
            path=matrix,
            barcodes=np.array([name.encode() for name in names], bytes),
            genes=genes,
            column_of_feature=column_of_feature,
            proteins=proteins,
            is_transposed=is_transposed,
            n_values=n_values,
            notes=notes,
        )

    @property
    def n_obs(self) -> int:
        """Number of barcodes N."""
        return len(self.barcodes)

    def read_counts(self, group_of_obs: np.ndarray | None = None, n_groups: int | None = None) -> csr_array:
        """Counts as `Section.read_counts` defines them: int32 CSR [N, G], or summed by group [n_groups, G]."""
        from scipy.sparse import coo_array, csr_array

        values: Any = _market("mmread", self.path, spmatrix=False)
        row, column = (values.row, values.col) if self.is_transposed else (values.col, values.row)
        column = self.column_of_feature[column]
        is_gene = column >= 0
        data = whole_counts(self.path, values.data[is_gene])
        counts = csr_array(
            coo_array((data, (row[is_gene], column[is_gene])), shape=(self.n_obs, len(self.genes)), dtype=np.int32)
        )
        return grouped_rows(counts)(group_of_obs, n_groups)


def _table(path: Path) -> pd.DataFrame:
    table = read_delimited(path, separator="\t", header=None, dtype=str, keep_default_na=False, quoting=3)
    if not len(table):
        raise InputError(found="no line", where=str(path), expected="a name per line")
    return table


def _size(path: Path) -> tuple[tuple[int, int], int]:
    n_rows, n_columns, n_values, layout, field, symmetry = _market("mminfo", path)
    if layout != "coordinate" or symmetry != "general" or field not in ("integer", "unsigned-integer", "real"):
        raise InputError(found=f"a matrix that is {layout}, {field}, {symmetry}", where=str(path), expected=EXPECTED)
    return (int(n_rows), int(n_columns)), int(n_values)


def _market(name: str, path: Path, **options: Any) -> Any:
    """A function of `scipy.io` on a file that may be damaged."""
    import zlib

    import scipy.io

    try:
        return getattr(scipy.io, name)(path, **options)
    except FileNotFoundError:
        raise InputError(found="no such file", where=str(path), expected=EXPECTED) from None
    except (OSError, ValueError, EOFError, OverflowError, MemoryError, zlib.error) as error:
        raise damaged(path, "Matrix Market file", error) from error
