"""Components of a mixture -> fewer kinds: those that share cells are of one kind."""

from __future__ import annotations

import numpy as np


def kinds_of_components(log_shared_KK: np.ndarray, n_cells_K: np.ndarray, n_kinds: int) -> np.ndarray:
    """Group components into `n_kinds` such that any two of a kind share many cells.

    Components that stand for one kind of cell overlap: some of their cells could be of either. With O_ij the cells that two share
    (:meth:`MixturePrior.log_shared`) and m_i the cells of each, the share is that of Dice (1945), 2 O_ij / (m_i + m_j), and groups
    are joined by complete linkage: two become one kind in the order of the least share between any of their members. To merge
    components where they overlap is the usual way from a mixture to clusters (Hennig 2010, "Methods for merging Gaussian
    mixture components"). Distances between means, as in Ward's method, instead count how far apart kinds are, and
    cut large kinds that reach far before small ones.

    Parameters
    ----------
    log_shared_KK : logarithms, symmetric.
    n_cells_K : cells of which each component is the likeliest; one without cells goes with whom it shares most.
    n_kinds : at least 1, and no more than there are components with cells.

    Returns
    -------
    Kind of each component, int64 [K], numbered 0 .. n_kinds - 1.

    Raises
    ------
    ValueError
        For a number of kinds that cannot be made, or if no cells were counted.
    """
    from scipy.cluster.hierarchy import cut_tree, linkage
    from scipy.spatial.distance import squareform

    filled = np.flatnonzero(n_cells_K)
    if not 1 <= n_kinds <= len(filled):
        raise ValueError(f"kinds_of_components: {n_kinds} kinds of {len(filled)} components with cells")
    if not np.isfinite(log_shared_KK).all():
        raise ValueError("kinds_of_components: the cells that components share were not counted")
    shared_KK = log_shared_KK.astype(np.float64)
    log_mass_K = np.logaddexp.reduce(shared_KK, 1)
    apart_KK = np.logaddexp(log_mass_K[:, None], log_mass_K) - shared_KK  # -log Dice, up to a constant
    kind_K = np.zeros(len(n_cells_K), np.int64)
    if len(filled) > 1:
        apart_NN = apart_KK[np.ix_(filled, filled)]
        apart_NN = (apart_NN + apart_NN.T) / 2
        np.fill_diagonal(apart_NN, 0.0)
        tree = linkage(squareform(apart_NN, checks=False), "complete")
        kind_K[filled] = cut_tree(tree, [n_kinds])[:, 0]
    for k in np.flatnonzero(n_cells_K == 0):
        kind_K[k] = kind_K[filled[apart_KK[k, filled].argmin()]]
    return kind_K
