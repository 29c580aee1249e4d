"""Samplers cut into single evaluations, so that a canvas too large for memory can be stepped piece by piece.

A state is a tuple of tensors; its first is what the network is asked to denoise next. `update(state, x0, noise)` makes the next
state from the denoised x0. It acts on every pixel by itself, hence on any piece of the canvas. The formulas are those of
:mod:`sge2hist.models.samplers`; the last state holds the image alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

State = tuple[Tensor, ...]
DrawNoise = Callable[[], Tensor]


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of the network: the noise level that it is told, and what to do with its answer."""

    sigma: float
    update: Callable[[State, Tensor, DrawNoise], State]


def evaluations(sampler: str, sigmas: list[float]) -> list[Evaluation]:
    """The evaluations of a sampler, by its name, over falling noise levels that end with 0.

    Raises
    ------
    ValueError
        For a sampler that cannot be cut.
    """
    if sampler not in PROGRAMS:
        raise ValueError(f"sampler is one of {', '.join(PROGRAMS)}; not {sampler!r}")
    return PROGRAMS[sampler](sigmas)


def _euler(sigmas: list[float]) -> list[Evaluation]:
    def step(sigma: float, sigma_next: float) -> Evaluation:
        return Evaluation(sigma, lambda state, x0, _: (x0 + (sigma_next / sigma) * (state[0] - x0),))

    return [step(*pair) for pair in pairwise(sigmas)]


def _heun(sigmas: list[float]) -> list[Evaluation]:
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


def _dpmpp_2m(sigmas: list[float]) -> list[Evaluation]:
    def step(ratio: float, weight: float | None) -> Callable[[State, Tensor, DrawNoise], State]:
        def update(state: State, x0: Tensor, _: DrawNoise) -> State:
            target = x0 if weight is None else x0 + (x0 - state[1]) * weight
            return ratio * state[0] + (1 - ratio) * target, x0

        return update

    out, h_before = [], 0.0
    for number, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        if sigma_next == 0:
            out.append(Evaluation(sigma, lambda state, x0, _: (x0,)))
            break
        ratio = sigma_next / sigma
        h = -float(torch.tensor(ratio, dtype=torch.float64).log())
        out.append(Evaluation(sigma, step(ratio, None if number == 0 else h / (2 * h_before))))
        h_before = h
    return out


def _ancestral(sigmas: list[float]) -> list[Evaluation]:
    def step(sigma: float, sigma_next: float) -> Evaluation:
        shrink = (sigma_next / sigma) ** 2

        def update(state: State, x0: Tensor, draw: DrawNoise) -> State:
            x = x0 + shrink * (state[0] - x0)
            return (x + sigma_next * (1 - shrink) ** 0.5 * draw() if sigma_next > 0 else x,)

        return Evaluation(sigma, update)

    return [step(*pair) for pair in pairwise(sigmas)]


def _consistency(sigmas: list[float]) -> list[Evaluation]:
    def step(sigma: float, sigma_next: float) -> Evaluation:
        return Evaluation(sigma, lambda _, x0, draw: (x0 + sigma_next * draw() if sigma_next > 0 else x0,))

    return [step(*pair) for pair in pairwise(sigmas)]


PROGRAMS: dict[str, Callable[[list[float]], list[Evaluation]]] = {
    "euler": _euler, "heun": _heun, "dpmpp-2m": _dpmpp_2m, "ancestral": _ancestral, "consistency": _consistency,
}  # fmt: skip
"""Samplers that a slide can be drawn with."""
