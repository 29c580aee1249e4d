"""Guidance distillation: a trained model -> one whose output contains the guidance, so that a step needs one evaluation.

Stage one of Meng et al. 2023, "On distillation of guided diffusion models", for one weight w: the network learns u + w (c - u) of
its earlier weights at the noise levels where the sampler is guided, with c its output and u that without cells; c elsewhere.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sge2hist.data.errors import InputError, refuse_wrong_types
from sge2hist.data.paired import PairedDataset
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.image.denoiser import LearntGuidance, guide
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

NAME = "guidance_distillation"
STREAM = "own_guidance"  # of random numbers, as in version 0.1
SHARE_NONE = 0.1
SHARE_SAMPLER_LEVELS = 0.75
"""Share of the noise levels that lie near those of the sampler; the others lie anywhere in its range."""
JITTER = 0.06  # of the logarithm of the sampler's levels


@dataclass(frozen=True, kw_only=True)
class GuidanceDistillationConfig:
    """Settings of a guidance distillation."""

    steps: int = 1000
    learning_rate: float = 4e-4
    batch: int = 24
    seed: int = 0
    exclude: str | None = None  # GeoJSON of areas of the slides from which no image is taken

    @refuse_wrong_types
    def __post_init__(self) -> None:
        check_at_least_one(steps=self.steps, batch=self.batch)
        check_rate_and_seed(self.learning_rate, self.seed)


class GuidanceDistillation(Stage):
    """Training of the image network and of the condition encoder; gene model and autoencoder are frozen."""

    def __init__(
        self,
        model: JointModel,
        before: ImageModel,
        source: PatchSource,
        cells: ConditioningCells,
        config: GuidanceDistillationConfig,
        run: TrainingRun,
        sampler: SamplerConfig,
    ) -> None:
        """`before`: the image model before this training, which a model from a checkpoint no longer has.

        `sampler`: whose guidance is learnt, at its noise levels.
        """
        super().__init__()
        self.model, self._source, self._cells, self._config = model, source, cells, config
        self._device = run.accelerator.device
        self._before = copy.deepcopy(before).requires_grad_(False).to(self._device)
        self._weight = self._before.guidance_weight(sampler)
        self._levels = torch.tensor([step.sigma for step in self._before.denoiser.evaluations(sampler)])
        model.image.unet.requires_grad_(True)
        model.image.condition.requires_grad_(True)

    def forward(self, step: int) -> dict[str, Tensor]:
        """Return the loss, and that of the network before this training ("not_learnt")."""
        config, image = self._config, self.model.image
        rng, generator = stage_rng(config.seed, STREAM, step), stage_generator(config.seed, f"{STREAM}/noise", step)
        n = config.batch
        crops, cells = self._cells.on_crops(
            self._source,
            n,
            rng,
            generator,
            share_anywhere=SHARE_ANYWHERE,
            share_none=SHARE_NONE,
            share_centre=SHARE_CENTRE,
        )
        sigma_B = self._sample_levels(n, generator).to(self._device)
        with torch.no_grad():
            latent = image.to_latent(crops.image_BCHW.to(self._device))
            noise = torch.randn(latent.shape, generator=generator, device=generator.device).to(self._device)
            x, hw = latent + expand(sigma_B) * noise, (latent.shape[2], latent.shape[3])
            plain = self._before.denoiser(x, sigma_B, self._before.encode_cells(cells, hw))
            unconditional = self._before.denoiser(x, sigma_B, self._before.encode_cells(cells.unconditional(), hw))
            weight_B = torch.tensor([self._weight(sigma) for sigma in sigma_B.tolist()], device=self._device)
            target = guide(plain, unconditional, expand(weight_B))
        unit = expand(image.denoiser.noise_model.scalings(sigma_B).c_out_B)  # errors in units of the raw output
        error = (image.denoiser(x, sigma_B, image.encode_cells(cells, hw)) - target) / unit
        return {"loss": error.square().mean(), "not_learnt": ((plain - target) / unit).square().mean()}

    def _sample_levels(self, n: int, generator: torch.Generator) -> Tensor:
        """Noise levels [n]."""
        visited = self._levels[torch.randint(len(self._levels), (n,), generator=generator)]
        jittered = visited * (JITTER * torch.randn(n, generator=generator)).exp()
        low, high = math.log(float(self._levels.min())), math.log(float(self._levels.max()))
        anywhere = (low + (high - low) * torch.rand(n, generator=generator)).exp()
        return torch.where(torch.rand(n, generator=generator) < SHARE_SAMPLER_LEVELS, jittered, anywhere)


def check_has_guidance(trained: ModelBundle) -> None:
    """Raise `InputError` unless the model's sampler has guidance that its network has not learnt."""
    sampler, image = trained.config.sampler, trained.model.image
    weight = image.guidance_weight(sampler)
    if trained.config.learnt_guidance.weight != 1:
        raise InputError(
            found="a model that has learnt its guidance already", expected="the model that it was made from"
        )
    if sampler.sampler == "consistency" or all(weight(step.sigma) == 1 for step in image.denoiser.evaluations(sampler)):
        raise InputError(
            found=f"a model whose steps are single evaluations already ({sampler.sampler}, guidance {sampler.guidance:g})",
            expected="a model whose sampler has guidance",
        )


def distill_guidance(
    trained: ModelBundle,
    dataset: PairedDataset,
    output: str | Path,
    config: GuidanceDistillationConfig | None = None,
    *,
    overwrite: bool = False,
    log: Callable[[str], None] = print,
) -> ModelBundle:
    """Train a copy of `trained` to contain the guidance of its sampler, and write it to the folder `output`.

    It generates in as many steps, of one evaluation each. The same call resumes a run that was stopped.

    Raises
    ------
    InputError
        If `output` holds something else, if the model's sampler has no guidance to learn, if the dataset lacks genes of it.
    """
    config = config or GuidanceDistillationConfig()
    sampler, image = trained.config.sampler, trained.model.image
    check_has_guidance(trained)
    return tune(
        trained,
        dataset,
        Path(output),
        config,
        [
            (
                distillation_plan(NAME, config, default_steps=GuidanceDistillationConfig.steps),
                lambda model, source, cells, run: GuidanceDistillation(
                    model, image, source, cells, config, run, sampler
                ),
            )
        ],
        learnt_guidance=LearntGuidance(weight=sampler.guidance, interval=sampler.guidance_interval),
        overwrite=overwrite,
        log=log,
    )
