"""Which genes a model reads: the most informative ones and the markers of labelled types, from streamed counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.training.gene.data import GeneData
from sge2hist.training.gene.type_names import GroupMeans, group_means

if TYPE_CHECKING:
    from sge2hist.data.paired import PairedDataset

MARKERS_PER_TYPE = 20


def select_genes(dataset: PairedDataset, n: int, *, split: str = "train") -> np.ndarray:
    """Columns of the `n` genes a model should read, increasing int64; n = 0 (or at least the number of genes) = all.

    Genes are ranked by binomial deviance over the cells of `split`; the top markers of every labelled type come first.
    """
    if n < 0:
        raise InputError(found=f"{n} genes asked for", expected="0 (all) or a positive number")
    n_genes = len(dataset.genes)
    if n == 0 or n >= n_genes:
        return np.arange(n_genes, dtype=np.int64)
    return select_columns(GeneData.from_paired(dataset, dataset.rows(split)), n)


def select_columns(data: GeneData, n: int) -> np.ndarray:
    """As :func:`select_genes`, for cells in memory."""
    deviance_G = binomial_deviance(data)
    rank = np.argsort(-deviance_G, kind="stable")
    markers: list[int] = []
    if (data.type_N >= 0).any():
        means = group_means(data, data.type_N, len(data.type_names))
        markers = _markers_within(means, n // 2)
    chosen = list(dict.fromkeys([*markers, *(int(g) for g in rank)]))[:n]
    return np.sort(np.array(chosen, np.int64))


def _markers_within(means: GroupMeans, limit: int) -> list[int]:
    per_type = [means.top_markers(group, MARKERS_PER_TYPE) for group in range(means.n_groups)]
    by_rank = [int(genes[i]) for i in range(MARKERS_PER_TYPE) for genes in per_type if i < len(genes)]
    return list(dict.fromkeys(by_rank))[:limit]


def binomial_deviance(data: GeneData) -> np.ndarray:
    """Deviance of each gene from "the same proportion in every cell", float64 [G] (Townes et al. 2019).

        D_g = 2 sum_i [ x log(x / (n_i p)) + (n_i - x) log((n_i - x) / (n_i (1 - p))) ]

    A zero count contributes -n_i log(1 - p), which is linear in n_i, so that only non-zero entries are visited.
    """
    total_G = np.zeros(data.n_genes)
    for _, counts in data.chunks():
        total_G += np.bincount(counts.indices, counts.data, minlength=data.n_genes)
    n_total = total_G.sum()
    p_G = np.clip(total_G / max(n_total, 1.0), 1e-15, 1 - 1e-12)
    deviance_G = np.zeros(data.n_genes)
    seen_library_G = np.zeros(data.n_genes)
    for _, counts in data.chunks():
        library = np.repeat(np.asarray(counts.sum(1)).ravel(), np.diff(counts.indptr)).astype(np.float64)
        gene, x = counts.indices, counts.data.astype(np.float64)
        rest = library - x
        with np.errstate(divide="ignore", invalid="ignore"):
            log_rest = np.where(rest > 0, rest * np.log(rest / (library * (1 - p_G[gene]))), 0.0)
            log_x = np.where(x > 0, x * np.log(x / (library * p_G[gene])), 0.0)
        deviance_G += np.bincount(gene, log_x + log_rest, minlength=data.n_genes)
        seen_library_G += np.bincount(gene, library, minlength=data.n_genes)
    return 2 * (deviance_G - (n_total - seen_library_G) * np.log1p(-p_G))
