"""The stages of a training that see expression alone: before the images, and after them."""

from __future__ import annotations

from collections.abc import Callable

from sge2hist.models.joint_model import JointModel
from sge2hist.training.gene_data import GeneData
from sge2hist.training.gene_stage import GeneStage, GeneStageConfig, decoder_alone, most_steps
from sge2hist.training.image_stages import GeneTraining
from sge2hist.training.loop import Run, StagePlan, finish_stage, run_stage
from sge2hist.training.mixture_init import MixtureReport, init_mixture
from sge2hist.training.mixture_refit import refit_mixture

SUM_OVER_GENES = 1e3
"""Gradient norms of the gene stages are large: their loss is a sum over thousands of genes."""
RATES = {"gene": 1e-3, "mixture": 3e-4, "expression": 1e-3}


class GeneStages:
    """The gene model of one training run; stages that are done already are passed over."""

    def __init__(
        self, model: JointModel, cells: GeneData, run: Run, plan: Callable[..., StagePlan], *,
        n_steps: tuple[int, int], use_labels: bool, device: str,
    ) -> None:  # fmt: skip
        """`plan(name, n_steps, rate, items, most, **more)` plans a stage; `n_steps`: without, and with the mixture."""
        self._model, self._cells, self._run, self._plan = model, cells, run, plan
        self._use_labels, self._device = use_labels, device
        self._most = most_steps(cells.n_cells, GeneStageConfig.batch_size)
        self._gene_steps, self._mixture_steps = (min(n, self._most) for n in n_steps)

    def before_images(self) -> GeneStage:
        """Pre-train, fit the mixture, train with it; returns the stage of the last, which the joint training goes on with."""
        gene, run = self._model.gene, self._run
        config = GeneStageConfig(
            use_labels=self._use_labels,
            seed=run.seed,
            warmup_steps=min(GeneStageConfig.warmup_steps, self._gene_steps // 3),
        )
        stage = GeneStage(gene, self._cells, config, device=self._device)
        if "gene" not in run.stages_done:
            self._train(stage, "gene", self._gene_steps)
            report = self._init_mixture()
            stage.start_heads()
            run.say(
                f"mixture: {report.n_kept} of {report.n_fitted} components kept, {report.active_units_z1} of "
                f"{gene.config.n_type} z1 and {report.active_units_z2} of {gene.config.n_micro} z2 units active"
            )
            finish_stage(run, self._model, "gene")
        mixture = GeneStage(gene, self._cells, config, name="mixture", device=self._device, targets=stage.targets)
        if "mixture" not in run.stages_done:
            self._train(mixture, "mixture", self._mixture_steps)
            self.fit_mixture()
            finish_stage(run, self._model, "mixture")
        return mixture

    def after_images(self) -> None:
        """Let the decoder of expression learn on, now that latents are at rest."""
        if "expression" in self._run.stages_done:
            return
        config = GeneStageConfig(use_labels=False, seed=self._run.seed, warmup_steps=0)
        stage = GeneStage(self._model.gene, self._cells, config, name="expression", device=self._device)
        with decoder_alone(self._model.gene):
            self._train(stage, "expression", self._mixture_steps)
        finish_stage(self._run, self._model, "expression")

    def fit_mixture(self) -> None:
        """Fit the mixture anew to where training has moved the cells; gradients follow moving posteriors with a lag."""
        self._init_mixture()
        n_components = refit_mixture(self._model.gene, self._cells, device=self._device)
        self._run.say(f"{n_components} mixture components")

    def _train(self, stage: GeneStage, name: str, n_steps: int) -> None:
        batch = GeneStageConfig.batch_size
        plan = self._plan(name, n_steps, RATES[name], batch, self._most, clip_norm=SUM_OVER_GENES)
        run_stage(GeneTraining(stage), plan, self._run, self._model)

    def _init_mixture(self) -> MixtureReport:
        return init_mixture(
            self._model.gene, self._cells, self._run.seed, use_labels=self._use_labels, device=self._device
        )
