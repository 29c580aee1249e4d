"""The gene stage: batches of a training split -> loss of the gene model, every choice fixed by (seed, stage, step)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sge2hist.models.gene_config import GeneModelConfig
from sge2hist.models.gene_vae import GeneLoss, GeneVAE
from sge2hist.training.gene_data import GeneData, dense_counts, gene_statistics
from sge2hist.training.gene_encoding import encode_all
from sge2hist.training.neighbourhood import DEFAULT_AROUND_UM, NeighbourhoodTargets, neighbourhood_targets
from sge2hist.training.randomness import stage_generator, stage_rng

MOST_EPOCHS = 25
"""Times that a stage may see each cell: after more, a few hundred cells are learnt by heart and their types blur."""


def most_steps(n_cells: int, batch_size: int) -> int:
    """Steps after which each cell was seen `MOST_EPOCHS` times."""
    return max(1, MOST_EPOCHS * n_cells // batch_size)


@dataclass(frozen=True, kw_only=True)
class GeneStageConfig:
    """How the gene model is trained on expression alone."""

    batch_size: int = 256  # cells per step
    warmup_steps: int = 400  # KL weight rises linearly from 0 to 1 over these steps
    use_labels: bool = True  # labelled cells inform the responsibilities once the mixture is initialised
    seed: int = 0  # of batches and noise

    def __post_init__(self) -> None:
        """Raise ValueError naming the value outside its range."""
        if self.batch_size < 1 or self.warmup_steps < 0:
            raise ValueError("GeneStageConfig: batch_size >= 1 and warmup_steps >= 0 are needed")


class GeneStage:
    """Loss of one step, for the stage engine: ``stage.loss(step)["loss"].backward()``.

    Example
    -------
    >>> stage = GeneStage(model, data, GeneStageConfig(seed=0))  # doctest: +SKIP
    >>> stage.loss(0)["loss"]  # doctest: +SKIP
    """

    def __init__(
        self,
        model: GeneVAE,
        data: GeneData,
        config: GeneStageConfig,
        *,
        name: str = "gene",
        device: torch.device | str = "cpu",
        targets: NeighbourhoodTargets | None = None,
    ) -> None:
        """`name` separates the random streams of stages; `targets` are reused when given.

        Cells carry their surroundings if the model reads them: see :func:`with_surroundings`.
        """
        self.model, self.data, self.config, self.name, self.device = model, data, config, name, device
        self.targets = targets
        if targets is None and model.config.has_neighbourhood:
            self.targets = neighbourhood_targets(
                data,
                model.encoder,
                n_composition=model.config.n_composition,
                n_embedding=model.config.n_neighbour_embedding,
                radius_um=model.config.around_um or DEFAULT_AROUND_UM,
                seed=config.seed,
            )
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def start_heads(self) -> None:
        """Once the mixture is fitted: leave to each component what its cells have around them on average."""
        heads, mixture = self.model.heads, self.model.mixture
        if heads is None or self.targets is None:
            return
        encoded = encode_all(self.model, self.data, device=self.device)
        gamma_NK = torch.from_numpy(mixture.assign(encoded.z1, encoded.z1_log_var)).to(self.device)
        heads.start(gamma_NK, self.targets.batch(np.arange(self.data.n_cells), self.device))

    def rows(self, step: int) -> np.ndarray:
        """Cells of the batch of a step: shuffled epochs, the same for the same seed whatever ran before."""
        size = min(self.config.batch_size, self.data.n_cells)
        per_epoch = max(1, self.data.n_cells // size)
        epoch, position = divmod(step, per_epoch)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = stage_rng(self.config.seed, self.name + "/epoch", epoch).permutation(self.data.n_cells)
        return self._order[position * size : (position + 1) * size]

    def training_pass(self, step: int) -> GeneLoss:
        """Loss terms, posterior and sample of the batch of a step; `rows(step)` are its cells."""
        rows = self.rows(step)
        return self.training_pass_on(rows, self.kl_weight(step), step)

    def training_pass_on(self, rows: np.ndarray, kl_weight: float, step: int) -> GeneLoss:
        """As :meth:`training_pass`, for cells that the caller chose."""
        generator = stage_generator(self.config.seed, self.name, step)
        type_N = torch.from_numpy(self.data.type_N[rows]).to(self.device) if self.config.use_labels else None
        return self.model.training_pass(
            dense_counts(self.data.read(rows), self.device),
            kl_weight=kl_weight,
            type_N=type_N,
            around_NA=self.data.around(rows, self.device),
            neighbourhood=None if self.targets is None else self.targets.batch(rows, self.device),
            generator=generator,
        )

    def loss(self, step: int) -> dict[str, Tensor]:
        """Scalar terms of a step; "loss" carries the gradient."""
        return self.training_pass(step).terms

    def kl_weight(self, step: int) -> float:
        """Warm-up of the KL and independence terms, 0 to 1 (1 throughout once the mixture is initialised)."""
        if self.config.warmup_steps == 0 or bool(self.model.mixture.initialised):
            return 1.0
        return min(1.0, (step + 1) / self.config.warmup_steps)


def build_gene_model(config: GeneModelConfig, data: GeneData, *, seed: int = 0) -> GeneVAE:
    """A new gene model that starts at the mean cell of the training split; weights drawn from `seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GeneVAE(config)
    model.set_statistics(gene_statistics(data, config.n_axes, seed=seed))
    return model


@contextmanager
def decoder_alone(model: GeneVAE) -> Iterator[None]:
    """Let nothing but the decoder of expression and the dispersion of genes be trained: latents, and types with them, rest.

    A decoder learns more slowly than the encoder that began on the principal axes, and can go on where the encoder would only
    learn its cells by heart.
    """
    before = {name: value.requires_grad for name, value in model.named_parameters()}
    for name, value in model.named_parameters():
        value.requires_grad_(name.split(".")[0] in ("decoder", "log_theta_G", "zero_head"))
    try:
        yield
    finally:
        for name, value in model.named_parameters():
            value.requires_grad_(before[name])
