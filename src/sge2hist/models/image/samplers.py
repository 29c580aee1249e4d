"""Samplers as pure functions. They know `denoise(x, sigma) -> expected clean image`, noise levels, and nothing else.

A sampler is a list of single evaluations of the network, so that a canvas too large for memory can be stepped piece by
piece. A state is a tuple of tensors; its first is what the network is asked to denoise next. `update(state, x0, draw)` makes
the next state from the denoised x0 and acts on every pixel by itself, hence on any piece of a canvas; the last state begins
with the image. A probability-flow step follows dx/dsigma = (x - D(x; sigma)) / sigma; x is [..., C, H, W] with any noise
convention x = x0 + sigma n; sigmas fall from the first to 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

Denoise = Callable[[Tensor, float], Tensor]
"""(x_BCHW, sigma) -> expected clean image, same shape; sigma is one float for the whole batch."""
DrawNoise = Callable[[], Tensor]
"""() -> standard normal noise of the shape of the state."""
State = tuple[Tensor, ...]
Update = Callable[[State, Tensor, DrawNoise], State]


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of the network: the noise level that it is told, and what to do with its answer."""

    sigma: float
    update: Update


def sample(denoise: Denoise, x: Tensor, steps: list[Evaluation], draw: DrawNoise) -> Tensor:
    """Run the evaluations of a sampler on noise `x` of the first noise level; returns the image."""
    state: State = (x,)
    for step in steps:
        state = step.update(state, denoise(state[0], step.sigma), draw)
    return state[0]


def euler(sigmas: list[float]) -> list[Evaluation]:
    """First order: one evaluation per step."""

    def step(sigma: float, sigma_next: float) -> Evaluation:
        return Evaluation(sigma, lambda state, x0, _: (x0 + (sigma_next / sigma) * (state[0] - x0),))

    return [step(*pair) for pair in pairwise(sigmas)]


def heun(sigmas: list[float]) -> list[Evaluation]:
    """Second order (Karras et al. 2022, algorithm 1 without churn): two evaluations per step, one in the last."""

    def predict(sigma: float, sigma_next: float) -> Evaluation:
        def update(state: State, x0: Tensor, _: DrawNoise) -> State:
            (x,) = state
            slope = (x - x0) / sigma
            x_euler = x + (sigma_next - sigma) * slope
            return (x_euler,) if sigma_next == 0 else (x_euler, x, slope)

        return Evaluation(sigma, update)

    def correct(sigma: float, sigma_next: float) -> Evaluation:
        def update(state: State, x0: Tensor, _: DrawNoise) -> State:
            x_euler, x, slope = state
            slope_next = (x_euler - x0) / sigma_next
            return (x + (sigma_next - sigma) * (slope + slope_next) / 2,)

        return Evaluation(sigma_next, update)

    out = []
    for sigma, sigma_next in pairwise(sigmas):
        out.append(predict(sigma, sigma_next))
        if sigma_next > 0:
            out.append(correct(sigma, sigma_next))
    return out


def dpmpp_2m(sigmas: list[float], eta: float = 0.0, eta_above: float = 0.0) -> list[Evaluation]:
    """Second order, one evaluation per step: DPM-Solver++(2M) (Lu et al. 2022, algorithm 2) in lambda = -ln sigma.

    `eta` above 0 takes as much fresh noise in every step as the reverse SDE with eta times the noise of the published
    one (SDE-DPM-Solver++(2M), there equation 18, is eta = 1): with h the step in lambda,
    x' = e^-(1 + eta)h x + (1 - e^-(1 + eta)h) D + sigma' sqrt(1 - e^-2 eta h) n. All of them have the same marginals when
    D is exact; when it is learnt, fresh noise hides errors of earlier steps, and costs detail where steps are long for the noise
    level. So steps that end below `eta_above` take none (as churn in Karras et al. 2022, algorithm 2, S_tmin).
    """

    def step(sigma: float, sigma_next: float, h_before: float | None) -> Evaluation:
        if sigma_next == 0:
            return Evaluation(sigma, lambda state, x0, _: (x0,))
        h, noise = math.log(sigma / sigma_next), eta if sigma_next >= eta_above else 0.0
        keep = math.exp(-(1 + noise) * h)
        fresh = sigma_next * math.sqrt(-math.expm1(-2 * noise * h))

        def update(state: State, x0: Tensor, draw: DrawNoise) -> State:
            target = x0 if h_before is None else x0 + (x0 - state[1]) * (h / (2 * h_before))
            x = keep * state[0] + (1 - keep) * target
            return (x + fresh * draw() if noise else x), x0

        return Evaluation(sigma, update)

    out, h_before = [], None
    for sigma, sigma_next in pairwise(sigmas):
        out.append(step(sigma, sigma_next, h_before))
        h_before = math.log(sigma / sigma_next) if sigma_next else None
    return out


def ancestral(sigmas: list[float]) -> list[Evaluation]:
    """Draw each step from the exact posterior q(x_next | x, x0): ancestral sampling of DDPM (Ho et al. 2020, eq. 7)."""

    def step(sigma: float, sigma_next: float) -> Evaluation:
        shrink = (sigma_next / sigma) ** 2

        def update(state: State, x0: Tensor, draw: DrawNoise) -> State:
            x = x0 + shrink * (state[0] - x0)
            return (x + sigma_next * (1 - shrink) ** 0.5 * draw() if sigma_next > 0 else x,)

        return Evaluation(sigma, update)

    return [step(*pair) for pair in pairwise(sigmas)]


def consistency(sigmas: list[float]) -> list[Evaluation]:
    """Jump to the image and put less noise on it again (Song et al. 2023, algorithm 1), for a model tuned to jump."""

    def step(sigma: float, sigma_next: float) -> Evaluation:
        return Evaluation(sigma, lambda _, x0, draw: (x0 + sigma_next * draw() if sigma_next > 0 else x0,))

    return [step(*pair) for pair in pairwise(sigmas)]


SAMPLERS = {
    "dpmpp-2m": dpmpp_2m,
    "heun": heun,
    "euler": euler,
    "ancestral": ancestral,
    "consistency": consistency,
}
"""Falling noise levels that end with 0 -> evaluations, by name."""


def evaluations(sampler: str, sigmas: list[float], eta: float = 0.0, eta_above: float = 0.0) -> list[Evaluation]:
    """The evaluations of a sampler of `SAMPLERS`; fresh noise is chosen for dpmpp-2m, the others have their own or none."""
    return dpmpp_2m(sigmas, eta, eta_above) if sampler == "dpmpp-2m" else SAMPLERS[sampler](sigmas)


def karras_sigmas(n_steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> list[float]:
    """Noise levels of Karras et al. 2022, equation 5: `n_steps` levels from sigma_max to sigma_min, then 0."""
    if n_steps == 1:
        return [sigma_max, 0.0]
    ramp = torch.linspace(0, 1, n_steps, dtype=torch.float64)
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return [*((high + ramp * (low - high)) ** rho).tolist(), 0.0]


def consistency_sigmas(n_steps: int, sigma_max: float, sigma_last: float = 0.03) -> list[float]:
    """Noise levels for :func:`consistency`: geometric from sigma_max, `sigma_last` not reached, then 0."""
    return [*(sigma_max * (sigma_last / sigma_max) ** (i / n_steps) for i in range(n_steps)), 0.0]


def guided(conditional: Denoise, unconditional: Denoise, weight: Callable[[float], float]) -> Denoise:
    """Classifier-free guidance (Ho and Salimans 2022), with a weight that depends on the noise level.

    Where the weight is 1 it is the plain conditional model and costs one evaluation; elsewhere steps cost two.
    `unconditional` may as well be a weaker copy of the model (autoguidance, Karras et al. 2024).
    """

    def denoise(x: Tensor, sigma: float) -> Tensor:
        x0, w = conditional(x, sigma), weight(sigma)
        if w == 1:
            return x0
        x0_weak = unconditional(x, sigma)
        return x0_weak + w * (x0 - x0_weak)

    return denoise


def in_interval(weight: float, interval: tuple[float, float]) -> Callable[[float], float]:
    """`weight` at noise levels inside an interval (Kynkäänniemi et al. 2024), 1 outside it."""
    return lambda sigma: weight if interval[0] <= sigma <= interval[1] else 1.0
