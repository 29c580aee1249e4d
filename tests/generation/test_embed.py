"""Embedding of AnnData objects: other panels, order and naming of genes, what is refused."""

import copy
from dataclasses import replace

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from sge2hist.data.errors import InputError
from sge2hist.data.gene_panel import GenePanel
from sge2hist.generation.embed import embed_adata
from sge2hist.models.gene.cell_types import TypeTable
from sge2hist.models.gene.vae import GeneVAE
from sge2hist.training.gene.stages import calibrate_novelty
from sge2hist.training.gene.type_names import name_components
from tests.training.gene.fixtures import N_GENES, make_cells, train_gene_model

PANEL = GenePanel([f"ENSG{g:011d}" for g in range(N_GENES)], [f"GENE{g}" for g in range(N_GENES)])


@pytest.fixture(scope="module")
def trained() -> tuple[GeneVAE, TypeTable]:
    data = make_cells(500)
    model = train_gene_model(data, n_steps=150, use_labels=True)
    calibrate_novelty(model, make_cells(400, seed=3))
    return model, name_components(model, data)


def make_adata(genes: np.ndarray | None = None, seed: int = 1) -> tuple[anndata.AnnData, np.ndarray]:
    data = make_cells(80, seed=seed)
    genes = np.arange(N_GENES) if genes is None else genes
    counts = csr_matrix(data.read(np.arange(80)).toarray()[:, genes])
    var = pd.DataFrame({"symbol": [PANEL.symbols[g] for g in genes]}, index=[PANEL.ids[g] + ".3" for g in genes])
    return anndata.AnnData(counts, var=var, obs=pd.DataFrame(index=[f"c{i}" for i in range(80)])), data.type_N


def test_everything_is_written_and_right(trained: tuple[GeneVAE, TypeTable]) -> None:
    adata, type_N = make_adata()
    embed_adata(adata, trained[0], PANEL, trained[1])
    assert adata.obsm["X_sge2hist_z1"].shape == (80, 4)
    assert adata.obsm["X_sge2hist_z2"].shape == (80, 4)
    np.testing.assert_allclose(adata.obsm["sge2hist_responsibilities"].sum(1), 1, atol=1e-5)
    truth = np.array(["alpha", "beta", "gamma"])[type_N]
    assert (adata.obs["sge2hist_type"].astype(str) == truth).mean() > 0.9
    assert adata.obs["sge2hist_novel"].mean() < 0.1
    assert adata.uns["sge2hist"]["n_shared_genes"] == N_GENES


def test_order_of_genes_and_batch_size_do_not_matter(trained: tuple[GeneVAE, TypeTable]) -> None:
    straight, _ = make_adata()
    turned, _ = make_adata(np.random.default_rng(0).permutation(N_GENES))
    embed_adata(straight, trained[0], PANEL, trained[1])
    embed_adata(turned, trained[0], PANEL, trained[1], batch_size=7)
    np.testing.assert_allclose(straight.obsm["X_sge2hist_z1"], turned.obsm["X_sge2hist_z1"], atol=1e-4)


def test_a_small_panel_is_masked_and_reported(trained: tuple[GeneVAE, TypeTable]) -> None:
    adata, type_N = make_adata(np.arange(0, N_GENES, 3))
    alignment = embed_adata(adata, trained[0], PANEL, trained[1])
    assert alignment.n_shared == 20
    truth = np.array(["alpha", "beta", "gamma"])[type_N]
    assert (adata.obs["sge2hist_type"].astype(str) == truth).mean() > 0.85


def test_positions_condition_z2_on_the_neighbours(trained: tuple[GeneVAE, TypeTable]) -> None:
    data = make_cells(400, seed=1)
    alone = anndata.AnnData(csr_matrix(data.read(np.arange(400)).toarray()), var=pd.DataFrame(index=PANEL.ids))
    positioned = alone.copy()
    assert data.centre_um_N2 is not None
    positioned.obs["x_um"], positioned.obs["y_um"] = data.centre_um_N2.T
    for adata in (alone, positioned):
        embed_adata(adata, trained[0], PANEL, trained[1], batch_size=150)
    np.testing.assert_allclose(alone.obsm["X_sge2hist_z1"], positioned.obsm["X_sge2hist_z1"], atol=1e-5)
    assert not np.allclose(alone.obsm["X_sge2hist_z2"], positioned.obsm["X_sge2hist_z2"], atol=0.05)
    assert (bool(alone.uns["sge2hist"]["neighbours"]), bool(positioned.uns["sge2hist"]["neighbours"])) == (False, True)


def test_types_of_sparse_bins_are_assigned_from_pooled_posteriors(trained: tuple[GeneVAE, TypeTable]) -> None:
    """Bins of one type are 10 um apart, groups 500 um apart; their counts are thinned until they hold little information."""
    adata, type_N = make_adata()
    rng = np.random.default_rng(0)
    adata.X = csr_matrix(rng.binomial(adata.X.toarray().astype(int), 0.02).astype(np.float32))
    rank = np.array([(type_N[:i] == own).sum() for i, own in enumerate(type_N)])
    adata.obs["x_um"], adata.obs["y_um"] = 500.0 * type_N + 10 * (rank % 5), 10.0 * (rank // 5)
    truth = np.array(["alpha", "beta", "gamma"])[type_N]
    alone, pooled = adata.copy(), adata.copy()
    embed_adata(alone, trained[0], PANEL, trained[1])
    embed_adata(pooled, trained[0], PANEL, trained[1], pool_um=15.0)
    right = [(found.obs["sge2hist_type"].astype(str) == truth).mean() for found in (alone, pooled)]
    assert right[1] > right[0] + 0.1
    for name in ("X_sge2hist_z1", "X_sge2hist_z2"):
        np.testing.assert_array_equal(alone.obsm[name], pooled.obsm[name])
    assert pooled.uns["sge2hist"]["pool_um"] == 15
    as_trained = adata.copy()
    model = copy.deepcopy(trained[0])
    model.config = replace(model.config, pool_um=15.0)
    embed_adata(as_trained, model, PANEL, trained[1])
    np.testing.assert_array_equal(
        as_trained.obsm["sge2hist_responsibilities"], pooled.obsm["sge2hist_responsibilities"]
    )
    del as_trained.obs["x_um"]
    embed_adata(as_trained, model, PANEL, trained[1])  # without positions: from its own counts
    assert as_trained.uns["sge2hist"]["pool_um"] == 0
    lonely = adata.copy()
    lonely.obs["x_um"] = 1000.0 * np.arange(80)
    embed_adata(lonely, trained[0], PANEL, trained[1], pool_um=15.0)
    assert (lonely.obs["sge2hist_type"] == alone.obs["sge2hist_type"]).all()


@pytest.mark.parametrize("pool_um", [-1.0, float("nan"), float("inf"), 20.0])
def test_bins_are_not_pooled_without_positions_or_a_distance(
    trained: tuple[GeneVAE, TypeTable], pool_um: float
) -> None:
    adata, _ = make_adata()  # has no positions
    with pytest.raises(InputError, match="pool_um"):
        embed_adata(adata, trained[0], PANEL, trained[1], pool_um=pool_um)
    assert not len(adata.obsm)


def test_cells_without_counts_are_flagged(trained: tuple[GeneVAE, TypeTable]) -> None:
    adata, _ = make_adata()
    adata.X = csr_matrix(adata.shape, dtype=np.float32)
    embed_adata(adata, trained[0], PANEL, trained[1])
    assert adata.obs["sge2hist_novel"].all()
