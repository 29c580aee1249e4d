"""A small expression space for labelling: log-normalised variable genes, principal components fitted on train cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sge2hist.data.errors import InputError

if TYPE_CHECKING:
    from scipy.sparse import csr_array

TARGET_COUNTS = 1e4
CHUNK_CELLS = 20_000


def log_normalise(counts_NG: csr_array, library_N: np.ndarray | None = None) -> csr_array:
    """``log1p(counts / library x 10,000)``, float32 CSR; cells without counts stay zero.

    Parameters
    ----------
    library_N
        Total counts of each cell, where `counts_NG` holds a part of the genes only.
    """
    from scipy.sparse import csr_array

    total = np.concatenate([[0], np.cumsum(counts_NG.data, dtype=np.float64)])
    library = np.diff(total[counts_NG.indptr]) if library_N is None else library_N
    per_value = np.repeat(TARGET_COUNTS / np.maximum(library, 1), np.diff(counts_NG.indptr))
    values = np.log1p(counts_NG.data * per_value).astype(np.float32)
    return csr_array((values, counts_NG.indices, counts_NG.indptr), shape=counts_NG.shape)


@dataclass(frozen=True, kw_only=True)
class ExpressionSpace:
    """Principal axes of variable genes."""

    genes: np.ndarray  # int64 [V]: columns used
    mean: np.ndarray  # float32 [V]
    axes: np.ndarray  # float32 [V, D]

    def transform(self, counts_NG: csr_array) -> np.ndarray:
        """Coordinates float32 [N, D], computed in chunks of cells."""
        out = np.empty((counts_NG.shape[0], self.axes.shape[1]), np.float32)
        offset = self.mean @ self.axes
        for first in range(0, len(out), CHUNK_CELLS):
            part = log_normalise(counts_NG[first : first + CHUNK_CELLS])[:, self.genes]
            out[first : first + CHUNK_CELLS] = part @ self.axes - offset
        return out


def fit_expression_space(
    train_NG: csr_array, *, n_genes: int = 2000, n_axes: int = 30, seed: int = 0
) -> ExpressionSpace:
    """Choose variable genes by their variance above the trend with the mean, and fit principal axes.

    The trend is the median of ``log(variance / mean)`` in 20 bins of the mean (as Seurat's dispersion does).

    Raises
    ------
    InputError
        If there are fewer than two cells, or no gene varies between them.
    """
    from sklearn.decomposition import PCA

    n_cells = train_NG.shape[0]
    if n_cells < 2:
        raise InputError(
            found=f"{n_cells} training cells to fit axes of expression to",
            expected="at least 2",
            repair="prepare with a larger share of training cells (--fractions)",
        )
    logged = log_normalise(train_NG)
    mean = np.asarray(logged.sum(axis=0)).ravel() / n_cells
    variance = np.asarray(logged.power(2).sum(axis=0)).ravel() / n_cells - mean**2
    expressed = np.flatnonzero((mean > 0) & (variance > 1e-9 * mean**2))  # above rounding
    if len(expressed) == 0:
        raise InputError(
            found=f"no gene that varies among {n_cells:,} training cells",
            expected="raw counts that differ between cells",
        )
    dispersion = np.log(variance[expressed] / mean[expressed])
    order = np.argsort(np.argsort(mean[expressed], kind="stable"), kind="stable")
    level = order * 20 // max(len(expressed), 1)
    median = np.array([np.median(dispersion[level == b]) if (level == b).any() else 0.0 for b in range(20)])
    best = np.argsort(-(dispersion - median[level]), kind="stable")[:n_genes]
    genes = np.sort(expressed[best])
    chosen = logged[:, genes]
    n_axes = max(1, min(n_axes, len(genes) - 1, n_cells - 1))
    centre = mean[genes].astype(np.float32)
    if len(genes) <= 200:
        pca = PCA(n_axes, svd_solver="full").fit(chosen.toarray())
    else:
        pca = PCA(n_axes, svd_solver="arpack", random_state=seed).fit(chosen)
    return ExpressionSpace(genes=genes, mean=centre, axes=np.ascontiguousarray(pca.components_.T.astype(np.float32)))
