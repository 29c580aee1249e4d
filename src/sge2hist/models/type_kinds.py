"""Components of a mixture -> fewer kinds: those side by side in the latent space are of one kind."""

from __future__ import annotations

import numpy as np

COPIES = 20
"""Points that stand for the largest component; the others have fewer, by the root of their cells."""
REDRAWN = 100
"""Times that the components are drawn anew."""


def kinds_of_components(
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
        raise ValueError(f"kinds_of_components: {n_kinds} kinds of {len(filled)} components with cells")
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
