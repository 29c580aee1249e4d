"""The mixture prior against closed forms, torch.distributions and Monte Carlo."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from sge2hist.models.gene.mixture_prior import MixturePrior


def make_mixture(k: int = 4, dims: int = 3, seed: int = 0) -> MixturePrior:
    generator = torch.Generator().manual_seed(seed)
    mixture = MixturePrior(k, dims)
    mixture.initialise(
        torch.rand(k, generator=generator) + 0.1,
        2 * torch.randn(k, dims, generator=generator),
        torch.rand(k, dims, generator=generator) + 0.2,
    )
    return mixture


def as_distribution(mixture: MixturePrior) -> MixtureSameFamily:
    components = Independent(Normal(mixture.means_KT, (0.5 * mixture.log_vars_KT).exp()), 1)
    return MixtureSameFamily(Categorical(logits=mixture.logits_K), components)


def test_log_prob_equals_the_distribution_of_torch() -> None:
    mixture = make_mixture()
    z = 3 * torch.randn(50, 3, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(mixture.log_prob(z), as_distribution(mixture).log_prob(z), rtol=1e-5, atol=1e-5)


def test_responsibilities_follow_bayes_and_sum_to_one() -> None:
    mixture = make_mixture()
    z = torch.randn(20, 3, generator=torch.Generator().manual_seed(2))
    density = torch.exp(mixture.joint_log_prob(z))
    gamma = mixture.responsibilities(z)
    torch.testing.assert_close(gamma, density / density.sum(1, keepdim=True))
    torch.testing.assert_close(gamma.sum(1), torch.ones(20))


def test_cells_are_told_by_the_density_at_their_mean_alike_for_components_that_nobody_owns() -> None:
    mixture = make_mixture()
    z = torch.randn(30, 3, generator=torch.Generator().manual_seed(3))
    likelihood = as_distribution(mixture).component_distribution.log_prob(z[:, None])
    np.testing.assert_allclose(
        mixture.component_posterior(z.numpy()), torch.softmax(likelihood, 1).detach().numpy(), rtol=1e-4, atol=1e-6
    )
    mixture.type_of_component_K[0] = 1  # a type with many cells is more likely beforehand
    np.testing.assert_allclose(
        mixture.component_posterior(z.numpy()), mixture.responsibilities(z).detach().numpy(), rtol=1e-4, atol=1e-6
    )


def test_a_wide_posterior_is_not_told_to_be_of_the_widest_component() -> None:
    mixture = MixturePrior(2, 1)
    mixture.initialise(torch.tensor([0.9, 0.1]), torch.tensor([[0.0], [2.0]]), torch.tensor([[4.0], [0.04]]))
    mean, log_var = np.array([[2.0]], np.float32), np.array([[0.0]], np.float32)
    assert mixture.assign(mean, log_var).argmax() == 0  # what training asks: which prior costs least
    assert mixture.component_posterior(mean).argmax() == 1


def test_far_cells_stay_finite() -> None:
    mixture = make_mixture()
    z = torch.full((2, 3), 1e4, requires_grad=True)
    value = mixture.log_prob(z).sum() + mixture.kl(z, torch.zeros(2, 3)).sum()
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(z.grad).all()
    torch.testing.assert_close(mixture.responsibilities(z).sum(1), torch.ones(2))


def test_before_initialisation_the_kl_is_that_of_a_standard_normal_without_gradient() -> None:
    mixture = MixturePrior(5, 2)
    mean, log_var = torch.tensor([[1.0, -2.0]], requires_grad=True), torch.tensor([[0.3, -1.0]])
    expected = 0.5 * (mean.square() + log_var.exp() - log_var - 1).sum(1)
    value = mixture.kl(mean, log_var)
    torch.testing.assert_close(value, expected)
    value.sum().backward()
    assert mixture.means_KT.grad is None


def test_one_component_is_the_gaussian_kl() -> None:
    mixture = make_mixture(k=1)
    mean, log_var = torch.randn(6, 3), torch.randn(6, 3)
    q = Independent(Normal(mean, (0.5 * log_var).exp()), 1)
    p = Independent(Normal(mixture.means_KT[0], (0.5 * mixture.log_vars_KT[0]).exp()), 1)
    expected = torch.distributions.kl_divergence(q, p)
    torch.testing.assert_close(mixture.kl(mean, log_var), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(mixture.kl(mean, log_var, torch.ones(6, 1)), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_kl_equals_monte_carlo_over_z_and_c() -> None:
    """VaDE's term is E over q(z) q(c) of log q(z) + log q(c) - log p(z, c)."""
    mixture = make_mixture()
    generator = torch.Generator().manual_seed(3)
    mean, log_var = torch.tensor([[0.5, -1.0, 0.2]]), torch.tensor([[-0.5, 0.4, -2.0]])
    gamma = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    n = 200_000
    z = mean + (0.5 * log_var).exp() * torch.randn(n, 3, generator=generator)
    c = torch.multinomial(gamma[0], n, replacement=True, generator=generator)
    log_q = Independent(Normal(mean, (0.5 * log_var).exp()), 1).log_prob(z) + gamma[0, c].log()
    sampled = log_q - mixture.joint_log_prob(z)[torch.arange(n), c]
    error = float(sampled.std()) / math.sqrt(n)
    assert abs(float(mixture.kl(mean, log_var, gamma)) - float(sampled.mean())) < 4 * error


@torch.no_grad()
def test_best_responsibilities_minimise_the_kl_and_bound_the_true_one() -> None:
    mixture = make_mixture()
    generator = torch.Generator().manual_seed(4)
    mean, log_var = torch.randn(8, 3, generator=generator), torch.randn(8, 3, generator=generator)
    best = mixture.kl(mean, log_var)
    explicit = mixture.kl(mean, log_var, mixture.best_responsibilities(mean, log_var))
    torch.testing.assert_close(best, explicit, rtol=1e-4, atol=1e-4)
    for _ in range(20):
        other = torch.softmax(3 * torch.randn(8, 4, generator=generator), 1)
        assert (mixture.kl(mean, log_var, other) >= best - 1e-4).all()
    z = mean + (0.5 * log_var).exp() * torch.randn(20_000, 8, 3, generator=generator)
    log_q = Independent(Normal(mean, (0.5 * log_var).exp()), 1).log_prob(z)
    true_kl = (log_q - mixture.log_prob(z.reshape(-1, 3)).reshape(20_000, 8)).mean(0)
    assert (best >= true_kl - 0.05).all()


def test_hard_responsibilities_have_no_nan_gradient() -> None:
    mixture = make_mixture()
    mean = torch.zeros(2, 3, requires_grad=True)
    gamma = torch.tensor([[1.0, 0, 0, 0], [0, 0, 1.0, 0]])
    mixture.kl(mean, torch.zeros(2, 3), gamma).sum().backward()
    assert torch.isfinite(mean.grad).all()
    assert torch.isfinite(mixture.logits_K.grad).all()


def test_labels_restrict_components() -> None:
    mixture = make_mixture()
    mixture.type_of_component_K = torch.tensor([0, 0, 1, -1])
    allowed = mixture.allowed_components(torch.tensor([0, 1, -1, 7]))
    assert allowed.tolist() == [[True, True, False, False], [False, False, True, False], [True] * 4, [True] * 4]
    gamma = mixture.best_responsibilities(torch.zeros(4, 3), torch.zeros(4, 3), allowed)
    assert gamma[0, 2:].sum() == 0
    assert gamma[1, 2] == 1
    torch.testing.assert_close(gamma.sum(1), torch.ones(4))


def test_samples_have_the_moments_of_their_component_and_follow_the_seed() -> None:
    mixture = make_mixture()
    component = torch.full((20_000,), 2)
    z = mixture.sample(component, torch.Generator().manual_seed(0))
    torch.testing.assert_close(z.mean(0), mixture.means_KT[2].detach(), atol=0.05, rtol=0)
    torch.testing.assert_close(z.var(0), mixture.log_vars_KT[2].detach().exp(), atol=0.1, rtol=0.05)
    assert torch.equal(z, mixture.sample(component, torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("k", [2, 7])
def test_a_pruned_mixture_is_loaded_into_a_model_of_another_size(k: int) -> None:
    source, target = make_mixture(k=k), MixturePrior(5, 3)
    target.load_state_dict(source.state_dict())
    assert target.n_components == k
    assert bool(target.initialised)
    z = torch.randn(4, 3)
    torch.testing.assert_close(target.log_prob(z), source.log_prob(z))
    assert {name for name, _ in target.named_parameters()} == {"logits_K", "means_KT", "log_vars_KT"}


def test_fifty_component_log_prob_is_exact_under_autocast() -> None:
    mixture = make_mixture(k=50, dims=16)
    z = torch.randn(10, 16)
    exact = mixture.kl(z, torch.zeros(10, 16))
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(mixture.kl(z, torch.zeros(10, 16)), exact)
