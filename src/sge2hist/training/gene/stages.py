"""The stages that see expression alone: batches of a training split -> loss of the gene model.

Every random choice is fixed by (seed, stage, step).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sge2hist.data.errors import InputError
from sge2hist.models.gene.config import GeneModelConfig
from sge2hist.models.gene.encode import dense_counts, stream_posteriors
from sge2hist.models.gene.vae import GeneLoss, GeneVAE
from sge2hist.models.joint_model import JointModel
from sge2hist.training.gene.data import GeneData, encode_data, gene_statistics
from sge2hist.training.gene.mixture_em import refit_mixture
from sge2hist.training.gene.mixture_init import MixtureReport, init_mixture
from sge2hist.training.gene.neighbour_targets import DEFAULT_NEIGHBOUR_UM, NeighbourhoodTargets, neighbourhood_targets
from sge2hist.training.loop import Stage, StagePlan, finish_stage, run_stage, stage_generator, stage_rng
from sge2hist.training.run import TrainingRun

MAX_EPOCHS = 25
"""Times that a stage may see each cell: with more, the model memorises a few hundred cells and their types blur."""

CLIP_NORM = 1e3
"""Largest gradient norm. Those of the gene stages are large: their loss is a sum over thousands of genes."""
RATES = {"gene": 1e-3, "mixture": 3e-4, "expression": 1e-3}
MAX_REFERENCE_CELLS = 20_000
"""Cells whose scores are stored, so that unusual cells can be flagged later."""
MIN_REFERENCE_CELLS = 100  # of the validation split; fewer: the training cells


def max_steps(n_cells: int, batch_size: int) -> int:
    """Steps after which each cell was seen `MAX_EPOCHS` times."""
    return max(1, MAX_EPOCHS * n_cells // batch_size)


@dataclass(frozen=True, kw_only=True)
class GeneStageConfig:
    """How the gene model is trained on expression alone."""

    batch_size: int = 256  # cells per step
    warmup_steps: int = 400  # KL weight rises linearly from 0 to 1 over these steps
    use_labels: bool = True  # labels supervise the responsibilities once the mixture is initialised
    seed: int = 0  # of batches and noise

    def __post_init__(self) -> None:
        """Raise ValueError naming the value outside its range."""
        if self.batch_size < 1 or self.warmup_steps < 0:
            raise ValueError("GeneStageConfig: batch_size >= 1 and warmup_steps >= 0 are needed")


class GeneStage:
    """Loss of one step, for the stage engine: ``stage.loss(step)["loss"].backward()``.

    Example
    -------
    .. code-block:: python

        stage = GeneStage(model, data, GeneStageConfig(seed=0))
        stage.loss(0)["loss"]
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

        Cells carry neighbourhood features if the model reads them: see :func:`with_neighbours`.
        """
        self.model, self.data, self.config, self.name, self.device = model, data, config, name, device
        self.targets = targets
        if targets is None and model.config.has_neighbourhood:
            self.targets = neighbourhood_targets(
                data,
                model.encoder,
                n_composition=model.config.n_composition,
                n_embedding=model.config.n_neighbour_embedding,
                radius_um=model.config.neighbour_um or DEFAULT_NEIGHBOUR_UM,
                seed=config.seed,
            )
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def start_heads(self) -> None:
        """Once the mixture is fitted: set the baseline of each component to the mean neighbourhood of its cells."""
        heads, mixture = self.model.heads, self.model.mixture
        if heads is None or self.targets is None:
            return
        encoded = encode_data(self.model, self.data)
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
            neighbour_NA=self.data.neighbour_features(rows, self.device),
            protein_NP=self.data.proteins(rows, self.device),
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
    """A new gene model that starts at the mean cell of the training split; weights sampled from `seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GeneVAE(config)
    model.set_statistics(gene_statistics(data, config.n_axes, seed=seed))
    return model


@contextmanager
def decoder_alone(model: GeneVAE) -> Iterator[None]:
    """Freeze all but the expression decoder and the dispersion of genes: latents, and types with them, stay.

    A decoder learns more slowly than the encoder, which starts on the principal axes, and can be trained further where the
    encoder would only memorise its cells.
    """
    before = {name: value.requires_grad for name, value in model.named_parameters()}
    for name, value in model.named_parameters():
        value.requires_grad_(name.split(".")[0] in ("decoder", "log_theta_G"))
    try:
        yield
    finally:
        for name, value in model.named_parameters():
            value.requires_grad_(before[name])


class GeneTraining(Stage):
    """The gene model on expression alone (see :class:`GeneStage`)."""

    def __init__(self, gene_stage: GeneStage) -> None:
        super().__init__()
        self.model = gene_stage.model
        self._stage = gene_stage

    def forward(self, step: int) -> dict[str, Tensor]:
        """Return the loss terms of a step."""
        return self._stage.loss(step)


class GeneStages:
    """The stages on expression alone of one training run, before and after the images; finished ones are skipped."""

    def __init__(
        self,
        model: JointModel,
        cells: GeneData,
        run: TrainingRun,
        plan: Callable[..., StagePlan],
        *,
        n_steps: tuple[int, int],
        use_labels: bool,
        device: str,
    ) -> None:
        """`plan(name, n_steps, rate, items, max_steps, **more)` plans a stage; `n_steps`: without, and with the mixture."""
        self._model, self._cells, self._run, self._plan = model, cells, run, plan
        self._use_labels, self._device = use_labels, device
        self._max_steps = max_steps(cells.n_cells, GeneStageConfig.batch_size)
        self._gene_steps, self._mixture_steps = (min(n, self._max_steps) for n in n_steps)

    def before_images(self) -> GeneStage:
        """Pre-train, fit the mixture, train with it; returns the last of these stages, for the joint training."""
        gene, run = self._model.gene, self._run
        config = GeneStageConfig(
            use_labels=self._use_labels,
            seed=run.seed,
            warmup_steps=min(GeneStageConfig.warmup_steps, self._gene_steps // 3),
        )
        with run.budget.work("targets/first"):
            stage = GeneStage(gene, self._cells, config, device=self._device)
        if "gene" not in run.stages_done:
            self._train(stage, "gene", self._gene_steps)
            with run.budget.work("mixture/start"):
                report = self._init_mixture()
                stage.start_heads()
            run.log(
                f"mixture: {report.n_kept} of {report.n_fitted} components kept, {report.active_units_z1} of "
                f"{gene.config.n_type} z1 and {report.active_units_z2} of {gene.config.n_micro} z2 units active"
            )
            finish_stage(run, self._model, "gene")
        mixture = GeneStage(gene, self._cells, config, name="mixture", device=self._device, targets=stage.targets)
        if "mixture" not in run.stages_done:
            self._train(mixture, "mixture", self._mixture_steps)
            with run.budget.work("fit/mixture"):
                self.fit_mixture()
            finish_stage(run, self._model, "mixture")
        return mixture

    def after_images(self) -> None:
        """Train the expression decoder further, on frozen latents."""
        if "expression" in self._run.stages_done:
            return
        config = GeneStageConfig(use_labels=False, seed=self._run.seed, warmup_steps=0)
        with self._run.budget.work("targets/last"):
            stage = GeneStage(self._model.gene, self._cells, config, name="expression", device=self._device)
        with decoder_alone(self._model.gene):
            self._train(stage, "expression", self._mixture_steps)
        finish_stage(self._run, self._model, "expression")

    def fit_mixture(self) -> None:
        """Fit the mixture again, to the cells where training has moved them (see :func:`refit_mixture`)."""
        self._init_mixture()
        n_components = refit_mixture(self._model.gene, self._cells)
        self._run.log(f"{n_components} mixture components")

    def _train(self, stage: GeneStage, name: str, n_steps: int) -> None:
        batch = GeneStageConfig.batch_size
        plan = self._plan(name, n_steps, RATES[name], batch, self._max_steps, clip_norm=CLIP_NORM)
        run_stage(GeneTraining(stage), plan, self._run, self._model)

    def _init_mixture(self) -> MixtureReport:
        return init_mixture(self._model.gene, self._cells, self._run.seed, use_labels=self._use_labels)


@torch.no_grad()
def calibrate_novelty(model: GeneVAE, data: GeneData, *, seed: int = 0) -> None:
    """Store score quantiles of up to 20,000 reference cells (best: the validation split) in ``model.novelty``.

    Raises
    ------
    InputError
        If none of the cells has counts.
    """
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.permutation(data.n_cells)[:MAX_REFERENCE_CELLS])
    fits, latents = [], []
    for counts_NG, posterior in stream_posteriors(model, data.chunks_to_encode(512, rows)):
        fit_N, latent_N = model.novelty_scores(counts_NG, posterior)
        filled = counts_NG.sum(1) > 0
        fits.append(fit_N[filled])
        latents.append(latent_N[filled])
    if not any(len(fit_N) for fit_N in fits):
        raise InputError(
            found=f"no counts in {len(rows):,} reference cells of novelty", expected="raw counts on the model's genes"
        )
    model.novelty.calibrate(torch.cat(fits), torch.cat(latents))
