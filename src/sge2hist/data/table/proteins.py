"""Proteins measured beside the genes: their values by cell, and the list that a model reads, found in any table by name."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sge2hist.data.errors import InputError

PROTEIN_KEY = "protein"  # of obsm: a table with a column for each protein
SHOWN = 8  # names in a message


@dataclass(frozen=True, kw_only=True)
class ProteinTable:
    """Values of some proteins in N cells, as measured: counts (UMI) or mean intensities."""

    names: list[str]
    value_NP: np.ndarray  # float32, NaN = not measured
    unit: str = ""  # "UMI" | "mean intensity" | "" = not stated
    where: str = ""  # for messages

    @classmethod
    def of_obsm(cls, value: Any, unit: str = "", where: str = "") -> ProteinTable | None:
        """From ``obsm["protein"]``: a DataFrame; None for nothing. An array without names is a table of no known protein."""
        if value is None:
            return None
        if not hasattr(value, "columns"):
            return cls(names=[], value_NP=np.empty((value.shape[0], 0), np.float32), unit=unit, where=where)
        names = [str(name) for name in value.columns]
        return cls(names=names, value_NP=value.to_numpy(np.float32), unit=unit, where=where)

    def take(self, rows: np.ndarray) -> ProteinTable:
        """The table of some cells."""
        return ProteinTable(names=self.names, value_NP=self.value_NP[rows], unit=self.unit, where=self.where)

    @cached_property
    def column_of(self) -> dict[str, int]:
        """Column by name, letter case ignored."""
        return {name.casefold(): column for column, name in enumerate(self.names)}


@dataclass(frozen=True)
class ProteinPanel:
    """The proteins that a model reads, in its order.

    Example
    -------
    >>> table = ProteinTable(names=["CD8", "CD3"], value_NP=np.array([[1, 2], [3, 4]], np.float32))
    >>> ProteinPanel(("CD3",)).values(table, np.array([1])).tolist()
    [[4.0]]
    """

    names: tuple[str, ...]
    unit: str = ""  # as `ProteinTable.unit`

    def __len__(self) -> int:
        return len(self.names)

    def columns(self, table: ProteinTable) -> np.ndarray:
        """Column of each protein in a table, int64 [P].

        Raises
        ------
        InputError
            If some are missing, or the values are of another unit.
        """
        column_of = table.column_of
        missing = [name for name in self.names if name.casefold() not in column_of]
        if missing:
            listed = ", ".join(missing[:SHOWN]) + (", ..." if len(missing) > SHOWN else "")
            present = ", ".join(table.names[:SHOWN]) + (", ..." if len(table.names) > SHOWN else "")
            raise InputError(
                found=f"no values of {len(missing):,} of the model's {len(self):,} proteins ({listed}) among {present or 'none'}",
                where=table.where,
                expected="all of them, or no proteins at all",
                repair=f"add them to obsm[{PROTEIN_KEY!r}], a table with a column for each, or remove it: RNA alone will do",
            )
        if self.unit and table.unit and self.unit != table.unit:
            raise InputError(
                found=f"proteins in {table.unit}, and a model that was trained on {self.unit}",
                where=table.where,
                expected=f"proteins in {self.unit}",
                repair="use data of the same platform, or data without proteins: RNA alone will do",
            )
        return np.array([column_of[name.casefold()] for name in self.names], np.int64)

    def values(self, table: ProteinTable, rows: np.ndarray) -> np.ndarray:
        """Values of some cells, float32 [n, P]; NaN = not measured.

        Raises
        ------
        InputError
            As :meth:`columns`, or if a value is negative or infinite.
        """
        values = np.ascontiguousarray(table.value_NP[rows][:, self.columns(table)], np.float32)
        if (values < 0).any() or np.isinf(values).any():
            worst = values[(values < 0) | np.isinf(values)][0]
            raise InputError(
                found=f"a protein of {worst:g}",
                where=table.where,
                expected="counts or intensities as they were measured, neither normalised nor centred",
                repair=f"store the values of the instrument in obsm[{PROTEIN_KEY!r}]",
            )
        return values

    def to_csv(self, path: str | Path) -> None:
        """Write ``protein,unit`` rows under a header."""
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["protein", "unit"])
            writer.writerows((name, self.unit) for name in self.names)

    @classmethod
    def from_csv(cls, path: str | Path) -> ProteinPanel:
        """Read what :meth:`to_csv` wrote; raises `InputError` for anything else."""
        try:
            with open(path, newline="", encoding="utf-8") as file:
                rows: Sequence[dict[str, str]] = list(csv.DictReader(file))
            return cls(tuple(row["protein"] for row in rows), rows[0]["unit"] if rows else "")
        except (OSError, KeyError, UnicodeDecodeError, csv.Error) as error:
            raise InputError(
                found=f"a list of proteins that cannot be read ({error!r})",
                where=str(path),
                expected="a csv with protein,unit",
                repair="copy the model again",
            ) from error


def require_proteins(table: ProteinTable | None, rows: np.ndarray, where: str) -> ProteinPanel:
    """The proteins of a dataset that were measured in any of some cells, for a model to read.

    Raises
    ------
    InputError
        If there are none.
    """
    measured_P = np.zeros(0, bool) if table is None else np.isfinite(table.value_NP[rows]).any(0)
    if table is None or not measured_P.any():
        raise InputError(
            found="--features rna,protein and a dataset without proteins" + (" in its training cells" if table else ""),
            where=where,
            expected="one that was prepared from a matrix with features of type Antibody Capture or Protein Expression",
            repair="omit --features, or prepare again from a folder with proteins",
        )
    panel = ProteinPanel(tuple(np.array(table.names, object)[measured_P].tolist()), table.unit)
    panel.values(table, rows)
    return panel
