"""What surrounds each cell: composition and mean expression of its neighbours, as targets of the z2 heads.

Neighbours are the nearest cells of the same slide and the same split within a radius, without the cell itself: no
expression of a validation or test cell enters a training target.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from sge2hist.models.gene_neighbourhood import Neighbourhood
from sge2hist.training.gene_data import GeneData

if TYPE_CHECKING:
    from scipy.sparse import csr_array

MAX_FIT_CELLS = 20_000
MAX_FIT_GENES = 2_000


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


def neighbour_matrix(
    centre_um_N2: np.ndarray, slide_N: np.ndarray | None, *, radius_um: float, max_neighbours: int = 32
) -> csr_array:
    """Sparse [N, N]: row i holds 1/k at its k nearest neighbours within the radius; empty rows have none."""
    from scipy.sparse import csr_array, eye_array

    n_cells = len(centre_um_N2)
    slide_N = np.zeros(n_cells, np.int64) if slide_N is None else slide_N
    rows, columns = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for slide in np.unique(slide_N):
        members = np.flatnonzero(slide_N == slide)
        for start, found in _nearest(centre_um_N2[members], radius_um, max_neighbours + 1):
            row, rank = np.nonzero(found < len(members))
            rows.append(members[start + row])
            columns.append(members[found[row, rank]])
    row, column = np.concatenate(rows), np.concatenate(columns)
    other = row != column
    row, column = row[other], column[other]
    count_N = np.bincount(row, minlength=n_cells)
    matrix = csr_array(((1.0 / count_N[row]).astype(np.float32), (row, column)), shape=(n_cells, n_cells))
    return matrix if matrix.nnz else csr_array(0 * eye_array(n_cells, dtype=np.float32))


def _nearest(points_M2: np.ndarray, radius_um: float, k: int) -> list[tuple[int, np.ndarray]]:
    from scipy.spatial import cKDTree

    tree = cKDTree(points_M2)
    k = max(2, min(k, len(points_M2)))
    return [
        (start, np.asarray(tree.query(points_M2[start : start + 50_000], k=k, distance_upper_bound=radius_um)[1]))
        for start in range(0, len(points_M2), 50_000)
    ]


def neighbourhood_targets(
    data: GeneData, *, n_composition: int, n_embedding: int, radius_um: float = 50.0, seed: int = 0
) -> NeighbourhoodTargets | None:
    """Targets for the cells of `data`, or None when there are no positions (or no cell has a neighbour).

    Composition is over the labelled types when at least half of the cells carry one, else over k-means clusters of the
    expression embedding; either way padded or cut to `n_composition` classes (rare types share the last one).
    """
    if data.centre_um_N2 is None:
        return None
    matrix_NN = neighbour_matrix(data.centre_um_N2, data.slide_N, radius_um=radius_um)
    has_neighbour_N = np.diff(matrix_NN.indptr) > 0
    if matrix_NN.nnz == 0 or not has_neighbour_N.any():
        return None
    embedding_NE = expression_embedding(data, n_embedding, seed=seed)
    class_N, class_names = _classes(data, embedding_NE, n_composition, seed)
    known = np.flatnonzero(class_N >= 0)
    one_hot_NP = np.zeros((data.n_cells, n_composition), np.float32)
    one_hot_NP[known, class_N[known]] = 1.0
    composition_NP = matrix_NN @ one_hot_NP
    share_known_N = composition_NP.sum(1)
    weight_N = (has_neighbour_N & (share_known_N > 0)).astype(np.float32)
    composition_NP /= np.where(share_known_N > 0, share_known_N, 1.0)[:, None]
    around_NE = matrix_NN @ embedding_NE
    centre_E, spread_E = around_NE[has_neighbour_N].mean(0), around_NE[has_neighbour_N].std(0)
    around_NE = (around_NE - centre_E) / np.maximum(spread_E, 1e-6)
    return NeighbourhoodTargets(
        composition_NP=composition_NP.astype(np.float32),
        embedding_NE=around_NE.astype(np.float32),
        weight_N=weight_N,
        class_names=class_names,
    )


def expression_embedding(data: GeneData, n_dims: int, *, seed: int = 0) -> np.ndarray:
    """Principal axes of log-normalised counts of the most variable genes, float32 [N, n_dims], zero-filled."""
    from sklearn.decomposition import TruncatedSVD

    rng = np.random.default_rng(seed)
    fit_rows = np.sort(rng.permutation(data.n_cells)[:MAX_FIT_CELLS])
    sample = _log_normalised(data.read(fit_rows))
    mean_G = np.asarray(sample.mean(0)).ravel()
    variance_G = np.asarray(sample.multiply(sample).mean(0)).ravel() - mean_G**2
    genes = np.sort(np.argsort(-variance_G, kind="stable")[:MAX_FIT_GENES])
    n_axes = min(n_dims, len(genes) - 1, len(fit_rows) - 1)
    out_NE = np.zeros((data.n_cells, n_dims), np.float32)
    if n_axes < 1:
        return out_NE
    axes = TruncatedSVD(n_axes, random_state=seed).fit(sample[:, genes]).components_
    for rows, counts in data.chunks(size=16384):
        out_NE[rows, :n_axes] = (_log_normalised(counts)[:, genes] @ axes.T) - mean_G[genes] @ axes.T
    return out_NE


def _log_normalised(counts: csr_array) -> csr_array:
    from scipy.sparse import csr_array

    library = np.asarray(counts.sum(1)).ravel().clip(1.0)
    scaled = np.log1p(counts.data * (1000.0 / np.repeat(library, np.diff(counts.indptr))))
    return csr_array((scaled.astype(np.float32), counts.indices, counts.indptr), counts.shape)


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
