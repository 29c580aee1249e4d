"""Samplers against a case with a closed form: data ~ N(mu, s^2), whose ideal denoiser and ODE solution are known."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from sge2hist.models.samplers import (
    consistency_sigmas,
    guided,
    karras_sigmas,
    sample_ancestral,
    sample_consistency,
    sample_dpmpp_2m,
    sample_euler,
    sample_heun,
)

MU, S = 0.7, 0.5


def ideal(x: Tensor, sigma: float) -> Tensor:
    """E[x0 | x0 + sigma n = x] for Gaussian data."""
    return (S**2 * x + sigma**2 * MU) / (S**2 + sigma**2)


def exact(x: Tensor, sigma: float, sigma_end: float) -> Tensor:
    """Solution of dx/dsigma = (x - D) / sigma: x - mu shrinks by sqrt((s^2 + end^2) / (s^2 + sigma^2))."""
    return MU + (x - MU) * math.sqrt((S**2 + sigma_end**2) / (S**2 + sigma**2))


def _error(sampler, n_steps: int) -> float:
    # stop at a positive sigma: the last step to 0 is first order in every sampler
    sigmas = torch.linspace(math.log(5.0), math.log(0.05), n_steps + 1, dtype=torch.float64).exp().tolist()
    x = torch.tensor([[[[5.0, -3.0, 1.0]]]], dtype=torch.float64)
    return float((sampler(ideal, x, sigmas) - exact(x, 5.0, 0.05)).abs().max())


@pytest.mark.parametrize(("sampler", "order"), [(sample_euler, 1), (sample_heun, 2), (sample_dpmpp_2m, 2)])
def test_convergence_order(sampler, order):
    errors = [_error(sampler, n) for n in (40, 80, 160)]
    measured = [math.log2(a / b) for a, b in pairwise(errors)]
    assert measured[-1] == pytest.approx(order, abs=0.25)


@pytest.mark.parametrize("sampler", [sample_euler, sample_heun, sample_dpmpp_2m])
def test_one_step_is_the_denoised_image(sampler):
    x = torch.randn(2, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(sampler(ideal, x, karras_sigmas(1, 0.01, 80.0)), ideal(x, 80.0))


@pytest.mark.parametrize("n_steps", [1, 2, 4])
def test_the_exact_jump_reproduces_the_data_distribution(n_steps):
    generator = torch.Generator().manual_seed(0)
    draw = lambda: torch.randn((20000, 1, 1, 1), generator=generator)  # noqa: E731
    sigmas = consistency_sigmas(n_steps, 80.0)
    assert len(sigmas) == n_steps + 1
    assert sigmas == sorted(sigmas, reverse=True)
    x = sample_consistency(lambda x, sigma: exact(x, sigma, 0.0), draw() * 80.0, sigmas, draw)
    assert float(x.mean()) == pytest.approx(MU, abs=4 * S / math.sqrt(20000))
    assert float(x.std()) == pytest.approx(S, rel=0.02)


def test_ancestral_reproduces_the_data_distribution():
    generator = torch.Generator().manual_seed(0)
    shape = (20000, 1, 1, 1)
    draw = lambda: torch.randn(shape, generator=generator)  # noqa: E731
    x = sample_ancestral(ideal, draw() * 80.0, karras_sigmas(1000, 0.01, 80.0), draw)
    assert float(x.mean()) == pytest.approx(MU, abs=4 * S / math.sqrt(20000))
    assert float(x.std()) == pytest.approx(S, rel=0.02)


def test_karras_sigmas_are_the_published_formula():
    sigmas = karras_sigmas(5, 0.002, 80.0)
    i, n, rho = 2, 5, 7
    expected = (80 ** (1 / rho) + i / (n - 1) * (0.002 ** (1 / rho) - 80 ** (1 / rho))) ** rho
    assert sigmas[2] == pytest.approx(expected)
    assert sigmas[0] == pytest.approx(80)
    assert sigmas[-2:] == [pytest.approx(0.002), 0.0]


def test_guidance_acts_inside_its_interval_only():
    calls = []

    def weak(x: Tensor, sigma: float) -> Tensor:
        calls.append(sigma)
        return torch.zeros_like(x)

    denoise = guided(lambda x, sigma: torch.ones_like(x), weak, 2.0, (0.5, 2.0))
    x = torch.zeros(1, 1, 1, 1)
    assert [float(denoise(x, sigma)) for sigma in (0.4, 1.0, 3.0)] == [1.0, 2.0, 1.0]
    assert calls == [1.0]
    assert float(guided(lambda x, sigma: torch.ones_like(x), weak, 1.0, (0.0, 9.0))(x, 1.0)) == 1.0
    assert calls == [1.0]
