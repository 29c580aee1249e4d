"""Cell types: the posterior that types are predicted from, the names of mixture components, and groups of components.

A type is always asked for by its name, never by the number of a component: several components may carry one name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_array

# --- one type for a bin and its neighbours ---------------------------------------------------------------------------


def pool_posteriors(mean_NT: np.ndarray, var_NT: np.ndarray, pooled_NN: csr_array) -> tuple[np.ndarray, np.ndarray]:
    """Posterior of z1 under the assumption that a cell shares it with its neighbours.

    Cells are independent given the shared z1, so with the prior N(0, I) (product of experts; Tresp 2000, Wu and Goodman 2018)

        q(z1 | x_0 .. x_k)  ∝  N(z1; 0, I)  prod_i q(z1 | x_i) / N(z1; 0, I)
        1 / var = 1 + sum_i (1 / var_i - 1),      mean = var sum_i mean_i / var_i

    Dims in which a posterior is wider than the prior are skipped: they carry no evidence.

    Parameters
    ----------
    mean_NT, var_NT : posteriors of z1, each from the counts of one cell; variances positive.
    pooled_NN : neighbours that are pooled with each cell, never the cell itself (`CellIndex.around`); values are ignored.

    Returns
    -------
    (mean, variance), float32 [N, T].
    """
    var_NT = var_NT.astype(np.float64)
    informative_NT = var_NT < 1
    precision_gain_NT = np.where(informative_NT, 1 / var_NT - 1, 0.0)
    weighted_mean_NT = np.where(informative_NT, mean_NT / var_NT, 0.0)
    neighbours_NN = pooled_NN.copy()
    neighbours_NN.data = np.ones(len(neighbours_NN.data))
    precision_NT = 1 + precision_gain_NT + neighbours_NN @ precision_gain_NT
    pooled_mean_NT = (weighted_mean_NT + neighbours_NN @ weighted_mean_NT) / precision_NT
    return pooled_mean_NT.astype(np.float32), (1 / precision_NT).astype(np.float32)


# --- names of components ---------------------------------------------------------------------------------------------


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
        """Cells of the component that carry its name; all of its cells when none is labelled."""
        if not self.n_labelled:
            return float(self.n_cells)
        return self.n_labelled * (1.0 if math.isnan(self.purity) else self.purity)


def name_by_markers(component: int, markers: Sequence[str]) -> str:
    """Name of a component without labelled cells: ``type 3 (UMOD, SLC12A1)``."""
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
        """Distinct type names, by decreasing number of cells; components without cells are skipped."""
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
        """Components of a type (int64) and their shares of its training cells. The case of the name is ignored.

        Shares of the cells that carry the name, not mixture weights: a component with a high prior weight but few cells, or in
        which the type is only the largest of many, must not be sampled often.

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

    def type_probabilities(self, responsibilities_NK: np.ndarray) -> np.ndarray:
        """Sum responsibilities over the components of each type: [N, len(names)], columns in the order of `names`."""
        member_KC = np.array([[row.name == name for name in self.names] for row in self.rows], float)
        return responsibilities_NK @ member_KC

    def predicted_types(self, posterior_NK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predicted type of each cell, int64 [N] into `names`, and its probability, from component posteriors [N, K].

        With labels, the probabilities of components of the same type add up. Without labels a cell gets the type of its likeliest
        component: types of many components would otherwise attract the cells between types.
        """
        probability_NC = self.type_probabilities(posterior_NK)
        best_N = probability_NC.argmax(1)
        if not any(row.n_labelled for row in self.rows):
            type_K = np.array([self.names.index(row.name) if row.name in self.names else -1 for row in self.rows])
            best_N = type_K[np.where(type_K >= 0, posterior_NK, -1.0).argmax(1)]
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

    def grouped(self, group_K: np.ndarray) -> TypeTable:
        """A table in which the components of each group, int64 [K], share one name: the markers of the largest component."""
        rows = []
        for row in self.rows:
            members = [other for other in self.rows if group_K[other.component] == group_K[row.component]]
            largest = max(members, key=lambda other: other.n_cells)
            rows.append(replace(row, name=name_by_markers(largest.component, largest.markers)))
        return TypeTable(rows)


# --- groups of components --------------------------------------------------------------------------------------------

MAX_COPIES = 20  # points that represent the largest component; the others have fewer, by the square root of their cells
RESAMPLINGS = 100  # times that the components are resampled


def group_components(
    means_KT: np.ndarray, vars_KT: np.ndarray, n_cells_K: np.ndarray, n_groups: int, *, seed: int = 0
) -> np.ndarray:
    """Group nearby components into `n_groups`, such that another sample of cells would lead to the same groups.

    The order of two merges often depends on a few cells. So the components are resampled as another sample of cells of the
    same mixture would give them (their means by the standard error, their cells by Poisson) and grouped each time by Ward's
    method; components that were most often in one group are put together: average linkage of the share of resamplings in which
    two were apart (evidence accumulation, Fred and Jain 2005; consensus clustering, Monti et al. 2003).

    Parameters
    ----------
    means_KT, vars_KT : of the components.
    n_cells_K : cells of each.
    n_groups : at least 1, at most the number of components with cells.
    seed : of the resampling.

    Returns
    -------
    Group of each component, int64 [K], from 0 to n_groups - 1. Components without cells join the nearest one.
    """
    from scipy.cluster.hierarchy import cut_tree, linkage
    from scipy.spatial.distance import squareform

    filled = np.flatnonzero(n_cells_K)
    if not 1 <= n_groups <= len(filled):
        raise ValueError(f"group_components: {n_groups} groups of {len(filled)} components with cells")
    means_NT, n_cells_N = means_KT[filled].astype(np.float64), n_cells_K[filled]
    error_NT = np.sqrt(vars_KT[filled] / n_cells_N[:, None])
    group_K = np.zeros(len(n_cells_K), np.int64)
    if len(filled) > 1:
        rng, together_NN = np.random.default_rng(seed), np.zeros((len(filled), len(filled)))
        for _ in range(RESAMPLINGS):
            resampled_NT = means_NT + error_NT * rng.standard_normal(means_NT.shape)
            group_N = ward(resampled_NT, rng.poisson(n_cells_N).clip(1), n_groups)
            together_NN += group_N[:, None] == group_N
        tree = linkage(squareform(1 - together_NN / RESAMPLINGS, checks=False), "average")
        group_K[filled] = cut_tree(tree, [n_groups])[:, 0]
    for k in np.flatnonzero(n_cells_K == 0):
        group_K[k] = group_K[filled[((means_NT - means_KT[k]) ** 2).sum(1).argmin()]]
    return group_K


def ward(means_NT: np.ndarray, n_cells_N: np.ndarray, n_groups: int) -> np.ndarray:
    """Group components, none of them empty, by Ward's method on their means; groups from 0 to n_groups - 1, int64 [N].

    A component weighs the square root of its number of cells: with the number itself (Ward 1963) small groups far from all
    others are absorbed, and with equal weights large ones are not kept apart.
    """
    from scipy.cluster.hierarchy import fcluster, linkage

    weight_N = np.sqrt(n_cells_N / n_cells_N.max())
    copy_C = np.repeat(np.arange(len(means_NT)), np.ceil(MAX_COPIES * weight_N).astype(int))
    # copies of a point are merged first, at no cost, and then count as one point of their joint weight
    group_N = np.zeros(len(means_NT), np.int64)
    group_N[copy_C] = fcluster(linkage(means_NT[copy_C], "ward"), n_groups, "maxclust") - 1
    return group_N
