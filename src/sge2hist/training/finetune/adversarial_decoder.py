"""A trained model -> one whose pictures have the detail of real ones: adversarial training of the image decoder alone.

A decoder trained on squared and absolute errors leaves out what it cannot know, so nuclei are soft and some are lost. Here a
critic compares what it decodes, of real crops and of what the network draws, with real crops. What is left to chance, the decoder
makes of noise that it learns to read (grain). Latents stay as they are, and so does all that follows the cells.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from sge2hist.data.errors import InputError
from sge2hist.data.paired import PairedDataset
from sge2hist.devices import fast_arithmetic
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.image.autoencoder import Autoencoder
from sge2hist.models.image.conditioning import MODE_ALL
from sge2hist.models.joint_model import JointModel
from sge2hist.training.config import check_rate_and_seed
from sge2hist.training.finetune.base import tune
from sge2hist.training.image.conditioning import ConditioningCells
from sge2hist.training.image.patches import PatchSource
from sge2hist.training.image.stages import SHARE_ANYWHERE
from sge2hist.training.loop import Stage, StagePlan, stage_generator, stage_rng
from sge2hist.training.run import TrainingRun

NAME = "sharpen"
FIRST_GRAIN = 0.5  # of the usual first weights: some two grey levels
NUDGE = 0.05  # standard deviation of the noise that a critic should hardly mind
DRAWN_AT_ONCE, SAID_EVERY = 64, 1024  # images
STEPS = 8000


@dataclass(frozen=True, kw_only=True)
class SharpenConfig:
    """One sharpening."""

    steps: int | None = None  # of decoder and critic; None: 8000, or as many as the time allows
    hours: float | None = None  # time budget
    learning_rate: float = 2e-4
    batch: int = 16  # real crops that are encoded and decoded per step, and as many drawn ones
    n_generated: int = 4096  # latents that the network draws first
    discriminator_rate: float = 4.0  # learning rate of the critic over that of the decoder
    discriminator_width: int = 96
    adversarial: float = 0.05  # weight of the critic's word
    features: float = 0.05  # weight of the critic's features
    generated_only: bool = False  # the critic judges drawn images alone, and real crops teach by their error
    anchor_px: int = 4  # side of the squares whose mean, in drawn images, is to stay what it was
    anchor: float = 1.0  # weight of the difference from the decoder as it was, of drawn latents, means of squares
    grain: int = 0  # channels of noise that the decoder learns to read; a decoder that reads grain keeps its own
    latent_noise: float = 0.2  # standard deviation of the noise on latents of real crops
    penalty: float = 0.3  # weight of the critic's smoothness
    seed: int = 0
    exclude: str | None = None  # GeoJSON of parts of the slides that no image is taken from

    def __post_init__(self) -> None:
        if any(
            value is not None and not 0 < value < math.inf
            for value in (self.steps, self.hours, self.batch, self.n_generated)
        ):
            raise InputError(found="a sharpening of no length", expected="steps, hours, batch and n_generated above 0")
        if self.grain < 0:
            raise InputError(found=f"grain = {self.grain}", expected="0 or more channels of noise")
        if self.steps is not None and self.hours is not None:
            raise InputError(found="--hours and --steps", expected="one of the two")
        check_rate_and_seed(self.learning_rate, self.seed)


GRAIN: dict[str, Any] = {"generated_only": True, "anchor_px": 8, "grain": 4, "latent_noise": 0.1}
"""Settings of a second sharpening, which teaches a decoder that is sharp already to draw grain."""


class Sharpening(Stage):
    """The decoder against a critic; decoder and critic take their steps together, each on its own loss."""

    def __init__(
        self,
        model: JointModel,
        source: PatchSource,
        cells: ConditioningCells,
        before: Autoencoder,
        config: SharpenConfig,
        run: TrainingRun,
    ) -> None:
        """`before`: the autoencoder as it was, which a model taken from a checkpoint no longer has."""
        super().__init__()
        self._autoencoder = _autoencoder_of(model)
        self._source, self._cells, self._config = source, cells, config
        self._device = device = run.accelerator.device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.discriminator = Discriminator(self._autoencoder.config.image_channels, config.discriminator_width).to(
                device
            )
        self.model = model
        self._before = copy.deepcopy(before).requires_grad_(False).to(device)
        for part in self._trained_parts():
            part.requires_grad_(True)
        self._drawn_NLHW = self._draw_all(run.log)

    def _trained_parts(self) -> list[nn.Module]:
        reads = self._autoencoder.noise_proj
        return [self._autoencoder.decoder, *([] if reads is None else [reads])]

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Decoder and critic."""
        return [
            {"params": [p for part in self._trained_parts() for p in part.parameters()], "scale": 1.0},
            {"params": list(self.discriminator.parameters()), "scale": self._config.discriminator_rate},
        ]

    def own_state(self) -> dict[str, Tensor]:
        """The critic, which no model folder keeps."""
        return self.discriminator.state_dict()

    def load_own_state(self, state: dict[str, Tensor]) -> None:
        """Take the critic back."""
        self.discriminator.load_state_dict(state)

    def _draw_all(self, log: Callable[[str], None]) -> Tensor:
        """All latents that it learns from, by weights that do not move: the same after a resume."""
        n, parts = self._config.n_generated, []
        for first in range(0, n, DRAWN_AT_ONCE):
            if first % SAID_EVERY == 0:
                log(f"drawing images to learn from: {first:,} of {n:,}")
            parts.append(self._draw(first, min(DRAWN_AT_ONCE, n - first)))
        return torch.cat(parts)

    @torch.no_grad()
    def _draw(self, first: int, n: int) -> Tensor:
        """Latents [n, L, h, w] as the model draws them around training cells, float32 on the CPU."""
        seed, image = self._config.seed, self.model.image
        rng = stage_rng(seed, f"{NAME}/drawn", first)
        crops = self._source.batch(n, rng, share_anywhere=SHARE_ANYWHERE)
        generator = stage_generator(seed, f"{NAME}/lone", first)
        cells = self._cells.place(crops, np.full(n, MODE_ALL), rng.random(n) < 0.5, generator)
        side = self.model.config.patch_px // image.downsampling
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
        drawn = self._drawn_NLHW[torch.from_numpy(rng.integers(len(self._drawn_NLHW), size=n))].to(self._device)
        with torch.no_grad():
            latent = autoencoder.encode(real[:n])
            latent = latent + config.latent_noise * _noise(latent, generator)
            drawn_before = F.avg_pool2d(self._before.decode(drawn), config.anchor_px)
        grain = _noise(drawn.new_empty(n, autoencoder.n_decoder_noise, *drawn.shape[2:]), generator)
        ours, known = autoencoder.decode(latent), autoencoder.decode(drawn, grain)
        judged = known if config.generated_only else torch.cat([ours, known])

        called, _ = self.discriminator(torch.cat([real, judged.detach()]))
        nudged, _ = self.discriminator(real + NUDGE * _noise(real, generator))
        called_real, called_decoded = ([grid[part] for grid in called] for part in (slice(2 * n), slice(2 * n, None)))
        discriminator = discriminator_loss(called_real, called_decoded) + config.penalty * smoothness(
            called_real, nudged
        )

        frozen = {name: value.detach() for name, value in self.discriminator.named_parameters()}
        logits, features = functional_call(self.discriminator, frozen, (judged,))
        error = autoencoder.error(ours, real[:n])
        adversarial = non_saturating_loss(logits)
        matched = torch.zeros((), device=self._device)
        if not config.generated_only:
            with torch.no_grad():
                _, wanted = self.discriminator(real[:n])
            matched = feature_distance([layer[:n] for layer in features], wanted)
        anchor = (F.avg_pool2d(known, config.anchor_px) - drawn_before).abs().mean()
        decoder = error + config.adversarial * adversarial + config.features * matched + config.anchor * anchor
        return {
            "loss": decoder + discriminator,
            "reconstruction": error.detach(),
            "adversarial": adversarial.detach(),
            "features": matched.detach(),
            "anchor": anchor.detach(),
            "critic": discriminator.detach(),
        }


def _noise(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, device=generator.device).to(like.device)


def _autoencoder_of(model: JointModel) -> Autoencoder:
    autoencoder = model.image.autoencoder
    if autoencoder is None:
        raise InputError(found=f"a model of preset {model.config.preset}", expected="a model that draws in latents")
    return autoencoder


def with_decoder_noise(trained: ModelBundle, channels: int, seed: int) -> ModelBundle:
    """The same model with a decoder that hardly reads these channels of noise yet; itself where it reads some already."""
    autoencoder = _autoencoder_of(trained.model)
    if channels == 0 or autoencoder.noise_proj is not None:
        return trained
    shape = trained.config
    image = replace(shape.image, autoencoder=replace(autoencoder.config, decoder_noise_channels=channels))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = JointModel(replace(shape, image=image))
    own = model.state_dict()
    own["image.autoencoder.noise_proj.weight"].mul_(FIRST_GRAIN)
    own["image.autoencoder.noise_proj.bias"].zero_()
    model.load_state_dict(own | trained.model.state_dict())
    return replace(trained, model=model.eval())


def sharpen(
    trained: ModelBundle,
    dataset: PairedDataset,
    output: str | Path,
    config: SharpenConfig | None = None,
    *,
    overwrite: bool = False,
    log: Callable[[str], None] = print,
) -> ModelBundle:
    """Train the decoder of a copy of `trained` against a critic, on the training cells of `dataset`, and write it to `output`.

    The same call resumes a run that was stopped. Same seed, same tissue: only its detail differs from that of `trained`.

    Raises
    ------
    InputError
        If `output` holds something else, if the model has no decoder or is of the published kind, if the dataset lacks genes.
    """
    config = config or SharpenConfig()
    before = _autoencoder_of(trained.model)
    trained = with_decoder_noise(trained, config.grain, config.seed)
    budget = config.hours * 3600 if config.hours else None
    n_steps = config.steps or STEPS
    plan = StagePlan(
        name=NAME,
        n_steps=10**9 if budget else n_steps,
        learning_rate=config.learning_rate,
        budget_s=budget,
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
        plan,
        lambda model, source, cells, run: Sharpening(model, source, cells, before, config, run),
        overwrite=overwrite,
        log=log,
    )


# The critic of the image decoder: tells decoded crops from real ones, place by place. Used in training alone.


SLOPE = 0.2  # of leaky rectifiers below zero
DETAIL = 4.0  # how much stronger than the image its detail is shown


class Discriminator(nn.Module):
    """Logits "this is real" on two grids, of every 4 and every 8 px (a patch critic, Isola et al. 2017).

    What lacks in a decoded image is detail, a hundredth of an image's variance: so it is shown apart, and louder.
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
    """-log of the probability "real", mean over places, summed over grids (Goodfellow et al. 2014, non-saturating)."""
    return torch.stack([F.softplus(-grid).mean() for grid in logits]).sum()


def discriminator_loss(real: list[Tensor], decoded: list[Tensor]) -> Tensor:
    """The critic's own loss: real ones called real, decoded ones not."""
    return non_saturating_loss(real) + non_saturating_loss([-grid for grid in decoded])


def smoothness(real: list[Tensor], nudged: list[Tensor]) -> Tensor:
    """Squared change of the logits of real images when noise is put on them.

    For small noise of variance s^2 it is s^2 |gradient|^2: the R1 penalty (Mescheder et al. 2018) without second derivatives
    (Lin et al. 2025, "Diffusion adversarial post-training").
    """
    return torch.stack([(a - b).square().mean() for a, b in zip(real, nudged, strict=True)]).sum()


def feature_distance(decoded: list[Tensor], real: list[Tensor]) -> Tensor:
    """Mean absolute difference of the critic's features over their mean size (feature matching, Wang et al. 2018)."""
    parts = [
        (a.float() - b.float()).abs().mean() / b.float().abs().mean().clamp_min(1e-6)
        for a, b in zip(decoded, real, strict=True)
    ]
    return torch.stack(parts).mean()
