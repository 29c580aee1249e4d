"""Likelihoods against scipy, closed-form gradients against numerical ones, and their limits."""

import numpy as np
import pytest
import scipy.stats
import torch

from sge2hist.models.gene.likelihoods import _NegativeBinomial, gaussian_log_prob, negative_binomial_log_prob


def make_inputs(n: int = 6, g: int = 9, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    counts = rng.poisson(1.5, (n, g)) * (rng.random((n, g)) < 0.5)
    return torch.tensor(counts).float(), torch.tensor(rng.normal(0, 1, (n, g))), torch.tensor(rng.normal(0, 1, g))


def scipy_log_prob(counts: torch.Tensor, log_mean: torch.Tensor, log_theta: torch.Tensor) -> np.ndarray:
    theta, mean = np.exp(log_theta.numpy()), np.exp(log_mean.numpy())
    return scipy.stats.nbinom.logpmf(counts.numpy(), theta, theta / (theta + mean))


def test_negative_binomial_equals_scipy() -> None:
    counts, log_mean, log_theta = make_inputs()
    expected = scipy_log_prob(counts, log_mean, log_theta).sum(1)
    np.testing.assert_allclose(negative_binomial_log_prob(counts, log_mean, log_theta).numpy(), expected, rtol=1e-5)


def test_closed_form_gradient_is_the_numerical_one() -> None:
    counts, log_mean, log_theta = make_inputs(3, 4)
    log_mean.requires_grad_()
    log_theta.requires_grad_()
    function = lambda m, t: _NegativeBinomial.apply(counts.double(), m, t)  # noqa: E731
    assert torch.autograd.gradcheck(function, (log_mean, log_theta), eps=1e-6, atol=1e-6)


def test_large_theta_is_poisson_and_stays_precise_in_float32() -> None:
    counts, log_mean, _ = make_inputs()
    expected = scipy.stats.poisson.logpmf(counts.numpy(), np.exp(log_mean.numpy())).sum(1)
    result = negative_binomial_log_prob(counts, log_mean.float(), torch.full((9,), 50.0))
    np.testing.assert_allclose(result.numpy(), expected, rtol=0.02)
    finer = scipy_log_prob(counts, log_mean, torch.full((9,), 8.0)).sum(1)
    np.testing.assert_allclose(result.numpy(), finer, rtol=1e-4)


@pytest.mark.parametrize("log_mean", [-60.0, 0.0, 30.0])
@pytest.mark.parametrize("count", [0.0, 1.0, 1e6])
def test_extremes_are_finite(count: float, log_mean: float) -> None:
    counts = torch.full((2, 3), count)
    mean = torch.full((2, 3), log_mean, requires_grad=True)
    theta = torch.tensor([-50.0, 0.0, 50.0], requires_grad=True)
    value = negative_binomial_log_prob(counts, mean, theta)
    value.sum().backward()
    for tensor in (value, mean.grad, theta.grad):
        assert torch.isfinite(tensor).all()


def test_gaussian_is_summed_over_genes() -> None:
    target, mean = torch.zeros(2, 5), torch.full((2, 5), 2.0)
    assert gaussian_log_prob(target, mean).tolist() == [-10.0, -10.0]


def test_bfloat16_inputs_are_computed_in_float32() -> None:
    counts, log_mean, log_theta = make_inputs()
    with torch.autocast("cpu", torch.bfloat16):
        result = negative_binomial_log_prob(counts, log_mean.bfloat16(), log_theta)
    assert result.dtype == torch.float32
