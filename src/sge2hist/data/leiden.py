"""Leiden clusters of the training cells, and the nearest cluster for every other cell."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.data.expression_space import fit_expression_space

if TYPE_CHECKING:
    from scipy.sparse import csr_array

MAX_GRAPH = 30_000  # cells in the neighbour graph; the rest is assigned afterwards
N_NEIGHBOURS = 15
MIN_CELLS = 20


def leiden_types(counts_NG: csr_array, train_rows: np.ndarray, *, resolution: float, seed: int) -> np.ndarray:
    """Name every cell "Cluster 1" (the largest), "Cluster 2", ...: object array [N].

    Everything is fitted on (at most 30,000 of) the training cells: variable genes, principal axes, neighbour graph and
    clusters (Leiden, modularity, as scanpy's igraph flavour). Other cells take the majority of their 15 nearest.
    """
    if len(train_rows) < MIN_CELLS:
        raise InputError(
            found=f"{len(train_rows)} training cells",
            expected=f"at least {MIN_CELLS} to find clusters",
            repair="--types none, or give labels",
        )
    rng = np.random.default_rng(seed)
    rows = train_rows
    if len(rows) > MAX_GRAPH:
        rows = np.sort(rng.choice(rows, MAX_GRAPH, replace=False))
    space = fit_expression_space(counts_NG[rows], seed=seed)
    coordinates = space.transform(counts_NG)
    cluster = leiden_clusters(coordinates[rows], resolution=resolution, seed=seed)
    assigned = nearest_majority(coordinates[rows], cluster, coordinates)
    assigned[rows] = cluster
    return np.array([f"Cluster {number + 1}" for number in assigned], dtype=object)


def leiden_clusters(coordinates_ND: np.ndarray, *, resolution: float, seed: int) -> np.ndarray:
    """Cluster index of each point, 0 = the largest cluster: int64 [N].

    The graph links each point with its nearest neighbours, weighted by the share of neighbours in common (Jaccard).
    """
    import igraph
    from scipy.sparse import csr_array, triu

    n = len(coordinates_ND)
    k = min(N_NEIGHBOURS, n - 1)
    neighbour = _nearest(coordinates_ND, coordinates_ND, k + 1)
    membership = csr_array(
        (np.ones(n * (k + 1), np.float32), neighbour.ravel(), np.arange(n + 1) * (k + 1)), shape=(n, n)
    )
    shared = csr_array(membership @ membership.T)
    shared.data /= 2 * (k + 1) - shared.data
    linked = csr_array(membership + membership.T)
    linked.data[:] = 1
    edges = triu(linked * shared, k=1).tocoo()
    graph = igraph.Graph(n=n, edges=np.column_stack([edges.row, edges.col]).tolist())
    igraph.set_random_number_generator(random.Random(seed))
    try:
        parts = graph.community_leiden(
            objective_function="modularity", weights=edges.data.tolist(), resolution=resolution, n_iterations=5
        )
    finally:
        igraph.set_random_number_generator(random)  # igraph's own default
    member = np.asarray(parts.membership)
    by_size = np.argsort(-np.bincount(member), kind="stable")
    rank = np.empty(len(by_size), np.int64)
    rank[by_size] = np.arange(len(by_size))
    return rank[member]


def nearest_majority(known_MD: np.ndarray, label_M: np.ndarray, asked_ND: np.ndarray) -> np.ndarray:
    """Most frequent label among the nearest known points of each point asked for: int64 [N]."""
    k = min(N_NEIGHBOURS, len(known_MD))
    votes = label_M[_nearest(known_MD, asked_ND, k)]
    n_labels = int(label_M.max()) + 1
    flat = votes + np.arange(len(votes))[:, None] * n_labels
    return np.bincount(flat.ravel(), minlength=len(votes) * n_labels).reshape(-1, n_labels).argmax(axis=1)


def _nearest(known_MD: np.ndarray, asked_ND: np.ndarray, k: int) -> np.ndarray:
    """Indices of the k nearest known points, int64 [N, k]; blocks of distances by matrix products."""
    from sklearn.neighbors import NearestNeighbors

    return NearestNeighbors(n_neighbors=k, algorithm="brute").fit(known_MD).kneighbors(asked_ND, return_distance=False)
