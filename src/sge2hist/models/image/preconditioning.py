"""Noise models: preconditioning of the network at a noise level, and the distribution of noise levels in training.

All noise models share one convention: a noisy image is `x = x0 + sigma n`, and a denoiser returns the expected clean image.
Samplers and guidance know nothing else. B images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig:
    """The noise model."""

    formulation: str = "edm"  # "edm" (Karras et al. 2022) or "ddpm" (Ho et al. 2020: linear betas, noise prediction)
    sigma_data: float = 1.0  # standard deviation of the clean images (edm)
    sigma_log_mean: float = -0.3  # ln sigma ~ N(mean, std^2) in training (edm)
    sigma_log_std: float = 1.2
    sigma_min: float = 0.01  # range of the sampler (edm)
    sigma_max: float = 80.0
    n_steps: int = 1000  # T (ddpm)
    beta_first: float = 1e-4
    beta_last: float = 0.02

    def __post_init__(self) -> None:
        if self.formulation not in ("edm", "ddpm"):
            raise ValueError(f"formulation must be 'edm' or 'ddpm', not {self.formulation!r}")
        if not 0 < self.sigma_min < self.sigma_max or self.sigma_data <= 0 or self.sigma_log_std <= 0:
            raise ValueError("0 < sigma_min < sigma_max, sigma_data > 0 and sigma_log_std > 0 are needed")


class Scalings(NamedTuple):
    """D(x; sigma) = c_skip x + c_out F(c_in x, c_noise), each [B]."""

    c_skip_B: Tensor
    c_out_B: Tensor
    c_in_B: Tensor
    c_noise_B: Tensor


def edm_scalings(sigma_B: Tensor, sigma_data: float) -> Scalings:
    """Karras et al. 2022, table 1, column "Ours": input and target of F have unit variance at every sigma."""
    var_B = sigma_B.square() + sigma_data**2
    return Scalings(sigma_data**2 / var_B, sigma_B * sigma_data / var_B.sqrt(), 1 / var_B.sqrt(), sigma_B.log() / 4)


def ddpm_sigmas(config: DiffusionConfig) -> Tensor:
    """Noise over signal at each of the T steps, sqrt((1 - abar_t) / abar_t), rising; float64 [T]."""
    betas_T = torch.linspace(config.beta_first, config.beta_last, config.n_steps, dtype=torch.float64)
    alphas_bar_T = torch.cumprod(1 - betas_T, dim=0)
    return ((1 - alphas_bar_T) / alphas_bar_T).sqrt()


def ddpm_scalings(sigma_B: Tensor, sigmas_T: Tensor) -> Scalings:
    """x0 = x - sigma eps; the network reads the variance-preserving image and its (interpolated) step number t."""
    log_sigma_B, log_sigmas_T = sigma_B.double().log(), sigmas_T.log().to(sigma_B.device)
    right_B = torch.searchsorted(log_sigmas_T, log_sigma_B).clamp(1, len(sigmas_T) - 1)
    low_B, high_B = log_sigmas_T[right_B - 1], log_sigmas_T[right_B]
    t_B = (right_B - 1 + ((log_sigma_B - low_B) / (high_B - low_B)).clamp(0, 1)).to(sigma_B.dtype)
    return Scalings(torch.ones_like(sigma_B), -sigma_B, 1 / (1 + sigma_B.square()).sqrt(), t_B)


class NoiseModel:
    """Preconditioning and noise-level distribution of one `DiffusionConfig`."""

    def __init__(self, config: DiffusionConfig) -> None:
        self.config = config
        self.sigmas_T = ddpm_sigmas(config) if config.formulation == "ddpm" else None

    @property
    def sigma_range(self) -> tuple[float, float]:
        """Lowest and highest noise level of a sampler."""
        if self.sigmas_T is not None:
            return float(self.sigmas_T[0]), float(self.sigmas_T[-1])
        return self.config.sigma_min, self.config.sigma_max

    def scalings(self, sigma_B: Tensor) -> Scalings:
        """Return the scalings at these noise levels."""
        if self.sigmas_T is not None:
            return ddpm_scalings(sigma_B, self.sigmas_T)
        return edm_scalings(sigma_B, self.config.sigma_data)

    def sample_sigmas(self, n: int, generator: torch.Generator) -> Tensor:
        """Sample training noise levels, float32 [n] on the generator's device, stratified over the batch."""
        quantile = (
            torch.arange(n, device=generator.device) + torch.rand(n, generator=generator, device=generator.device)
        ) / n
        if self.sigmas_T is not None:
            t = (quantile * self.config.n_steps).long().clamp_max(self.config.n_steps - 1)
            return self.sigmas_T.to(quantile.device)[t].float()
        normal = torch.special.ndtri(quantile.double().clamp(1e-6, 1 - 1e-6)).float()
        return (self.config.sigma_log_mean + self.config.sigma_log_std * normal).exp()


def expand(value_B: Tensor) -> Tensor:
    """Return a per-image scalar as [B, 1, 1, 1]."""
    return value_B[:, None, None, None]
