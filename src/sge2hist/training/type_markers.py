"""Mean expression and detection of groups of cells, and the genes that mark each group."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sge2hist.training.gene_data import GeneData

COUNTS_PER = 10_000.0
PSEUDO = 1.0  # counts per 10,000 added before a ratio, so that rare genes do not lead


@dataclass(frozen=True, kw_only=True)
class GroupMeans:
    """Streamed summary of C groups of cells over G genes."""

    mean_CG: np.ndarray  # mean over cells of counts per 10,000
    detected_CG: np.ndarray  # share of cells with at least one count
    n_cells_C: np.ndarray  # int64

    @property
    def n_groups(self) -> int:
        """Number of groups C."""
        return len(self.n_cells_C)

    def log_fold(self, group: int) -> np.ndarray:
        """log2 of the mean in a group over the mean of all other cells, [G]."""
        others = np.arange(self.n_groups) != group
        weight = self.n_cells_C[others] / max(1, self.n_cells_C[others].sum())
        return np.log2((self.mean_CG[group] + PSEUDO) / (weight @ self.mean_CG[others] + PSEUDO))

    def top_markers(self, group: int, n: int, *, min_detected: float = 0.05, min_log_fold: float = 0.25) -> np.ndarray:
        """Up to `n` genes by decreasing log fold change among those detected in enough cells of the group, int64."""
        if self.n_cells_C[group] == 0:
            return np.empty(0, np.int64)
        log_fold_G = self.log_fold(group)
        eligible = np.flatnonzero((self.detected_CG[group] >= min_detected) & (log_fold_G >= min_log_fold))
        return eligible[np.argsort(-log_fold_G[eligible], kind="stable")][:n]


def group_means(data: GeneData, group_N: np.ndarray, n_groups: int) -> GroupMeans:
    """Summarise cells by group (int, -1 = in none); memory C x G."""
    from scipy.sparse import csr_array

    mean_CG = np.zeros((n_groups, data.n_genes))
    detected_CG = np.zeros((n_groups, data.n_genes))
    for rows, counts in data.chunks():
        group = group_N[rows]
        inside = np.flatnonzero(group >= 0)
        select = csr_array((np.ones(len(inside)), (group[inside], inside)), shape=(n_groups, len(rows)))
        library = np.asarray(counts.sum(1)).ravel().clip(1.0)
        scaled = csr_array(
            (counts.data / np.repeat(library, np.diff(counts.indptr)), counts.indices, counts.indptr), counts.shape
        )
        mean_CG += (select @ scaled).toarray()
        detected_CG += (select @ (counts > 0).astype(np.float64)).toarray()
    n_cells_C = np.bincount(group_N[group_N >= 0], minlength=n_groups)
    denominator = n_cells_C[:, None].clip(1)
    return GroupMeans(
        mean_CG=mean_CG / denominator * COUNTS_PER, detected_CG=detected_CG / denominator, n_cells_C=n_cells_C
    )
