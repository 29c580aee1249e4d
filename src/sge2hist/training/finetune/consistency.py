"""Consistency tuning (Geng et al. 2024, "Consistency models made easy"): a model that generates in few evaluations.

The denoiser D(x, t) learns to output at noise level t what it outputs at a lower level r on the same path, D(x0 + r n, r),
and at r = 0 the image itself. It starts as the diffusion model (r = 0), and r approaches t as training proceeds; in the end
one evaluation from pure noise gives an image. B images, latents of L channels and H x W.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sge2hist.data.errors import refuse_wrong_types
from sge2hist.data.paired import PairedDataset
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.image.conditioning import PlacedCells
from sge2hist.models.image.denoiser import LearntGuidance
from sge2hist.models.image.image_model import ImageModel
from sge2hist.models.image.preconditioning import expand
from sge2hist.models.image.samplers import SamplerConfig
from sge2hist.models.joint_model import JointModel
from sge2hist.training.config import check_at_least_one, check_rate_and_seed
from sge2hist.training.finetune.base import distillation_plan, tune
from sge2hist.training.image.conditioning import ConditioningCells
from sge2hist.training.image.patches import PatchSource
from sge2hist.training.image.stages import SHARE_ANYWHERE, SHARE_CENTRE
from sge2hist.training.loop import Stage, stage_generator, stage_rng
from sge2hist.training.run import TrainingRun

LOG_MEAN, LOG_STD = -0.4, 2.0  # of t, in units of sigma_data (the paper's -1.1 and 2.0 at sigma_data = 0.5)
N_STAGES = 8
HUBER = 0.03  # per dimension


def lower_level(t_B: Tensor, share: float) -> Tensor:
    """r of t at a share (0 to 1) of the training: r/t = max(0, 1 - 2^-a (1 + 8 sigmoid(-t))), a = 0, 1, ... by stages."""
    stage = min(int(share * N_STAGES), N_STAGES - 1)
    return t_B * (1 - 2.0**-stage * (1 + 8 * torch.sigmoid(-t_B))).clamp_min(0)


def consistency_loss(
    model: ImageModel, latent_BLHW: Tensor, cells: PlacedCells, generator: torch.Generator, share: float
) -> Tensor:
    """Pseudo-Huber distance between D at t and D (fixed) at r, over t - r; [B], per dimension."""
    B, device = len(latent_BLHW), latent_BLHW.device
    low, high = model.denoiser.noise_model.sigma_range
    normal = torch.randn(B, generator=generator, device=generator.device).to(device)
    t_B = (LOG_MEAN + LOG_STD * normal).exp().clamp(low, high)
    r_B = lower_level(t_B, share)
    noise = torch.randn(latent_BLHW.shape, generator=generator, device=generator.device).to(device)
    condition = model.encode_cells(cells, (latent_BLHW.shape[2], latent_BLHW.shape[3]))
    student = model.denoiser(latent_BLHW + expand(t_B) * noise, t_B, condition)
    with torch.no_grad():
        teacher = model.denoiser(latent_BLHW + expand(r_B) * noise, r_B.clamp_min(low), condition)
        teacher = torch.where(expand(r_B) > low, teacher, latent_BLHW)
    distance_B = ((student - teacher).square().mean(dim=(1, 2, 3)) + HUBER**2).sqrt() - HUBER
    return distance_B / (t_B - r_B)


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """Settings of a distillation to few evaluations."""

    steps: int = 2000
    evaluations: int = 1  # of the network per image, the default of the new model
    learning_rate: float = 1e-4
    batch: int = 64
    seed: int = 0
    share_centre: float = SHARE_CENTRE  # patches conditioned on their centre cell alone
    share_none: float = 0.05  # unconditional patches
    exclude: str | None = None  # GeoJSON of areas of the slides from which no image is taken

    @refuse_wrong_types
    def __post_init__(self) -> None:
        check_at_least_one(steps=self.steps, evaluations=self.evaluations, batch=self.batch)
        check_rate_and_seed(self.learning_rate, self.seed)


class Distillation(Stage):
    """Consistency tuning of the image network and of the condition encoder; gene model and autoencoder are frozen."""

    def __init__(
        self,
        model: JointModel,
        source: PatchSource,
        cells: ConditioningCells,
        config: DistillConfig,
        run: TrainingRun,
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
            self._source,
            config.batch,
            rng,
            generator,
            share_anywhere=SHARE_ANYWHERE,
            share_none=config.share_none,
            share_centre=config.share_centre,
        )
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
    log: Callable[[str], None] = print,
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
        # guidance, if requested, acts at every evaluation: the first is at the largest noise level
        guidance_interval=(0.0, teacher.model.image.denoiser.noise_model.sigma_range[1]),
    )
    return tune(
        teacher,
        dataset,
        Path(output),
        config,
        [
            (
                distillation_plan("distill", config, default_steps=DistillConfig.steps),
                lambda model, source, cells, run: Distillation(model, source, cells, config, run),
            )
        ],
        sampler=sampler,
        learnt_guidance=LearntGuidance(),
        overwrite=overwrite,
        log=log,
    )
