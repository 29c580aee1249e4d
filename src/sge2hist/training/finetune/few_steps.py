"""Few evaluations: a trained model -> one whose sampler takes a few guided steps, tuned against a discriminator of latents.

Two stages. (1) Guidance distillation at the noise levels of the short sampler. (2) The short sampler itself runs from noise to
the latents that it generates, and the network is trained through its last evaluations against a discriminator that compares these
latents with those of real crops: adversarial distillation in latent space with features of the teacher (Sauer et al. 2024, "Fast
high-resolution image synthesis with latent adversarial diffusion distillation"), on the sampler's own output. The discriminator
reads, under the same cells, what the teacher's network makes of noised latents on its way down, and is shown real latents under
the cells of another crop as wrong ones, so that images follow their cells.

Shape letters: B images, W features, h w pixels of a resolution of the network.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from sge2hist.data.errors import InputError, refuse_wrong_types
from sge2hist.data.paired import PairedDataset
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.image.conditioning import PlacedCells
from sge2hist.models.image.denoiser import Condition, LearntGuidance
from sge2hist.models.image.image_model import ImageModel
from sge2hist.models.image.preconditioning import expand
from sge2hist.models.image.samplers import SamplerConfig, State
from sge2hist.models.joint_model import JointModel
from sge2hist.training.config import check_at_least_one, check_rate_and_seed
from sge2hist.training.finetune import guidance_distillation
from sge2hist.training.finetune.base import distillation_plan, tune
from sge2hist.training.finetune.guidance_distillation import (
    GuidanceDistillation,
    GuidanceDistillationConfig,
    check_has_guidance,
)
from sge2hist.training.image.conditioning import ConditioningCells
from sge2hist.training.image.patches import PatchSource
from sge2hist.training.image.stages import SHARE_ANYWHERE, SHARE_CENTRE
from sge2hist.training.loop import Stage, StagePlan, stage_generator, stage_rng
from sge2hist.training.run import TrainingRun
from sge2hist.training.sufficiency import USEFUL_SHARE

NAME = "few_steps"
LAST_LEVEL = 0.45
"""Noise level of the last evaluation: below it a latent has no more detail than the decoder's own noise hides."""
WARMUP = 0.12  # share of the stage in which the discriminator alone learns
WRONG_CELLS = 0.2  # weight of real latents under other cells, of what the discriminator is to refuse
LEVEL_MEDIAN, LEVEL_LOG_STD, LEVEL_RANGE = 0.35, 1.0, (0.05, 4.0)  # of the noise that the discriminator sees through
WIDTH = 64  # of the heads
N_SCALING = 4  # batches of real crops that give the scale of the features


@dataclass(frozen=True, kw_only=True)
class FewStepsConfig:
    """Settings of a distillation to few guided evaluations."""

    evaluations: int = 4  # of the network per image
    guidance_steps: int = 250  # of the guidance distillation
    guidance_rate: float = 5e-4  # its learning rate
    steps: int = 280  # of the adversarial tuning
    learning_rate: float = 4e-5
    discriminator_rate: float = 25.0  # learning rate of the discriminator over that of the network
    backpropagated: int = 2  # last evaluations through which gradients flow
    batch: int = 20
    seed: int = 0
    exclude: str | None = None  # GeoJSON of areas of the slides from which no image is taken

    @refuse_wrong_types
    def __post_init__(self) -> None:
        check_at_least_one(
            evaluations=self.evaluations,
            guidance_steps=self.guidance_steps,
            steps=self.steps,
            backpropagated=self.backpropagated,
        )
        if self.batch < 2:
            raise InputError(found=f"batch = {self.batch}", expected="2 or more: crops lend each other their cells")
        check_rate_and_seed(self.learning_rate, self.seed)
        check_rate_and_seed(self.guidance_rate, self.seed)


class LatentDiscriminator(nn.Module):
    """Logits "real" for the features of each resolution: of every pixel, and of the mean and spread over the image."""

    def __init__(self, mean: list[Tensor], std: list[Tensor]) -> None:
        """`mean`, `std`: of each feature over real crops, [W] per resolution."""
        super().__init__()
        self.n_resolutions = len(mean)
        for i, (m, s) in enumerate(zip(mean, std, strict=True)):
            self.register_buffer(f"mean_{i}", m)
            self.register_buffer(f"std_{i}", s)
        self.pixels = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(len(m), WIDTH, 1),
                nn.SiLU(),
                nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
                nn.SiLU(),
                nn.Conv2d(WIDTH, 1, 1),
            )
            for m in mean
        )
        self.whole = nn.ModuleList(
            nn.Sequential(nn.Linear(2 * len(m), WIDTH), nn.SiLU(), nn.Linear(WIDTH, 1)) for m in mean
        )

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Return logits [B, 1, h, w] and [B, 1] for each resolution."""
        logits = []
        for i, (pixels, whole) in enumerate(zip(self.pixels, self.whole, strict=True)):
            mean, std = (getattr(self, f"{name}_{i}")[None, :, None, None] for name in ("mean", "std"))
            h = (features[i] - mean) / std
            logits += [pixels(h), whole(torch.cat([h.mean((2, 3)), (h.var((2, 3)) + 1e-4).sqrt()], 1))]
        return logits


def hinge(logits: list[Tensor], sign: float) -> Tensor:
    """max(0, 1 - sign x logit), mean over each grid and over the grids (Lim and Ye 2017)."""
    return torch.stack([F.relu(1 - sign * grid).mean() for grid in logits]).mean()


def of_next_crop(cells: PlacedCells) -> PlacedCells:
    """The cells of crop i on crop i + 1, those of the last on the first."""
    n = len(cells.mode_B)
    image_M = (cells.image_M + 1) % n
    order_M = torch.argsort(image_M, stable=True)
    return replace(
        cells,
        z_MZ=cells.z_MZ[order_M],
        depth_M=cells.depth_M[order_M],
        xy_um_M2=cells.xy_um_M2[order_M],
        image_M=image_M[order_M],
        mode_B=cells.mode_B.roll(1),
        slide_B=cells.slide_B.roll(1),
        outline_MV2=None if cells.outline_MV2 is None else cells.outline_MV2[order_M],
    )


class SamplerTuning(Stage):
    """The image network and the condition encoder, through the last evaluations of a sampler, against a discriminator."""

    def __init__(
        self,
        model: JointModel,
        teacher: ImageModel,
        source: PatchSource,
        cells: ConditioningCells,
        config: FewStepsConfig,
        run: TrainingRun,
        sampler: SamplerConfig,
    ) -> None:
        """`teacher`: whose features the discriminator reads; `sampler`: whose output is compared."""
        super().__init__()
        self.model, self._source, self._cells, self._config = model, source, cells, config
        self._device = run.accelerator.device
        self._teacher = copy.deepcopy(teacher).requires_grad_(False).to(self._device)
        self._steps = teacher.denoiser.evaluations(sampler)
        self._share = 0.0
        model.image.unet.requires_grad_(True)
        model.image.condition.requires_grad_(True)
        mean, std = self._feature_scales()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.discriminator = LatentDiscriminator(mean, std).to(self._device)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The networks that generate, and the discriminator."""
        image = self.model.image
        return [
            {"params": [*image.unet.parameters(), *image.condition.parameters()], "scale": 1.0},
            {"params": list(self.discriminator.parameters()), "scale": self._config.discriminator_rate},
        ]

    def own_state(self) -> dict[str, Tensor]:
        """The discriminator, which no model folder keeps."""
        return self.discriminator.state_dict()

    def load_own_state(self, state: dict[str, Tensor]) -> None:
        """Restore the discriminator."""
        self.discriminator.load_state_dict(state)

    def advance(self, share: float) -> None:
        """Note how far the stage is: the discriminator begins alone."""
        self._share = share

    def forward(self, step: int) -> dict[str, Tensor]:
        """Return the loss terms of a step."""
        latent, cells, generator = self._crops(step)
        hw = (latent.shape[2], latent.shape[3])
        alone = self._share < WARMUP
        made = self._sampled(latent, cells, generator, 0 if alone else self._config.backpropagated)
        sigma_B = self._levels(len(latent), generator)
        noise = expand(sigma_B) * self._noise(latent, generator)
        with torch.no_grad():
            own, other = (self._teacher.encode_cells(of, hw) for of in (cells, of_next_crop(cells)))
            real = self._features(latent + noise, sigma_B, own)
            wrong = self._features(latent + noise, sigma_B, other)
        of_made = self._features(made + noise, sigma_B, own)
        refused = (1 - WRONG_CELLS) * hinge(self.discriminator([f.detach() for f in of_made]), -1.0)
        refused = refused + WRONG_CELLS * hinge(self.discriminator(wrong), -1.0)
        discrimination = hinge(self.discriminator(real), 1.0) + refused
        if alone:
            return {"loss": discrimination, "discriminator": discrimination.detach()}
        frozen = {name: value.detach() for name, value in self.discriminator.named_parameters()}
        logits = functional_call(self.discriminator, frozen, (of_made,))
        adversarial = -torch.stack([grid.mean() for grid in logits]).mean()
        return {
            "loss": adversarial + discrimination,
            "adversarial": adversarial.detach(),
            "discriminator": discrimination.detach(),
        }

    def _crops(self, step: int, stream: str = NAME) -> tuple[Tensor, PlacedCells, torch.Generator]:
        """Latents of real crops, their cells, and the generator of the step's other noise."""
        config = self._config
        rng, generator = stage_rng(config.seed, stream, step), stage_generator(config.seed, f"{stream}/noise", step)
        crops, cells = self._cells.on_crops(
            self._source,
            config.batch,
            rng,
            generator,
            share_anywhere=SHARE_ANYWHERE,
            share_none=0.0,
            share_centre=SHARE_CENTRE,
        )
        with torch.no_grad():
            return self.model.image.to_latent(crops.image_BCHW.to(self._device)), cells, generator

    def _sampled(self, like: Tensor, cells: PlacedCells, generator: torch.Generator, n_gradient: int) -> Tensor:
        """Latents that the sampler generates for the cells, with gradients through its last `n_gradient` evaluations."""
        image, hw = self.model.image, (like.shape[2], like.shape[3])
        state: State = (self._steps[0].sigma * self._noise(like, generator),)
        conditions: dict[bool, Condition] = {}
        for i, step in enumerate(self._steps):
            learns = i >= len(self._steps) - n_gradient
            with torch.set_grad_enabled(learns):
                if learns not in conditions:
                    conditions[learns] = image.encode_cells(cells, hw)
                denoised = image.denoiser.given(conditions[learns])(state[0], step.sigma)
                state = step.update(state, denoised, lambda: self._noise(like, generator))
        return state[0]

    def _features(self, x: Tensor, sigma_B: Tensor, condition: Condition) -> list[Tensor]:
        """What the teacher's network makes of noised latents on its way down, float32 [B, W, h, w] each."""
        scalings = self._teacher.denoiser.noise_model.scalings(sigma_B)
        found = self._teacher.unet.features(expand(scalings.c_in_B) * x, scalings.c_noise_B, *condition)
        return [feature.float() for feature in found]

    @torch.no_grad()
    def _feature_scales(self) -> tuple[list[Tensor], list[Tensor]]:
        """Mean and standard deviation of each feature over real crops; a function of the seed and of frozen weights."""
        batches = []
        for step in range(N_SCALING):
            latent, cells, generator = self._crops(step, f"{NAME}/scales")
            sigma_B = self._levels(len(latent), generator)
            condition = self._teacher.encode_cells(cells, (latent.shape[2], latent.shape[3]))
            batches.append(
                self._features(latent + expand(sigma_B) * self._noise(latent, generator), sigma_B, condition)
            )
        pooled = [torch.cat(of) for of in zip(*batches, strict=True)]
        return [f.mean((0, 2, 3)) for f in pooled], [f.std((0, 2, 3)) + 1e-3 for f in pooled]

    def _levels(self, n: int, generator: torch.Generator) -> Tensor:
        """Noise levels [n] at which the discriminator compares."""
        normal = torch.randn(n, generator=generator)
        return (math.log(LEVEL_MEDIAN) + LEVEL_LOG_STD * normal).exp().clamp(*LEVEL_RANGE).to(self._device)

    def _noise(self, like: Tensor, generator: torch.Generator) -> Tensor:
        return torch.randn(like.shape, generator=generator, device=generator.device).to(self._device)


def short_sampler(sampler: SamplerConfig, evaluations: int) -> SamplerConfig:
    """The probability-flow ODE in so many steps, from the highest level of `sampler` to `LAST_LEVEL`; guidance as there."""
    highest = (sampler.sigma_range or (0.0, 80.0))[1]
    return replace(
        sampler, sampler="dpmpp-2m", n_steps=evaluations, eta=0.0, sigma_range=(min(LAST_LEVEL, highest / 2), highest)
    )


def distill_few_steps(
    trained: ModelBundle,
    dataset: PairedDataset,
    output: str | Path,
    config: FewStepsConfig | None = None,
    *,
    overwrite: bool = False,
    log: Callable[[str], None] = print,
) -> ModelBundle:
    """Train a copy of `trained` to generate in a few guided evaluations, and write it to the folder `output`.

    The same call resumes a run that was stopped.

    Raises
    ------
    InputError
        If `output` holds something else, if the model's sampler has no guidance to learn, if the dataset lacks genes of it.
    """
    config = config or FewStepsConfig()
    check_has_guidance(trained)
    teacher, sampler = trained.model.image, short_sampler(trained.config.sampler, config.evaluations)
    guidance = GuidanceDistillationConfig(
        steps=config.guidance_steps,
        learning_rate=config.guidance_rate,
        batch=config.batch,
        seed=config.seed,
        exclude=config.exclude,
    )
    plan = StagePlan(
        name=NAME,
        n_steps=config.steps,
        learning_rate=config.learning_rate,
        items_per_step=config.batch,
        useful_steps=round(USEFUL_SHARE * FewStepsConfig.steps),
        betas=(0.5, 0.99),
        clip_norm=2.0,
        clip_apart=True,
        decay=0.33,
        ema=True,
        refresh_every=min(100, config.steps),
    )
    return tune(
        trained,
        dataset,
        Path(output),
        config,
        [
            (
                distillation_plan(guidance_distillation.NAME, guidance, default_steps=FewStepsConfig.guidance_steps),
                lambda model, source, cells, run: GuidanceDistillation(
                    model, teacher, source, cells, guidance, run, sampler
                ),
            ),
            (
                plan,
                lambda model, source, cells, run: SamplerTuning(model, teacher, source, cells, config, run, sampler),
            ),
        ],
        sampler=sampler,
        learnt_guidance=LearntGuidance(weight=sampler.guidance, interval=sampler.guidance_interval),
        overwrite=overwrite,
        log=log,
    )
