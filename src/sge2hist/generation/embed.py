"""Embedding of an AnnData by the gene model: latents, types and a novelty flag."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from sge2hist.data.errors import InputError
from sge2hist.data.gene_panel import GenePanel, PanelMatch
from sge2hist.data.generated import LATENT_KEYS
from sge2hist.data.spatial_index import CellIndex
from sge2hist.data.table.cell_table import CellTable
from sge2hist.data.table.proteins import ProteinPanel
from sge2hist.models.gene.cell_types import TypeTable
from sge2hist.models.gene.encode import CellChunk, component_posterior, encode_chunks
from sge2hist.models.gene.neighbours import neighbour_features
from sge2hist.models.gene.novelty import FLAG_BELOW
from sge2hist.models.gene.vae import GeneVAE, Posterior

if TYPE_CHECKING:
    import anndata
    from scipy.sparse import csr_array


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """Output of the gene model for N cells."""

    z1_NT: np.ndarray  # float32, cell type
    z2_NM: np.ndarray  # float32, microenvironment
    responsibilities_NK: np.ndarray  # float32, of the mixture components, rows sum to 1
    type_names: list[str]  # N names
    type_probability_N: np.ndarray  # float32, of the named type
    posterior_sd_N: np.ndarray  # float32, standard deviation of the posterior, mean over z1 and z2; N(0, I) has 1
    fit_quantile_N: np.ndarray  # share of training cells that the model explains worse, 0 to 1
    latent_quantile_N: np.ndarray  # share of training cells with a less likely latent
    is_novel_N: np.ndarray  # bool: unlike the training cells, or without counts


@torch.no_grad()
def embed_counts(
    model: GeneVAE,
    types: TypeTable,
    counts_NG: csr_array,
    observed_G: np.ndarray,
    *,
    index: CellIndex | None = None,
    protein_NP: np.ndarray | None = None,
    pool_um: float = 0.0,
    batch_size: int = 512,
) -> Embedding:
    """Embed raw counts, CSR [N, G], that are already on the model's panel; `observed_G` bool marks measured genes.

    `index`: positions of the cells, which condition z2 on the neighbours; None: it depends on the cell's own counts.
    `protein_NP`: the model's proteins, float32, NaN = not measured; None: of no cell. With
    `pool_um` type and responsibilities are computed from the pooled posteriors of the cells within this radius
    (:func:`pool_posteriors`; needs `index`); latents and flag stay the cell's own.
    """
    n_cells = counts_NG.shape[0]
    neighbour_NA = None
    if index is not None and model.config.n_neighbour_features:
        weights = index.neighbour_weights(np.arange(n_cells), model.config.neighbour_um)
        neighbour_NA = neighbour_features(model.encoder, lambda rows: counts_NG[rows], weights, observed_G)
    observed = None if observed_G.all() else torch.from_numpy(observed_G).to(next(model.parameters()).device)
    quantiles: list[np.ndarray] = []

    def chunks() -> Iterator[CellChunk]:
        for start in range(0, max(1, n_cells), batch_size):
            part = slice(start, start + batch_size)
            neighbours, proteins = (None if of is None else of[part] for of in (neighbour_NA, protein_NP))
            yield CellChunk(counts_NG[part], neighbours, proteins)

    def score(counts: Tensor, posterior: Posterior) -> None:
        scores = model.novelty.quantiles(*model.novelty_scores(counts, posterior, observed))
        quantiles.append(torch.stack(scores).float().cpu().numpy())

    pooled_NN = index.neighbour_weights(np.arange(n_cells), pool_um) if pool_um and index is not None else None
    encoded = encode_chunks(model, chunks(), n_cells, observed_G=observed_G, visit=score)
    fit_N, latent_N = np.concatenate(quantiles, axis=1)
    gamma_NK = component_posterior(model, encoded, pooled_NN)
    best_N, probability_N = types.predicted_types(gamma_NK)
    names = types.names
    return Embedding(
        z1_NT=encoded.z1,
        z2_NM=encoded.z2,
        responsibilities_NK=gamma_NK,
        type_names=[names[c] for c in best_N],
        type_probability_N=probability_N.astype(np.float32),
        posterior_sd_N=np.exp(0.5 * encoded.log_var_NZ).mean(1),
        fit_quantile_N=fit_N,
        latent_quantile_N=latent_N,
        is_novel_N=(encoded.library_N == 0) | (fit_N < FLAG_BELOW) | (latent_N < FLAG_BELOW),
    )


def embed_adata(
    adata: anndata.AnnData,
    model: GeneVAE,
    panel: GenePanel,
    types: TypeTable,
    *,
    proteins: ProteinPanel | None = None,
    layer: str | None = None,
    round_counts: bool = False,
    seed: int = 0,
    cells: CellTable | None = None,
    pool_um: float | None = None,
    batch_size: int = 512,
) -> PanelMatch:
    """Write the embedding into `adata`, in place, and return how its genes were found.

    Adds ``obsm["X_sge2hist_z1"]``, ``obsm["X_sge2hist_z2"]``, ``obsm["sge2hist_responsibilities"]``, and in obs
    ``sge2hist_type`` (category), ``sge2hist_type_probability``, ``sge2hist_fit_quantile``, ``sge2hist_latent_quantile``
    and ``sge2hist_novel``; ``uns["sge2hist"]`` holds the overlap of the panels.

    z2, the microenvironment, is conditioned on the neighbours of each cell if obs has positions in um (``x_um``, ``y_um``, and
    ``slide`` if there are several); otherwise it is inferred from the cell's own counts and is less informative.

    Parameters
    ----------
    proteins
        That the model reads, from ``obsm["protein"]``, a table with a column for each; without it RNA alone is read.
    layer, round_counts, seed
        Where the raw counts are, and whether they are rounded (:meth:`sge2hist.data.table.cell_table.CellTable.of`).
    cells
        The same cells with counts that were read already, instead.
    pool_um
        Pool the posteriors of cells within this radius (um) when assigning types; 0: each cell by its own counts; default: as the
        model was trained (`train --pool-um`), if obs has positions. Meant for bins, whose own counts are too few and which are
        smaller than the structures of the tissue: 1.5 times their side pools a bin and its eight neighbours. Types that are
        thin or scattered are lost.

    Raises
    ------
    InputError
        If the values are not raw counts, no gene is shared, or `pool_um` is not a distance or the cells have no positions.
    """
    import pandas as pd

    index = _index_of(adata)
    if pool_um is None:
        pool_um = 0.0 if index is None else model.config.pool_um
    if not (np.isfinite(pool_um) and pool_um >= 0):
        raise InputError(found=f"pool_um {pool_um}", expected="a distance in um, or 0")
    if pool_um and index is None:
        raise InputError(
            found=f"pool_um {pool_um:g}, and no positions of the cells",
            expected="finite columns x_um and y_um of obs",
            repair="write the positions, in um, into these columns, or omit pool_um",
        )
    cells = cells or CellTable.of(adata, layer=layer, round_counts=round_counts, seed=seed)
    alignment = panel.align(cells.genes)
    counts, observed_G = panel.gather(cells.counts_NG, alignment)
    measured = None if proteins is None else cells.proteins
    found = embed_counts(
        model,
        types,
        counts,
        observed_G,
        index=index,
        protein_NP=None if proteins is None or measured is None else proteins.values(measured, np.arange(cells.n_obs)),
        pool_um=pool_um,
        batch_size=batch_size,
    )
    adata.obsm[LATENT_KEYS["z1"]], adata.obsm[LATENT_KEYS["z2"]] = found.z1_NT, found.z2_NM
    adata.obsm["sge2hist_responsibilities"] = found.responsibilities_NK
    adata.obs["sge2hist_type"] = pd.Categorical(found.type_names, categories=types.names)
    adata.obs["sge2hist_type_probability"] = found.type_probability_N
    adata.obs["sge2hist_fit_quantile"] = found.fit_quantile_N
    adata.obs["sge2hist_latent_quantile"] = found.latent_quantile_N
    adata.obs["sge2hist_novel"] = found.is_novel_N
    adata.uns["sge2hist"] = {
        "panel": alignment.summary(),
        "n_shared_genes": alignment.n_shared,
        "counts": cells.counts,
        "neighbours": index is not None and model.config.n_neighbour_features > 0,
        "pool_um": float(pool_um),
        "proteins": measured is not None,
        "type_of_component": types.name_of_component,
    }
    return alignment


def _index_of(adata: anndata.AnnData) -> CellIndex | None:
    """Positions of the cells, if obs has them for all."""
    if not {"x_um", "y_um"} <= set(adata.obs):
        return None
    xy_um_N2 = adata.obs[["x_um", "y_um"]].to_numpy(np.float64)
    if not np.isfinite(xy_um_N2).all():
        return None
    slide = adata.obs["slide"].astype(str).to_numpy() if "slide" in adata.obs else np.zeros(adata.n_obs)
    return CellIndex(xy_um_N2, np.unique(slide, return_inverse=True)[1])
