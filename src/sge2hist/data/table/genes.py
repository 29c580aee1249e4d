"""Ids and symbols of the genes of an AnnData table, from `var` and its columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sge2hist.data.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

ID_COLUMNS = (
    "gene_ids",
    "gene_id",
    "ensembl_id",
    "ensembl_ids",
    "ensembl",
    "ensemblid",
    "ensembl_gene_id",
    "feature_id",
)
SYMBOL_COLUMNS = (
    "symbol",
    "symbols",
    "gene_symbol",
    "gene_symbols",
    "feature_name",
    "gene_name",
    "gene_names",
    "hgnc_symbol",
    "external_gene_name",
    "name",
)
"""Names of columns in any case, as CELLxGENE, scanpy, Scanpy's 10x readers, biomaRt and others write them."""
MISSING = ("", "nan", "NaN", "None", "<NA>")


def read_genes(
    var: pd.DataFrame, where: str = "", *, other: pd.DataFrame | None = None
) -> tuple[pd.DataFrame, list[str]]:
    """Gene table (index: unique ids, column symbol) from `var`, and notes.

    A gene whose id or symbol is missing is named by the other columns: the rest keep theirs.

    Parameters
    ----------
    other
        A second table, of the same or other genes, for columns that `var` lacks: that of X where `var` is that of raw.X.

    Raises
    ------
    InputError
        If the genes are numbered and no column names them.
    """
    import pandas as pd

    names = [str(name) for name in var.index]
    ids, symbols = (_column(var, columns, other) for columns in (ID_COLUMNS, SYMBOL_COLUMNS))
    if names == [str(number) for number in range(len(names))]:
        if ids is None and symbols is None and len(names) > 1:
            raise InputError(
                found=f"genes without names (0, 1, ...; columns of var: {', '.join(map(str, var.columns)) or 'none'})",
                where=where,
                expected="Ensembl ids or symbols as names of the genes, or in a column such as gene_ids or feature_name",
                repair="adata.var_names = adata.var['THEIR COLUMN']",
            )
        names = _first_of(symbols, ids, names)  # numbers name no gene
    found_ids = _first_of(ids, names)
    unique = unique_names(found_ids)
    n_renamed = sum(new != old for new, old in zip(unique, found_ids, strict=True))
    notes = [f"{n_renamed} repeated gene ids made unique by a suffix"] if n_renamed else []
    n_missing = 0 if ids is None else sum(one is None for one in ids)
    if n_missing:
        notes.append(f"{n_missing} genes without an id are named by their symbol")
    return pd.DataFrame({"symbol": _first_of(symbols, names)}, index=pd.Index(unique, name="gene_id")), notes


def unique_names(names: list[str]) -> list[str]:
    """Repeated names get the suffix -1, -2, ... that leaves every name distinct.

    >>> unique_names(["a", "b", "a", "a-1"])
    ['a', 'b', 'a-2', 'a-1']
    """
    taken, seen, out = set(names), set(), []
    for name in names:
        new, number = name, 0
        while new in seen or (number > 0 and new in taken):
            number += 1
            new = f"{name}-{number}"
        seen.add(new)
        out.append(new)
    return out


def _column(var: pd.DataFrame, names: tuple[str, ...], other: pd.DataFrame | None) -> list[str | None] | None:
    """Values of the first of these columns that names a gene at all, None where one is missing; `other` fills the rest."""
    found = _values(var, names)
    filling = None if other is None or not other.index.is_unique else _values(other, names)
    if other is None or filling is None:
        return found
    of_gene = dict(zip(map(str, other.index), filling, strict=True))
    found = found or [None] * len(var)
    filled = [value or of_gene.get(str(gene)) for gene, value in zip(var.index, found, strict=True)]
    return filled if any(filled) else None


def _values(var: pd.DataFrame, names: tuple[str, ...]) -> list[str | None] | None:
    lower = {str(column).lower(): column for column in reversed(list(var.columns))}
    for name in names:
        if name not in lower:
            continue
        column = var[lower[name]]
        text = [str(value).strip() for value in column]
        missing = column.isna().to_numpy()
        values = [None if gone or one in MISSING else one for one, gone in zip(text, missing, strict=True)]
        if any(values):
            return values
    return None


def _first_of(*lists: Sequence[str | None] | None) -> list[str]:
    """The first value that is not missing, of each gene."""
    given = [one for one in lists if one is not None]
    return [next((value for value in values if value), "") for values in zip(*given, strict=True)]
