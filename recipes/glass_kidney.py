"""Teach a kidney model that a canvas without cells is glass, and to answer as before elsewhere.

    python recipes/glass_kidney.py kidney_noise.model --data kidney.paired -o kidney.model

The section shows next to no glass, so the network hardly learnt what an empty condition means: from the noise of some canvases it
generated tissue. Here it learns that the clean latent of a canvas without cells is that of glass, at the noise levels of the
sampler. A copy of itself is its target for training crops, conditioned as in training, so that nothing else changes.
"""

from __future__ import annotations

import argparse
import copy
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sge2hist.data.paired import PairedDataset
from sge2hist.models.bundle import ModelBundle, model_folder
from sge2hist.models.image.conditioning import MODE_ALL
from sge2hist.models.image.image_model import ImageModel
from sge2hist.models.image.preconditioning import expand
from sge2hist.models.joint_model import JointModel
from sge2hist.training.finetune.base import tune
from sge2hist.training.image.conditioning import ConditioningCells
from sge2hist.training.image.patches import PatchBatch, PatchSource
from sge2hist.training.image.stages import SHARE_ANYWHERE, SHARE_CENTRE
from sge2hist.training.loop import Stage, StagePlan, stage_generator, stage_rng
from sge2hist.training.run import TrainingRun

NAME = "glass"
SHARE_NONE = 0.10
LEVELS = (0.1, 15.0)  # of the noise on glass, log-uniform: those of the sampler and some beyond


@dataclass(frozen=True, kw_only=True)
class GlassConfig:
    """One teaching."""

    steps: int = 500
    learning_rate: float = 2e-4
    crops: int = 24  # on which it is to answer as before, per step
    canvases: int = 8  # without cells, per step
    as_before: float = 10.0  # weight of the difference from what it was
    seed: int = 0
    exclude: str | None = None


class GlassTeaching(Stage):
    """The image network and what reads the cells; gene model and autoencoder stay as they are."""

    def __init__(
        self,
        model: JointModel,
        before: ImageModel,
        source: PatchSource,
        cells: ConditioningCells,
        config: GlassConfig,
        run: TrainingRun,
    ) -> None:
        super().__init__()
        self.model, self._source, self._cells, self._config = model, source, cells, config
        self._device = run.accelerator.device
        self._before = copy.deepcopy(before).requires_grad_(False).to(self._device)
        model.image.unet.requires_grad_(True)
        model.image.condition.requires_grad_(True)

    def forward(self, step: int) -> dict[str, Tensor]:
        """Return the loss terms of a step."""
        config, image = self._config, self.model.image
        rng, generator = stage_rng(config.seed, NAME, step), stage_generator(config.seed, f"{NAME}/noise", step)
        n = config.crops
        crops, cells = self._cells.on_crops(
            self._source,
            n,
            rng,
            generator,
            share_anywhere=SHARE_ANYWHERE,
            share_none=SHARE_NONE,
            share_centre=SHARE_CENTRE,
        )
        empty = self._beyond_the_slide(config.canvases)
        no_cells = self._cells.place(
            empty, np.full(config.canvases, MODE_ALL), rng.random(config.canvases) < 0.5, generator
        )
        with torch.no_grad():
            latent, glass = (image.to_latent(part.image_BCHW.to(self._device)) for part in (crops, empty))
        sigma_B = image.denoiser.noise_model.sample_sigmas(n, generator).to(self._device)
        x, hw = latent + expand(sigma_B) * _noise(latent, generator), (latent.shape[2], latent.shape[3])
        with torch.no_grad():
            answer = self._before.denoiser(x, sigma_B, self._before.encode_cells(cells, hw))
        kept = self._error(image.denoiser(x, sigma_B, image.encode_cells(cells, hw)) - answer, sigma_B)

        level_B = torch.rand(config.canvases, generator=generator) * math.log(LEVELS[1] / LEVELS[0])
        level_B = (level_B.exp() * LEVELS[0]).to(self._device)
        on_glass = glass + expand(level_B) * _noise(glass, generator)
        clear = self._error(image.denoiser(on_glass, level_B, image.encode_cells(no_cells, hw)) - glass, level_B)
        return {"loss": clear + config.as_before * kept, "glass": clear.detach(), "as_before": kept.detach()}

    def _error(self, difference: Tensor, sigma_B: Tensor) -> Tensor:
        """Mean squared difference, in units of the raw output of the network."""
        return (difference / expand(self.model.image.denoiser.noise_model.scalings(sigma_B).c_out_B)).square().mean()

    def _beyond_the_slide(self, n: int) -> PatchBatch:
        """Crops of glass, so far from the slide that no cell conditions them."""
        far = np.full((n, 2), -self._source.gather_radius_um - self._source.patch_um)
        return self._source.crops(self._source.rows[:n], far, np.zeros((n, 3), bool))


def _noise(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, device=generator.device).to(like.device)


def main() -> None:
    """Read one model folder, write another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a model folder")
    parser.add_argument(
        "--data", "--on", dest="on", type=Path, required=True, help="the paired dataset that it was trained on"
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="model folder to write; an unfinished one is resumed"
    )
    parser.add_argument("--steps", type=int, default=GlassConfig.steps)
    parser.add_argument("--learning-rate", type=float, default=GlassConfig.learning_rate)
    parser.add_argument(
        "--exclude", "--leave-out", dest="exclude", help="GeoJSON of areas that no image is learnt from"
    )
    asked = parser.parse_args()
    trained = ModelBundle.load(model_folder(asked.model))
    config = GlassConfig(steps=asked.steps, learning_rate=asked.learning_rate, exclude=asked.exclude)
    plan = StagePlan(
        name=NAME,
        n_steps=config.steps,
        learning_rate=config.learning_rate,
        items_per_step=config.crops + config.canvases,
        ema=True,
        refresh_every=min(100, config.steps),
    )
    tune(
        trained,
        PairedDataset.open(asked.on),
        asked.output,
        config,
        [
            (
                plan,
                lambda model, source, cells, run: GlassTeaching(model, trained.model.image, source, cells, config, run),
            )
        ],
    )


if __name__ == "__main__":
    main()
