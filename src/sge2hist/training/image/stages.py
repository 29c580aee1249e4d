"""The stages that see images: the autoencoder, and the joint training of gene model and image model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sge2hist.models.gene.encode import dense_counts, log_depth
from sge2hist.models.image.autoencoder import Autoencoder
from sge2hist.models.image.conditioning import MODE_SINGLE_CELL, PlacedCells
from sge2hist.models.joint_model import JointModel
from sge2hist.training.budget import TimeBudget
from sge2hist.training.gene.data import GeneData, encode_data
from sge2hist.training.gene.mixture_em import centre_micro
from sge2hist.training.gene.stages import GeneStage
from sge2hist.training.image.conditioning import (
    cells_by_mode,
    place_on_crops,
    sample_modes,
    sample_outlined,
    single_cell_latents,
)
from sge2hist.training.image.patches import PatchBatch, PatchSource
from sge2hist.training.loop import Stage, stage_generator, stage_rng

SHARE_ANYWHERE = 0.05
"""Share of crops taken anywhere on the slides instead of at a cell: glass, and the edge of the tissue."""
SHARE_CENTRE = 0.25
"""Share of patches conditioned on their centre cell alone, as in generation from a type or from a single cell."""


class AutoencoderTraining(Stage):
    """The image autoencoder on crops of the training part of the slides."""

    def __init__(self, autoencoder: Autoencoder, source: PatchSource, *, batch: int, seed: int, device: str) -> None:
        super().__init__()
        self.model = autoencoder
        self._source, self._batch, self._seed, self._device = source, batch, seed, device

    def images(self, step: int, name: str = "autoencoder") -> Tensor:
        """Return the crops of a step, in [-1, 1]."""
        crops = self._source.batch(self._batch, stage_rng(self._seed, name, step), share_anywhere=SHARE_ANYWHERE)
        return crops.image_BCHW.to(self._device)

    def forward(self, step: int) -> dict[str, Tensor]:
        """Return the loss terms of a step."""
        return self.model.loss(self.images(step), stage_generator(self._seed, "autoencoder/noise", step))


@dataclass(frozen=True, kw_only=True)
class JointConfig:
    """How gene model and image model are trained together."""

    batch: int = 64  # patches per step
    n_gradient_cells: int = 1024  # cells per step that are encoded with gradients; the others come from a cache
    n_expression_cells: int = 128  # cells per step whose expression is reconstructed
    diffusion_weight: float = 10.0  # lambda_diff of the published loss
    share_centre: float = SHARE_CENTRE  # patches conditioned on their centre cell alone
    share_none: float = 0.10  # unconditional patches, for guidance
    share_points: float = 0.25  # patches whose cells are points although their outlines are known: both are learnt
    share_slide: float = 0.5  # patches conditioned on their slide (stain)
    share_anywhere: float = SHARE_ANYWHERE  # patches that are not taken at a cell
    gene_rate: float = 0.3  # learning rate of the gene model over that of the image model
    gene_until: float = 1 / 3  # share of the stage after which the gene model is frozen; 0: from the start; 1: never
    type_gradient: float = 0.0  # share of the image loss's gradient that reaches z1; all of it reaches z2
    sample_z2: bool = False  # a single cell has a posterior sample of z2, as published, instead of the mean
    seed: int = 0


class JointTraining(Stage):
    """Both models at once: L = lambda_diff L_image + ELBO / genes.

    The ELBO is a sum over genes and the image loss a mean over pixels; dividing by the number of genes brings them to one
    scale. Encoding all cells of all patches with gradients would cost more than the image network, so each step encodes
    the centre cells and some random others; the rest come from a cache of latents that is updated every few hundred steps.

    The gradient of the image loss reaches z2 alone (`type_gradient` 0): it is many times that of the ELBO, and pulls z1 away
    from cell types within an hour. The published method lets it through (1). Through the shared layers of the encoder some of
    that remains, so the gene model slows down and is frozen after `gene_until` of the stage; from then on every
    cell comes from the cache, and a step costs the image network alone.
    """

    def __init__(
        self,
        model: JointModel,
        source: PatchSource,
        gene_stage: GeneStage,
        all_cells: GeneData,
        config: JointConfig,
        *,
        train_row_of_cell: np.ndarray,
        device: str,
        budget: TimeBudget | None = None,
    ) -> None:
        """`all_cells`: every cell of the dataset on the panel; `train_row_of_cell` int64 [N]: its row in the gene stage's
        data, -1 when it is not there; `budget` measures the freezing of the gene model.
        """
        super().__init__()
        self.model = model
        if model.image.autoencoder is not None:
            model.image.autoencoder.requires_grad_(False)
        self._source, self._gene_stage, self._cells, self._config = source, gene_stage, all_cells, config
        self._train_row, self._device = train_row_of_cell, device
        self._budget = budget or TimeBudget()
        self._mean_NZ = self._sd_NZ = torch.zeros(0)
        self._frozen = False
        self._n_sampled = model.gene.config.n_latent if config.sample_z2 else model.gene.config.n_type
        self.depth_N = log_depth(model.gene, all_cells.library_N)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Image model at full rate, the gene model, which is trained already, at a part of it."""
        image = [p for p in self.model.image.parameters() if p.requires_grad]
        return [
            {"params": image, "scale": 1.0},
            {
                "params": list(self.model.gene.parameters()),
                "scale": self._config.gene_rate,
                "until": self._config.gene_until,
            },
        ]

    def own_state(self) -> dict[str, Tensor]:
        """Return whether the gene model is frozen, and while it is not, the latents of an earlier step.

        A frozen gene model gives them again.
        """
        frozen = {"frozen": torch.tensor(self._frozen)}
        return frozen if self._frozen else frozen | {"mean_NZ": self._mean_NZ, "sd_NZ": self._sd_NZ}

    def load_own_state(self, state: dict[str, Tensor]) -> None:
        """Restore what :meth:`own_state` returned."""
        if bool(state["frozen"]):
            self._freeze()
        if "mean_NZ" in state:
            self._mean_NZ, self._sd_NZ = (state[name].to(self._device) for name in ("mean_NZ", "sd_NZ"))
        else:
            self._encode()

    def restore_cache(self, step: int) -> None:
        """Nothing more: the latents are a state of the stage, or were encoded again."""

    def advance(self, share: float) -> None:
        """Freeze the gene model once its learning rate has come to zero."""
        if self._config.gene_until < 1 and share >= self._config.gene_until and not self._frozen:
            with self._budget.work("joint/freeze"):
                self._freeze()
                centre_micro(self.model.gene, self._gene_stage.data)
                self._encode()

    def _freeze(self) -> None:
        self._frozen = True
        self.model.gene.requires_grad_(False)

    def refresh(self, step: int) -> None:
        """Encode all cells again, unless the gene model is frozen."""
        if not self._frozen:
            self._encode()

    def _encode(self) -> None:
        encoded = encode_data(self.model.gene, self._cells)
        self._mean_NZ = torch.from_numpy(encoded.mean_NZ).to(self._device)
        self._sd_NZ = torch.from_numpy(encoded.log_var_NZ).mul_(0.5).exp_().to(self._device)

    def forward(self, step: int) -> dict[str, Tensor]:
        """Return the loss terms of a step."""
        config = self._config
        rng = stage_rng(config.seed, "joint", step)
        crops = self._source.batch(config.batch, rng, share_anywhere=config.share_anywhere)
        mode_B = sample_modes(config.batch, rng, share_none=config.share_none, share_centre=config.share_centre)
        slide_known_B = rng.random(config.batch) < config.share_slide
        share_points = 0.0 if crops.outline_um_MV2 is None else config.share_points
        outlined_B = sample_outlined(config.batch, rng, share_points)
        slide_B = np.where(slide_known_B, crops.slide_B + 1, 0)
        cells = self._place(crops, mode_B, slide_B, outlined_B, step, rng)
        with torch.no_grad():
            latent = self.model.image.to_latent(crops.image_BCHW.to(self._device))
        image_B = self.model.image.loss(latent, cells, stage_generator(config.seed, "joint/noise", step))
        image = image_B.mean()
        if self._frozen:
            return {"loss": config.diffusion_weight * image, "image": image}
        expression = self._expression_terms(crops.centre_row_B, step)
        loss = config.diffusion_weight * image + expression["loss"] / self.model.gene.config.n_genes
        shown = ("reconstruction", "kl_type", "kl_micro", "independence")
        return {"loss": loss, "image": image} | {name: expression[name] for name in shown}

    def _place(
        self,
        crops: PatchBatch,
        mode_B: np.ndarray,
        slide_B: np.ndarray,
        outlined_B: np.ndarray | None,
        step: int,
        rng: np.random.Generator,
    ) -> PlacedCells:
        """The conditioning cells of each crop, with new latents for some of them and cached ones for the rest."""
        kept, mode_M = cells_by_mode(crops, mode_B)
        row_M = crops.row_M[kept]
        z_MZ = self._mean_NZ[torch.from_numpy(row_M)]
        if self._frozen:
            z_MZ = self._sampled_if_single(z_MZ, row_M, mode_M, step)
        else:
            z_MZ = self._with_new_latents(z_MZ, crops.is_centre_M[kept], row_M, mode_M, step, rng)
        return place_on_crops(crops, kept, z_MZ, self.depth_N, mode_B, slide_B, outlined_B).to(self._device)

    def _sampled_if_single(self, z_MZ: Tensor, row_M: np.ndarray, mode_M: np.ndarray, step: int) -> Tensor:
        generator = stage_generator(self._config.seed, "joint/posterior", step)
        noise = torch.randn(z_MZ.shape, generator=generator, device=generator.device).to(self._device)
        sample = z_MZ + noise * self._sd_NZ[torch.from_numpy(row_M)]
        return single_cell_latents(sample, z_MZ, torch.from_numpy(mode_M == MODE_SINGLE_CELL), self._n_sampled)

    def _with_new_latents(
        self,
        z_MZ: Tensor,
        is_centre_M: np.ndarray,
        row_M: np.ndarray,
        mode_M: np.ndarray,
        step: int,
        rng: np.random.Generator,
    ) -> Tensor:
        """Encode the centre cells and some others now, so that gradients reach the encoder; single cells are sampled."""
        centre, others = np.flatnonzero(is_centre_M), np.flatnonzero(~is_centre_M)
        n_more = max(0, min(self._config.n_gradient_cells - len(centre), len(others)))
        chosen = np.concatenate([centre, rng.choice(others, n_more, replace=False)]) if n_more else centre
        if not len(chosen):
            return z_MZ
        counts_MG = dense_counts(self._cells.read(row_M[chosen]), self._device)
        neighbour_MA = self._cells.neighbour_features(row_M[chosen], self._device)
        protein_MP = self._cells.proteins(row_M[chosen], self._device)
        posterior = self.model.gene.encode(counts_MG, neighbour_NA=neighbour_MA, protein_NP=protein_MP)
        sample = posterior.sample(stage_generator(self._config.seed, "joint/posterior", step))
        single = torch.from_numpy(mode_M[chosen] == MODE_SINGLE_CELL)
        z_new = single_cell_latents(sample, posterior.mean_NZ, single, self._n_sampled).float()
        z_new = scale_gradient(z_new, posterior.n_type, self._config.type_gradient)
        return z_MZ.index_put((torch.from_numpy(chosen).to(self._device),), z_new)

    def _expression_terms(self, centre_row_B: np.ndarray, step: int) -> dict[str, Tensor]:
        rng = stage_rng(self._config.seed, "joint/expression", step)
        own = self._train_row[centre_row_B]
        n_more = max(0, self._config.n_expression_cells - len(own))
        rows = np.concatenate([own, rng.integers(self._gene_stage.data.n_cells, size=n_more)])
        return self._gene_stage.training_pass_on(rows[: self._config.n_expression_cells], 1.0, step).terms


def scale_gradient(z_MZ: Tensor, n_type: int, share: float) -> Tensor:
    """Return `z_MZ` itself; `share` of the gradient passes to its first `n_type` dims, all of it to the others."""
    z1_MT = z_MZ[:, :n_type]
    return torch.cat([share * z1_MT + (1 - share) * z1_MT.detach(), z_MZ[:, n_type:]], 1)
