"""The upsampler: a diffusion model of the detail that is missing in a coarse image of the image model.

A cascade (Ho et al. 2022, "Cascaded diffusion models"): the coarse image is enlarged, and the residual of the fine image is
diffused, conditioned on the coarse image. One step gives the expected detail, which is sharp already; random texture takes
more steps and a long training. Fine pixels are folded into channels, so the network works on coarse pixels and on images of
any size. It reads no cell and no gene: it is trained on slides alone.

Shape letters: B images, C image channels, f factor, h w coarse pixels; a fine image is [B, C, f h, f w].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sge2hist.models.image.denoiser import Denoiser
from sge2hist.models.image.preconditioning import DiffusionConfig
from sge2hist.models.image.samplers import ImageNoise, SamplerConfig, sample
from sge2hist.models.image.unet import UNet, UNetConfig

EXPECTED_DETAIL = SamplerConfig(n_steps=1, sigma_range=(0.03, 20.0))
"""One evaluation from pure noise: the mean of all detail that the coarse image allows."""


@dataclass(frozen=True, kw_only=True)
class UpsamplerConfig:
    """Architecture of the upsampler, and the resolution that it enlarges."""

    um_per_px: float  # of the coarse image
    factor: int = 4  # f, along each side
    image_channels: int = 3  # C
    widths: tuple[int, ...] = (64, 96)  # channels of the U-Net, finest first
    n_blocks: int = 2
    blur: float = 1.0  # strongest blur of coarse images in training (1: a 3 x 3 mean), since generated ones are soft
    noise: float = 0.04  # largest noise standard deviation of coarse images in training (images in [-1, 1])
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
        folded = config.image_channels * config.factor**2
        shape = UNetConfig(channels=config.widths, n_blocks=config.n_blocks, attention=(False,) * len(config.widths))
        self.unet = UNet(shape, image_channels=folded, map_channels=config.image_channels, vector_dim=0)
        self.denoiser = Denoiser(self.unet, DiffusionConfig(sigma_log_mean=-0.8, sigma_log_std=1.4))
        self.register_buffer("detail_std_C", torch.ones(config.image_channels))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def shrink(self, fine_BCHW: Tensor) -> Tensor:
        """Return the coarse image [B, C, h, w] of a fine one: mean over f x f pixels."""
        return F.avg_pool2d(fine_BCHW, self.config.factor)

    def enlarge(self, coarse_BChw: Tensor) -> Tensor:
        """Return the coarse image on fine pixels, interpolated: no detail."""
        return F.interpolate(coarse_BChw, scale_factor=float(self.config.factor), mode="bicubic", align_corners=False)

    def detail(self, fine_BCHW: Tensor, coarse_BChw: Tensor) -> Tensor:
        """Return the residual of a fine image to its enlarged coarse one, folded and of unit variance: [B, C f^2, h, w]."""
        residual = (fine_BCHW - self.enlarge(coarse_BChw)) / self.detail_std_C[:, None, None]
        return F.pixel_unshuffle(residual, self.config.factor)

    @torch.no_grad()
    def set_statistics(self, fine_BCHW: Tensor) -> None:
        """Measure the scale of the detail on some fine images, in [-1, 1]."""
        residual = fine_BCHW - self.enlarge(self.shrink(fine_BCHW))
        self.detail_std_C.copy_(residual.std(dim=(0, 2, 3)).clamp_min(1e-3))

    def loss(self, fine_BCHW: Tensor, generator: torch.Generator) -> Tensor:
        """Return the denoising loss of the detail of fine images in [-1, 1] (see :meth:`Denoiser.loss`), [B]."""
        coarse = self._augmented(self.shrink(fine_BCHW), generator)
        return self.denoiser.loss(self.detail(fine_BCHW, coarse), (self.unet.read_map(coarse), None), generator)

    def _augmented(self, coarse_BChw: Tensor, generator: torch.Generator) -> Tensor:
        """Blur and noise of random strength on each coarse image (Ho et al. 2022, conditioning augmentation)."""
        strength_2B = torch.rand(2, len(coarse_BChw), 1, 1, 1, generator=generator, device=generator.device)
        blur, noise = strength_2B.to(coarse_BChw.device).square()
        padded = F.pad(coarse_BChw, (1, 1, 1, 1), mode="replicate")
        soft = coarse_BChw + self.config.blur * blur * (F.avg_pool2d(padded, 3, 1) - coarse_BChw)
        white = torch.randn(coarse_BChw.shape, generator=generator, device=generator.device)
        return soft + self.config.noise * noise * white.to(soft.device)

    @torch.no_grad()
    def sample(self, coarse_BChw: Tensor, seeds: Sequence[int], config: SamplerConfig | None = None) -> Tensor:
        """Generate one fine image per seed, in [-1, 1]; image i depends on its coarse image and seeds[i] alone.

        h and w must be divisible by 2^(resolutions - 1) of the U-Net.
        """
        config = config or self.config.sampler
        folded = self.config.image_channels * self.config.factor**2
        fresh_noise = ImageNoise(seeds, (folded, *coarse_BChw.shape[2:]), coarse_BChw.device)
        denoise = self.denoiser.given((self.unet.read_map(coarse_BChw), None))
        first = fresh_noise() * self.denoiser.sigmas(config)[0]
        detail = sample(denoise, first, self.denoiser.evaluations(config), fresh_noise)
        residual = F.pixel_shuffle(detail, self.config.factor) * self.detail_std_C[:, None, None]
        return (self.enlarge(coarse_BChw) + residual).float().clamp(-1, 1)
