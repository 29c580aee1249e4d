"""Latent good? Clustering of `z1`, active units, and linear probes of `z1` and `z2`.

K-means (as many clusters as types) on `z1`, and Leiden on principal components of the same cells' expression, both over
several seeds; agreement with the dataset's types by accuracy under the best one-to-one matching (Hungarian), NMI and
ARI. When the dataset's types were themselves made by Leiden, that comparison flatters Leiden, and the report notes it.

Shape letters: N cells, T/M latent dims, K clusters.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array

from sge2hist.data.leiden import leiden_partition, nearest_neighbour_graph
from sge2hist.evaluation.metrics.expression_recovery import frequent_genes, log_normalised
from sge2hist.evaluation.resampling import finite, spread

ACTIVE_VARIANCE = 0.01
SEEDS = (0, 1, 2, 3, 4)
FOLDS = 5
COMPONENTS = 30
NEIGHBOURS = 15
MAX_CELLS = 5_000


def matched_accuracy(truth_N: np.ndarray, cluster_N: np.ndarray) -> float:
    """Return the share of cells in the right cluster under the best one-to-one matching of clusters to types."""
    _, truth = np.unique(truth_N, return_inverse=True)
    _, cluster = np.unique(cluster_N, return_inverse=True)
    table = np.zeros((cluster.max() + 1, truth.max() + 1), np.int64)
    np.add.at(table, (cluster, truth), 1)
    rows, columns = linear_sum_assignment(-table)
    return float(table[rows, columns].sum() / len(truth))


def agreement(truth_N: np.ndarray, cluster_N: np.ndarray) -> dict[str, float]:
    """Return accuracy, NMI (arithmetic mean) and ARI of one clustering."""
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    return {
        "acc": matched_accuracy(truth_N, cluster_N),
        "nmi": float(normalized_mutual_info_score(truth_N, cluster_N)),
        "ari": float(adjusted_rand_score(truth_N, cluster_N)),
    }


def over_seeds(scores: list[dict[str, float]]) -> dict[str, Any]:
    """Return mean, SD and the single values of each score over seeds."""
    return {
        name: {
            "value": float(np.mean([s[name] for s in scores])),
            "sd": spread([s[name] for s in scores]),
            "seeds": [s[name] for s in scores],
        }
        for name in scores[0]
    }


def kmeans_scores(latent_NT: np.ndarray, type_N: np.ndarray) -> dict[str, Any]:
    """Return the agreement of k-means on the latent, over five seeds."""
    from sklearn.cluster import KMeans

    k = len(np.unique(type_N))
    return over_seeds(
        [agreement(type_N, KMeans(k, n_init=5, random_state=seed).fit_predict(latent_NT)) for seed in SEEDS]
    )


def principal_components(counts_NG: csr_array, n_genes: int = 2000) -> np.ndarray:
    """Return float64 [N, <= 30]: principal components of log-normalised expression of the most frequent genes."""
    expression = log_normalised(counts_NG, frequent_genes(counts_NG, n_genes)).astype(np.float64)
    expression -= expression.mean(axis=0)
    gram = expression.T @ expression
    values, vectors = np.linalg.eigh(gram)
    best = np.argsort(-values)[: min(COMPONENTS, len(values))]
    return expression @ vectors[:, best]


def leiden_scores(counts_NG: csr_array, type_N: np.ndarray) -> dict[str, Any]:
    """Return the agreement of Leiden on principal components, over five seeds."""
    graph = nearest_neighbour_graph(principal_components(counts_NG), NEIGHBOURS)
    return over_seeds(
        [agreement(type_N, leiden_partition(graph, resolution=1.0, seed=seed, n_iterations=-1)) for seed in SEEDS]
    )


def active_units(latent_NT: np.ndarray) -> int:
    """Return the number of dimensions whose posterior mean varies over cells: `Var_x[mu_d(x)] > 0.01` (Burda et al.
    2016).
    """
    return int((latent_NT.var(axis=0) > ACTIVE_VARIANCE).sum())


def cross_validation_folds(block_N: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a cross-validation fold per cell; whole spatial blocks, so that neighbours do not sit on both sides."""
    blocks, block_N = np.unique(block_N, return_inverse=True)
    return (
        rng.permutation(len(blocks))[block_N] % FOLDS if len(blocks) >= FOLDS else rng.integers(0, FOLDS, len(block_N))
    )


def type_probe(latent_NT: np.ndarray, type_N: np.ndarray, fold_N: np.ndarray) -> float:
    """Return the cross-validated balanced accuracy of a linear classifier of type (chance: one over the number of
    types).
    """
    from sklearn.linear_model import LogisticRegression

    scaled = (latent_NT - latent_NT.mean(axis=0)) / (latent_NT.std(axis=0) + 1e-6)
    predicted = np.full(len(type_N), -1)
    for fold in np.unique(fold_N):
        test = fold_N == fold
        if len(np.unique(type_N[~test])) < 2:
            continue
        model = LogisticRegression(class_weight="balanced", max_iter=500, tol=1e-3)
        predicted[test] = model.fit(scaled[~test], type_N[~test]).predict(scaled[test])
    recalls = [(predicted[type_N == t] == t).mean() for t in np.unique(type_N)]
    return float(np.mean(recalls))


def neighbourhood_probe(latent_NM: np.ndarray, composition_NT: np.ndarray, fold_N: np.ndarray) -> float:
    """Return the cross-validated R2 (over all types together) of a ridge from the latent to the composition of the
    neighbourhood.
    """
    from sklearn.linear_model import Ridge

    predicted = np.zeros_like(composition_NT)
    for fold in np.unique(fold_N):
        test = fold_N == fold
        predicted[test] = Ridge(alpha=1.0).fit(latent_NM[~test], composition_NT[~test]).predict(latent_NM[test])
    residual = ((composition_NT - predicted) ** 2).sum()
    total = ((composition_NT - composition_NT.mean(axis=0)) ** 2).sum()
    return float(1 - residual / total) if total > 0 else float("nan")


def neighbourhood_composition(
    rows: np.ndarray,
    centre_xy: np.ndarray,
    slide_of_cell: np.ndarray,
    type_of_cell: np.ndarray,
    n_types: int,
    k: int = 20,
) -> np.ndarray:
    """Return float64 [len(rows), n_types]: shares of the types among the k nearest other cells on the same slide."""
    from scipy.spatial import KDTree

    shares = np.zeros((len(rows), n_types))
    for slide in np.unique(slide_of_cell[rows]):
        on_slide = np.flatnonzero(slide_of_cell == slide)
        mine = np.flatnonzero(slide_of_cell[rows] == slide)
        count = min(k + 1, len(on_slide))
        _, near = KDTree(centre_xy[on_slide]).query(centre_xy[rows[mine]], k=count)
        types = type_of_cell[on_slide[np.atleast_2d(near).reshape(len(mine), count)[:, 1:]]]
        for t in range(n_types):
            shares[mine, t] = (types == t).mean(axis=1) if types.shape[1] else 0.0
    return shares


def latent_report(
    z1: np.ndarray | None,
    z2: np.ndarray | None,
    predicted_type_N: np.ndarray | None,
    counts_NG: csr_array,
    type_N: np.ndarray,
    composition_NT: np.ndarray,
    block_N: np.ndarray,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Return clustering, active units and probes for cells of known type (at most 5,000, sampled at random).

    `predicted_type_N`: type that the model predicts for each cell: a clustering of z1, supervised by the types of training
    cells.
    """
    known = np.flatnonzero(type_N >= 0)
    chosen = np.sort(rng.choice(known, min(len(known), MAX_CELLS), replace=False))
    if len(chosen) < 50 or len(np.unique(type_N[chosen])) < 2:
        return {"skipped": f"{len(chosen)} cells of known type; at least 50 of two types are needed"}
    fold_N, types = cross_validation_folds(block_N[chosen], rng), type_N[chosen]
    result: dict[str, Any] = {
        "n": len(chosen),
        "n_types": len(np.unique(types)),
        "chance_balanced_accuracy": 1 / len(np.unique(types)),
        "leiden_on_pca": leiden_scores(counts_NG[chosen], types),
    }
    if predicted_type_N is not None:
        result["mixture"] = over_seeds([agreement(types, predicted_type_N[chosen])])
    for name, latent in (("z1", z1), ("z2", z2)):
        if latent is not None:
            values = np.asarray(latent, np.float64)[chosen]
            result[name] = {
                "dims": values.shape[1],
                "active_units": active_units(values),
                "clustering": kmeans_scores(values, types),
                "type_probe_balanced_accuracy": type_probe(values, types, fold_N),
                "neighbourhood_probe_r2": finite(neighbourhood_probe(values, composition_NT[chosen], fold_N)),
            }
    return result
