"""Samplers as pure functions. They know `denoise(x, sigma) -> expected clean image`, noise levels, and nothing else.

A sampler is a list of single evaluations of the network, so that a canvas too large for memory can be processed piece by
piece. A state is a tuple of tensors; the network denoises its first one next. `update(state, x0, fresh_noise)` makes the next
state from the denoised x0. It acts on every pixel separately, hence on any piece of a canvas; the last state begins with the
image. A probability-flow step follows dx/dsigma = (x - D(x; sigma)) / sigma; x = x0 + sigma n is [..., C, H, W]; sigmas
decrease from the first to 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from sge2hist.data.errors import Problems, refuse_wrong_types

Denoise = Callable[[Tensor, float], Tensor]
"""(x_BCHW, sigma) -> expected clean image, same shape; sigma is one float for the whole batch."""
FreshNoise = Callable[[], Tensor]
"""() -> new standard normal noise of the shape of the state."""
Visit = Callable[[Tensor], None]
"""Sees the denoised image of every evaluation; what it raises ends the sampling."""
State = tuple[Tensor, ...]
Update = Callable[[State, Tensor, FreshNoise], State]


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of the network: its noise level, and the update of the state with its output."""

    sigma: float
    update: Update


def sample(
    denoise: Denoise, x: Tensor, steps: list[Evaluation], fresh_noise: FreshNoise, visit: Visit | None = None
) -> Tensor:
    """Run the evaluations of a sampler on noise `x` of the first noise level; returns the image."""
    state: State = (x,)
    for step in steps:
        denoised = denoise(state[0], step.sigma)
        if visit is not None:
            visit(denoised)
        state = step.update(state, denoised, fresh_noise)
    return state[0]


def euler(sigmas: list[float]) -> list[Evaluation]:
    """First order: one evaluation per step."""

    def step(sigma: float, sigma_next: float) -> Evaluation:
        return Evaluation(sigma, lambda state, x0, _: (x0 + (sigma_next / sigma) * (state[0] - x0),))

    return [step(*pair) for pair in pairwise(sigmas)]


def heun(sigmas: list[float]) -> list[Evaluation]:
    """Second order (Karras et al. 2022, algorithm 1 without churn): two evaluations per step, one in the last."""

    def predict(sigma: float, sigma_next: float) -> Evaluation:
        def update(state: State, x0: Tensor, _: FreshNoise) -> State:
            (x,) = state
            slope = (x - x0) / sigma
            x_euler = x + (sigma_next - sigma) * slope
            return (x_euler,) if sigma_next == 0 else (x_euler, x, slope)

        return Evaluation(sigma, update)

    def correct(sigma: float, sigma_next: float) -> Evaluation:
        def update(state: State, x0: Tensor, _: FreshNoise) -> State:
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

    `eta` above 0 adds as much fresh noise in every step as the reverse SDE with eta times the noise of the published
    one (SDE-DPM-Solver++(2M), there equation 18, is eta = 1): with h the step in lambda,
    x' = e^-(1 + eta)h x + (1 - e^-(1 + eta)h) D + sigma' sqrt(1 - e^-2 eta h) n. All of them have the same marginals when
    D is exact; when it is learnt, fresh noise hides errors of earlier steps, and costs detail where steps are long for the noise
    level. So steps that end below `eta_above` add none (as churn in Karras et al. 2022, algorithm 2, S_tmin).
    """

    def step(sigma: float, sigma_next: float, h_before: float | None) -> Evaluation:
        if sigma_next == 0:
            return Evaluation(sigma, lambda state, x0, _: (x0,))
        h, rate = math.log(sigma / sigma_next), eta if sigma_next >= eta_above else 0.0
        keep = math.exp(-(1 + rate) * h)
        noise_std = sigma_next * math.sqrt(-math.expm1(-2 * rate * h))

        def update(state: State, x0: Tensor, fresh_noise: FreshNoise) -> State:
            target = x0 if h_before is None else x0 + (x0 - state[1]) * (h / (2 * h_before))
            x = keep * state[0] + (1 - keep) * target
            return (x + noise_std * fresh_noise() if rate else x), x0

        return Evaluation(sigma, update)

    out, h_before = [], None
    for sigma, sigma_next in pairwise(sigmas):
        out.append(step(sigma, sigma_next, h_before))
        h_before = math.log(sigma / sigma_next) if sigma_next else None
    return out


def ancestral(sigmas: list[float]) -> list[Evaluation]:
    """Sample each step from the exact posterior q(x_next | x, x0): ancestral sampling of DDPM (Ho et al. 2020, eq. 7)."""

    def step(sigma: float, sigma_next: float) -> Evaluation:
        shrink = (sigma_next / sigma) ** 2

        def update(state: State, x0: Tensor, fresh_noise: FreshNoise) -> State:
            x = x0 + shrink * (state[0] - x0)
            return (x + sigma_next * (1 - shrink) ** 0.5 * fresh_noise() if sigma_next > 0 else x,)

        return Evaluation(sigma, update)

    return [step(*pair) for pair in pairwise(sigmas)]


def consistency(sigmas: list[float]) -> list[Evaluation]:
    """Denoise to the image and add less noise again (Song et al. 2023, algorithm 1), for a consistency model."""

    def step(sigma: float, sigma_next: float) -> Evaluation:
        return Evaluation(
            sigma, lambda _, x0, fresh_noise: (x0 + sigma_next * fresh_noise() if sigma_next > 0 else x0,)
        )

    return [step(*pair) for pair in pairwise(sigmas)]


SAMPLERS = {
    "dpmpp-2m": dpmpp_2m,
    "heun": heun,
    "euler": euler,
    "ancestral": ancestral,
    "consistency": consistency,
}
"""Decreasing noise levels that end with 0 -> evaluations, by name."""


@dataclass(frozen=True, kw_only=True)
class SamplerConfig:
    """How images are sampled."""

    sampler: str = "dpmpp-2m"  # a name of SAMPLERS
    n_steps: int = 12  # steps; heun evaluates the network twice in each, the others once
    guidance: float = 1.0  # weight of classifier-free guidance; 1: the plain conditional model
    guidance_interval: tuple[float, float] = (0.8, 5.0)  # noise levels at which guidance acts
    eta: float = 0.0  # fresh noise in each step of dpmpp-2m: 0 the ODE, 1 the reverse SDE; the others have their own
    eta_above: float = 1.0  # noise level below which no fresh noise is added: it costs detail there
    sigma_range: tuple[float, float] | None = None  # lowest and highest noise level (edm); None: the noise model's

    @refuse_wrong_types
    def __post_init__(self) -> None:
        problems = Problems()
        if self.sampler not in SAMPLERS:
            problems.add(
                found=f"sampler {self.sampler!r}",
                expected=f"one of {', '.join(SAMPLERS)}",
                repair="SamplerConfig(sampler='heun', n_steps=12)",
            )
        if self.n_steps < 1:
            problems.add(found=f"n_steps = {self.n_steps}", expected="1 or more")
        if not math.isfinite(self.guidance):
            problems.add(found=f"guidance = {self.guidance}", expected="a finite number; 1 is none")
        if not 0 <= self.guidance_interval[0] < self.guidance_interval[1]:
            problems.add(
                found=f"guidance_interval = {self.guidance_interval}",
                expected="lowest and highest noise level, 0 or more, the first smaller",
            )
        if not 0 <= self.eta < math.inf:
            problems.add(found=f"eta = {self.eta}", expected="a finite number, 0 or more")
        if self.sigma_range is not None and not 0 < self.sigma_range[0] < self.sigma_range[1] < math.inf:
            problems.add(
                found=f"sigma_range = {self.sigma_range}",
                expected="lowest and highest noise level, above 0, the first smaller",
            )
        problems.raise_if_any()


def evaluations(sampler: str, sigmas: list[float], eta: float = 0.0, eta_above: float = 0.0) -> list[Evaluation]:
    """The evaluations of a sampler of `SAMPLERS`; `eta` and `eta_above` apply to dpmpp-2m alone."""
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


class ImageNoise:
    """Standard normal noise for a batch in which image i depends on `seeds[i]` alone, on any device and batch size."""

    def __init__(self, seeds: Sequence[int], shape: tuple[int, ...], device: torch.device) -> None:
        self.generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        self.shape, self.device = shape, device

    def __call__(self) -> Tensor:
        """Return new noise [B, *shape]; sampled on the CPU, so that every device gets the same numbers."""
        return torch.stack([torch.randn(self.shape, generator=g) for g in self.generators]).to(self.device)
