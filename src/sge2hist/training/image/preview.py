"""Preview of a training run: the same validation cells each time, real above generated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sge2hist.data.artifacts import atomic_path
from sge2hist.data.slides.channels import composite
from sge2hist.devices import fast_arithmetic
from sge2hist.models.gene.encode import dense_counts
from sge2hist.models.image.conditioning import MODE_ALL
from sge2hist.models.image.samplers import SamplerConfig
from sge2hist.models.joint_model import JointModel
from sge2hist.training.gene.data import GeneData
from sge2hist.training.image.conditioning import place_on_crops
from sge2hist.training.image.patches import PatchSource


def preview_sampler(sampler: SamplerConfig) -> SamplerConfig:
    """The sampler of a model, or another in place of one that takes a thousand steps."""
    return SamplerConfig(n_steps=20) if sampler.n_steps > 50 else sampler


class Preview:
    """Writes ``preview_<step>.png`` into a folder: per cell, the real patch and two generated ones."""

    def __init__(
        self,
        model: JointModel,
        source: PatchSource,
        cells: GeneData,
        depth_N: np.ndarray,
        rows: np.ndarray,
        directory: Path,
        device: str,
    ) -> None:
        """`rows`: dataset rows of the cells to show."""
        self._model, self._cells, self._depth_N, self._device = model, cells, depth_N, device
        self._directory = directory
        self._crops = source.crops(rows, source.centre_um_N2[rows], np.zeros((len(rows), 3), bool))

    @torch.no_grad()
    def __call__(self, step: int) -> Path:
        """Write the picture and return its path."""
        from PIL import Image

        crops, model = self._crops, self._model
        counts_MG = dense_counts(self._cells.read(crops.row_M), self._device)
        neighbour_MA = self._cells.neighbour_features(crops.row_M, self._device)
        protein_MP = self._cells.proteins(crops.row_M, self._device)
        mean_MZ = model.gene.encode(counts_MG, neighbour_NA=neighbour_MA, protein_NP=protein_MP).mean_NZ.float()
        n = len(crops.centre_row_B)
        kept, mode_B, slide_B = np.arange(len(crops.row_M)), np.full(n, MODE_ALL), np.zeros(n, np.int64)
        cells = place_on_crops(crops, kept, mean_MZ.cpu(), self._depth_N, mode_B, slide_B).to(self._device)
        side = model.config.patch_px // model.image.downsampling
        rows = [self._shown(crops.image_BCHW)]
        sampler = preview_sampler(model.config.sampler)
        for sample in range(2):
            with fast_arithmetic(torch.device(self._device)):
                images = model.image.sample(cells, [1000 * sample + i for i in range(n)], (side, side), sampler)
            rows.append(self._shown(images.cpu()))
        picture = np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)
        path = self._directory / f"preview_{step:07d}.png"
        with atomic_path(path) as partial:
            Image.fromarray(picture).save(partial, format="png")
        return path

    def _shown(self, image_BCHW: Tensor) -> np.ndarray:
        image_BHWC = ((image_BCHW.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
        return composite(image_BHWC, self._model.config.channels)


def preview_rows(validation_rows: np.ndarray, train_rows: np.ndarray, seed: int) -> np.ndarray:
    """Rows of up to eight cells to show: validation cells, or training cells where there are none."""
    rows = validation_rows if len(validation_rows) else train_rows
    return np.sort(np.random.default_rng(seed).choice(rows, min(8, len(rows)), replace=False))
