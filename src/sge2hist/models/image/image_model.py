"""The image model: autoencoder (or plain pixels), condition encoder and denoiser, with one loss and one sampler call.

Shape letters: B images, C channels, H W pixels, L latent channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from sge2hist.models.image.autoencoder import DOWNSAMPLING, Autoencoder, AutoencoderConfig
from sge2hist.models.image.conditioning import CellMapEncoder, CellVectorEncoder, ConditionConfig, PlacedCells
from sge2hist.models.image.denoiser import (
    Condition,
    Denoiser,
    GuidanceWeight,
    GuidedDenoiser,
    LearntGuidance,
    in_interval,
)
from sge2hist.models.image.preconditioning import DiffusionConfig
from sge2hist.models.image.samplers import ImageNoise, SamplerConfig, Visit, sample
from sge2hist.models.image.unet import UNet, UNetConfig


@dataclass(frozen=True, kw_only=True)
class ImageModelConfig:
    """Architecture of the image model."""

    autoencoder: AutoencoderConfig | None = field(default_factory=AutoencoderConfig)  # None: diffusion on pixels
    condition: ConditionConfig = field(default_factory=ConditionConfig)
    unet: UNetConfig = field(default_factory=UNetConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    image_channels: int = 3  # C: 3 for H&E, one per stain for fluorescence
    n_latent: int = 64  # width of a cell's z
    n_slides: int = 1  # slides (stains) that images can be conditioned on


DECODER_NOISE_STREAM = 0x5DEECE66D
"""Separates the decoder noise from the noise of the latents of the same seed."""


class ImageModel(nn.Module):
    """Images of placed cells. Samplers know nothing of it but `denoiser`.

    `learnt_guidance`: guidance that the output of the network has by itself; samplers add what is missing.
    """

    def __init__(self, config: ImageModelConfig, learnt_guidance: LearntGuidance | None = None) -> None:
        super().__init__()
        self.config = config
        self.learnt_guidance = learnt_guidance or LearntGuidance()
        self.autoencoder = Autoencoder(config.autoencoder) if config.autoencoder else None
        encoder = CellMapEncoder if config.condition.form == "map" else CellVectorEncoder
        self.condition = encoder(config.condition, n_latent=config.n_latent, n_slides=config.n_slides)
        self.unet = UNet(
            config.unet,
            image_channels=self.latent_channels,
            map_channels=self.condition.map_channels,
            vector_dim=self.condition.vector_dim,
        )
        self.denoiser = Denoiser(self.unet, config.diffusion)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def latent_channels(self) -> int:
        """Channels of the space that the diffusion runs in."""
        return self.config.autoencoder.latent_channels if self.config.autoencoder else self.config.image_channels

    @property
    def downsampling(self) -> int:
        """Image pixels per latent pixel, along a side."""
        return DOWNSAMPLING if self.config.autoencoder else 1

    def to_latent(self, image_BCHW: Tensor) -> Tensor:
        """Return the latents of images in [-1, 1], or the images themselves when the diffusion runs on pixels."""
        return self.autoencoder.encode(image_BCHW) if self.autoencoder is not None else image_BCHW

    @property
    def n_decoder_noise(self) -> int:
        """Decoder noise values per latent pixel; 0: the decoder reads none."""
        return self.autoencoder.n_decoder_noise if self.autoencoder is not None else 0

    def to_image(self, latent_BLHW: Tensor, noise_BNHW: Tensor | None = None) -> Tensor:
        """Return images clamped to [-1, 1]; `noise_BNHW`: decoder noise [B, `n_decoder_noise`, H, W] or None."""
        image = latent_BLHW if self.autoencoder is None else self.autoencoder.decode(latent_BLHW, noise_BNHW)
        return image.float().clamp(-1, 1)

    def encode_cells(self, cells: PlacedCells, latent_hw: tuple[int, int]) -> Condition:
        """Return the condition of a canvas of `latent_hw` latent pixels, the same for all noise levels."""
        map_BDHW, vector_BE = self.condition(cells, latent_hw)
        return None if map_BDHW is None else self.unet.read_map(map_BDHW), vector_BE

    def loss(self, latent_BLHW: Tensor, cells: PlacedCells, generator: torch.Generator) -> Tensor:
        """Return the denoising loss of latents (see :meth:`Denoiser.loss`), [B]."""
        condition = self.encode_cells(cells, (latent_BLHW.shape[2], latent_BLHW.shape[3]))
        return self.denoiser.loss(latent_BLHW, condition, generator)

    @torch.no_grad()
    def sample(
        self,
        cells: PlacedCells,
        seeds: Sequence[int],
        latent_hw: tuple[int, int],
        config: SamplerConfig,
        visit: Visit | None = None,
    ) -> Tensor:
        """Generate one image per seed, [B, C, H, W] in [-1, 1]; image i depends on its cells and seeds[i] alone.

        `visit`: as of :func:`sge2hist.models.image.samplers.sample`.
        """
        return self.decoded(self.sample_latents(cells, seeds, latent_hw, config, visit), seeds)

    @torch.no_grad()
    def decoded(self, latent_BLHW: Tensor, seeds: Sequence[int]) -> Tensor:
        """Images of latents with the decoder noise of their seeds."""
        if not self.n_decoder_noise:
            return self.to_image(latent_BLHW)
        # a separate random stream, so that the latents of a seed do not depend on the decoder
        noise_seeds = [seed ^ DECODER_NOISE_STREAM for seed in seeds]
        shape = (self.n_decoder_noise, latent_BLHW.shape[2], latent_BLHW.shape[3])
        return self.to_image(latent_BLHW, ImageNoise(noise_seeds, shape, latent_BLHW.device)())

    @torch.no_grad()
    def sample_latents(
        self,
        cells: PlacedCells,
        seeds: Sequence[int],
        latent_hw: tuple[int, int],
        config: SamplerConfig,
        visit: Visit | None = None,
    ) -> Tensor:
        """As `sample`, before decoding: [B, L, h, w]."""
        steps = self.denoiser.evaluations(config)
        fresh_noise = ImageNoise(seeds, (self.latent_channels, *latent_hw), cells.mode_B.device)
        denoise = self.guided_denoiser(cells, latent_hw, config, [step.sigma for step in steps])
        return sample(denoise, fresh_noise() * self.denoiser.sigmas(config)[0], steps, fresh_noise, visit)

    def guided_denoiser(
        self, cells: PlacedCells, latent_hw: tuple[int, int], config: SamplerConfig, sigmas: Iterable[float]
    ) -> GuidedDenoiser:
        """Return the denoiser of a batch at the noise levels `sigmas`, with the sampler's guidance."""
        weight = self.guidance_weight(config)
        conditional = self.denoiser.given(self.encode_cells(cells, latent_hw))
        if all(weight(sigma) == 1 for sigma in sigmas):
            return GuidedDenoiser(conditional, conditional, weight)
        unconditional = self.denoiser.given(self.encode_cells(cells.unconditional(), latent_hw))
        return GuidedDenoiser(conditional, unconditional, weight)

    def guidance_weight(self, config: SamplerConfig) -> GuidanceWeight:
        """Return the guidance weight for the output of the network: the weight asked for over the learnt one.

        With u the unconditional and c the conditional output of the network before it learnt guidance of weight v, its
        conditional output is c' = u + v (c - u), so that u + w (c - u) = u + (w / v) (c' - u).
        """
        asked = in_interval(config.guidance, config.guidance_interval)
        learnt = in_interval(self.learnt_guidance.weight, self.learnt_guidance.interval)
        return lambda sigma: asked(sigma) / learnt(sigma)
