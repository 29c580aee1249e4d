"""A trained model -> one that draws in one evaluation, or a few (consistency tuning of the image network)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from sge2hist.data.errors import InputError
from sge2hist.data.paired import PairedDataset
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.consistency import consistency_loss
from sge2hist.models.image_model import SamplerConfig
from sge2hist.models.joint_model import JointModel
from sge2hist.training.config import check_rate_and_seed
from sge2hist.training.image_stages import SHARE_ANYWHERE, SHARE_CENTRE
from sge2hist.training.loop import Run, Stage, StagePlan
from sge2hist.training.patches import PatchSource
from sge2hist.training.randomness import stage_generator, stage_rng
from sge2hist.training.told_cells import ToldCells
from sge2hist.training.tune import tune


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """One distillation."""

    steps: int = 2000
    evaluations: int = 1  # of the network per image, the default of the new model
    learning_rate: float = 1e-4
    batch: int = 64
    seed: int = 0
    share_centre: float = SHARE_CENTRE  # patches told their centre cell alone
    share_none: float = 0.05
    leave_out: str | None = None  # GeoJSON of parts of the slides that no image is taken from

    def __post_init__(self) -> None:
        if min(self.steps, self.evaluations, self.batch) < 1:
            raise InputError(found="a distillation of no length", expected="steps, evaluations and batch of 1 or more")
        check_rate_and_seed(self.learning_rate, self.seed)


class Distillation(Stage):
    """Consistency tuning of the image network and of what reads the cells; gene model and autoencoder stay as they are."""

    def __init__(
        self,
        model: JointModel,
        source: PatchSource,
        cells: ToldCells,
        config: DistillConfig,
        run: Run,
    ) -> None:
        """Each of the processes takes its own steps."""
        super().__init__()
        self.model, self._source, self._cells, self._config = model, source, cells, config
        self._device = run.accelerator.device
        self._n_steps = config.steps * run.accelerator.num_processes
        model.image.unet.requires_grad_(True)
        model.image.condition.requires_grad_(True)

    def forward(self, step: int) -> dict[str, Tensor]:
        """Return the loss of a step."""
        config = self._config
        rng = stage_rng(config.seed, "distill", step)
        generator = stage_generator(config.seed, "distill/noise", step)
        crops, cells = self._cells.on_crops(
            self._source, config.batch, rng, generator, share_anywhere=SHARE_ANYWHERE, share_none=config.share_none,
            share_centre=config.share_centre,
        )  # fmt: skip
        with torch.no_grad():
            latent = self.model.image.to_latent(crops.image_BCHW.to(self._device))
        loss = consistency_loss(self.model.image, latent, cells, generator, step / self._n_steps).mean()
        return {"loss": loss}


def distill(
    teacher: ModelBundle,
    dataset: PairedDataset,
    output: str | Path,
    config: DistillConfig | None = None,
    *,
    overwrite: bool = False,
    say: Callable[[str], None] = print,
) -> ModelBundle:
    """Tune a copy of `teacher` to few evaluations on the training cells of `dataset`, and write it to the folder `output`.

    The same call resumes a run that was stopped.

    Raises
    ------
    InputError
        If `output` holds something else, if the model is one of the published kind, if the dataset lacks genes of it.
    """
    config = config or DistillConfig()
    sampler = SamplerConfig(
        sampler="consistency",
        n_steps=config.evaluations,
        # Guidance that is asked for acts on every jump: the first is from the largest noise level.
        guidance_interval=(0.0, teacher.model.image.noise_model.sigma_range[1]),
    )
    plan = StagePlan(
        name="distill", n_steps=config.steps, learning_rate=config.learning_rate, items_per_step=config.batch, ema=True,
        refresh_every=min(100, config.steps),
    )  # fmt: skip
    return tune(
        teacher, dataset, Path(output), config, plan,
        lambda model, source, cells, run: Distillation(model, source, cells, config, run),
        sampler=sampler, image=replace(teacher.config.image, own_guidance=1.0), overwrite=overwrite, say=say,
    )  # fmt: skip
