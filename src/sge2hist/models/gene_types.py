"""Which named type each mixture component stands for: the only way types are asked for (never by component index)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True, kw_only=True)
class TypeRow:
    """One component of the mixture: one row of ``types.csv``."""

    component: int
    name: str  # of the cell type; several components may share it
    n_cells: int  # training cells assigned to the component
    n_labelled: int  # of these, cells that carry a label
    purity: float  # share of the labelled cells that carry the majority label; nan without labels
    weight: float  # mixture weight pi
    markers: tuple[str, ...]  # symbols of the top marker genes

    @property
    def n_of_name(self) -> float:
        """Cells of the component that carry its name; without labels, all of its cells."""
        if not self.n_labelled:
            return float(self.n_cells)
        return self.n_labelled * (1.0 if math.isnan(self.purity) else self.purity)


def name_by_markers(component: int, markers: Sequence[str]) -> str:
    """What a component is called that no label names: ``type 3 (UMOD, SLC12A1)``."""
    return f"type {component}" + (f" ({', '.join(markers[:3])})" if markers else "")


class TypeTable:
    """Rows of all components, in order of component."""

    def __init__(self, rows: list[TypeRow]) -> None:
        self.rows = sorted(rows, key=lambda row: row.component)
        if [row.component for row in self.rows] != list(range(len(rows))):
            raise ValueError(f"TypeTable: components {[row.component for row in rows]} must be 0, 1, 2, ... once each")

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def names(self) -> list[str]:
        """Distinct type names, those with most cells first; components that hold no cell name nothing."""
        cells: dict[str, int] = {}
        for row in self.rows:
            if row.n_cells:
                cells[row.name] = cells.get(row.name, 0) + row.n_cells
        return sorted(cells, key=lambda name: (-cells[name], name))

    @property
    def name_of_component(self) -> list[str]:
        """Type name of each component."""
        return [row.name for row in self.rows]

    def components(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Components of a type (int64) and their shares of its training cells. The name is matched without regard to case.

        Shares of the cells that carry the name, not mixture weights: a component that the prior likes but few cells took, or
        in which the type is but the largest of many, must not be drawn often.

        Raises
        ------
        KeyError
            For an unknown name; the message lists the known ones.
        """
        wanted = name.strip().casefold()
        rows = [row for row in self.rows if row.name.casefold() == wanted and row.n_cells]
        if not rows:
            raise KeyError(f"no cell type {name!r}; known: {', '.join(self.names)}")
        weights = np.array([row.n_of_name for row in rows])
        return np.array([row.component for row in rows], np.int64), weights / weights.sum()

    def draw(self, name: str, n: int, rng: np.random.Generator) -> np.ndarray:
        """Components of `n` random cells of a type, int64 [n]."""
        components, weights = self.components(name)
        return rng.choice(components, n, p=weights)

    def type_probabilities(self, responsibilities_NK: np.ndarray) -> np.ndarray:
        """Sum responsibilities over the components of each type: [N, len(names)], columns in the order of `names`."""
        member_KC = np.array([[row.name == name for name in self.names] for row in self.rows], float)
        return responsibilities_NK @ member_KC

    def told(self, told_NK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The type of each cell, int64 [N] into `names`, and its probability, from those of components, [N, K].

        Components that labels named add up to types. Without labels a cell is of the kind of its likeliest component: kinds of
        many components would otherwise take the cells between the others.
        """
        probability_NC = self.type_probabilities(told_NK)
        best_N = probability_NC.argmax(1)
        if not any(row.n_labelled for row in self.rows):
            kind_K = np.array([self.names.index(row.name) if row.name in self.names else -1 for row in self.rows])
            best_N = kind_K[np.where(kind_K >= 0, told_NK, -1.0).argmax(1)]
        return best_N, probability_NC[np.arange(len(best_N)), best_N]

    def renamed(self, new_names: Mapping[str, str]) -> TypeTable:
        """A table in which old names (or component numbers as text) are replaced by new ones.

        Raises
        ------
        KeyError
            For an old name that is not in the table.
        """
        known = {row.name for row in self.rows} | {str(row.component) for row in self.rows}
        unknown = [old for old in new_names if old not in known]
        if unknown:
            raise KeyError(f"no cell type or component {', '.join(map(repr, unknown))}; known: {', '.join(self.names)}")
        by_number = {row.component: new_names.get(str(row.component), new_names.get(row.name)) for row in self.rows}
        return TypeTable([replace(row, name=by_number[row.component] or row.name) for row in self.rows])

    def grouped(self, kind_K: np.ndarray) -> TypeTable:
        """A table in which the components of one kind, int64 [K], carry the name of the largest of them, after its markers."""
        rows = []
        for row in self.rows:
            members = [other for other in self.rows if kind_K[other.component] == kind_K[row.component]]
            first = max(members, key=lambda other: other.n_cells)
            rows.append(replace(row, name=name_by_markers(first.component, first.markers)))
        return TypeTable(rows)
