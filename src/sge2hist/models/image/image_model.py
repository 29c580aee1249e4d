"""The image model: autoencoder (or plain pixels), condition encoder and denoiser, with one loss and one sampler call.

Shape letters: B images, C channels, H W pixels, L latent channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from sge2hist.models.image.autoencoder import DOWNSAMPLING, Autoencoder, AutoencoderConfig
from sge2hist.models.image.conditioning import CellMapEncoder, CellVectorEncoder, ConditionConfig, PlacedCells
from sge2hist.models.image.preconditioning import DiffusionConfig, NoiseModel, expand
from sge2hist.models.image.samplers import (
    SAMPLERS,
    Denoise,
    Evaluation,
    consistency_sigmas,
    evaluations,
    guided,
    in_interval,
    karras_sigmas,
    sample,
)
from sge2hist.models.image.unet import UNet, UNetConfig


@dataclass(frozen=True, kw_only=True)
class ImageModelConfig:
    """All of the image model."""

    autoencoder: AutoencoderConfig | None = field(default_factory=AutoencoderConfig)  # None: diffusion on pixels
    condition: ConditionConfig = field(default_factory=ConditionConfig)
    unet: UNetConfig = field(default_factory=UNetConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    image_channels: int = 3  # C: 3 for H&E, one per stain for fluorescence
    n_latent: int = 64  # width of a cell's z
    n_slides: int = 1  # slides (stains) that the model can be asked for
    own_guidance: float = (
        1.0  # weight of the guidance that the network's answers have by themselves (`distill --guidance`)
    )
    own_guidance_interval: tuple[float, float] = (0.0, 0.0)  # noise levels at which they have it


@dataclass(frozen=True, kw_only=True)
class SamplerConfig:
    """How images are drawn."""

    sampler: str = "dpmpp-2m"  # a name of SAMPLERS
    n_steps: int = 12  # steps; heun evaluates the network twice in each, the others once
    guidance: float = 1.0  # 1: the plain conditional model
    guidance_interval: tuple[float, float] = (0.8, 5.0)  # noise levels at which guidance acts
    eta: float = 0.0  # fresh noise in each step of dpmpp-2m: 0 the ODE, 1 the reverse SDE; the others have their own
    eta_above: float = 1.0  # noise level below which no fresh noise is taken: it costs detail there
    sigma_range: tuple[float, float] | None = None  # least and largest noise level (edm); None: the noise model's

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            raise ValueError(f"sampler is one of {', '.join(SAMPLERS)}; not {self.sampler!r}")
        if self.n_steps < 1:
            raise ValueError("n_steps must be at least 1")
        if not math.isfinite(self.guidance) or not math.isfinite(self.eta):
            raise ValueError("guidance and eta must be numbers")
        if not 0 <= self.guidance_interval[0] < self.guidance_interval[1]:
            raise ValueError("the noise levels of guidance must rise from 0 or more")
        if self.eta < 0 or (self.sigma_range is not None and not 0 < self.sigma_range[0] < self.sigma_range[1]):
            raise ValueError("eta must be at least 0, and the noise levels of sigma_range positive and rising")


Condition = tuple[list[Tensor] | None, Tensor]
"""What the network is told of the cells: what it reads in their map (None: of a vector alone), and a vector [B, E]."""
DECODER_NOISE_STREAM = 0x5DEECE66D
"""Sets the noise of grain apart from the noise of the latents of the same seed."""


class ImageNoise:
    """Standard normal noise for a batch in which image i depends on `seeds[i]` alone, on any device and batch size."""

    def __init__(self, seeds: Sequence[int], shape: tuple[int, ...], device: torch.device) -> None:
        self.generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        self.shape, self.device = shape, device

    def __call__(self) -> Tensor:
        """Return the next draw [B, *shape]; drawn on the CPU, so that every device sees the same numbers."""
        return torch.stack([torch.randn(self.shape, generator=g) for g in self.generators]).to(self.device)


class ImageModel(nn.Module):
    """Images of placed cells. `denoise(x, sigma, condition)` is all that samplers know of it."""

    def __init__(self, config: ImageModelConfig) -> None:
        super().__init__()
        self.config = config
        self.noise_model = NoiseModel(config.diffusion)
        self.autoencoder = Autoencoder(config.autoencoder) if config.autoencoder else None
        encoder = CellMapEncoder if config.condition.form == "map" else CellVectorEncoder
        self.condition = encoder(config.condition, n_latent=config.n_latent, n_slides=config.n_slides)
        self.unet = UNet(
            config.unet,
            image_channels=self.latent_channels,
            map_channels=self.condition.map_channels,
            vector_dim=self.condition.vector_dim,
        )
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
        """Return what the diffusion runs on, of images in [-1, 1]."""
        return self.autoencoder.encode(image_BCHW) if self.autoencoder is not None else image_BCHW

    @property
    def n_decoder_noise(self) -> int:
        """Numbers of noise per latent pixel that the decoder makes grain of."""
        return self.autoencoder.n_decoder_noise if self.autoencoder is not None else 0

    def to_image(self, latent_BLHW: Tensor, grain_BNHW: Tensor | None = None) -> Tensor:
        """Return images clamped to [-1, 1]; with their grain, when its noise [B, `n_decoder_noise`, H, W] is given."""
        image = latent_BLHW if self.autoencoder is None else self.autoencoder.decode(latent_BLHW, grain_BNHW)
        return image.float().clamp(-1, 1)

    def encode_cells(self, cells: PlacedCells, latent_hw: tuple[int, int]) -> Condition:
        """Return the condition of a canvas of `latent_hw` latent pixels, the same for all noise levels."""
        map_BDHW, vector_BE = self.condition(cells, latent_hw)
        return None if map_BDHW is None else self.unet.read_map(map_BDHW), vector_BE

    def denoise(self, x_BLHW: Tensor, sigma_B: Tensor, condition: Condition) -> Tensor:
        """Return the expected clean latent of x = x0 + sigma n, float32."""
        c = self.noise_model.scalings(sigma_B)
        raw = self.unet(expand(c.c_in_B) * x_BLHW, c.c_noise_B, *condition)
        return expand(c.c_skip_B) * x_BLHW + expand(c.c_out_B) * raw.float()

    def loss(self, latent_BLHW: Tensor, cells: PlacedCells, generator: torch.Generator) -> Tensor:
        """Return the squared error of the raw network output, [B]: of F for edm, of the noise for ddpm.

        In units of the raw output the edm loss weight lambda(sigma) c_out^2 is 1 (Karras et al. 2022, table 1).
        """
        device = latent_BLHW.device
        sigma_B = self.noise_model.sample_sigmas(len(latent_BLHW), generator).to(device)
        noise = torch.randn(latent_BLHW.shape, generator=generator, device=generator.device).to(device)
        x = latent_BLHW + expand(sigma_B) * noise
        c = self.noise_model.scalings(sigma_B)
        condition = self.encode_cells(cells, (latent_BLHW.shape[2], latent_BLHW.shape[3]))
        raw = self.unet(expand(c.c_in_B) * x, c.c_noise_B, *condition).float()
        target = (latent_BLHW - expand(c.c_skip_B) * x) / expand(c.c_out_B)
        return (raw - target).square().mean(dim=(1, 2, 3))

    @torch.no_grad()
    def sample(
        self, cells: PlacedCells, seeds: Sequence[int], latent_hw: tuple[int, int], config: SamplerConfig
    ) -> Tensor:
        """Draw one image per seed, [B, C, H, W] in [-1, 1]; image i depends on its cells and seeds[i] alone."""
        latent_BLHW = self.sample_latents(cells, seeds, latent_hw, config)
        # a stream of its own, so that the same seed has the same tissue whatever is made of its grain
        grain = ImageNoise([seed ^ DECODER_NOISE_STREAM for seed in seeds], (self.n_decoder_noise, *latent_hw), latent_BLHW.device)
        return self.to_image(latent_BLHW, grain() if self.n_decoder_noise else None)

    @torch.no_grad()
    def sample_latents(
        self, cells: PlacedCells, seeds: Sequence[int], latent_hw: tuple[int, int], config: SamplerConfig
    ) -> Tensor:
        """As `sample`, before decoding: [B, L, h, w]."""
        device = cells.mode_B.device
        shape = (self.latent_channels, *latent_hw)
        draw = ImageNoise(seeds, shape, device)
        told = self.encode_cells(cells, latent_hw)
        weight, sigmas = self.guidance_weight(config), self.sigmas(config)
        plain = all(weight(step.sigma) == 1 for step in self.evaluations(config))
        untold = told if plain else self.encode_cells(cells.unconditional(), latent_hw)

        def denoiser(condition: Condition) -> Denoise:
            return lambda x, sigma: self.denoise(x, torch.full((len(x),), sigma, device=device), condition)

        denoise = guided(denoiser(told), denoiser(untold), weight)
        return sample(denoise, draw() * sigmas[0], self.evaluations(config), draw)

    def guidance_weight(self, config: SamplerConfig) -> Callable[[float], float]:
        """Return the weight of the network's answer at a noise level against its answer without cells.

        That is the weight asked for over the one that the answers have by themselves: with u the answer without cells and c the
        plain one, u + w (c - u) = u + (w / v) (c' - u) for c' = u + v (c - u).
        """
        asked = in_interval(config.guidance, config.guidance_interval)
        own = in_interval(self.config.own_guidance, self.config.own_guidance_interval)
        return lambda sigma: asked(sigma) / own(sigma)

    def evaluations(self, config: SamplerConfig) -> list[Evaluation]:
        """Return the evaluations of the network that draw an image."""
        return evaluations(config.sampler, self.sigmas(config), config.eta, config.eta_above)

    def sigmas(self, config: SamplerConfig) -> list[float]:
        """Return the sampler's noise levels: Karras's for edm; for ddpm every (T / n_steps)-th of its own, then 0."""
        sigmas_T = self.noise_model.sigmas_T
        if config.sampler == "consistency":
            return consistency_sigmas(config.n_steps, self.noise_model.sigma_range[1])
        if sigmas_T is None:
            return karras_sigmas(config.n_steps, *(config.sigma_range or self.noise_model.sigma_range))
        index = torch.linspace(len(sigmas_T) - 1, 0, config.n_steps).round().long()
        return [*sigmas_T[index].tolist(), 0.0]
