"""The conditioning cells of training crops: which of them, and with which latents."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sge2hist.models.gene.encode import log_depth
from sge2hist.models.image.conditioning import MODE_ALL, MODE_NONE, MODE_SINGLE_CELL, PlacedCells
from sge2hist.models.joint_model import JointModel
from sge2hist.training.gene.data import GeneData, encode_data
from sge2hist.training.image.patches import PatchBatch, PatchSource


def sample_modes(n: int, rng: np.random.Generator, *, share_none: float, share_centre: float) -> np.ndarray:
    """Sample the conditioning mode of n crops, int64 [n]: no cells, the centre cell alone, or all cells."""
    shares = [share_none, share_centre, 1 - share_none - share_centre]
    return rng.choice([MODE_NONE, MODE_SINGLE_CELL, MODE_ALL], size=n, p=shares)


def sample_outlined(n: int, rng: np.random.Generator, share_points: float) -> np.ndarray | None:
    """Sample which of n crops show outlines, bool [n]; None, without a random number, when all do."""
    return rng.random(n) >= share_points if share_points else None


def cells_by_mode(crops: PatchBatch, mode_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the conditioning cells, and the conditioning mode of the crop of each, both [M]."""
    mode_M = mode_B[crops.crop_M]
    kept = np.flatnonzero((mode_M == MODE_ALL) | ((mode_M == MODE_SINGLE_CELL) & crops.is_centre_M))
    return kept, mode_M[kept]


def place_on_crops(
    crops: PatchBatch,
    kept: np.ndarray,
    z_MZ: Tensor,
    depth_N: np.ndarray,
    mode_B: np.ndarray,
    slide_B: np.ndarray,
    outlined_B: np.ndarray | None = None,
) -> PlacedCells:
    """The kept cells at their positions on the crops.

    `z_MZ`: their latents, `depth_N`: log depth of all cells, `outlined_B`: crops whose cells have outlines where these are known
    (None: all), so that a model learns both.
    """
    outline_MV2 = None
    if crops.outline_um_MV2 is not None:
        outline_MV2 = torch.from_numpy(crops.outline_um_MV2[kept])
        if outlined_B is not None:
            outline_MV2[torch.from_numpy(~outlined_B[crops.crop_M[kept]])] = torch.nan
    return PlacedCells(
        z_MZ=z_MZ,
        depth_M=torch.from_numpy(depth_N[crops.row_M[kept]]),
        xy_um_M2=torch.from_numpy(crops.xy_um_M2[kept]),
        image_M=torch.from_numpy(crops.crop_M[kept]),
        mode_B=torch.from_numpy(mode_B),
        slide_B=torch.from_numpy(slide_B),
        outline_MV2=outline_MV2,
    )


def single_cell_latents(sample_MZ: Tensor, mean_MZ: Tensor, single_M: Tensor, n_sampled: int) -> Tensor:
    """Latents that condition the image network: posterior means, but posterior samples of z1 for cells shown alone.

    So z1 varies for one cell as it does for a cell type, whose z1 is sampled from its component. A posterior of z2 is nearly
    as wide as its prior: samples would be noise that hides the cell. `n_sampled`: leading dims that are sampled.
    """
    is_leading_Z = torch.arange(mean_MZ.shape[1], device=mean_MZ.device) < n_sampled
    return torch.where(single_M.to(mean_MZ.device)[:, None] & is_leading_Z, sample_MZ, mean_MZ)


class ConditioningCells:
    """Latents of all cells of a dataset, encoded once by a frozen gene model."""

    def __init__(self, model: JointModel, cells: GeneData, device: str) -> None:
        """`cells`: every cell of the dataset on the model's panel, with its neighbourhood features."""
        encoded = encode_data(model.gene, cells)
        self._mean_NZ = torch.from_numpy(encoded.mean_NZ)
        self._std_NZ = torch.from_numpy(encoded.log_var_NZ).mul(0.5).exp()
        self._depth_N = log_depth(model.gene, encoded.library_N)
        self._n_type, self._device = model.gene.config.n_type, device

    def on_crops(
        self,
        source: PatchSource,
        n: int,
        rng: np.random.Generator,
        generator: torch.Generator,
        *,
        share_anywhere: float,
        share_none: float,
        share_centre: float,
    ) -> tuple[PatchBatch, PlacedCells]:
        """Sample n crops and their conditioning cells: none, the centre cell or all; half of the crops name their slide."""
        crops = source.batch(n, rng, share_anywhere=share_anywhere)
        mode_B = sample_modes(n, rng, share_none=share_none, share_centre=share_centre)
        return crops, self.place(crops, mode_B, rng.random(n) < 0.5, generator)

    def place(
        self, crops: PatchBatch, mode_B: np.ndarray, slide_known_B: np.ndarray, generator: torch.Generator
    ) -> PlacedCells:
        """The conditioning cells of crops by mode, and the slide where `slide_known_B`; z1 of single cells is sampled."""
        kept, mode_M = cells_by_mode(crops, mode_B)
        row_M = torch.from_numpy(crops.row_M[kept])
        mean_MZ = self._mean_NZ[row_M]
        sample_MZ = mean_MZ + self._std_NZ[row_M] * torch.randn(mean_MZ.shape, generator=generator)
        z_MZ = single_cell_latents(sample_MZ, mean_MZ, torch.from_numpy(mode_M == MODE_SINGLE_CELL), self._n_type)
        slide_B = np.where(slide_known_B, crops.slide_B + 1, 0)
        return place_on_crops(crops, kept, z_MZ, self._depth_N, mode_B, slide_B).to(self._device)
