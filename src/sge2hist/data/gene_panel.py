"""Genes by id and symbol, and the alignment of one panel with another."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sge2hist.data.errors import InputError

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_ENSEMBL_VERSION = re.compile(r"^(ENS[A-Z]*\d+)\.\d+$")


@dataclass(frozen=True, kw_only=True)
class PanelMatch:
    """Where each gene of a panel is found in another panel."""

    columns: np.ndarray  # int64 [n_panel]: column of the other panel, -1 when missing
    n_shared: int  # how many genes were found
    missing: list[str]  # ids of the panel's genes that were not
    by: str  # "id" | "symbol" | "mixed"
    n_ignoring_case: int = 0  # genes found only by ignoring the case of their symbols
    n_duplicates: int = 0  # entries of the other panel left unused because an earlier one had the same name

    def summary(self) -> str:
        """One line for people."""
        text = f"{self.n_shared:,} of {len(self.columns):,} genes found by {self.by}"
        if self.missing:
            shown = ", ".join(self.missing[:5]) + (", ..." if len(self.missing) > 5 else "")
            text += f"; {len(self.missing):,} missing ({shown})"
        if self.n_ignoring_case:
            text += f"; {self.n_ignoring_case:,} found only by ignoring the case of symbols"
        if self.n_duplicates:
            text += f"; {self.n_duplicates:,} repeated names ignored (first used)"
        return text


class GenePanel:
    """An ordered list of genes; `ids` are unique.

    Example
    -------
    >>> panel = GenePanel(["ENSG1", "ENSG2"], ["A", "B"])
    >>> panel.align(GenePanel(["ENSG2.7"], ["B"])).columns.tolist()
    [-1, 0]
    """

    def __init__(self, ids: list[str], symbols: list[str] | None = None) -> None:
        self.ids = [str(gene_id) for gene_id in ids]
        self.symbols = [str(symbol) for symbol in symbols] if symbols is not None else list(self.ids)
        if len(self.ids) != len(self.symbols):
            raise InputError(found=f"{len(self.ids)} ids and {len(self.symbols)} symbols", expected="as many of each")
        if len(set(self.ids)) != len(self.ids):
            raise InputError(found="repeated gene ids", expected="unique ids (symbols may repeat)")
        self._last: tuple[GenePanel, PanelMatch] | None = None  # the panel last aligned with, and its match

    def __len__(self) -> int:
        return len(self.ids)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GenePanel) and self.ids == other.ids and self.symbols == other.symbols

    __hash__ = None  # type: ignore[assignment]

    @classmethod
    def from_csv(cls, path: str | Path) -> GenePanel:
        """Read ``gene_id,symbol`` rows under a header."""
        try:
            with open(path, newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            return cls([row["gene_id"] for row in rows], [row["symbol"] for row in rows])
        except (OSError, KeyError, UnicodeDecodeError, csv.Error) as error:
            raise InputError(
                found=f"a gene table that cannot be read ({error!r})",
                where=str(path),
                expected="a csv with gene_id,symbol",
            ) from error

    def columns_called(self, name: str) -> list[int]:
        """Columns of a gene by id (with or without its version) or symbol, letter case ignored."""
        return list(self._columns_by_name.get(name.casefold(), []))

    @cached_property
    def _columns_by_name(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for column, (gene_id, symbol) in enumerate(zip(self.ids, self.symbols, strict=True)):
            for name in {gene_id.casefold(), gene_id.partition(".")[0].casefold(), symbol.casefold()}:
                found.setdefault(name, []).append(column)
        return found

    def to_csv(self, path: str | Path) -> None:
        """Write ``gene_id,symbol`` rows under a header."""
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["gene_id", "symbol"])
            writer.writerows(zip(self.ids, self.symbols, strict=True))

    def align(self, other: GenePanel) -> PanelMatch:
        """Find this panel's genes in `other`: by id, by id without version suffix, by symbol, by symbol in any case.

        Every column of `other` is used at most once; of repeated names the first is taken.

        Raises
        ------
        InputError
            If not one gene is shared.
        """
        if self._last is None or self._last[0] is not other:  # the same two panels meet in every call on a data set
            self._last = (other, self._aligned(other))
        return self._last[1]

    def _aligned(self, other: GenePanel) -> PanelMatch:
        columns = np.full(len(self), -1, np.int64)
        used: set[int] = set()
        repeated: set[int] = set()
        n_by = {"id": 0, "symbol": 0, "symbol in any case": 0}
        for by, mine, theirs in _naming_passes(self, other):
            index: dict[str, int] = {}
            for column, name in enumerate(theirs):
                if index.setdefault(name, column) != column:
                    repeated.add(column)
            for row in np.flatnonzero(columns < 0):
                column = index.get(mine[row], -1) if mine[row] else -1
                if column >= 0 and column not in used:
                    columns[row] = column
                    used.add(column)
                    n_by[by] += 1
        return self._report(other, columns, n_by, len(repeated - used))

    def _report(self, other: GenePanel, columns: np.ndarray, n_by: dict[str, int], n_duplicates: int) -> PanelMatch:
        n_shared = int((columns >= 0).sum())
        if n_shared == 0:
            raise InputError(
                found=f"no gene in common: {', '.join(other.ids[:3])} ({len(other)}) against "
                f"{', '.join(self.ids[:3])} ({len(self)})",
                expected="overlapping Ensembl ids or gene symbols of the same species",
                repair="rename the genes (var_names or a column 'gene_ids'), or use data of the same species",
            )
        by = "id" if n_by["id"] == n_shared else ("symbol" if n_by["id"] == 0 else "mixed")
        missing = [self.ids[row] for row in np.flatnonzero(columns < 0)]
        return PanelMatch(
            columns=columns,
            n_shared=n_shared,
            missing=missing,
            by=by,
            n_ignoring_case=n_by["symbol in any case"],
            n_duplicates=n_duplicates,
        )

    def gather(self, counts: csr_array, alignment: PanelMatch) -> tuple[csr_array, np.ndarray]:
        """Bring counts [N, G_other] into this panel's order.

        Returns
        -------
        CSR [N, n_panel] (missing genes are zero) and bool [n_panel], true where the gene was observed.
        """
        from scipy.sparse import csr_array

        n_other = counts.shape[1]
        target = np.full(n_other, -1, np.int64)
        observed = alignment.columns >= 0
        target[alignment.columns[observed]] = np.flatnonzero(observed)
        counts = csr_array(counts)
        new_column = target[counts.indices]
        keep = new_column >= 0
        kept_before = np.concatenate([[0], np.cumsum(keep)])
        gathered = csr_array(
            (counts.data[keep], new_column[keep], kept_before[counts.indptr]), shape=(counts.shape[0], len(self))
        )
        gathered.sort_indices()
        return gathered, observed


def _strip(gene_id: str) -> str:
    """Drop the version of an Ensembl id; other names keep their dots (clone names end in ".1" too)."""
    return _ENSEMBL_VERSION.sub(r"\1", gene_id)


def _naming_passes(mine: GenePanel, theirs: GenePanel) -> list[tuple[str, list[str], list[str]]]:
    """(how, names, names) to match, strictest first. Ids come before symbols; letter case is dropped last."""
    return [
        ("id", mine.ids, theirs.ids),
        ("id", [_strip(i) for i in mine.ids], [_strip(i) for i in theirs.ids]),
        ("symbol", mine.symbols, theirs.symbols),
        ("symbol", mine.ids, theirs.symbols),  # a panel without ids carries symbols as ids
        ("symbol", mine.symbols, theirs.ids),
        ("symbol in any case", [s.upper() for s in mine.symbols], [s.upper() for s in theirs.symbols]),
    ]


# Species of a panel, by its names.

SPECIES_OF_PREFIX = {"ENSG": "human", "ENSMUSG": "mouse", "ENSRNOG": "rat", "ENSDARG": "zebrafish", "ENSSSCG": "pig"}
_ENSEMBL_GENE = re.compile(r"^(ENS[A-Z]*G)\d{6,}")


def species_of(panel: GenePanel) -> str | None:
    """Species by the prefix of Ensembl ids, else by the case of the symbols; None where neither decides.

    >>> species_of(GenePanel(["ENSMUSG00000030963"])), species_of(GenePanel(["Umod", "Nphs1", "Krt8"]))
    ('mouse', 'mouse or rat')
    """
    prefixes = [match.group(1) for gene_id in panel.ids if (match := _ENSEMBL_GENE.match(gene_id))]
    if len(prefixes) > len(panel) / 2:
        prefix = max(set(prefixes), key=prefixes.count)
        return SPECIES_OF_PREFIX.get(prefix, f"another species ({prefix})")
    return {"title": "mouse or rat", None: None}.get(letter_case(panel))


def letter_case(panel: GenePanel) -> str | None:
    """ "upper", "title" or "lower" where most symbols of two letters or more are written so."""
    symbols = [s for s in panel.symbols if sum(c.isalpha() for c in s) >= 2 and not _ENSEMBL_GENE.match(s)]
    tests: dict[str, Callable[[str], bool]] = {
        "upper": str.isupper,
        "lower": str.islower,
        "title": lambda s: s[0].isupper() and not s.isupper(),
    }
    return next((n for n, test in tests.items() if sum(map(test, symbols)) > 0.8 * max(len(symbols), 1)), None)
