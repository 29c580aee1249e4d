"""Names for the components of a trained mixture: by labelled training cells, else by marker genes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from sge2hist.models.gene_types import TypeRow, TypeTable, name_by_markers
from sge2hist.models.gene_vae import GeneVAE
from sge2hist.training.gene_data import GeneData
from sge2hist.training.gene_encoding import Encoded, assign_components, encode_all, tell_components
from sge2hist.training.type_markers import GroupMeans, group_means


def name_components(
    model: GeneVAE,
    data: GeneData,
    *,
    encoded: Encoded | None = None,
    n_markers: int = 5,
    min_labelled: int = 5,
    device: torch.device | str = "cpu",
) -> TypeTable:
    """Table of all components: majority label with purity, number of cells, markers.

    A component with fewer than `min_labelled` labelled training cells is called after its markers, as in
    ``type 3 (UMOD, SLC12A1)``. One that belongs to a type whose cells lie among those of others, so that the type is the
    majority nowhere, has its type's name and the cells that it wins with their labels; its purity is nan.
    """
    encoded = encode_all(model, data, device=device) if encoded is None else encoded
    component_N = tell_components(model, data, encoded).argmax(1)
    n_components = model.mixture.n_components
    hidden_K = _hidden(model, data, component_N, min_labelled)
    if hidden_K.any():
        told_N = assign_components(model, data, encoded, use_labels=True).argmax(1)
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
