"""A trained model -> one whose images have the detail of real ones: adversarial fine-tuning of the image decoder alone.

A decoder trained on squared and absolute errors averages over what it cannot know, so nuclei are soft and some are lost. Here a
discriminator compares real crops with decoded ones, of latents of real crops and of generated latents. Detail that latents do
not determine comes from noise that the decoder learns to read (decoder noise). Latents, and all that follows the cells, stay.

Shape letters: B images, C channels, H W pixels, N generated latents of L channels and h x w.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from sge2hist.data.errors import InputError, refuse_wrong_types
from sge2hist.data.paired import PairedDataset
from sge2hist.devices import fast_arithmetic
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.image.autoencoder import Autoencoder
from sge2hist.models.image.conditioning import MODE_ALL
from sge2hist.models.joint_model import JointModel
from sge2hist.training.budget import Clock, TimeBudget
from sge2hist.training.config import check_at_least_one, check_one_budget, check_rate_and_seed
from sge2hist.training.finetune.autoencoder import autoencoder_of, with_autoencoder, without_fitted
from sge2hist.training.finetune.base import tune
from sge2hist.training.image.conditioning import ConditioningCells
from sge2hist.training.image.patches import PatchSource
from sge2hist.training.image.stages import SHARE_ANYWHERE
from sge2hist.training.loop import UNLIMITED_STEPS, Stage, StagePlan, stage_generator, stage_rng
from sge2hist.training.run import TrainingRun
from sge2hist.training.sufficiency import USEFUL_SHARE

NAME = "sharpen"
SLOPE = 0.2  # of leaky rectifiers below zero
DETAIL = 4.0  # weight of the detail channels over the image channels in the input of the discriminator
FIRST_NOISE_WEIGHT = 0.5  # of the usual first weights: decoder noise then changes some two grey levels
PERTURBATION_STD = 0.05  # of the noise that the logits should hardly depend on
GENERATION_BATCH, LOG_EVERY = 64, 1024  # images
STEPS = 8000


class Discriminator(nn.Module):
    """Logits "this is real" on two grids, of every 4 and every 8 px (a patch discriminator, Isola et al. 2017).

    Decoded images lack fine detail, about 1 % of the variance of an image. The input therefore carries the detail as
    separate channels, amplified by `DETAIL`.
    """

    def __init__(self, image_channels: int, width: int = 96) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [
                nn.Conv2d(8 * image_channels, width, 3, padding=1),
                nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
                nn.Conv2d(2 * width, 2 * width, 3, padding=1),
                nn.Conv2d(2 * width, 3 * width, 4, stride=2, padding=1),
                nn.Conv2d(3 * width, 3 * width, 3, padding=1),
            ]
        )
        self.fine, self.coarse = nn.Conv2d(2 * width, 1, 1), nn.Conv2d(3 * width, 1, 1)
        for layer in self.layers:
            nn.init.kaiming_normal_(layer.weight, a=SLOPE)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        for head in (self.fine, self.coarse):
            nn.init.normal_(head.weight, std=0.02)
            nn.init.zeros_(head.bias)  # type: ignore[arg-type]
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, image_BCHW: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return logits [B, 1, H/4, W/4] and [B, 1, H/8, W/8] in float32, and the features of every layer."""
        detail = image_BCHW - F.avg_pool2d(image_BCHW, 5, 1, 2, count_include_pad=False)
        h = F.pixel_unshuffle(torch.cat([image_BCHW, DETAIL * detail], 1), 2)
        h = h.contiguous(memory_format=torch.channels_last)
        features = []
        for layer in self.layers:
            h = F.leaky_relu(layer(h), SLOPE)
            features.append(h)
        return [self.fine(features[2]).float(), self.coarse(features[4]).float()], features


def non_saturating_loss(logits: list[Tensor]) -> Tensor:
    """-log of the probability "real", mean over a grid, summed over grids (Goodfellow et al. 2014, non-saturating)."""
    return torch.stack([F.softplus(-grid).mean() for grid in logits]).sum()


def discriminator_loss(real: list[Tensor], decoded: list[Tensor]) -> Tensor:
    """Cross-entropy of the discriminator: real crops are real, decoded ones are not."""
    return non_saturating_loss(real) + non_saturating_loss([-grid for grid in decoded])


def smoothness(real: list[Tensor], perturbed: list[Tensor]) -> Tensor:
    """Squared change of the logits of real images when noise is added to them.

    For small noise of variance s^2 it is s^2 |gradient|^2: the R1 penalty (Mescheder et al. 2018) without second derivatives
    (Lin et al. 2025, "Diffusion adversarial post-training").
    """
    return torch.stack([(a - b).square().mean() for a, b in zip(real, perturbed, strict=True)]).sum()


def feature_distance(decoded: list[Tensor], real: list[Tensor]) -> Tensor:
    """Mean absolute difference of discriminator features over their mean size (feature matching, Wang et al. 2018)."""
    parts = [
        (a.float() - b.float()).abs().mean() / b.float().abs().mean().clamp_min(1e-6)
        for a, b in zip(decoded, real, strict=True)
    ]
    return torch.stack(parts).mean()


@dataclass(frozen=True, kw_only=True)
class SharpenConfig:
    """Settings of an adversarial fine-tuning of the decoder."""

    steps: int | None = None  # of decoder and discriminator; None: 8000, or as many as the time allows
    hours: float | None = None  # time budget
    learning_rate: float = 2e-4  # of the decoder
    batch: int = 16  # real crops that are encoded and decoded per step, and as many generated latents
    crop_px: int | None = None  # side of the crops; None: as the model was trained
    n_generated: int = 4096  # latents that are generated before the first step
    discriminator_rate: float = 4.0  # learning rate of the discriminator over that of the decoder
    discriminator_width: int = 96  # channels of its first layer
    adversarial: float = 0.05  # weight of the adversarial loss
    features: float = 0.05  # weight of feature matching
    generated_only: bool = (
        False  # the discriminator sees generated images alone; real crops give the reconstruction error
    )
    anchor_px: int = 4  # side of the squares over which the anchor loss averages
    anchor: float = 1.0  # weight of the anchor loss: change of the mean of each square of generated images
    decoder_noise_channels: int = 0  # channels of decoder noise to add; a decoder that reads noise keeps its own
    latent_noise: float = 0.2  # standard deviation of the noise on latents of real crops
    penalty: float = 0.3  # weight of the smoothness of the discriminator
    seed: int = 0
    exclude: str | None = None  # GeoJSON of areas of the slides from which no image is taken

    @refuse_wrong_types
    def __post_init__(self) -> None:
        check_at_least_one(
            steps=self.steps,
            batch=self.batch,
            n_generated=self.n_generated,
            crop_px=self.crop_px,
            discriminator_width=self.discriminator_width,
        )
        check_one_budget(self.hours, self.steps)
        if self.decoder_noise_channels < 0:
            raise InputError(
                found=f"decoder_noise_channels = {self.decoder_noise_channels}", expected="0 or more channels of noise"
            )
        check_rate_and_seed(self.learning_rate, self.seed)


DECODER_NOISE: dict[str, Any] = {
    "generated_only": True,
    "anchor_px": 8,
    "decoder_noise_channels": 4,
    "latent_noise": 0.1,
}
"""Settings of a second fine-tuning, in which a sharp decoder learns to make fine texture of noise."""


class Sharpening(Stage):
    """The decoder against a discriminator; both take their steps together, each on its own loss."""

    def __init__(
        self,
        model: JointModel,
        source: PatchSource,
        cells: ConditioningCells,
        before: Autoencoder,
        config: SharpenConfig,
        run: TrainingRun,
    ) -> None:
        """`before`: the autoencoder before this training, which a model from a checkpoint no longer has."""
        super().__init__()
        self._autoencoder = autoencoder_of(model)
        self._source, self._cells, self._config = source, cells, config
        self._device = device = run.accelerator.device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            discriminator = Discriminator(self._autoencoder.config.image_channels, config.discriminator_width)
        self.discriminator = discriminator.to(device)
        self.model = model
        self._before = copy.deepcopy(before).requires_grad_(False).to(device)
        for part in self._trained_parts():
            part.requires_grad_(True)
        self._generated_NLHW = self._generate_all(run.log)

    def _trained_parts(self) -> list[nn.Module]:
        noise_proj = self._autoencoder.noise_proj
        return [self._autoencoder.decoder, *([] if noise_proj is None else [noise_proj])]

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Decoder and discriminator."""
        return [
            {"params": [p for part in self._trained_parts() for p in part.parameters()], "scale": 1.0},
            {"params": list(self.discriminator.parameters()), "scale": self._config.discriminator_rate},
        ]

    def own_state(self) -> dict[str, Tensor]:
        """The discriminator, which no model folder keeps."""
        return self.discriminator.state_dict()

    def load_own_state(self, state: dict[str, Tensor]) -> None:
        """Restore the discriminator."""
        self.discriminator.load_state_dict(state)

    def _generate_all(self, log: Callable[[str], None]) -> Tensor:
        """All generated latents of the training; they depend on frozen weights, so a resumed run has the same."""
        n, parts = self._config.n_generated, []
        for first in range(0, n, GENERATION_BATCH):
            if first % LOG_EVERY == 0:
                log(f"generating images to learn from: {first:,} of {n:,}")
            parts.append(self._generate(first, min(GENERATION_BATCH, n - first)))
        return torch.cat(parts)

    @torch.no_grad()
    def _generate(self, first: int, n: int) -> Tensor:
        """Latents [n, L, h, w] of the model for crops of training cells, float32 on the CPU."""
        seed, image = self._config.seed, self.model.image
        rng = stage_rng(seed, f"{NAME}/drawn", first)
        crops = self._source.batch(n, rng, share_anywhere=SHARE_ANYWHERE)
        generator = stage_generator(seed, f"{NAME}/lone", first)
        cells = self._cells.place(crops, np.full(n, MODE_ALL), rng.random(n) < 0.5, generator)
        side = self._source.patch_px // image.downsampling
        seeds = [int(s) for s in rng.integers(2**62, size=n)]
        with fast_arithmetic(self._device):
            return image.sample_latents(cells, seeds, (side, side), self.model.config.sampler).float().cpu()

    def forward(self, step: int) -> dict[str, Tensor]:
        """Return the loss terms of a step."""
        config, autoencoder = self._config, self._autoencoder
        rng = stage_rng(config.seed, NAME, step)
        generator = stage_generator(config.seed, f"{NAME}/noise", step)
        n = config.batch
        real = self._source.batch(2 * n, rng, share_anywhere=SHARE_ANYWHERE).image_BCHW.to(self._device)
        rows = torch.from_numpy(rng.integers(len(self._generated_NLHW), size=n))
        generated = self._generated_NLHW[rows].to(self._device)
        with torch.no_grad():
            latent = autoencoder.encode(real[:n])
            latent = latent + config.latent_noise * _noise(latent, generator)
            anchor_means = F.avg_pool2d(self._before.decode(generated), config.anchor_px)
        decoder_noise = _noise(generated.new_empty(n, autoencoder.n_decoder_noise, *generated.shape[2:]), generator)
        of_real, of_generated = autoencoder.decode(latent), autoencoder.decode(generated, decoder_noise)
        decoded = of_generated if config.generated_only else torch.cat([of_real, of_generated])

        logits, _ = self.discriminator(torch.cat([real, decoded.detach()]))
        perturbed, _ = self.discriminator(real + PERTURBATION_STD * _noise(real, generator))
        real_logits, decoded_logits = ([grid[part] for grid in logits] for part in (slice(2 * n), slice(2 * n, None)))
        discrimination = discriminator_loss(real_logits, decoded_logits)
        discrimination = discrimination + config.penalty * smoothness(real_logits, perturbed)

        frozen = {name: value.detach() for name, value in self.discriminator.named_parameters()}
        logits, features = functional_call(self.discriminator, frozen, (decoded,))
        error = autoencoder.error(of_real, real[:n])
        adversarial = non_saturating_loss(logits)
        matching = torch.zeros((), device=self._device)
        if not config.generated_only:
            with torch.no_grad():
                _, real_features = self.discriminator(real[:n])
            matching = feature_distance([layer[:n] for layer in features], real_features)
        anchor = (F.avg_pool2d(of_generated, config.anchor_px) - anchor_means).abs().mean()
        decoding = error + config.adversarial * adversarial + config.features * matching + config.anchor * anchor
        return {
            "loss": decoding + discrimination,
            "reconstruction": error.detach(),
            "adversarial": adversarial.detach(),
            "features": matching.detach(),
            "anchor": anchor.detach(),
            "discriminator": discrimination.detach(),
        }


def _noise(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, device=generator.device).to(like.device)


def with_decoder_noise(trained: ModelBundle, channels: int, seed: int) -> ModelBundle:
    """The same model with a decoder that reads `channels` of noise, with small weights; itself where it reads some already."""
    if channels == 0 or autoencoder_of(trained.model).noise_proj is not None:
        return trained
    found = with_autoencoder(trained, seed=seed, decoder_noise_channels=channels)
    noise_proj = autoencoder_of(found.model).noise_proj
    assert noise_proj is not None
    with torch.no_grad():
        for name, value in noise_proj.named_parameters():
            value.mul_(FIRST_NOISE_WEIGHT if name == "weight" else 0.0)
    return found


def sharpen(
    trained: ModelBundle,
    dataset: PairedDataset,
    output: str | Path,
    config: SharpenConfig | None = None,
    *,
    overwrite: bool = False,
    log: Callable[[str], None] = print,
    clock: Clock | None = None,
) -> ModelBundle:
    """Fine-tune the decoder of a copy of `trained` against a discriminator, on the training cells of `dataset`.

    The model is written to the folder `output`; the same call resumes a run that was stopped. With one seed it generates the
    same tissue as `trained`, with other detail. A detail model and a correction of its images are removed: they fitted the
    decoder before. `clock` counts the seconds that a time budget has used; default: from now on.

    Raises
    ------
    InputError
        If `output` holds something else, if the model has no decoder or is of the published kind, if the dataset lacks genes.
    """
    config = config or SharpenConfig()
    trained = without_fitted(trained)
    before = autoencoder_of(trained.model)
    trained = with_decoder_noise(trained, config.decoder_noise_channels, config.seed)
    budget = TimeBudget(total_s=None if config.hours is None else config.hours * 3600, clock=clock or Clock())
    n_steps = config.steps or STEPS
    plan = StagePlan(
        name=NAME,
        n_steps=n_steps if budget.total_s is None else UNLIMITED_STEPS,
        learning_rate=config.learning_rate,
        useful_steps=round(USEFUL_SHARE * STEPS),
        items_per_step=2 * config.batch,
        betas=(0.5, 0.99),
        clip_norm=10.0,
        clip_apart=True,
        decay=0.4,
        ema=True,
        refresh_every=min(100, n_steps),
    )
    return tune(
        trained,
        dataset,
        Path(output),
        config,
        [(plan, lambda model, source, cells, run: Sharpening(model, source, cells, before, config, run))],
        overwrite=overwrite,
        log=log,
        budget=budget,
        crop_px=config.crop_px,
    )
