"""A trained model -> one whose decoded images get fine detail from a diffusion model (`models.image.detail`), trained here.

Real crops are encoded, noise is put on their latents as generated ones have errors, and the detail model learns what the decoder
omits. Autoencoder, image network and gene model stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sge2hist.data.errors import InputError, refuse_wrong_types
from sge2hist.data.paired import PairedDataset
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.image.detail import STEPS as SAMPLER_STEPS
from sge2hist.models.image.detail import DetailConfig
from sge2hist.models.joint_model import JointModel
from sge2hist.training.budget import Clock, TimeBudget
from sge2hist.training.config import check_at_least_one, check_one_budget, check_rate_and_seed
from sge2hist.training.finetune.autoencoder import autoencoder_of, with_autoencoder, without_fitted
from sge2hist.training.finetune.base import tune
from sge2hist.training.image.patches import PatchSource
from sge2hist.training.image.stages import SHARE_ANYWHERE
from sge2hist.training.loop import UNLIMITED_STEPS, Stage, StagePlan, stage_generator, stage_rng
from sge2hist.training.run import TrainingRun
from sge2hist.training.sufficiency import USEFUL_SHARE

NAME = "detail"
STEPS = 8000
N_STATISTICS = 64  # crops that the scale of the detail is measured on


@dataclass(frozen=True, kw_only=True)
class DetailTrainConfig:
    """Settings of the training of a detail model."""

    steps: int | None = None  # of the optimiser; None: 8000, or as many as the time allows
    hours: float | None = None  # time budget
    learning_rate: float = 1e-3
    batch: int = 16  # crops per step
    crop_px: int | None = None  # side of the crops; None: as the model was trained
    width: int = 64  # channels of the detail model
    evaluations: int = SAMPLER_STEPS.n_steps  # of the detail model per image
    latent_noise: float = 0.1  # standard deviation of the noise on latents of real crops
    seed: int = 0
    exclude: str | None = None  # GeoJSON of areas of the slides from which no image is taken

    @refuse_wrong_types
    def __post_init__(self) -> None:
        check_at_least_one(
            steps=self.steps, batch=self.batch, crop_px=self.crop_px, width=self.width, evaluations=self.evaluations
        )
        check_one_budget(self.hours, self.steps)
        check_rate_and_seed(self.learning_rate, self.seed)
        if self.width % 8:
            raise InputError(found=f"width = {self.width}", expected="a multiple of 8")


class DetailTraining(Stage):
    """The detail model alone."""

    def __init__(self, model: JointModel, source: PatchSource, config: DetailTrainConfig, run: TrainingRun) -> None:
        super().__init__()
        self.model, self._source, self._config = model, source, config
        self._device = run.accelerator.device
        self._autoencoder = autoencoder_of(model)
        detail = self._autoencoder.detail
        assert detail is not None
        self.detail = detail.requires_grad_(True)
        if (detail.detail_std_C == 1).all():  # of a run that begins
            real, decoded, _ = self._decoded(N_STATISTICS, "statistics", 0)
            detail.set_statistics(real, decoded)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The detail model."""
        return [{"params": list(self.detail.parameters()), "scale": 1.0}]

    def forward(self, step: int) -> dict[str, Tensor]:
        """Return the loss of a step."""
        generator = stage_generator(self._config.seed, f"{NAME}/noise", step)
        return {"loss": self.detail.loss(*self._decoded(self._config.batch, "crops", step), generator).mean()}

    @torch.no_grad()
    def _decoded(self, n: int, use: str, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Real crops, what the decoder makes of their latents, both [n, C, H, W], and its features."""
        seed, autoencoder = self._config.seed, self._autoencoder
        crops = self._source.batch(n, stage_rng(seed, f"{NAME}/{use}", step), share_anywhere=SHARE_ANYWHERE)
        real = crops.image_BCHW.to(self._device)
        latent = autoencoder.encode(real)
        generator = stage_generator(seed, f"{NAME}/{use}/latents", step)
        noise = torch.randn(latent.shape, generator=generator, device=generator.device).to(self._device)
        return real, *autoencoder.decode_plain(latent + self._config.latent_noise * noise)


def with_detail(trained: ModelBundle, config: DetailConfig, seed: int) -> ModelBundle:
    """The same model with a detail model of this shape, its own or an untrained one, and without a correction of its images."""
    own = autoencoder_of(trained.model).detail
    plain = without_fitted(trained)
    if own is None or own.config != config:
        return with_autoencoder(plain, seed=seed, detail=config)
    weights = {f"detail.{name}": value for name, value in own.state_dict().items()}
    return with_autoencoder(plain, weights, seed=seed, detail=config)


def train_detail(
    trained: ModelBundle,
    dataset: PairedDataset,
    output: str | Path,
    config: DetailTrainConfig | None = None,
    *,
    overwrite: bool = False,
    log: Callable[[str], None] = print,
    clock: Clock | None = None,
) -> ModelBundle:
    """Train a detail model for a copy of `trained`, on the training cells of `dataset`.

    The model is written to the folder `output`; the same call resumes a run that was stopped. With one seed it generates the
    same tissue as `trained`, with finer detail. A detail model that `trained` has already is trained further, if it is as wide
    and takes as many evaluations. A correction of its images is removed: it was fitted to images without detail.
    `clock` counts the seconds that a time budget has used; default: from now on.

    Raises
    ------
    InputError
        If `output` holds something else, if the model has no decoder, if the dataset lacks genes.
    """
    config = config or DetailTrainConfig()
    autoencoder_of(trained.model)
    sampler = replace(SAMPLER_STEPS, n_steps=config.evaluations)
    trained = with_detail(trained, DetailConfig(width=config.width, sampler=sampler), config.seed)
    budget = TimeBudget(total_s=None if config.hours is None else config.hours * 3600, clock=clock or Clock())
    n_steps = config.steps or STEPS
    plan = StagePlan(
        name=NAME,
        n_steps=n_steps if budget.total_s is None else UNLIMITED_STEPS,
        learning_rate=config.learning_rate,
        useful_steps=round(USEFUL_SHARE * STEPS),
        items_per_step=config.batch,
        ema=True,
        refresh_every=min(100, n_steps),
    )
    return tune(
        trained,
        dataset,
        Path(output),
        config,
        [(plan, lambda model, source, cells, run: DetailTraining(model, source, config, run))],
        overwrite=overwrite,
        log=log,
        budget=budget,
        crop_px=config.crop_px,
    )
