"""What the image network is told of the cells of a crop, when the gene model is at rest."""

from __future__ import annotations

import numpy as np
import torch

from sge2hist.models.joint_model import JointModel
from sge2hist.models.placed_cells import MODE_ALL, MODE_CENTRE, PlacedCells
from sge2hist.training.gene_data import GeneData
from sge2hist.training.gene_encoding import encode_all
from sge2hist.training.image_stages import cell_depths, lone_latents
from sge2hist.training.patches import PatchBatch


class ToldCells:
    """Latents of all cells of a dataset, encoded once."""

    def __init__(self, model: JointModel, cells: GeneData, device: str) -> None:
        """`cells`: every cell of the dataset on the model's panel, with its surroundings."""
        encoded = encode_all(model.gene, cells, device=device)
        self._mean_NZ = torch.from_numpy(encoded.mean_NZ)
        self._std_NZ = torch.from_numpy(encoded.log_var_NZ).mul(0.5).exp()
        self._depth_N = torch.from_numpy(cell_depths(cells, float(model.gene.encoder.scale)))
        self._n_type, self._device = model.gene.config.n_type, device

    def place(
        self, crops: PatchBatch, mode_B: np.ndarray, told_slide_B: np.ndarray, generator: torch.Generator
    ) -> PlacedCells:
        """The cells that each crop is told by its mode, and its slide where `told_slide_B`; z1 of lone cells is drawn."""
        mode_M = mode_B[crops.crop_M]
        kept = np.flatnonzero((mode_M == MODE_ALL) | ((mode_M == MODE_CENTRE) & crops.is_centre_M))
        row_M = torch.from_numpy(crops.row_M[kept])
        mean_MZ = self._mean_NZ[row_M]
        sample_MZ = mean_MZ + self._std_NZ[row_M] * torch.randn(mean_MZ.shape, generator=generator)
        return PlacedCells(
            z_MZ=lone_latents(sample_MZ, mean_MZ, torch.from_numpy(mode_M[kept] == MODE_CENTRE), self._n_type),
            depth_M=self._depth_N[row_M],
            xy_um_M2=torch.from_numpy(crops.xy_um_M2[kept]),
            image_M=torch.from_numpy(crops.crop_M[kept]),
            mode_B=torch.from_numpy(mode_B),
            slide_B=torch.from_numpy(np.where(told_slide_B, crops.slide_B + 1, 0)),
        ).to(self._device)
