"""Start of the mixture: known clusters are found, pruned and owned; collapses are reported."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from sklearn.metrics import adjusted_rand_score

from sge2hist.models.gene.encode import EncodedCells, assign_components
from sge2hist.models.gene.vae import GeneModelConfig
from sge2hist.training.gene.data import GeneData, encode_data
from sge2hist.training.gene.mixture_em import maximise, refit_mixture
from sge2hist.training.gene.mixture_init import CollapseError, check_collapse, check_occupancy, init_mixture
from sge2hist.training.gene.stages import build_gene_model
from tests.training.gene.fixtures import make_cells, train_gene_model


def encoded(mean_NZ: np.ndarray, n_type: int = 4) -> EncodedCells:
    return EncodedCells(
        mean_NZ=mean_NZ.astype(np.float32),
        log_var_NZ=np.zeros_like(mean_NZ, np.float32),
        library_N=np.ones(len(mean_NZ), np.float32),
        n_type=n_type,
    )


def test_the_prior_fits_samples_not_only_means() -> None:
    """After initialisation the KL of a cell is a few nats: variances include those of the posteriors."""
    data = make_cells(400)
    model = train_gene_model(data, n_steps=60)
    found = encode_data(model, data)
    report = init_mixture(model, data, 0, use_labels=False, n_restarts=3)
    mean, log_var = torch.from_numpy(found.z1), torch.from_numpy(found.log_var_NZ[:, :4])
    assert float(model.mixture.kl(mean, log_var).mean().detach()) < 10
    assert report.held_out_bound == max(report.restarts)
    assert len(report.restarts) == 3
    assert 1 <= report.n_kept <= report.n_fitted == 6
    assert report.occupancy_K.sum() == pytest.approx(1.0)
    assert (np.diff(report.occupancy_K) <= 0).all()


def test_labels_own_components_and_the_same_seed_gives_the_same_mixture() -> None:
    data = make_cells(400)
    model = train_gene_model(data, n_steps=60, use_labels=True)
    init_mixture(model, data, 7)
    owners = model.mixture.type_of_component_K
    assert {0, 1, 2} <= set(owners.tolist())
    means = model.mixture.means_KT.detach().clone()
    init_mixture(model, data, 7)
    assert torch.equal(means, model.mixture.means_KT)


def test_rare_components_are_pruned() -> None:
    data = make_cells(400)
    model = train_gene_model(data, n_steps=60)
    report = init_mixture(model, data, 0, use_labels=False, min_occupancy=0.3)
    assert report.n_kept == model.mixture.n_components <= 3


def test_an_untrained_constant_latent_is_a_collapse_with_advice() -> None:
    data = make_cells(100)
    model = build_gene_model(GeneModelConfig(n_genes=60, hidden=(8,), n_type=3, n_micro=3), data)
    torch.nn.init.zeros_(model.encoder.head.weight)
    with pytest.raises(CollapseError, match="warm-up"):
        init_mixture(model, data, 0)


def test_a_dead_z2_and_a_single_component_are_warned_of() -> None:
    rng = np.random.default_rng(0)
    dead = np.concatenate([rng.normal(size=(50, 4)), np.zeros((50, 16))], 1)
    with pytest.warns(UserWarning, match="0 of 16 dims of z2"):
        check_collapse(encoded(dead))
    one = np.tile(np.eye(5)[:1], (30, 1))
    with pytest.warns(UserWarning, match="mixture collapse"):
        assert check_occupancy(one) == pytest.approx(1.0)
    assert check_occupancy(np.full((30, 5), 0.2)) == pytest.approx(5.0)


def thin_groups_of_bins() -> GeneData:
    """Bins of one type lie together, 10 um apart, groups 500 um apart; thinned until a bin has few counts that show its type."""
    cells = make_cells(600)
    rank = np.array([(cells.type_N[:i] == kind).sum() for i, kind in enumerate(cells.type_N)])
    centre = np.stack([500.0 * cells.type_N + 10 * (rank % 15), 10.0 * (rank // 15)], 1)
    counts = cells.read(np.arange(600)).toarray().astype(int)
    thinned = csr_array(np.random.default_rng(0).binomial(counts, 0.04))
    return GeneData.from_counts(thinned, type_N=cells.type_N, type_names=cells.type_names, centre_um_N2=centre)


def test_shallow_bins_are_grouped_with_their_neighbours() -> None:
    """Without labels; the components stand where single bins lie, whatever grouped them: the M step of single posteriors."""
    cells = thin_groups_of_bins()
    model = train_gene_model(cells, n_steps=150, n_components=3, neighbour_um=0.0)
    agreement = {}
    for pool_um in (0.0, 15.0):
        model.config = replace(model.config, pool_um=pool_um)
        init_mixture(model, cells, 0, use_labels=False, n_restarts=3)
        refit_mixture(model, cells)
        encoded = encode_data(model, cells)
        gamma_NK = assign_components(model, encoded, cells.pooled(pool_um))
        agreement[pool_um] = adjusted_rand_score(cells.type_N, gamma_NK.argmax(1))
    assert agreement[15.0] > agreement[0.0] + 0.2
    assert agreement[15.0] > 0.8
    before = assign_components(model, encoded, cells.pooled(15.0))
    refit_mixture(model, cells)
    best = maximise(encoded.z1.astype(float), np.exp(encoded.z1_log_var.astype(float)), before.astype(float))
    np.testing.assert_allclose(model.mixture.means_KT.detach(), best.means_KT, atol=1e-4)
    np.testing.assert_allclose(model.mixture.log_vars_KT.detach(), np.log(best.vars_KT), atol=1e-4)


def test_few_cells_get_few_components() -> None:
    data = make_cells(20)
    model = train_gene_model(data, n_steps=20, n_components=24)
    assert model.mixture.n_components <= 6
