"""Leiden clustering (Traag et al. 2019, modularity) on neighbour graphs, and cell types from clusters of the training cells.

Shape letters: N cells, M known cells, G genes, D dimensions, E edges, k neighbours.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.data.expression_space import fit_expression_space

if TYPE_CHECKING:
    from scipy.sparse import csr_array

MAX_GRAPH = 30_000  # cells in the neighbour graph; the other cells take the majority of their neighbours
N_NEIGHBOURS = 15
N_ITERATIONS = 5
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
    """Cluster index of each point on the graph of shared neighbours, 0 = the largest cluster: int64 [N]."""
    graph = shared_neighbour_graph(coordinates_ND, N_NEIGHBOURS)
    member = leiden_partition(graph, resolution=resolution, seed=seed, n_iterations=N_ITERATIONS)
    by_size = np.argsort(-np.bincount(member), kind="stable")
    rank = np.empty(len(by_size), np.int64)
    rank[by_size] = np.arange(len(by_size))
    return rank[member]


@dataclass(frozen=True, kw_only=True)
class NeighbourGraph:
    """An undirected graph of points; `weights` None: all edges count the same."""

    n_points: int
    edges_E2: np.ndarray
    weights_E: np.ndarray | None = None


def shared_neighbour_graph(coordinates_ND: np.ndarray, n_neighbours: int) -> NeighbourGraph:
    """Link each point to its nearest neighbours; the weight is the share of neighbours in common (Jaccard)."""
    from scipy.sparse import csr_array, triu

    n = len(coordinates_ND)
    k = min(n_neighbours, n - 1)
    neighbour = _nearest(coordinates_ND, coordinates_ND, k + 1)
    membership = csr_array(
        (np.ones(n * (k + 1), np.float32), neighbour.ravel(), np.arange(n + 1) * (k + 1)), shape=(n, n)
    )
    shared = csr_array(membership @ membership.T)
    shared.data /= 2 * (k + 1) - shared.data
    linked = csr_array(membership + membership.T)
    linked.data[:] = 1
    edges = triu(linked * shared, k=1).tocoo()
    return NeighbourGraph(n_points=n, edges_E2=np.column_stack([edges.row, edges.col]), weights_E=edges.data)


def nearest_neighbour_graph(coordinates_ND: np.ndarray, n_neighbours: int) -> NeighbourGraph:
    """Link each point to its nearest neighbours, without weights."""
    from sklearn.neighbors import kneighbors_graph

    graph = kneighbors_graph(coordinates_ND, min(n_neighbours, len(coordinates_ND) - 1)).tocoo()
    edges = np.unique(np.sort(np.column_stack([graph.row, graph.col]), axis=1), axis=0)
    return NeighbourGraph(n_points=len(coordinates_ND), edges_E2=edges)


def leiden_partition(graph: NeighbourGraph, *, resolution: float, seed: int, n_iterations: int) -> np.ndarray:
    """Cluster index of each point, int64 [N], in igraph's order; `n_iterations` -1: until nothing changes."""
    import igraph

    network = igraph.Graph(n=graph.n_points, edges=graph.edges_E2.tolist())
    # igraph takes random numbers from Python's global generator: it gets one of its own for this call.
    igraph.set_random_number_generator(random.Random(seed))
    try:
        parts = network.community_leiden(
            objective_function="modularity",
            weights=None if graph.weights_E is None else graph.weights_E.tolist(),
            resolution=resolution,
            n_iterations=n_iterations,
        )
    finally:
        igraph.set_random_number_generator(random)  # igraph's default
    return np.asarray(parts.membership, np.int64)


def nearest_majority(known_MD: np.ndarray, label_M: np.ndarray, query_ND: np.ndarray) -> np.ndarray:
    """Most frequent label among the nearest known points of each query point: int64 [N]."""
    k = min(N_NEIGHBOURS, len(known_MD))
    votes = label_M[_nearest(known_MD, query_ND, k)]
    n_labels = int(label_M.max()) + 1
    flat = votes + np.arange(len(votes))[:, None] * n_labels
    return np.bincount(flat.ravel(), minlength=len(votes) * n_labels).reshape(-1, n_labels).argmax(axis=1)


def _nearest(known_MD: np.ndarray, query_ND: np.ndarray, k: int) -> np.ndarray:
    """Indices of the k nearest known points, int64 [N, k]; blocks of distances by matrix products."""
    from sklearn.neighbors import NearestNeighbors

    return NearestNeighbors(n_neighbors=k, algorithm="brute").fit(known_MD).kneighbors(query_ND, return_distance=False)
