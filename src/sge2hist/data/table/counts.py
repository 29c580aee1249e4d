"""Where the raw counts of an AnnData table lie: one search for every command and for Python.

Counts are taken from ``layers["counts"]`` (or a layer of a similar name), X or raw.X, whichever holds whole numbers that can be
counts; of several the one with most genes. ``raw`` has genes of its own (`raw.var`): X often keeps only the variable ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.data.table.count_values import Contents, Verdict, describe
from sge2hist.data.table.genes import read_genes
from sge2hist.data.table.stored_matrix import StoredMatrix

if TYPE_CHECKING:
    import anndata
    import pandas as pd

COUNT_LAYERS = ("counts", "raw_counts", "raw_count", "count", "umi", "umis", "raw")
"""Names of layers of raw counts, in any case."""
X, RAW, LAYERS = "X", "raw/X", "layers/"
RAW_NAMES = (RAW, "raw.X", "raw")
COMPARED_ROWS = 64


@dataclass(frozen=True)
class ExpressionTable:
    """The matrices of one table and their genes; nothing is read before it is asked for."""

    where: str
    elements: dict[str, Any]  # location ("X", "raw/X", "layers/NAME") -> matrix as stored
    n_obs: int
    read_var: Callable[[], pd.DataFrame]
    read_raw_var: Callable[[], pd.DataFrame | None]
    stated_log: bool = False  # uns["log1p"]: X was transformed

    @classmethod
    def of_adata(cls, adata: anndata.AnnData, where: str = "") -> ExpressionTable:
        """The table of an AnnData in memory, or opened with `backed`."""
        elements = {f"{LAYERS}{name}": adata.layers[name] for name in adata.layers if name is not None}
        if adata.X is not None:
            elements[X] = adata.X
        raw = adata.raw
        if raw is not None:
            elements[RAW] = raw.X
        return cls(
            where=where,
            elements=elements,
            n_obs=adata.n_obs,
            read_var=lambda: adata.var,
            read_raw_var=lambda: None if raw is None else raw.var,
            stated_log="log1p" in adata.uns,
        )

    @classmethod
    def of_group(cls, group: Any, n_obs: int, where: str) -> ExpressionTable:
        """The table of an `h5py.Group` or `zarr.Group` that anndata wrote."""
        elements = {f"{LAYERS}{name}": group[f"layers/{name}"] for name in group["layers"]} if "layers" in group else {}
        elements |= {location: group[location] for location in (X, RAW) if location in group}
        return cls(
            where=where,
            elements=elements,
            n_obs=n_obs,
            read_var=lambda: read_table(group, "var", where),
            read_raw_var=lambda: read_table(group, "raw/var", where) if "raw/var" in group else None,
            stated_log="uns/log1p" in group,
        )

    def place(self, location: str) -> str:
        """Location in words, for messages."""
        return f"{self.where}: {location}" if self.where else location

    def matrix(self, location: str) -> StoredMatrix:
        """The matrix there."""
        return StoredMatrix(self.elements[location], self.place(location))

    @cached_property
    def var(self) -> pd.DataFrame:
        """Table of the genes of X and of the layers."""
        return self.read_var()

    @cached_property
    def raw_var(self) -> pd.DataFrame | None:
        """Table of the genes of raw.X."""
        return self.read_raw_var()

    def genes(self, location: str) -> tuple[pd.DataFrame, list[str]]:
        """Gene table of the matrix there (index: unique ids, column symbol), and notes."""
        if location == RAW and self.raw_var is not None:
            return read_genes(self.raw_var, self.place("raw/var"), other=self.var)
        return read_genes(self.var, self.place("var"))

    def shape_problem(self, location: str, shape: tuple[int, int]) -> str | None:
        """Why the matrix does not belong to the cells and genes of the table, or None."""
        if location == RAW and self.raw_var is None:
            return "values without raw.var, so that its genes have no names"
        expected = (self.n_obs, len(self.var if location != RAW or self.raw_var is None else self.raw_var))
        return None if shape == expected else f"a matrix of shape {shape}, not {expected} (the lengths of obs and var)"

    def contents(self, location: str) -> Contents:
        """What the matrix there holds."""
        try:
            matrix = self.matrix(location)
            problem = self.shape_problem(location, matrix.shape)
        except InputError as error:
            problem = error.found
        if problem is not None:
            return Contents(verdict=Verdict.NO_COUNTS, text=problem)
        return describe(matrix.sample(), matrix.dtype, stated_log=self.stated_log and location == X)


@dataclass(frozen=True, kw_only=True)
class FoundCounts:
    """Where raw counts are taken from."""

    location: str
    contents: Contents
    notes: list[str] = field(default_factory=list)

    @property
    def need_rounding(self) -> bool:
        """Whether they have fractions."""
        return self.contents.verdict is Verdict.FRACTIONS


def find_counts(table: ExpressionTable, layer: str | None = None, *, round_counts: bool = False) -> FoundCounts:
    """Where the raw counts of a table lie.

    Parameters
    ----------
    layer
        Name of a layer, "X" or "raw/X"; None: found by what the matrices hold.
    round_counts
        Accept counts with fractions (corrected for ambient RNA, destriped), to be rounded.

    Raises
    ------
    InputError
        If there are none, or `layer` holds something else; every layer is then listed with what it holds.
    """
    if layer is not None:
        return _named(table, layer, round_counts)
    places = [key for name in COUNT_LAYERS for key in table.elements if key.lower() == f"{LAYERS}{name}"]
    places += [location for location in (X, RAW) if location in table.elements]
    contents = {location: table.contents(location) for location in places}
    counts = [location for location, one in contents.items() if one.verdict is Verdict.COUNTS and not one.is_empty]
    counts = counts or [location for location, one in contents.items() if one.verdict is Verdict.COUNTS]
    fractions = [location for location, one in contents.items() if one.verdict is Verdict.FRACTIONS]
    if round_counts and fractions and counts:
        raise InputError(
            found=f"counts with fractions in {', '.join(fractions)} and whole counts in {', '.join(counts)}",
            where=table.where,
            expected="one of them, to be taken with --round-counts",
            repair=f"--layer {_option(fractions[0])} takes the former; without --round-counts the latter are taken",
        )
    counts = counts or (fractions if round_counts else [])
    if not counts:
        raise _no_counts(table, contents, round_counts)
    chosen = max(counts, key=lambda location: (table.matrix(location).shape[1], -counts.index(location)))
    return FoundCounts(location=chosen, contents=contents[chosen], notes=_notes(table, chosen, contents, round_counts))


def _named(table: ExpressionTable, layer: str, round_counts: bool) -> FoundCounts:
    location = next((key for key in (layer, f"{LAYERS}{layer}") if key in table.elements), None)
    location = RAW if location is None and layer in RAW_NAMES and RAW in table.elements else location
    if location is None:
        raise InputError(
            found=f"no layer {layer!r}",
            where=table.where,
            expected=f"one of {_listed(table, {})}",
            repair="--layer NAME",
        )
    contents = table.contents(location)
    if contents.verdict is Verdict.DOUBTFUL:
        return FoundCounts(location=location, contents=contents, notes=[f"{location} holds {contents.text}"])
    if contents.verdict is Verdict.COUNTS or (contents.verdict is Verdict.FRACTIONS and round_counts):
        notes = _notes(table, location, {location: contents}, round_counts)
        return FoundCounts(location=location, contents=contents, notes=notes)
    repair = "name another layer"
    if contents.verdict is Verdict.FRACTIONS:
        repair = _round_repair(location)
    raise InputError(
        found=contents.text,
        where=table.place(location),
        expected=f"raw counts: whole numbers >= 0; there are {_listed(table, {location: contents})}",
        repair=repair,
    )


def _no_counts(table: ExpressionTable, contents: dict[str, Contents], round_counts: bool) -> InputError:
    contents = contents | {key: table.contents(key) for key in table.elements if key not in contents}

    def of(verdict: Verdict) -> list[str]:
        return [location for location, one in contents.items() if one.verdict is verdict]

    if named := of(Verdict.COUNTS):
        repair = f"--layer {_option(named[0])} takes these"
    elif fractions := of(Verdict.FRACTIONS):
        repair = f"--layer {_option(fractions[0])} takes these" if round_counts else _round_repair(fractions[0])
    elif doubtful := of(Verdict.DOUBTFUL):
        repair = f"--layer {_option(doubtful[0])} takes these all the same"
    else:
        repair = "store the raw counts in X, raw.X or layers['counts']"
    return InputError(
        found="no raw counts"
        + (f": there are {_listed(table, contents)}" if contents else ": no X, no raw.X and no layer"),
        where=table.where,
        expected="whole numbers >= 0 in X, raw.X or layers['counts']",
        repair=repair,
    )


def _round_repair(location: str) -> str:
    return (
        f"if these are counts that were corrected (ambient RNA, destriping), --layer {_option(location)} --round-counts "
        f"rounds them at random, without bias (Python: layer={_option(location)!r}, round_counts=True)"
    )


def _notes(table: ExpressionTable, chosen: str, contents: dict[str, Contents], round_counts: bool) -> list[str]:
    notes = []
    for location, one in contents.items():
        if location == chosen or one.is_empty:
            continue
        if location.startswith(LAYERS) and one.verdict is not Verdict.COUNTS:
            notes.append(f"{location} was not taken: it holds {one.text}")
        elif one.verdict is Verdict.COUNTS and not _equal(table.matrix(chosen), table.matrix(location)):
            notes.append(f"{location} holds other counts; --layer {_option(location)} takes those")
    if round_counts and contents[chosen].verdict is Verdict.COUNTS:
        notes.append("the counts are whole: nothing is rounded")
    return notes


def _equal(one: StoredMatrix, other: StoredMatrix) -> bool:
    """Whether two matrices agree in their first rows; of other genes, whether that can be so."""
    if one.shape[1] != other.shape[1]:
        return True  # another selection of genes
    if "csc" in (one.layout, other.layout):
        return True  # not compared: its rows are not together
    rows = (matrix.first_rows(COMPARED_ROWS) for matrix in (one, other))
    first, second = (np.asarray(row.toarray(), np.float64) for row in rows)
    return bool(np.allclose(first, second, atol=0.01))


def _listed(table: ExpressionTable, contents: dict[str, Contents]) -> str:
    """Every location with what it holds."""
    known = {key: contents.get(key) or table.contents(key) for key in table.elements}
    return "; ".join(f"{_option(key)}: {one.text}" for key, one in known.items()) or "none"


def _option(location: str) -> str:
    """The value of --layer that names a location."""
    return location.removeprefix(LAYERS)


def read_table(group: Any, name: str, where: str) -> pd.DataFrame:
    """Read obs, var or raw/var of a group.

    Raises
    ------
    InputError
        If it is missing, or no table as anndata writes it since 0.7.
    """
    import pandas as pd

    table = read_element(group, name, where)
    if not isinstance(table, pd.DataFrame):
        raise InputError(found=f"{name} that is no table", where=where, expected="a table written by anndata >= 0.7")
    return table


def read_element(group: Any, name: str, where: str) -> Any:
    """Read one small element (obs, var, an obsm array, uns) of an h5ad or of a SpatialData table through anndata."""
    from anndata.io import read_elem

    if name not in group:
        raise InputError(found=f"no {name}", where=where, expected=f"an AnnData table with {name}")
    return read_elem(group[name])
