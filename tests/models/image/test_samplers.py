"""Samplers against a case with a closed form: data ~ N(mu, s^2), whose ideal denoiser and ODE solution are known."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from sge2hist.models.image.samplers import consistency_sigmas, evaluations, karras_sigmas, sample

MU, S = 0.7, 0.5


def ideal(x: Tensor, sigma: float) -> Tensor:
    """E[x0 | x0 + sigma n = x] for Gaussian data."""
    return (S**2 * x + sigma**2 * MU) / (S**2 + sigma**2)


def exact(x: Tensor, sigma: float, sigma_end: float) -> Tensor:
    """Solution of dx/dsigma = (x - D) / sigma: x - mu shrinks by sqrt((s^2 + end^2) / (s^2 + sigma^2))."""
    return MU + (x - MU) * math.sqrt((S**2 + sigma_end**2) / (S**2 + sigma**2))


def _no_noise() -> Tensor:
    raise AssertionError("a deterministic sampler added noise")


def _error(sampler: str, n_steps: int) -> float:
    # stop at a positive sigma: the last step to 0 is first order in every sampler
    sigmas = torch.linspace(math.log(5.0), math.log(0.05), n_steps + 1, dtype=torch.float64).exp().tolist()
    x = torch.tensor([[[[5.0, -3.0, 1.0]]]], dtype=torch.float64)
    found = sample(ideal, x, evaluations(sampler, sigmas), _no_noise)
    return float((found - exact(x, 5.0, 0.05)).abs().max())


@pytest.mark.parametrize(("sampler", "order"), [("euler", 1), ("heun", 2), ("dpmpp-2m", 2)])
def test_convergence_order(sampler, order):
    errors = [_error(sampler, n) for n in (40, 80, 160)]
    measured = [math.log2(a / b) for a, b in pairwise(errors)]
    assert measured[-1] == pytest.approx(order, abs=0.25)


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpmpp-2m"])
def test_one_step_is_the_denoised_image(sampler):
    x = torch.randn(2, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    steps = evaluations(sampler, karras_sigmas(1, 0.01, 80.0))
    assert torch.allclose(sample(ideal, x, steps, _no_noise), ideal(x, 80.0))


@pytest.mark.parametrize("n_steps", [1, 2, 4])
def test_the_exact_jump_reproduces_the_data_distribution(n_steps):
    generator = torch.Generator().manual_seed(0)
    fresh_noise = lambda: torch.randn((20000, 1, 1, 1), generator=generator)  # noqa: E731
    sigmas = consistency_sigmas(n_steps, 80.0)
    assert len(sigmas) == n_steps + 1
    assert sigmas == sorted(sigmas, reverse=True)
    x = sample(
        lambda x, sigma: exact(x, sigma, 0.0), fresh_noise() * 80.0, evaluations("consistency", sigmas), fresh_noise
    )
    assert float(x.mean()) == pytest.approx(MU, abs=4 * S / math.sqrt(20000))
    assert float(x.std()) == pytest.approx(S, rel=0.02)


@pytest.mark.parametrize(
    ("sampler", "eta", "n_steps"), [("ancestral", 0.0, 1000), ("dpmpp-2m", 1.0, 200), ("dpmpp-2m", 2.0, 200)]
)
def test_noisy_samplers_reproduce_the_data_distribution(sampler, eta, n_steps):
    generator = torch.Generator().manual_seed(0)
    shape = (20000, 1, 1, 1)
    fresh_noise = lambda: torch.randn(shape, generator=generator)  # noqa: E731
    steps = evaluations(sampler, karras_sigmas(n_steps, 0.01, 80.0), eta)
    x = sample(ideal, fresh_noise() * 80.0, steps, fresh_noise)
    assert float(x.mean()) == pytest.approx(MU, abs=4 * S / math.sqrt(20000))
    assert float(x.std()) == pytest.approx(S, rel=0.02)


@pytest.mark.parametrize("eta", [0.5, 1.0, 2.0])
def test_the_moments_of_the_sde_converge_in_second_order(eta):
    """The update is linear for Gaussian data, so its mean and variance follow without sampling: two runs give the slope, and
    runs with one unit of noise in one step give the contribution of each fresh noise.
    """
    errors = []
    for n_steps in (40, 80, 160):
        sigmas = torch.linspace(math.log(5.0), math.log(0.05), n_steps + 1, dtype=torch.float64).exp().tolist()
        steps = evaluations("dpmpp-2m", sigmas, eta)

        def run(start: float, unit: int, steps=steps) -> float:
            calls = iter(range(len(steps)))
            fresh = lambda: torch.tensor(float(next(calls) == unit), dtype=torch.float64)  # noqa: E731
            return float(sample(ideal, torch.tensor(start, dtype=torch.float64), steps, fresh))

        base = run(MU, -1)
        variance = (run(MU + 1, -1) - base) ** 2 * (S**2 + 25)
        variance += sum((run(MU, unit) - base) ** 2 for unit in range(n_steps))
        assert base == pytest.approx(MU)
        errors.append(abs(variance - (S**2 + 0.05**2)))
    measured = [math.log2(a / b) for a, b in pairwise(errors)]
    assert measured[-1] == pytest.approx(2, abs=0.25)


def test_steps_that_end_below_a_noise_level_add_no_noise():
    x, calls = torch.zeros(1, 1, 2, 2), []

    def fresh_noise() -> Tensor:
        calls.append(1)
        return torch.zeros_like(x)

    sample(ideal, x, evaluations("dpmpp-2m", [8.0, 4.0, 2.0, 1.0, 0.5, 0.0], 1.0, 2.0), fresh_noise)
    assert len(calls) == 2  # in the steps to 4 and to 2


def test_ancestral_is_first_order_noise_of_the_reverse_sde():
    """One step of the two is the same formula; DPM-Solver++ adds what it remembers from the second step on."""
    x = torch.randn(2, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    one, other = (
        sample(ideal, x, evaluations(name, [5.0, 2.0], 1.0), lambda: noise) for name in ("ancestral", "dpmpp-2m")
    )
    assert torch.allclose(one, other, atol=1e-6)


def test_karras_sigmas_are_the_published_formula():
    sigmas = karras_sigmas(5, 0.002, 80.0)
    i, n, rho = 2, 5, 7
    expected = (80 ** (1 / rho) + i / (n - 1) * (0.002 ** (1 / rho) - 80 ** (1 / rho))) ** rho
    assert sigmas[2] == pytest.approx(expected)
    assert sigmas[0] == pytest.approx(80)
    assert sigmas[-2:] == [pytest.approx(0.002), 0.0]
