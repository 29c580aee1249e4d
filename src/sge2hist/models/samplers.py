"""Samplers as pure functions. They know `denoise(x, sigma) -> expected clean image`, noise levels, and nothing else.

A probability-flow step follows dx/dsigma = (x - D(x; sigma)) / sigma. `x` is [B, C, H, W] with any noise convention
x = x0 + sigma n; sigmas fall from the first to 0.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

Denoise = Callable[[Tensor, float], Tensor]
"""(x_BCHW, sigma) -> expected clean image, same shape; sigma is one float for the whole batch."""
DrawNoise = Callable[[], Tensor]
"""() -> standard normal noise [B, C, H, W]."""


def karras_sigmas(n_steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> list[float]:
    """Noise levels of Karras et al. 2022, equation 5: `n_steps` levels from sigma_max to sigma_min, then 0."""
    if n_steps == 1:
        return [sigma_max, 0.0]
    ramp = torch.linspace(0, 1, n_steps, dtype=torch.float64)
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return [*((high + ramp * (low - high)) ** rho).tolist(), 0.0]


def sample_euler(denoise: Denoise, x: Tensor, sigmas: list[float]) -> Tensor:
    """First order: one evaluation per step."""
    for sigma, sigma_next in pairwise(sigmas):
        x0 = denoise(x, sigma)
        x = x0 + (sigma_next / sigma) * (x - x0)
    return x


def sample_heun(denoise: Denoise, x: Tensor, sigmas: list[float]) -> Tensor:
    """Second order (Karras et al. 2022, algorithm 1 without churn): two evaluations per step, one in the last."""
    for sigma, sigma_next in pairwise(sigmas):
        slope = (x - denoise(x, sigma)) / sigma
        x_euler = x + (sigma_next - sigma) * slope
        if sigma_next == 0:
            return x_euler
        slope_next = (x_euler - denoise(x_euler, sigma_next)) / sigma_next
        x = x + (sigma_next - sigma) * (slope + slope_next) / 2
    return x


def sample_dpmpp_2m(denoise: Denoise, x: Tensor, sigmas: list[float]) -> Tensor:
    """Second order, one evaluation per step: DPM-Solver++(2M), Lu et al. 2022, algorithm 2, in lambda = -ln sigma."""
    x0_before: Tensor | None = None
    h_before = 0.0
    for sigma, sigma_next in pairwise(sigmas):
        x0 = denoise(x, sigma)
        if sigma_next == 0:
            return x0
        ratio = sigma_next / sigma  # e^-h
        h = -float(torch.tensor(ratio, dtype=torch.float64).log())
        target = x0 if x0_before is None else x0 + (x0 - x0_before) * (h / (2 * h_before))
        x = ratio * x + (1 - ratio) * target
        x0_before, h_before = x0, h
    return x


def sample_ancestral(denoise: Denoise, x: Tensor, sigmas: list[float], draw_noise: DrawNoise) -> Tensor:
    """Draw each step from the exact posterior q(x_next | x, x0): ancestral sampling of DDPM (Ho et al. 2020, eq. 7)."""
    for sigma, sigma_next in pairwise(sigmas):
        x0 = denoise(x, sigma)
        shrink = (sigma_next / sigma) ** 2
        x = x0 + shrink * (x - x0)
        if sigma_next > 0:
            x = x + sigma_next * (1 - shrink) ** 0.5 * draw_noise()
    return x


def sample_consistency(denoise: Denoise, x: Tensor, sigmas: list[float], draw_noise: DrawNoise) -> Tensor:
    """Jump to the image and put less noise on it again (Song et al. 2023, algorithm 1), for a model tuned to jump."""
    for sigma, sigma_next in pairwise(sigmas):
        x = denoise(x, sigma)
        if sigma_next > 0:
            x = x + sigma_next * draw_noise()
    return x


def consistency_sigmas(n_steps: int, sigma_max: float, sigma_last: float = 0.03) -> list[float]:
    """Noise levels for :func:`sample_consistency`: geometric from sigma_max, `sigma_last` not reached, then 0."""
    return [*(sigma_max * (sigma_last / sigma_max) ** (i / n_steps) for i in range(n_steps)), 0.0]


SAMPLERS = {"euler": sample_euler, "heun": sample_heun, "dpmpp-2m": sample_dpmpp_2m}
"""Deterministic samplers by name."""
NOISY_SAMPLERS = {"ancestral": sample_ancestral, "consistency": sample_consistency}
"""Samplers that draw noise on the way."""


def guided(conditional: Denoise, unconditional: Denoise, weight: float, interval: tuple[float, float]) -> Denoise:
    """Classifier-free guidance (Ho and Salimans 2022) inside an interval of noise levels (Kynkäänniemi et al. 2024).

    weight 1 is the plain conditional model and costs one evaluation; otherwise steps inside the interval cost two.
    `unconditional` may as well be a weaker copy of the model (autoguidance, Karras et al. 2024).
    """

    def denoise(x: Tensor, sigma: float) -> Tensor:
        x0 = conditional(x, sigma)
        if weight == 1 or not interval[0] <= sigma <= interval[1]:
            return x0
        x0_weak = unconditional(x, sigma)
        return x0_weak + weight * (x0 - x0_weak)

    return denoise
