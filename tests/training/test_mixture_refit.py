"""The closing M step: the best mixture for the posteriors, labelled cells in the components of their type alone."""

import numpy as np
import pytest
import torch

from sge2hist.models.gene.vae import GeneVAE
from sge2hist.training.gene.data import GeneData, encode_data
from sge2hist.training.gene.mixture_em import refit_mixture
from tests.training.gene_fixtures import make_cells, train_gene_model


@pytest.fixture(scope="module")
def trained() -> tuple[GeneVAE, GeneData]:
    cells = make_cells(500)
    return train_gene_model(cells, n_steps=120, use_labels=True), cells


def test_refit_lowers_the_kl_of_the_mixture(trained: tuple[GeneVAE, GeneData]) -> None:
    model, cells = trained
    with torch.no_grad():
        model.mixture.log_vars_KT += 1.0  # too wide, as after a training in which it lags
        model.mixture.means_KT += 0.3
    encoded = encode_data(model, cells)
    mean_NT = torch.from_numpy(encoded.z1)
    log_var_NT = torch.from_numpy(encoded.log_var_NZ[:, : encoded.n_type])

    def kl() -> float:
        allowed = model.mixture.allowed_components(torch.from_numpy(cells.type_N))
        gamma = model.mixture.best_responsibilities(mean_NT, log_var_NT, allowed)
        return float(model.mixture.kl(mean_NT, log_var_NT, gamma).mean().detach())

    before = kl()
    n_left = refit_mixture(model, cells)
    assert n_left == model.mixture.n_components
    assert kl() < before - 0.5
    largest = int(model.mixture.logits_K.argmax())
    own = model.mixture.best_responsibilities(mean_NT, log_var_NT)[:, largest].detach().numpy() > 0.9
    micro_NM = encoded.mean_NZ[own, encoded.n_type :]
    np.testing.assert_allclose(model.micro.means_KM[largest].numpy(), micro_NM.mean(0), atol=0.1)
    np.testing.assert_allclose(model.micro.vars_KM[largest].numpy(), micro_NM.var(0), rtol=0.3, atol=0.02)
    micro = model.micro.sample(torch.full((4000,), largest), torch.Generator().manual_seed(1))
    torch.testing.assert_close(micro.mean(0), model.micro.means_KM[largest], atol=0.08, rtol=0)
    torch.testing.assert_close(micro.var(0), model.micro.vars_KM[largest], atol=0.05, rtol=0.1)
    drawn = model.mixture.sample(torch.arange(n_left).repeat_interleave(200), torch.Generator().manual_seed(0))
    own_K = model.mixture.type_of_component_K.repeat_interleave(200)
    told = model.mixture.type_of_component_K[model.mixture.responsibilities(drawn).argmax(1)]
    assert float((told == own_K)[own_K >= 0].float().mean()) > 0.9


def test_components_without_cells_are_dropped(trained: tuple[GeneVAE, GeneData]) -> None:
    model, cells = trained
    mixture = model.mixture
    far_KT = torch.cat([mixture.means_KT.detach(), torch.full((1, model.config.n_type), 50.0)])
    owner_K = torch.cat([mixture.type_of_component_K, torch.tensor([-1])])
    n_before = mixture.n_components
    model.initialise_mixture(torch.ones(n_before + 1), far_KT, torch.ones_like(far_KT), owner_K)
    assert refit_mixture(model, cells) <= n_before
    assert float(mixture.means_KT.detach().abs().max()) < 20
    assert np.isclose(float(torch.softmax(mixture.logits_K.detach(), 0).sum()), 1.0)
