"""Components of a mixture -> fewer kinds: those side by side in the latent space are of one kind."""

from __future__ import annotations

import numpy as np

COPIES = 20
"""Points that stand for the largest component; the others have fewer, by the root of their cells."""


def kinds_of_components(means_KT: np.ndarray, n_cells_K: np.ndarray, n_kinds: int) -> np.ndarray:
    """Group components by Ward's method on their means until `n_kinds` are left.

    A component weighs the root of its number of cells: by the number itself (Ward 1963) small kinds that lie far from all
    others are swallowed, and with equal weights large ones are not kept apart. Components without cells go with the nearest.

    Parameters
    ----------
    means_KT : of the components.
    n_cells_K : cells of each.
    n_kinds : at least 1, and no more than there are components with cells.

    Returns
    -------
    Kind of each component, int64 [K], numbered 0 .. n_kinds - 1.
    """
    from scipy.cluster.hierarchy import fcluster, linkage

    filled = np.flatnonzero(n_cells_K)
    if not 1 <= n_kinds <= len(filled):
        raise ValueError(f"kinds_of_components: {n_kinds} kinds of {len(filled)} components with cells")
    means_NT = means_KT[filled].astype(np.float64)
    kind_K = np.zeros(len(n_cells_K), np.int64)
    if len(filled) > 1:
        weight = np.sqrt(n_cells_K[filled] / n_cells_K.max())
        copy_C = np.repeat(np.arange(len(filled)), np.ceil(COPIES * weight).astype(int))
        # copies of a point are merged first, at no cost, and then count as one point of their joint weight
        kind_C = fcluster(linkage(means_NT[copy_C], "ward"), n_kinds, "maxclust") - 1
        kind_K[filled[copy_C]] = kind_C
    for k in np.flatnonzero(n_cells_K == 0):
        kind_K[k] = kind_K[filled[((means_NT - means_KT[k]) ** 2).sum(1).argmin()]]
    return kind_K
