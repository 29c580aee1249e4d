"""The second stage: the detail that a coarse image of the image model leaves out, drawn by a diffusion model of its own.

A cascade (Ho et al. 2022, "Cascaded diffusion models"): the coarse image is enlarged, and what a fine image has beyond that is
diffused, conditioned on the coarse image. One step gives the expected detail, which is sharp already; texture that is left to
chance takes more steps and a long training. Fine pixels are folded into channels, so the network works on coarse pixels and
on images of any size. It knows no cell and no gene: it is learnt from slides alone.

Shape letters: B images, C image channels, f factor, h w coarse pixels; a fine image is [B, C, f h, f w].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sge2hist.models.image.image_model import ImageNoise, SamplerConfig
from sge2hist.models.image.preconditioning import DiffusionConfig, NoiseModel, expand
from sge2hist.models.image.samplers import evaluations, karras_sigmas, sample
from sge2hist.models.image.unet import UNet, UNetConfig

EXPECTED_DETAIL = SamplerConfig(n_steps=1, sigma_range=(0.03, 20.0))
"""One evaluation from pure noise: the mean of all detail that the coarse image allows."""


@dataclass(frozen=True, kw_only=True)
class UpsamplerConfig:
    """Shape of the upsampler, and what it enlarges."""

    um_per_px: float  # of the coarse image
    factor: int = 4  # f, along each side
    image_channels: int = 3  # C
    widths: tuple[int, ...] = (64, 96)  # channels of the U-Net, finest first
    n_blocks: int = 2
    blur: float = 1.0  # coarse images are blurred by up to so much of a 3 x 3 mean in training: generated ones are soft
    noise: float = 0.04  # and noisy by up to this (images in [-1, 1])
    sampler: SamplerConfig = EXPECTED_DETAIL

    def __post_init__(self) -> None:
        if self.factor < 2 or self.um_per_px <= 0:
            raise ValueError("factor must be at least 2 and um_per_px positive")


class Upsampler(nn.Module):
    """Coarse images -> fine ones."""

    detail_std_C: Tensor

    def __init__(self, config: UpsamplerConfig) -> None:
        super().__init__()
        self.config = config
        self.noise_model = NoiseModel(DiffusionConfig(sigma_log_mean=-0.8, sigma_log_std=1.4))
        folded = config.image_channels * config.factor**2
        shape = UNetConfig(channels=config.widths, n_blocks=config.n_blocks, attention=(False,) * len(config.widths))
        self.unet = UNet(shape, image_channels=folded, map_channels=config.image_channels, vector_dim=0)
        self.register_buffer("detail_std_C", torch.ones(config.image_channels))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def shrink(self, fine_BCHW: Tensor) -> Tensor:
        """Return the coarse image [B, C, h, w] of a fine one: mean over squares."""
        return F.avg_pool2d(fine_BCHW, self.config.factor)

    def enlarge(self, coarse_BChw: Tensor) -> Tensor:
        """Return the coarse image on fine pixels, interpolated: no detail."""
        return F.interpolate(coarse_BChw, scale_factor=float(self.config.factor), mode="bicubic", align_corners=False)

    def detail(self, fine_BCHW: Tensor, coarse_BChw: Tensor) -> Tensor:
        """Return what a fine image has beyond its enlarged coarse one, folded and of unit variance: [B, C f^2, h, w]."""
        rest = (fine_BCHW - self.enlarge(coarse_BChw)) / self.detail_std_C[:, None, None]
        return F.pixel_unshuffle(rest, self.config.factor)

    @torch.no_grad()
    def set_statistics(self, fine_BCHW: Tensor) -> None:
        """Measure the scale of the detail on some fine images, in [-1, 1]."""
        rest = fine_BCHW - self.enlarge(self.shrink(fine_BCHW))
        self.detail_std_C.copy_(rest.std(dim=(0, 2, 3)).clamp_min(1e-3))

    def denoise(self, x_BDhw: Tensor, sigma_B: Tensor, read: list[Tensor]) -> Tensor:
        """Return the expected clean detail of x = detail + sigma n, float32; `read`: what the U-Net reads in the coarse image."""
        c = self.noise_model.scalings(sigma_B)
        raw = self.unet(expand(c.c_in_B) * x_BDhw, c.c_noise_B, read, None)
        return expand(c.c_skip_B) * x_BDhw + expand(c.c_out_B) * raw.float()

    def loss(self, fine_BCHW: Tensor, generator: torch.Generator) -> Tensor:
        """Return the squared error of the raw network output for fine images in [-1, 1], [B] (as `ImageModel.loss`)."""
        device = fine_BCHW.device

        def normal(shape: tuple[int, ...]) -> Tensor:
            return torch.randn(shape, generator=generator, device=generator.device).to(device)

        coarse = self._worn(self.shrink(fine_BCHW), generator)
        detail = self.detail(fine_BCHW, coarse)
        sigma_B = self.noise_model.sample_sigmas(len(detail), generator).to(device)
        x = detail + expand(sigma_B) * normal(tuple(detail.shape))
        c = self.noise_model.scalings(sigma_B)
        raw = self.unet(expand(c.c_in_B) * x, c.c_noise_B, self.unet.read_map(coarse), None).float()
        target = (detail - expand(c.c_skip_B) * x) / expand(c.c_out_B)
        return (raw - target).square().mean(dim=(1, 2, 3))

    def _worn(self, coarse_BChw: Tensor, generator: torch.Generator) -> Tensor:
        """Blur and noise of random strength on each coarse image (Ho et al. 2022, conditioning augmentation)."""
        strength_2B = torch.rand(2, len(coarse_BChw), 1, 1, 1, generator=generator, device=generator.device)
        blur, noise = strength_2B.to(coarse_BChw.device).square()
        padded = F.pad(coarse_BChw, (1, 1, 1, 1), mode="replicate")
        soft = coarse_BChw + self.config.blur * blur * (F.avg_pool2d(padded, 3, 1) - coarse_BChw)
        drawn = torch.randn(coarse_BChw.shape, generator=generator, device=generator.device)
        return soft + self.config.noise * noise * drawn.to(soft.device)

    @torch.no_grad()
    def sample(self, coarse_BChw: Tensor, seeds: Sequence[int], config: SamplerConfig | None = None) -> Tensor:
        """Draw one fine image per seed, in [-1, 1]; image i depends on its coarse image and seeds[i] alone.

        h and w must be divisible by 2^(resolutions - 1) of the U-Net.
        """
        config = config or self.config.sampler
        B, _, h, w = coarse_BChw.shape
        device = coarse_BChw.device
        draw = ImageNoise(seeds, (self.config.image_channels * self.config.factor**2, h, w), device)
        sigmas = karras_sigmas(config.n_steps, *(config.sigma_range or self.noise_model.sigma_range))

        read = self.unet.read_map(coarse_BChw)

        def denoise(x: Tensor, sigma: float) -> Tensor:
            return self.denoise(x, torch.full((B,), sigma, device=device), read)

        detail = sample(
            denoise, draw() * sigmas[0], evaluations(config.sampler, sigmas, config.eta, config.eta_above), draw
        )
        fine = (
            self.enlarge(coarse_BChw) + F.pixel_shuffle(detail, self.config.factor) * self.detail_std_C[:, None, None]
        )
        return fine.float().clamp(-1, 1)
