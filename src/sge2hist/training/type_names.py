"""Names for the components of a trained mixture: by labelled training cells, else by marker genes."""

from __future__ import annotations

import numpy as np
import torch

from sge2hist.models.gene_types import TypeRow, TypeTable
from sge2hist.models.gene_vae import GeneVAE
from sge2hist.training.gene_data import GeneData
from sge2hist.training.gene_encoding import Encoded, encode_all
from sge2hist.training.type_markers import GroupMeans, group_means


@torch.no_grad()
def assign_components(model: GeneVAE, encoded: Encoded) -> np.ndarray:
    """Responsibilities q(c | x) of encoded cells, float32 [N, K]."""
    parts = []
    for start in range(0, len(encoded.mean_NZ), 16384):
        part = slice(start, start + 16384)
        mean_NT = torch.from_numpy(encoded.z1[part])
        log_var_NT = torch.from_numpy(encoded.log_var_NZ[part, : encoded.n_type])
        mixture = model.mixture
        device = mixture.means_KT.device
        parts.append(mixture.best_responsibilities(mean_NT.to(device), log_var_NT.to(device)).cpu().numpy())
    return np.concatenate(parts)


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
    ``type 3 (UMOD, SLC12A1)``.
    """
    encoded = encode_all(model, data, device=device) if encoded is None else encoded
    component_N = assign_components(model, encoded).argmax(1)
    n_components = model.mixture.n_components
    means = group_means(data, component_N, n_components)
    weights = torch.softmax(model.mixture.logits_K.detach().double(), 0).cpu().numpy()
    rows = [_row(k, data, component_N, means, float(weights[k]), n_markers, min_labelled) for k in range(n_components)]
    return TypeTable(rows)


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
    purity, name = float("nan"), f"type {component}" + (f" ({', '.join(markers[:3])})" if markers else "")
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
