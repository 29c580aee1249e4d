"""Denoisers: a network with its preconditioning and loss, and classifier-free guidance.

Shape letters: B images, C channels, H W pixels of the space that the diffusion runs in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sge2hist.models.image.preconditioning import DiffusionConfig, NoiseModel, expand
from sge2hist.models.image.samplers import (
    Denoise,
    Evaluation,
    SamplerConfig,
    consistency_sigmas,
    evaluations,
    karras_sigmas,
)

Condition = tuple[list[Tensor] | None, Tensor | None]
"""Inputs of the network beside the noisy image: features of the condition map (`UNet.read_map`), and a vector [B, E]."""


class Denoiser:
    """D(x; sigma) = c_skip x + c_out F(c_in x; c_noise, condition): a network F with its preconditioning.

    Not a module: `network` is registered in the model that owns it, whose weights keep their names.
    """

    def __init__(self, network: nn.Module, config: DiffusionConfig) -> None:
        self.network, self.noise_model = network, NoiseModel(config)

    def __call__(self, x_BCHW: Tensor, sigma_B: Tensor, condition: Condition) -> Tensor:
        """Return the expected clean image of x = x0 + sigma n, float32."""
        c = self.noise_model.scalings(sigma_B)
        raw = self.network(expand(c.c_in_B) * x_BCHW, c.c_noise_B, *condition)
        return expand(c.c_skip_B) * x_BCHW + expand(c.c_out_B) * raw.float()

    def loss(self, clean_BCHW: Tensor, condition: Condition, generator: torch.Generator) -> Tensor:
        """Return the squared error of the raw network output at random noise levels, [B]: of F for edm, of the noise for ddpm.

        In units of the raw output the edm loss weight lambda(sigma) c_out^2 is 1 (Karras et al. 2022, table 1).
        """
        device = clean_BCHW.device
        sigma_B = self.noise_model.sample_sigmas(len(clean_BCHW), generator).to(device)
        noise = torch.randn(clean_BCHW.shape, generator=generator, device=generator.device).to(device)
        x = clean_BCHW + expand(sigma_B) * noise
        c = self.noise_model.scalings(sigma_B)
        raw = self.network(expand(c.c_in_B) * x, c.c_noise_B, *condition).float()
        target = (clean_BCHW - expand(c.c_skip_B) * x) / expand(c.c_out_B)
        return (raw - target).square().mean(dim=(1, 2, 3))

    def given(self, condition: Condition) -> Denoise:
        """Return `denoise(x, sigma)` under a condition, as samplers call it."""
        return lambda x, sigma: self(x, torch.full((len(x),), sigma, device=x.device), condition)

    def sigmas(self, config: SamplerConfig) -> list[float]:
        """Return the sampler's noise levels: Karras's for edm; for ddpm every (T / n_steps)-th of its own, then 0."""
        sigmas_T = self.noise_model.sigmas_T
        if config.sampler == "consistency":
            return consistency_sigmas(config.n_steps, self.noise_model.sigma_range[1])
        if sigmas_T is None:
            return karras_sigmas(config.n_steps, *(config.sigma_range or self.noise_model.sigma_range))
        index = torch.linspace(len(sigmas_T) - 1, 0, config.n_steps).round().long()
        return [*sigmas_T[index].tolist(), 0.0]

    def evaluations(self, config: SamplerConfig) -> list[Evaluation]:
        """Return the evaluations of the network with which a sampler generates an image."""
        return evaluations(config.sampler, self.sigmas(config), config.eta, config.eta_above)


GuidanceWeight = Callable[[float], float]
"""Noise level -> guidance weight; 1: no guidance."""


def guide(conditional: Tensor, unconditional: Tensor, weight: float | Tensor) -> Tensor:
    """Classifier-free guidance of denoised images: u + w (c - u) (Ho and Salimans 2022)."""
    return unconditional + weight * (conditional - unconditional)


def in_interval(weight: float, interval: tuple[float, float]) -> GuidanceWeight:
    """`weight` at noise levels inside an interval (Kynkäänniemi et al. 2024), 1 outside it."""
    return lambda sigma: weight if interval[0] <= sigma <= interval[1] else 1.0


@dataclass(frozen=True, kw_only=True)
class LearntGuidance:
    """Guidance that the output of a network has without a second evaluation, after `distill --learn guidance`."""

    weight: float = 1.0  # 1: none
    interval: tuple[float, float] = (0.0, 0.0)  # noise levels at which the output has it


@dataclass(frozen=True)
class GuidedDenoiser:
    """Denoiser of one batch with guidance: one evaluation of the network where the weight is 1, two elsewhere.

    `unconditional` may also be a weaker copy of the model (autoguidance, Karras et al. 2024).
    """

    conditional: Denoise
    unconditional: Denoise
    weight: GuidanceWeight

    def __call__(self, x_BCHW: Tensor, sigma: float) -> Tensor:
        """Return the expected clean image of x = x0 + sigma n."""
        clean, weight = self.conditional(x_BCHW, sigma), self.weight(sigma)
        return clean if weight == 1 else guide(clean, self.unconditional(x_BCHW, sigma), weight)
