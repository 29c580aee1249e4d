"""Counts as a wide table in text form, one row per cell and one column per gene (CosMx, MERSCOPE): streamed.

A table of 1 million cells and 19,000 genes is 40 GB of text; beside the sparse result, a block of it is in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from sge2hist.data.errors import InputError
from sge2hist.data.table.genes import unique_names
from sge2hist.readers.count_rows import sum_pieces
from sge2hist.readers.count_text import blocks_of
from sge2hist.readers.tables import read_delimited
from sge2hist.readers.tenx.tenx_matrix import whole_counts

RowOfIds = Callable[[dict[str, np.ndarray]], np.ndarray]
"""From the id columns of a block (by name, text) to the observation of each row, int64 [rows], -1 = none."""


@dataclass(frozen=True, kw_only=True)
class DenseCounts:
    """A table of counts, opened; the counts stay in the file until `read_counts`."""

    path: Path
    id_columns: dict[str, int]  # columns that name the cell ("" = unnamed) -> number
    genes: pd.DataFrame  # index: unique id; column "symbol"
    gene_columns: tuple[int, ...]  # numbers of the columns of the genes
    n_columns: int
    notes: list[str]

    @classmethod
    def open(
        cls, path: str | Path, *, id_columns: Sequence[str], is_control: Callable[[str], bool], n_ids: int
    ) -> DenseCounts:
        """Read the header.

        Parameters
        ----------
        id_columns
            Names that columns of ids may have, in any case; all others are genes or controls. An unnamed first column is an id.
        is_control
            Whether a column with this name is no gene.
        n_ids
            How many of the id columns there must be at least.

        Raises
        ------
        InputError
            If the file is missing, damaged, or holds no genes or no ids.
        """
        path = Path(path)
        head = read_delimited(
            path, separator=",", nrows=1, header=None, dtype=str, keep_default_na=False, encoding="utf-8-sig"
        )
        names = [str(name).strip() for name in head.iloc[0]]
        known = {name.casefold() for name in id_columns}
        ids = [i for i, name in enumerate(names) if name.casefold() in known or (i == 0 and not name)]
        rest = [i for i in range(len(names)) if i not in set(ids)]
        genes = [i for i in rest if not is_control(names[i])]
        if len(ids) < n_ids or not genes:
            raise InputError(
                found=f"a table with columns {', '.join(names[:6])}{', ...' if len(names) > 6 else ''}",
                where=str(path),
                expected=f"{' and '.join(id_columns[:n_ids])}, and one column per gene",
            )
        symbols = [names[i] for i in genes]
        n_controls = len(rest) - len(genes)
        notes = [f"{n_controls:,} columns of controls kept apart from {len(genes):,} genes"] if n_controls else []
        index = pd.Index(unique_names(symbols), name="gene_id")
        return cls(
            path=path,
            id_columns={names[i]: i for i in ids},
            genes=pd.DataFrame({"symbol": symbols}, index=index),
            gene_columns=tuple(genes),
            n_columns=len(names),
            notes=notes,
        )

    def reader(self, row_of_ids: RowOfIds, n_obs: int) -> Callable[..., csr_array]:
        """`Section.read_counts` of `n_obs` observations.

        Parameters
        ----------
        row_of_ids
            See `RowOfIds`.
        """

        def read_counts(group_of_obs: np.ndarray | None = None, n_groups: int | None = None) -> csr_array:
            group_of_obs = np.arange(n_obs) if group_of_obs is None else np.asarray(group_of_obs, np.int64)
            n_groups = int(group_of_obs.max(initial=-1)) + 1 if n_groups is None else n_groups
            return sum_pieces(self._grouped(row_of_ids, group_of_obs), n_groups, len(self.genes))

        return read_counts

    def _grouped(self, row_of_ids: RowOfIds, group_of_obs: np.ndarray) -> Iterator[tuple[np.ndarray, csr_array]]:
        """Groups and counts of the rows of each block; at its end every observation was there once."""
        seen = np.zeros(len(group_of_obs), bool)
        for rows, counts in self._pieces(row_of_ids):
            self._mark(seen, rows)
            yield np.append(group_of_obs, -1)[rows], counts
        self._require_all(seen)

    def _mark(self, seen: np.ndarray, rows: np.ndarray) -> None:
        kept = rows[rows >= 0]
        if seen[kept].any() or len(np.unique(kept)) < len(kept):
            raise InputError(found="a cell in two rows", where=str(self.path), expected="one row per cell")
        seen[kept] = True

    def _require_all(self, seen: np.ndarray) -> None:
        if not seen.all():
            raise InputError(
                found=f"no counts of {int((~seen).sum()):,} of {len(seen):,} cells",
                where=str(self.path),
                expected="a row for every cell of the table of cells, of the same run",
                repair="copy both again from the same export",
            )

    def _pieces(self, row_of_ids: RowOfIds) -> Iterator[tuple[np.ndarray, csr_array]]:
        """Observations of the rows of a block (-1 = none), and their counts int32 [rows, G]."""
        gene_of_column = np.full(self.n_columns, -1, np.int32)
        gene_of_column[list(self.gene_columns)] = np.arange(len(self.gene_columns))
        for block in blocks_of(self.path, self.n_columns, tuple(self.id_columns.values())):
            rows = row_of_ids({name: block.ids[number] for name, number in self.id_columns.items()})
            gene = gene_of_column[block.column]
            of_genes = gene >= 0
            value = block.value[of_genes]
            if np.isnan(value).any():
                raise InputError(found="an empty count", where=str(self.path), expected="a number in every column")
            indptr = np.searchsorted(block.row[of_genes], np.arange(block.n_rows + 1))
            counts = csr_array(
                (whole_counts(self.path, value), gene[of_genes], indptr), shape=(block.n_rows, len(self.genes))
            )
            counts.eliminate_zeros()
            yield rows, counts
