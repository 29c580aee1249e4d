"""What a bin and the bins around it say together of one cell type: their posteriors of z1, multiplied."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_array


def pool_posteriors(mean_NT: np.ndarray, var_NT: np.ndarray, around: csr_array) -> tuple[np.ndarray, np.ndarray]:
    """Posterior of a z1 that a cell shares with those around it, were each seen alone.

    Cells are independent given the shared z1, so with the prior N(0, I) (product of experts; Tresp 2000, Wu and Goodman 2018)

        q(z1 | x_0 .. x_k)  ∝  N(z1; 0, I)  prod_i q(z1 | x_i) / N(z1; 0, I)
        1 / var = 1 + sum_i (1 / var_i - 1),      mean = var sum_i mean_i / var_i

    A posterior that is wider than the prior in some dim says nothing there, and what a cell without counts says is nothing.

    Parameters
    ----------
    mean_NT, var_NT : posteriors of z1, each of a cell's own counts; variances positive.
    around : who is around each cell, [N, N], never the cell itself (`CellIndex.around`); the values do not matter.

    Returns
    -------
    (mean, variance), float32 [N, T].
    """
    var_NT = var_NT.astype(np.float64)
    told_NT = var_NT < 1
    gain_NT = np.where(told_NT, 1 / var_NT - 1, 0.0)
    pull_NT = np.where(told_NT, mean_NT / var_NT, 0.0)
    shared = around.copy()
    shared.data = np.ones(len(shared.data))
    precision_NT = 1 + gain_NT + shared @ gain_NT
    pooled_NT = (pull_NT + shared @ pull_NT) / precision_NT
    return pooled_NT.astype(np.float32), (1 / precision_NT).astype(np.float32)
