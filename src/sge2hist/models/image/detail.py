"""The detail model: a diffusion model of the fine detail that a decoder omits.

A decoder trained on errors gives the mean of all images that its latents allow: what they do not determine is missing, from a
few pixels on. Here the residual of real images to decoded ones is diffused, conditioned on the decoded image and on the features
that it was decoded from (a diffusion decoder; the residual as in cascades, Ho et al. 2022). Pixels are folded into channels by 2,
and every layer is local: the same detail on a canvas of any size.

Shape letters: B images, C image channels, H W pixels, F features of the decoder at half of the resolution, h w.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sge2hist.models.image.denoiser import Condition, Denoiser
from sge2hist.models.image.layers import PixelNorm
from sge2hist.models.image.preconditioning import DiffusionConfig
from sge2hist.models.image.samplers import SamplerConfig, sample
from sge2hist.models.image.unet import UNet, UNetConfig

FOLD = 2  # pixels along a side that are folded into channels
EMBEDDING = 64  # width of the noise-level embedding
STEPS = SamplerConfig(n_steps=4, sigma_range=(0.05, 5.0))
"""Second order: for a Gaussian of unit variance four evaluations give its standard deviation within 1 %, Euler's 0.69 of it."""


@dataclass(frozen=True, kw_only=True)
class DetailConfig:
    """Shape of the detail model."""

    width: int = 64  # channels
    n_blocks: int = 4  # residual blocks
    sampler: SamplerConfig = field(default_factory=lambda: STEPS)  # of the detail, in units of its standard deviation

    @property
    def reach_px(self) -> int:
        """Pixels around a pixel that its detail may depend on: two convolutions per block, the first and the last one."""
        return FOLD * (2 * self.n_blocks + 2) * self.sampler.n_steps


class DetailModel(nn.Module):
    """Decoded images in [-1, 1] -> the same with the fine detail of real ones."""

    detail_std_C: Tensor

    def __init__(self, config: DetailConfig, image_channels: int, n_features: int) -> None:
        super().__init__()
        self.config = config
        self.feature_norm = PixelNorm(n_features)
        folded = image_channels * FOLD**2
        shape = UNetConfig(
            channels=(config.width,), n_blocks=1, bottom=config.n_blocks, attention=(False,), embedding=EMBEDDING
        )
        self.unet = UNet(shape, image_channels=folded, map_channels=folded + n_features, vector_dim=0)
        self.denoiser = Denoiser(self.unet, DiffusionConfig())
        self.register_buffer("detail_std_C", torch.ones(image_channels))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.no_grad()
    def set_statistics(self, real_BCHW: Tensor, decoded_BCHW: Tensor) -> None:
        """Measure the scale of the detail on some images and their reconstructions."""
        self.detail_std_C.copy_((real_BCHW - decoded_BCHW).std(dim=(0, 2, 3)).clamp_min(1e-3))

    def loss(
        self, real_BCHW: Tensor, decoded_BCHW: Tensor, features_BFhw: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Return the denoising loss of the detail (see :meth:`Denoiser.loss`), [B]."""
        detail = (real_BCHW - decoded_BCHW) / self.detail_std_C[:, None, None]
        return self.denoiser.loss(
            F.pixel_unshuffle(detail, FOLD), self._condition(decoded_BCHW, features_BFhw), generator
        )

    def forward(self, decoded_BCHW: Tensor, features_BFhw: Tensor, noise_BCHW: Tensor) -> Tensor:
        """Add the detail that standard normal noise [B, C, H, W] determines; not clamped."""
        sampler = self.config.sampler
        denoise = self.denoiser.given(self._condition(decoded_BCHW, features_BFhw))
        noise = F.pixel_unshuffle(noise_BCHW, FOLD).contiguous(memory_format=torch.channels_last)
        first = noise * self.denoiser.sigmas(sampler)[0]
        detail = sample(denoise, first, self.denoiser.evaluations(sampler), lambda: torch.zeros_like(noise))
        return decoded_BCHW + F.pixel_shuffle(detail.float(), FOLD) * self.detail_std_C[:, None, None]

    def _condition(self, decoded_BCHW: Tensor, features_BFhw: Tensor) -> Condition:
        read = torch.cat([F.pixel_unshuffle(decoded_BCHW, FOLD), self.feature_norm(features_BFhw).float()], 1)
        return self.unet.read_map(read), None
