"""The cells of an AnnData, in memory or in an h5ad, with their raw counts: what images are generated from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.data.gene_panel import GenePanel
from sge2hist.data.table.count_values import whole_counts
from sge2hist.data.table.counts import ExpressionTable, FoundCounts, find_counts, read_element, read_table
from sge2hist.data.table.positions import FULLRES_KEYS, POSITION_KEYS
from sge2hist.data.table.proteins import PROTEIN_KEY, ProteinTable
from sge2hist.data.table.rounding import Rounding
from sge2hist.data.table.stored_matrix import StoredMatrix

if TYPE_CHECKING:
    from collections.abc import Iterator

    import anndata
    import pandas as pd
    from scipy.sparse import csr_array

Convert = Callable[[Any, int, int], Any]
"""Piece of a stored matrix (CSR or CSC), its first row and column -> the same of int32 counts, without zeros."""


@dataclass(frozen=True, kw_only=True)
class CellTable:
    """N cells with raw counts of G genes."""

    obs: pd.DataFrame  # index: ids of the cells
    genes: GenePanel
    counts_NG: csr_array  # int32
    obsm: Mapping[str, Any]
    uns: Mapping[str, Any]
    where: str  # the file, "" for an AnnData in memory
    counts: dict[str, Any]  # for manifests: where they were found, and how they were rounded
    notes: list[str] = field(default_factory=list)

    @property
    def n_obs(self) -> int:
        """Number of cells."""
        return len(self.obs)

    def summary(self) -> str:
        """One line for people."""
        return "; ".join([f"{self.where}: " * bool(self.where) + f"counts from {self.counts['location']}", *self.notes])

    def rows(self, rows: np.ndarray) -> csr_array:
        """Counts of some cells, int32 CSR [n, G]."""
        return self.counts_NG[rows]

    @property
    def proteins(self) -> ProteinTable | None:
        """``obsm["protein"]``; None where there is none."""
        return ProteinTable.of_obsm(self.obsm.get(PROTEIN_KEY), where=self.where)

    def take(self, rows: np.ndarray) -> CellTable:
        """The table of some cells."""
        return CellTable(
            obs=self.obs.iloc[rows],
            genes=self.genes,
            counts_NG=self.counts_NG[rows],
            obsm={key: value.iloc[rows] if hasattr(value, "iloc") else value[rows] for key, value in self.obsm.items()},
            uns=self.uns,
            where=self.where,
            counts=self.counts,
            notes=self.notes,
        )

    @classmethod
    def of(
        cls,
        cells: anndata.AnnData | CellTable | str | Path,
        *,
        layer: str | None = None,
        round_counts: bool = False,
        seed: int = 0,
        where: str = "",
    ) -> CellTable:
        """The cells of an AnnData or of an h5ad, of which only the matrix with the counts is read; a table stays as it is.

        Parameters
        ----------
        layer
            Name of the layer with raw counts, "X" or "raw/X"; None: found (:func:`~sge2hist.data.table.counts.find_counts`).
        round_counts
            Round counts with fractions at random (:mod:`sge2hist.data.table.rounding`), by this `seed`.

        Raises
        ------
        InputError
            If there are no raw counts, the layer holds something else, or the file cannot be read.
        """
        if isinstance(cells, CellTable):
            return cells
        if isinstance(cells, str | Path):
            return cls._read(Path(cells), layer, round_counts, seed)
        table = ExpressionTable.of_adata(cells, where)
        return cls._found(table, cells.obs, cells.obsm, cells.uns, layer, round_counts, seed)

    @classmethod
    def _read(cls, path: Path, layer: str | None, round_counts: bool, seed: int) -> CellTable:
        with open_h5ad(path) as file:
            obs = read_table(file, "obs", str(path))
            wanted = (*POSITION_KEYS, *FULLRES_KEYS, PROTEIN_KEY)
            keys = [key for key in wanted if "obsm" in file and key in file["obsm"]]
            obsm = {key: read_element(file["obsm"], key, str(path)) for key in keys}
            uns = read_element(file, "uns", str(path)) if "uns" in file else {}
            table = ExpressionTable.of_group(file, len(obs), str(path))
            return cls._found(table, obs, obsm, uns, layer, round_counts, seed)

    @classmethod
    def _found(
        cls,
        table: ExpressionTable,
        obs: pd.DataFrame,
        obsm: Mapping[str, Any],
        uns: Mapping[str, Any],
        layer: str | None,
        round_counts: bool,
        seed: int,
    ) -> CellTable:
        found = find_counts(table, layer, round_counts=round_counts)
        genes, notes = table.genes(found.location)
        convert = converter(table, found, obs.index, genes, seed if round_counts else None)
        return cls(
            obs=obs,
            genes=GenePanel(list(genes.index), list(genes["symbol"])),
            counts_NG=whole_matrix(table.matrix(found.location), convert),
            obsm=obsm,
            uns=uns,
            where=table.where,
            counts=count_record(found, seed if round_counts else None),
            notes=[*found.notes, *notes],
        )


def refuse_with_dataset(
    where: str, layer: str | None, round_counts: bool, positions: str = "auto", um_per_px: float | None = None
) -> None:
    """Raise `InputError` for an option about an AnnData that was given with a paired dataset."""
    given = {
        f"--positions {positions}": positions != "auto",
        "--image-um-per-px": um_per_px is not None,
        f"--layer {layer}": layer is not None,
        "--round-counts": round_counts,
    }
    for option, is_given in given.items():
        if is_given:
            raise InputError(
                found=f"{option} with a paired dataset",
                where=where,
                expected="an .h5ad: a dataset states the unit of its positions, and its counts are raw",
                repair="omit it",
            )


def count_record(found: FoundCounts, rounding_seed: int | None) -> dict[str, Any]:
    """Where counts were found and how they were rounded, for manifests."""
    rounded = {} if rounding_seed is None else {"round_counts": True, "rounding_seed": rounding_seed}
    return {"location": found.location, "holds": found.contents.text, **rounded}


def converter(
    table: ExpressionTable, found: FoundCounts, cell_ids: pd.Index, genes: pd.DataFrame, rounding_seed: int | None
) -> Convert:
    """What makes int32 counts of the pieces of a matrix: checked to be whole, or rounded by a seed."""
    where = table.place(found.location)
    rounding = None if rounding_seed is None else Rounding.of(cell_ids, genes.index, seed=rounding_seed)

    def convert(piece: Any, first_row: int, first_column: int) -> Any:
        if rounding is None:
            data = whole_counts(piece.data, where)
        else:
            triples = piece.tocoo()  # in the order of `data`
            data = rounding.rounded(piece.data, triples.row + first_row, triples.col + first_column, where)
        counts = type(piece)((data, piece.indices, piece.indptr), shape=piece.shape)
        if not data.all():
            counts = counts.copy()
            counts.eliminate_zeros()
        return counts

    return convert


def whole_matrix(matrix: StoredMatrix, convert: Convert) -> csr_array:
    """All counts, int32 CSR [N, G]."""
    from scipy.sparse import csr_array, hstack, vstack

    by_column = matrix.layout == "csc"
    pieces = [convert(piece, *((0, start) if by_column else (start, 0))) for start, piece in matrix.pieces()]
    if not pieces:
        return cast("csr_array", csr_array(matrix.shape, dtype=np.int32))
    return cast("csr_array", (hstack if by_column else vstack)(pieces, format="csr"))


@contextmanager
def open_h5ad(path: Path) -> Iterator[Any]:
    """Yield an h5ad opened for reading; whatever h5py, numpy and anndata raise on damaged bytes becomes one `InputError`."""
    import h5py

    if not path.is_file():
        raise InputError(found="no such file", where=str(path), expected="an h5ad file")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except InputError:
        raise
    except Exception as error:
        detail = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(
            found=f"an h5ad file that cannot be read ({detail})",
            where=str(path),
            expected="a complete h5ad file",
            repair="copy it again from where it was written",
        ) from error
