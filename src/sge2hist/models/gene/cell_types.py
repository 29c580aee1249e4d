"""Which named type each mixture component stands for: the only way types are asked for (never by component index)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_array


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

    def predicted_types(self, posterior_NK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The type of each cell, int64 [N] into `names`, and its probability, from those of components, [N, K].

        Components that labels named add up to types. Without labels a cell is of the kind of its likeliest component: kinds of
        many components would otherwise take the cells between the others.
        """
        probability_NC = self.type_probabilities(posterior_NK)
        best_N = probability_NC.argmax(1)
        if not any(row.n_labelled for row in self.rows):
            kind_K = np.array([self.names.index(row.name) if row.name in self.names else -1 for row in self.rows])
            best_N = kind_K[np.where(kind_K >= 0, posterior_NK, -1.0).argmax(1)]
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


# Components of a mixture -> fewer kinds: those side by side in the latent space are of one kind.


COPIES = 20
"""Points that stand for the largest component; the others have fewer, by the root of their cells."""
REDRAWN = 100
"""Times that the components are drawn anew."""


def group_components(
    means_KT: np.ndarray, vars_KT: np.ndarray, n_cells_K: np.ndarray, n_kinds: int, *, seed: int = 0
) -> np.ndarray:
    """Group components into `n_kinds` such that other cells would have led to the same groups.

    Which of two merges comes first is often a matter of a few cells. So the components are drawn anew as other cells of the same
    mixture would place them (their means by the standard error, their cells by Poisson), grouped each time by Ward's method, and
    those that were together most often are put together: average linkage of the share of times that two were apart (evidence
    accumulation, Fred and Jain 2005; consensus clustering, Monti et al. 2003).

    Parameters
    ----------
    means_KT, vars_KT : of the components.
    n_cells_K : cells of each.
    n_kinds : at least 1, and no more than there are components with cells.
    seed : of the draws.

    Returns
    -------
    Kind of each component, int64 [K], numbered 0 .. n_kinds - 1. Components without cells go with the nearest.
    """
    from scipy.cluster.hierarchy import cut_tree, linkage
    from scipy.spatial.distance import squareform

    filled = np.flatnonzero(n_cells_K)
    if not 1 <= n_kinds <= len(filled):
        raise ValueError(f"group_components: {n_kinds} kinds of {len(filled)} components with cells")
    means_NT, n_cells_N = means_KT[filled].astype(np.float64), n_cells_K[filled]
    error_NT = np.sqrt(vars_KT[filled] / n_cells_N[:, None])
    kind_K = np.zeros(len(n_cells_K), np.int64)
    if len(filled) > 1:
        rng, together_NN = np.random.default_rng(seed), np.zeros((len(filled), len(filled)))
        for _ in range(REDRAWN):
            drawn_NT = means_NT + error_NT * rng.standard_normal(means_NT.shape)
            kind_N = ward(drawn_NT, rng.poisson(n_cells_N).clip(1), n_kinds)
            together_NN += kind_N[:, None] == kind_N
        tree = linkage(squareform(1 - together_NN / REDRAWN, checks=False), "average")
        kind_K[filled] = cut_tree(tree, [n_kinds])[:, 0]
    for k in np.flatnonzero(n_cells_K == 0):
        kind_K[k] = kind_K[filled[((means_NT - means_KT[k]) ** 2).sum(1).argmin()]]
    return kind_K


def ward(means_NT: np.ndarray, n_cells_N: np.ndarray, n_kinds: int) -> np.ndarray:
    """Group components, none of them empty, by Ward's method on their means until `n_kinds` are left; kinds from 0, int [N].

    A component weighs the root of its number of cells: by the number itself (Ward 1963) small kinds that lie far from all
    others are swallowed, and with equal weights large ones are not kept apart.
    """
    from scipy.cluster.hierarchy import fcluster, linkage

    weight = np.sqrt(n_cells_N / n_cells_N.max())
    copy_C = np.repeat(np.arange(len(means_NT)), np.ceil(COPIES * weight).astype(int))
    # copies of a point are merged first, at no cost, and then count as one point of their joint weight
    kind_N = np.zeros(len(means_NT), np.int64)
    kind_N[copy_C] = fcluster(linkage(means_NT[copy_C], "ward"), n_kinds, "maxclust") - 1
    return kind_N


# What a bin and the bins around it say together of one cell type: their posteriors of z1, multiplied.


def pool_posteriors(mean_NT: np.ndarray, var_NT: np.ndarray, around: csr_array) -> tuple[np.ndarray, np.ndarray]:
    """Posterior of a z1 that a cell shares with those around it, were each seen alone.

    Cells are independent given the shared z1, so with the prior N(0, I) (product of experts; Tresp 2000, Wu and Goodman 2018)

        q(z1 | x_0 .. x_k)  ∝  N(z1; 0, I)  prod_i q(z1 | x_i) / N(z1; 0, I)
        1 / var = 1 + sum_i (1 / var_i - 1),      mean = var sum_i mean_i / var_i

    A posterior that is wider than the prior in some dim says nothing there, and what a cell without counts says is nothing.

    Parameters
    ----------
    mean_NT, var_NT : posteriors of z1, each of a cell's own counts; variances positive.
    around : who is around each cell, [N, N], never the cell itself (`CellIndex.around`); the values do not matter.

    Returns
    -------
    (mean, variance), float32 [N, T].
    """
    var_NT = var_NT.astype(np.float64)
    told_NT = var_NT < 1
    gain_NT = np.where(told_NT, 1 / var_NT - 1, 0.0)
    pull_NT = np.where(told_NT, mean_NT / var_NT, 0.0)
    shared = around.copy()
    shared.data = np.ones(len(shared.data))
    precision_NT = 1 + gain_NT + shared @ gain_NT
    pooled_NT = (pull_NT + shared @ pull_NT) / precision_NT
    return pooled_NT.astype(np.float32), (1 / precision_NT).astype(np.float32)
