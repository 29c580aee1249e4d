"""Composition and mean expression of the neighbours of each cell, as targets of the z2 heads.

Neighbours are the nearest cells of the same slide and the same split within a radius, without the cell itself: no
expression of a validation or test cell enters a training target.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from sge2hist.data.paired import PairedDataset
from sge2hist.data.spatial_index import CellIndex
from sge2hist.models.gene.auxiliary_losses import Neighbourhood
from sge2hist.models.gene.networks import GeneEncoder
from sge2hist.training.gene.data import GeneData

DEFAULT_NEIGHBOUR_UM = 50.0
"""Radius of a neighbourhood, unless the cells lie farther apart."""
NEIGHBOUR_SPACINGS = 1.5
"""Minimum radius, in distances of neighbouring cells: that of spots 100 um apart (Visium) takes in the six neighbours."""


def neighbourhood_radius(dataset: PairedDataset) -> float:
    """Radius (um) within which the cells of a dataset are neighbours, by their spacing."""
    index = CellIndex(dataset.centre_xy_px * dataset.um_per_px, dataset.slide_of_cell)
    return max(DEFAULT_NEIGHBOUR_UM, NEIGHBOUR_SPACINGS * index.spacing_um())


@dataclass(frozen=True, kw_only=True)
class NeighbourhoodTargets:
    """Targets of all N cells of a split; cells without neighbours have weight 0."""

    composition_NP: np.ndarray  # float32
    embedding_NE: np.ndarray  # float32, standardised over the cells
    weight_N: np.ndarray  # float32
    class_names: list[str]  # of the P classes

    def batch(self, rows: np.ndarray, device: torch.device | str = "cpu") -> Neighbourhood:
        """Targets of some cells as tensors."""
        parts = (self.composition_NP[rows], self.embedding_NE[rows], self.weight_N[rows])
        return Neighbourhood(*(torch.from_numpy(part) for part in parts)).to(device)


def neighbourhood_targets(
    data: GeneData,
    encoder: GeneEncoder,
    *,
    n_composition: int,
    n_embedding: int,
    radius_um: float = DEFAULT_NEIGHBOUR_UM,
    seed: int = 0,
) -> NeighbourhoodTargets | None:
    """Targets for the cells of `data`, or None when there are no positions (or no cell has a neighbour).

    Composition is over the labelled types when at least half of the cells carry one, else over k-means clusters of the
    coordinates on the encoder's axes of expression; either way padded or cut to `n_composition` classes (rare types share the
    last one). The mean expression is that of the leading `n_embedding` coordinates, filled with zeros.
    """
    index = data.index
    if index is None:
        return None
    matrix_NN = index.neighbour_weights(np.arange(data.n_cells), radius_um)
    has_neighbour_N = np.diff(matrix_NN.indptr) > 0
    if matrix_NN.nnz == 0 or not has_neighbour_N.any():
        return None
    coordinate_NE = np.concatenate([encoder.coordinates(counts) for _, counts in data.chunks(16384)])
    embedding_NE = np.zeros((data.n_cells, n_embedding), np.float32)
    n_shared = min(n_embedding, encoder.n_axes)
    embedding_NE[:, :n_shared] = coordinate_NE[:, :n_shared]
    class_N, class_names = _classes(data, coordinate_NE, n_composition, seed)
    known = np.flatnonzero(class_N >= 0)
    one_hot_NP = np.zeros((data.n_cells, n_composition), np.float32)
    one_hot_NP[known, class_N[known]] = 1.0
    composition_NP = matrix_NN @ one_hot_NP
    share_known_N = composition_NP.sum(1)
    weight_N = (has_neighbour_N & (share_known_N > 0)).astype(np.float32)
    composition_NP /= np.where(share_known_N > 0, share_known_N, 1.0)[:, None]
    neighbour_NE = matrix_NN @ embedding_NE
    centre_E, spread_E = neighbour_NE[has_neighbour_N].mean(0), neighbour_NE[has_neighbour_N].std(0)
    neighbour_NE = (neighbour_NE - centre_E) / np.maximum(spread_E, 1e-6)
    return NeighbourhoodTargets(
        composition_NP=composition_NP.astype(np.float32),
        embedding_NE=neighbour_NE.astype(np.float32),
        weight_N=weight_N,
        class_names=class_names,
    )


def _classes(data: GeneData, embedding_NE: np.ndarray, n_classes: int, seed: int) -> tuple[np.ndarray, list[str]]:
    labelled = data.type_N >= 0
    if labelled.mean() >= 0.5:
        order = np.argsort(-np.bincount(data.type_N[labelled], minlength=len(data.type_names)), kind="stable")
        position = np.full(len(data.type_names), n_classes - 1)
        position[order[:n_classes]] = np.arange(min(n_classes, len(order)))
        names = [data.type_names[t] for t in order[:n_classes]]
        return np.where(labelled, position[data.type_N], -1), names
    from sklearn.cluster import MiniBatchKMeans

    n_clusters = min(n_classes, data.n_cells)
    clusters = MiniBatchKMeans(n_clusters, random_state=seed, n_init=3, batch_size=4096).fit_predict(embedding_NE)
    return clusters.astype(np.int64), [f"cluster {i}" for i in range(n_clusters)]
