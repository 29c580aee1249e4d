"""Tables of cells as single-cell tools leave them: counts of two cell types in various places and disguises."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp

N_CELLS, N_GENES = 120, 60


def make_counts(n_cells: int = N_CELLS, n_genes: int = N_GENES, *, mean: float = 1.0, seed: int = 0) -> np.ndarray:
    """Counts [N, G], int64: Poisson around the profile of one of two types, cells of various depth."""
    rng = np.random.default_rng(seed)
    profile = rng.gamma(0.4, 2.5, (2, n_genes)) * mean
    depth = rng.gamma(4, 0.25, (n_cells, 1))
    counts = rng.poisson(profile[rng.integers(0, 2, n_cells)] * depth)
    counts[:, 0] += 1  # every cell has counts
    return counts


def ensembl(n_genes: int = N_GENES) -> list[str]:
    return [f"ENSG{gene:011d}" for gene in range(n_genes)]


def make_adata(X: object, genes: list[str] | None = None, **columns: object) -> anndata.AnnData:
    """An AnnData with `X`, positions and columns of var."""
    n_cells, n_genes = X.shape  # type: ignore[attr-defined]
    adata = anndata.AnnData(
        X,
        obs=pd.DataFrame(index=[f"cell_{i}" for i in range(n_cells)]),
        var=pd.DataFrame(columns, index=genes or ensembl(n_genes)),
    )
    adata.obsm["spatial"] = np.random.default_rng(1).uniform(0, 900, (n_cells, 2))
    return adata


def as_cellxgene(counts: np.ndarray, kept: np.ndarray) -> anndata.AnnData:
    """The layout of CELLxGENE: log-normalised X of some genes, counts of all in raw, Ensembl ids and `feature_name`."""
    names = pd.Categorical([f"SYMBOL{gene}" for gene in range(counts.shape[1])])
    whole = make_adata(sp.csr_matrix(counts.astype(np.float32)), feature_name=names)
    adata = whole[:, kept].copy()
    adata.X = sp.csr_matrix(log_normalised(counts)[:, kept])
    adata.raw = whole
    return adata


def log_normalised(counts: np.ndarray, target: float = 1e4) -> np.ndarray:
    return np.log1p(counts / counts.sum(1, keepdims=True) * target).astype(np.float32)
