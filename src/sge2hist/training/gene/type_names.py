"""Names for the components of a trained mixture: by labelled training cells, else by marker genes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from sge2hist.models.gene.cell_types import TypeRow, TypeTable, name_by_markers
from sge2hist.models.gene.encode import EncodedCells, assign_components, component_posterior
from sge2hist.models.gene.vae import GeneVAE
from sge2hist.training.gene.data import GeneData, encode_data


def name_components(
    model: GeneVAE,
    data: GeneData,
    *,
    encoded: EncodedCells | None = None,
    n_markers: int = 5,
    min_labelled: int = 5,
) -> TypeTable:
    """Table of all components: majority label with purity, number of cells, markers.

    A component with fewer than `min_labelled` labelled training cells is called after its markers, as in
    ``type 3 (UMOD, SLC12A1)``. One that belongs to a type whose cells lie among those of others, so that the type is the
    majority nowhere, has its type's name and the cells that it wins with their labels; its purity is nan.
    """
    encoded = encode_data(model, data) if encoded is None else encoded
    component_N = component_posterior(model, encoded, data.pooled(model.config.pool_um)).argmax(1)
    n_components = model.mixture.n_components
    hidden_K = _hidden(model, data, component_N, min_labelled)
    if hidden_K.any():
        told_N = assign_components(model, encoded, data.pooled(model.config.pool_um), data.type_N).argmax(1)
        moved_N = (hidden_K[told_N] | hidden_K[component_N]) & (data.type_N >= 0)
        component_N = np.where(moved_N, told_N, component_N)
    means = group_means(data, component_N, n_components)
    weights = torch.softmax(model.mixture.logits_K.detach().double(), 0).cpu().numpy()
    rows = [_row(k, data, component_N, means, float(weights[k]), n_markers, min_labelled) for k in range(n_components)]
    return TypeTable([replace(row, purity=float("nan")) if hidden_K[row.component] else row for row in rows])


def _hidden(model: GeneVAE, data: GeneData, component_N: np.ndarray, min_labelled: int) -> np.ndarray:
    """Components, bool [K], of a type that without its labels wins no component (it is the majority of none), and those with
    fewer than `min_labelled` labelled cells.
    """
    owner_K = model.mixture.type_of_component_K.cpu().numpy()
    votes_KT = np.zeros((len(owner_K), len(data.type_names)), int)
    labelled = data.type_N >= 0
    np.add.at(votes_KT, (component_N[labelled], data.type_N[labelled]), 1)
    taken = votes_KT.sum(1) >= min_labelled
    winners = set(votes_KT[taken].argmax(1).tolist()) if taken.any() else set()
    return (owner_K >= 0) & (~taken | np.array([owner not in winners for owner in owner_K]))


def _row(
    component: int,
    data: GeneData,
    component_N: np.ndarray,
    means: GroupMeans,
    weight: float,
    n_markers: int,
    min_labelled: int,
) -> TypeRow:
    type_N = data.type_N[component_N == component]
    labelled = type_N[type_N >= 0]
    markers = tuple(data.symbols[g] for g in means.top_markers(component, n_markers))
    purity, name = float("nan"), name_by_markers(component, markers)
    if len(labelled) >= min_labelled:
        votes = np.bincount(labelled, minlength=len(data.type_names))
        purity, name = float(votes.max() / votes.sum()), data.type_names[int(votes.argmax())]
    return TypeRow(
        component=component,
        name=name,
        n_cells=len(type_N),
        n_labelled=len(labelled),
        purity=purity,
        weight=weight,
        markers=markers,
    )


# Mean expression and detection of groups of cells, and the genes that mark each group.


COUNTS_PER = 10_000.0
PSEUDO = 1.0  # counts per 10,000 added before a ratio, so that rare genes do not lead


@dataclass(frozen=True, kw_only=True)
class GroupMeans:
    """Streamed summary of C groups of cells over G genes."""

    mean_CG: np.ndarray  # mean over cells of counts per 10,000
    detected_CG: np.ndarray  # share of cells with at least one count
    n_cells_C: np.ndarray  # int64

    @property
    def n_groups(self) -> int:
        """Number of groups C."""
        return len(self.n_cells_C)

    def log_fold(self, group: int) -> np.ndarray:
        """log2 of the mean in a group over the mean of all other cells, [G]."""
        others = np.arange(self.n_groups) != group
        weight = self.n_cells_C[others] / max(1, self.n_cells_C[others].sum())
        return np.log2((self.mean_CG[group] + PSEUDO) / (weight @ self.mean_CG[others] + PSEUDO))

    def top_markers(self, group: int, n: int, *, min_detected: float = 0.05, min_log_fold: float = 0.25) -> np.ndarray:
        """Up to `n` genes by decreasing log fold change among those detected in enough cells of the group, int64."""
        if self.n_cells_C[group] == 0:
            return np.empty(0, np.int64)
        log_fold_G = self.log_fold(group)
        eligible = np.flatnonzero((self.detected_CG[group] >= min_detected) & (log_fold_G >= min_log_fold))
        return eligible[np.argsort(-log_fold_G[eligible], kind="stable")][:n]


def group_means(data: GeneData, group_N: np.ndarray, n_groups: int) -> GroupMeans:
    """Summarise cells by group (int, -1 = in none); memory C x G."""
    from scipy.sparse import csr_array

    mean_CG = np.zeros((n_groups, data.n_genes))
    detected_CG = np.zeros((n_groups, data.n_genes))
    for rows, counts in data.chunks():
        group = group_N[rows]
        inside = np.flatnonzero(group >= 0)
        select = csr_array((np.ones(len(inside)), (group[inside], inside)), shape=(n_groups, len(rows)))
        library = np.asarray(counts.sum(1)).ravel().clip(1.0)
        scaled = csr_array(
            (counts.data / np.repeat(library, np.diff(counts.indptr)), counts.indices, counts.indptr), counts.shape
        )
        mean_CG += (select @ scaled).toarray()
        detected_CG += (select @ (counts > 0).astype(np.float64)).toarray()
    n_cells_C = np.bincount(group_N[group_N >= 0], minlength=n_groups)
    denominator = n_cells_C[:, None].clip(1)
    return GroupMeans(
        mean_CG=mean_CG / denominator * COUNTS_PER, detected_CG=detected_CG / denominator, n_cells_C=n_cells_C
    )
