"""The image autoencoder: the latent space that the diffusion runs in.

Every layer is local, so that images of any size can be encoded and decoded tile by tile, with the same result (away from the
edge of the image). Shape letters: B images, C image channels, L latent channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sge2hist.models.image.correction import ImageCorrection
from sge2hist.models.image.detail import DetailConfig, DetailModel
from sge2hist.models.image.layers import PixelNorm, ResBlock, conv3


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """Shape of the autoencoder. It shrinks each side 4 times."""

    image_channels: int = 3  # C: 3 for H&E, one per stain for fluorescence
    latent_channels: int = 8  # L
    width: int = 64  # channels at half resolution; twice as many at a quarter
    n_blocks: int = 2  # residual blocks per resolution
    noise_std: float = (
        0.2  # noise put on the (unit-variance) latent in training, so that close latents decode to similar images
    )
    decoder_noise_channels: int = (
        0  # noise inputs of the decoder at half resolution; trained by `sharpen --decoder-noise`
    )
    noise_gate: bool = False  # decoder noise is weighted by what is decoded: smooth places stay smooth
    detail: DetailConfig | None = None  # diffused fine detail on decoded images; trained by `train-detail`
    correction: str = ""  # of decoded images: "absorbed" or "emitted" light (`correction.ImageCorrection`); empty: none
    scale_weight: float = 0.5  # of the loss on half-size latents and images, which keeps latents smooth (see `loss`)

    def __post_init__(self) -> None:
        if self.width % 8 or self.n_blocks < 1 or self.latent_channels < 1 or self.decoder_noise_channels < 0:
            raise ValueError(
                "width must be a multiple of 8; n_blocks and latent_channels at least 1; decoder_noise_channels at least 0"
            )


DOWNSAMPLING = 4
NOISE_PER_LATENT = 4  # values of each decoder noise channel per latent pixel
DECODER_REACH = 16  # latent pixels around a pixel that its decoded value may depend on, without detail


class Autoencoder(nn.Module):
    """Images in [-1, 1] <-> latents of zero mean and unit variance per channel."""

    latent_mean_L: Tensor
    latent_std_L: Tensor

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        fine, coarse = config.width, 2 * config.width

        def blocks(width: int) -> list[nn.Module]:
            return [ResBlock(width, width, norm="pixel") for _ in range(config.n_blocks)]

        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(2),
            conv3(4 * config.image_channels, fine),
            *blocks(fine),
            nn.Conv2d(fine, coarse, 2, stride=2),
            *blocks(coarse),
            PixelNorm(coarse),
            conv3(coarse, config.latent_channels),
        )
        self.decoder = nn.Sequential(
            conv3(config.latent_channels, coarse),
            *blocks(coarse),
            nn.Upsample(scale_factor=2, mode="nearest"),
            conv3(coarse, fine),
            *blocks(fine),
            PixelNorm(fine),
            nn.SiLU(),
            conv3(fine, 4 * config.image_channels),
            nn.PixelShuffle(2),
        )
        self.noise_proj = conv3(config.decoder_noise_channels, fine) if config.decoder_noise_channels else None
        self.noise_gate = nn.Conv2d(fine, 1, 1) if config.noise_gate and config.decoder_noise_channels else None
        self.detail = DetailModel(config.detail, config.image_channels, fine) if config.detail else None
        self.correction = ImageCorrection(config.image_channels, config.correction) if config.correction else None
        self.register_buffer("latent_mean_L", torch.zeros(config.latent_channels))
        self.register_buffer("latent_std_L", torch.ones(config.latent_channels))

    def encode_raw(self, image_BCHW: Tensor) -> Tensor:
        """Return the output of the encoder, before it is standardised."""
        return self.encoder(image_BCHW.contiguous(memory_format=torch.channels_last))

    def encode(self, image_BCHW: Tensor) -> Tensor:
        """Return standardised latents [B, L, H/4, W/4] in float32 of images in [-1, 1]; H and W in multiples of 4."""
        raw = self.encode_raw(image_BCHW).float()
        return (raw - self.latent_mean_L[:, None, None]) / self.latent_std_L[:, None, None]

    def decode(self, latent_BLHW: Tensor, noise_BNHW: Tensor | None = None) -> Tensor:
        """Return images in about [-1, 1] (not clamped), 4 times as large as the standardised latents.

        `noise_BNHW`: standard normal noise [B, `n_decoder_noise`, H, W] of the size of the latents, from which the
        decoder makes texture that the latents do not determine (noise inputs: Karras et al. 2019), and the detail model detail;
        None: neither.
        """
        n_texture = self.config.decoder_noise_channels * NOISE_PER_LATENT
        image, features = self.decode_plain(latent_BLHW, None if noise_BNHW is None else noise_BNHW[:, :n_texture])
        if self.detail is not None and noise_BNHW is not None:
            image = self.detail(image, features, F.pixel_shuffle(noise_BNHW[:, n_texture:], DOWNSAMPLING))
        return image if self.correction is None else self.correction(image)

    def decode_plain(self, latent_BLHW: Tensor, noise_BNHW: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As `decode`, by the decoder alone, without detail and correction; and the features at half of the resolution."""
        h = self.features_at_half(latent_BLHW)
        if self.noise_proj is not None and noise_BNHW is not None:
            noise = F.pixel_shuffle(noise_BNHW, 2).contiguous(memory_format=torch.channels_last)
            texture = self.noise_proj(noise)
            if self.noise_gate is not None:
                texture = texture * torch.sigmoid(self.noise_gate(h))
            h = h + texture
        return self.decoder[self._n_to_half :](h).float(), h

    def features_at_half(self, latent_BLHW: Tensor) -> Tensor:
        """Features of the decoder at half of the image's resolution, [B, `width`, 2 h, 2 w], to which noise is added."""
        raw = latent_BLHW * self.latent_std_L[:, None, None] + self.latent_mean_L[:, None, None]
        return self.decoder[: self._n_to_half](raw.contiguous(memory_format=torch.channels_last))

    @property
    def n_decoder_noise(self) -> int:
        """Values of noise per latent pixel that an image is decoded with: of the decoder, then of the detail model."""
        of_detail = self.config.image_channels * DOWNSAMPLING**2 if self.detail is not None else 0
        return self.config.decoder_noise_channels * NOISE_PER_LATENT + of_detail

    @property
    def reach(self) -> int:
        """Latent pixels around a pixel that its decoded value may depend on."""
        detail = self.config.detail
        return DECODER_REACH + (0 if detail is None else -(-detail.reach_px // DOWNSAMPLING))

    @property
    def _n_to_half(self) -> int:
        """Number of decoder layers up to half resolution."""
        return self.config.n_blocks + 3

    @torch.no_grad()
    def set_latent_statistics(self, image_BCHW: Tensor) -> None:
        """Standardise latents by the mean and standard deviation over these images."""
        raw = self.encode_raw(image_BCHW).float()
        self.latent_mean_L.copy_(raw.mean(dim=(0, 2, 3)))
        self.latent_std_L.copy_(raw.std(dim=(0, 2, 3)).clamp_min(1e-4))

    def loss(self, image_BCHW: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the loss and its terms: reconstruction, and reconstruction of half-size images from half-size latents.

        The second term makes latents scale as images do, which removes detail that only the decoder needs from their high
        frequencies: a diffusion model learns such latents faster (Skorokhodov et al. 2025, "Improving the diffusability
        of autoencoders"; Kouzelis et al. 2025, "EQ-VAE"). Half of the batch is enough.
        """
        raw = self.encode_raw(image_BCHW).float()
        out, reconstruction = self._reconstruction(raw, image_BCHW, generator)
        # a weak penalty on the scale of the latents, which the reconstruction alone does not determine
        loss = reconstruction + 1e-3 * (raw.square().mean(dim=(0, 2, 3)) - 1).square().mean()
        terms = {"psnr_db": -10 * torch.log10(F.mse_loss(out.clamp(-1, 1), image_BCHW).detach() / 4)}
        if self.config.scale_weight:
            half = max(1, len(raw) // 2)
            small = F.avg_pool2d(image_BCHW[:half], 2)
            _, at_half_size = self._reconstruction(F.avg_pool2d(raw[:half], 2), small, generator)
            loss = loss + self.config.scale_weight * at_half_size
            terms["half_size"] = at_half_size.detach()
        return {"loss": loss, "reconstruction": reconstruction.detach(), **terms}

    def _reconstruction(self, raw: Tensor, image_BCHW: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Decoded image of noisy latents, and its error."""
        spread_L = raw.std(dim=(0, 2, 3)).detach()
        noise = torch.randn(raw.shape, generator=generator, device=generator.device).to(raw.device)
        noisy = raw + self.config.noise_std * spread_L[:, None, None] * noise
        out = self.decoder(noisy.contiguous(memory_format=torch.channels_last)).float()
        return out, self.error(out, image_BCHW)

    @staticmethod
    def error(out_BCHW: Tensor, image_BCHW: Tensor) -> Tensor:
        """L1 + squared error + difference of image gradients (edges), one number."""
        error = out_BCHW - image_BCHW
        edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
        return error.abs().mean() + error.square().mean() + edges
