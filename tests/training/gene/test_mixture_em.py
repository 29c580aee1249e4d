"""EM of the mixture on posteriors, and the closing M step: labelled cells count for the components of their type alone."""

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture

from sge2hist.models.gene.mixture_prior import MixturePrior
from sge2hist.models.gene.vae import GeneVAE
from sge2hist.training.gene.data import GeneData, encode_data
from sge2hist.training.gene.mixture_em import PosteriorMixture, fit_mixture, refit_mixture
from tests.training.gene.fixtures import make_cells, train_gene_model

RNG = np.random.default_rng(0)
CENTRES = np.array([[0.0, 0.0, 0.0], [4.0, 0.0, 2.0], [0.0, -5.0, 0.0]])
MEANS = np.concatenate([centre + RNG.normal(0, 0.7, (300, 3)) for centre in CENTRES])


def test_points_give_the_mixture_of_scikit_learn() -> None:
    ours = fit_mixture(MEANS, np.full_like(MEANS, 1e-9), CENTRES + 0.3, tolerance=1e-9)
    theirs = GaussianMixture(3, covariance_type="diag", means_init=CENTRES, tol=1e-8, reg_covar=0).fit(MEANS)
    np.testing.assert_allclose(ours.means_KT, theirs.means_, atol=1e-3)
    np.testing.assert_allclose(ours.vars_KT, theirs.covariances_, atol=1e-3)
    np.testing.assert_allclose(ours.weights_K, theirs.weights_, atol=1e-3)


def test_posterior_variance_is_added() -> None:
    narrow = fit_mixture(MEANS, np.full_like(MEANS, 1e-9), CENTRES)
    wide = fit_mixture(MEANS, np.full_like(MEANS, 0.3), CENTRES)
    np.testing.assert_allclose(wide.vars_KT, narrow.vars_KT + 0.3, atol=0.02)


def test_scores_equal_those_of_the_prior() -> None:
    mixture = PosteriorMixture(
        weights_K=np.array([0.2, 0.3, 0.5]), means_KT=CENTRES, vars_KT=RNG.uniform(0.3, 2, (3, 3))
    )
    prior = MixturePrior(3, 3)
    prior.initialise(*(torch.from_numpy(part) for part in (mixture.weights_K, mixture.means_KT, mixture.vars_KT)))
    var = RNG.uniform(0.1, 1, MEANS.shape)
    mean_NT, log_var_NT = torch.from_numpy(MEANS).float(), torch.from_numpy(np.log(var)).float()
    expected = prior.best_responsibilities(mean_NT, log_var_NT).detach().numpy()
    np.testing.assert_allclose(mixture.responsibilities(MEANS, var), expected, atol=1e-4)
    assert abs(mixture.bound(MEANS, var) + float(prior.kl(mean_NT, log_var_NT).mean().detach())) < 1e-3


def test_every_step_raises_the_bound_and_empty_components_are_finite() -> None:
    var = RNG.uniform(0.05, 0.5, MEANS.shape)
    starts = np.concatenate([CENTRES + 1.5, [[99.0, 99.0, 99.0]]])
    bounds = [fit_mixture(MEANS, var, starts, max_steps=n, tolerance=-1.0).bound(MEANS, var) for n in range(0, 12, 2)]
    assert (np.diff(bounds) >= -1e-9).all()
    assert np.isfinite(bounds).all()


def test_cells_take_the_components_they_are_allowed_alone() -> None:
    """Two types at the same place, told apart by nothing but their labels: each component is the moments of its cells."""
    rng = np.random.default_rng(1)
    mean_NT, kind_N = rng.normal(size=(600, 2)), rng.integers(0, 2, 600)
    mean_NT[kind_N == 1, 0] += 0.3
    allowed_NK = kind_N[:, None] == np.arange(2)
    found = fit_mixture(mean_NT, np.full_like(mean_NT, 0.1), rng.normal(size=(2, 2)), allowed_NK=allowed_NK)
    for kind in range(2):
        own = mean_NT[kind_N == kind]
        np.testing.assert_allclose(found.means_KT[kind], own.mean(0), atol=1e-6)
        np.testing.assert_allclose(found.vars_KT[kind], own.var(0) + 0.1, atol=1e-6)
        assert abs(found.weights_K[kind] - len(own) / 600) < 1e-6
    assert np.array_equal(found.responsibilities(mean_NT, np.full_like(mean_NT, 0.1), allowed_NK), allowed_NK)


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
    sampled = model.mixture.sample(torch.arange(n_left).repeat_interleave(200), torch.Generator().manual_seed(0))
    own_K = model.mixture.type_of_component_K.repeat_interleave(200)
    predicted = model.mixture.type_of_component_K[model.mixture.responsibilities(sampled).argmax(1)]
    assert float((predicted == own_K)[own_K >= 0].float().mean()) > 0.9


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
