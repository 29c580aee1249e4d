"""`PairedDataset` -> model folder: all stages in order, resumable at any moment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from sge2hist.data.artifacts import atomic_path, check_folder
from sge2hist.data.errors import InputError
from sge2hist.data.gene_panel import GenePanel
from sge2hist.data.output_lock import locks_output
from sge2hist.data.paired import PairedDataset
from sge2hist.devices import make_accelerator
from sge2hist.models.bundle import CONFIG_NAME, ModelBundle, z2_range_of
from sge2hist.models.joint_model import JointModel
from sge2hist.training.budget import Clock, TimeBudget
from sge2hist.training.card import model_card, provenance
from sge2hist.training.config import TrainConfig, model_shape, proteins_to_read
from sge2hist.training.estimate import GENE_STAGES, STATISTICS_IMAGES, announce, expected_work, measure_rates
from sge2hist.training.gene.data import (
    GeneData,
    encode_data,
    gene_statistics,
    split_groups,
    validation_rows,
    with_neighbours,
)
from sge2hist.training.gene.mixture_em import centre_micro
from sge2hist.training.gene.mixture_init import MIN_LABELLED
from sge2hist.training.gene.selection import select_genes
from sge2hist.training.gene.stages import (
    MIN_REFERENCE_CELLS,
    GeneStage,
    GeneStageConfig,
    GeneStages,
    calibrate_novelty,
    max_steps,
)
from sge2hist.training.gene.type_names import name_components
from sge2hist.training.image.exclusion_mask import ExclusionMask, read_exclusion_mask
from sge2hist.training.image.patches import PatchSource
from sge2hist.training.image.preview import Preview, preview_rows
from sge2hist.training.image.stages import AutoencoderTraining, JointConfig, JointTraining
from sge2hist.training.loop import REFRESH_ITEMS, UNLIMITED_STEPS, StagePlan, finish_stage, run_stage
from sge2hist.training.niches import model_niches
from sge2hist.training.presets import PRESETS
from sge2hist.training.run import TrainingRun, log_end, open_run, release
from sge2hist.training.sufficiency import Shortfall, undertrained
from sge2hist.training.warm_start import check_start, copy_weights, open_start, steps_before, warm_start_config

AUTOENCODER_RATE = 2e-3


@locks_output()
def train(
    dataset: PairedDataset,
    output: str | Path,
    config: TrainConfig | None = None,
    *,
    overwrite: bool = False,
    log: Callable[[str], None] = print,
    clock: Clock | None = None,
) -> ModelBundle:
    """Train a model and write it to the folder `output`; the same call resumes a run that was stopped.

    Parameters
    ----------
    dataset
        Paired dataset; its cells of split "train" are learnt from, those of "val" are shown in previews.
    output
        Model folder to write, ``X.model``.
    config
        Settings; default: those of `TrainConfig`.
    overwrite
        Replace a model that `output` holds.
    log
        Called with each line of progress.
    clock
        Counts the seconds that a time budget has used; default: one that starts now.

    Raises
    ------
    InputError
        If `output` holds another run or something else, if the dataset has no training cells, if a stage collapses.

    Example
    -------
    .. code-block:: python

        train(PairedDataset.open("kidney.paired"), "kidney.model", TrainConfig(hours=1.5))
    """
    config = config or TrainConfig()
    output, budget = check_folder(output), TimeBudget(total_s=config.budget_s, clock=clock or Clock())
    # whatever may be wrong with the arguments is found before any work
    initial = open_start(config.warm_start)
    dataset.rows("train")
    model_shape(dataset, config, n_genes=len(dataset.genes))
    check_start(initial, proteins_to_read(dataset, config), refit_genes=config.refit_genes)
    excluded = read_exclusion_mask(config.exclude, dataset)
    accelerator = make_accelerator(config.mixed_precision)
    run = open_run(
        output,
        {"config": config.identity(), "data": dataset.fingerprint, "excluded": excluded.fingerprint},
        accelerator,
        seed=config.seed,
        overwrite=overwrite,
        log=log,
        checkpoint_every_s=config.checkpoint_every_s,
        budget=budget,
    )
    if (output / CONFIG_NAME).is_file():
        run.log(f"{output} is trained already; --overwrite trains it again")
        return ModelBundle.load(output)
    try:
        run.resume()
        with run.recording():
            training = _Training(dataset, config, run, excluded, initial)
            training.run_stages()
    except InputError:
        release(run, output)
        raise
    if accelerator.is_main_process:
        with budget.work("write/model"):
            training.write(output)
    accelerator.wait_for_everyone()
    bundle = ModelBundle.load(output)
    log_end(run, training.shortfall())
    return bundle


class _Training:
    """The data on the model's panel, the model, and its stages in order."""

    def __init__(
        self,
        dataset: PairedDataset,
        config: TrainConfig,
        run: TrainingRun,
        excluded: ExclusionMask,
        initial: ModelBundle | None,
    ) -> None:
        """Read the data and build the model, from `initial` and from a checkpoint of the run where there are any."""
        self.dataset, self.config, self.run = dataset, config, run
        self.preset = PRESETS[config.preset]
        self.device = str(run.accelerator.device)
        self.train_rows = dataset.rows("train")
        run.log(f"{len(self.train_rows):,} training cells; reading expression")
        self.columns = select_genes(dataset, self.preset.genes)
        self.panel = GenePanel(
            [dataset.genes.ids[c] for c in self.columns], [dataset.genes.symbols[c] for c in self.columns]
        )
        self.proteins = proteins_to_read(dataset, config)
        all_cells = GeneData.from_paired(dataset, np.arange(len(dataset)), self.columns, self.proteins)
        train_cells = GeneData.from_paired(dataset, self.train_rows, self.columns, self.proteins)
        self.model = self._build_model(train_cells, initial)
        self.skipped = self._warm_start(initial)
        run.restore_module(self.model)
        self.model.to(self.device)
        self.all_cells = with_neighbours(all_cells, self.model.gene, split_groups(dataset))
        self.train_cells = self._with_placed_neighbours(train_cells)
        n_parameters = sum(p.numel() for p in self.model.parameters())
        proteins = "" if self.proteins is None else f", {len(self.proteins):,} proteins"
        run.log(f"{len(self.columns):,} genes{proteins}, {n_parameters / 1e6:.1f} M parameters")
        shape = self.model.config
        self.source = PatchSource(
            dataset,
            patch_px=shape.patch_px,
            um_per_px=shape.um_per_px,
            receptive_radius_um=shape.receptive_radius_um,
            jitter_um=self.preset.method.jitter_nodes * shape.image.condition.grid_um,
            excluded=excluded,
        )
        self.useful = config.useful_steps(max_steps(len(self.train_rows), GeneStageConfig.batch_size))
        stages = self.preset.method.stages
        self.steps_before = steps_before(initial, shape, self.panel, stages, config.refit_genes)

    def _with_placed_neighbours(self, train_cells: GeneData) -> GeneData:
        """The training cells with the features of their neighbours: other training cells, and placed cells among them."""
        of_all = self.all_cells.neighbour_NA
        if self.dataset.is_centre.all() or of_all is None:
            return with_neighbours(train_cells, self.model.gene)
        return replace(train_cells, neighbour_NA=of_all[self.train_rows])

    def _build_model(self, train_cells: GeneData, initial: ModelBundle | None) -> JointModel:
        seed = self.config.seed
        shape = model_shape(self.dataset, self.config, n_genes=len(self.panel), proteins=self.proteins)
        if initial is not None:
            shape = warm_start_config(shape, initial, refit_genes=self.config.refit_genes)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = JointModel(shape)
        model.gene.set_statistics(gene_statistics(train_cells, shape.gene.n_axes, seed=seed))
        return model

    def _warm_start(self, initial: ModelBundle | None) -> list[str]:
        """Take over the weights of `initial`; return the stages that are skipped for it."""
        if initial is None:
            return []
        refit = self.config.refit_genes
        skipped = copy_weights(self.model, self.panel, initial, self.dataset.fingerprint, refit_genes=refit)
        self.run.stages_done = dict.fromkeys(skipped, 0.0) | self.run.stages_done
        self.run.log(f"starting from {self.config.warm_start}{', without ' * bool(skipped)}{', '.join(skipped)}")
        return skipped

    def _plan_time(self) -> None:
        """Divide a time budget over the stages, by the time that a few steps take, and log what it will hold."""
        budget, config = self.run.budget, self.config
        budget.shares = config.shares(self.run.stages_done)
        if budget.total_s is None:
            return
        joint = self._joint_config(self._joint_batch)
        rates = measure_rates(
            self.model,
            self.source,
            self.train_cells,
            self.all_cells,
            budget.shares,
            joint=joint,
            autoencoder_batch=self.preset.ae_batch,
            device=self.device,
            autocast=self.run.accelerator.autocast,
            clock=budget.clock,
        )
        n_held_out = int((self.dataset.obs["split"].astype(str) == "val").sum())
        work = expected_work(
            rates,
            budget.shares,
            n_train=self.train_cells.n_cells,
            n_all=self.all_cells.n_cells,
            n_reference=n_held_out if n_held_out >= MIN_REFERENCE_CELLS else self.train_cells.n_cells,
            labelled=config.use_labels and bool((self.train_cells.type_N >= 0).mean() >= MIN_LABELLED),
            shape=self.model.config,
            joint=joint,
            autoencoder_batch=self.preset.ae_batch,
        )
        budget.expect(work)
        position = {} if self.run.pending is None else self.run.pending[1]
        begun = (str(position.get("stage")), int(position.get("step", 0)), float(position.get("share", 0.0)))
        most = max_steps(self.train_cells.n_cells, GeneStageConfig.batch_size)
        announce(
            budget,
            rates,
            useful=self.useful,
            max_steps=dict.fromkeys(GENE_STAGES, most),
            begun=begun,
            before=self.steps_before,
            log=self.run.log,
        )

    def run_stages(self) -> None:
        """Run or resume the stages of the preset's method."""
        stages = self.preset.method.stages
        self._plan_time()
        genes = self._gene_stages()
        if "autoencoder" in stages:
            self._train_autoencoder()
        self._train_jointly(genes.before_images())
        if "expression" in stages:
            genes.after_images()

    def _plan(
        self, name: str, n_steps: int, rate: float, items: int, max_steps: int = 0, **more: float | bool
    ) -> StagePlan:
        """A stage of `n_steps` or, with a time budget, as long as that lasts (`max_steps` at most; 0: no limit)."""
        timed = self.config.budget_s is not None
        return StagePlan(
            name=name,
            n_steps=max_steps or UNLIMITED_STEPS if timed else n_steps,
            learning_rate=rate,
            items_per_step=items,
            useful_steps=self.useful.get(name, 0),
            refresh_every=max(250, REFRESH_ITEMS // items) if timed or n_steps > 1000 else max(1, n_steps // 4),
            **more,  # type: ignore[arg-type]
        )

    @property
    def _joint_batch(self) -> int:
        return self.config.batch or self.preset.batch

    def _train_autoencoder(self) -> None:
        autoencoder = self.model.image.autoencoder
        if autoencoder is None or "autoencoder" in self.run.stages_done:
            return
        batch = self.preset.ae_batch
        stage = AutoencoderTraining(autoencoder, self.source, batch=batch, seed=self.config.seed, device=self.device)
        run_stage(stage, self._plan("autoencoder", self.preset.ae_steps, AUTOENCODER_RATE, batch), self.run, self.model)
        with self.run.budget.work("autoencoder/statistics"), torch.no_grad():
            n_batches = max(1, STATISTICS_IMAGES // batch)
            images = torch.cat([stage.images(i, "autoencoder/statistics") for i in range(n_batches)])
            autoencoder.set_latent_statistics(images)
        finish_stage(self.run, self.model, "autoencoder")

    def _gene_stages(self) -> GeneStages:
        return GeneStages(
            self.model,
            self.train_cells,
            self.run,
            self._plan,
            n_steps=(self.preset.gene_steps, self.preset.mixture_steps),
            use_labels=self.config.use_labels,
            device=self.device,
        )

    def _joint_config(self, batch: int) -> JointConfig:
        """The joint stage of the method; a gene model that was taken over is frozen from the start, if it ever is."""
        joint = self.preset.method.joint
        taken_over = "gene" in self.skipped and joint.gene_until < 1
        return replace(
            joint,
            batch=batch,
            seed=self.config.seed,
            n_gradient_cells=16 * batch,
            n_expression_cells=2 * batch,
            gene_until=0.0 if taken_over else joint.gene_until,
        )

    def _train_jointly(self, gene_stage: GeneStage) -> None:
        batch = self._joint_batch
        train_row_of_cell = np.full(len(self.dataset), -1, np.int64)
        train_row_of_cell[self.train_rows] = np.arange(len(self.train_rows))
        stage = JointTraining(
            self.model,
            self.source,
            gene_stage,
            self.all_cells,
            self._joint_config(batch),
            train_row_of_cell=train_row_of_cell,
            device=self.device,
            budget=self.run.budget,
        )
        plan = self._plan(
            "joint",
            self.config.steps or self.preset.joint_steps,
            self.config.learning_rate or self.preset.learning_rate,
            batch,
            ema=True,
        )
        preview = Preview(
            self.model,
            self.source,
            self.all_cells,
            stage.depth_N,
            preview_rows(validation_rows(self.dataset), self.train_rows, self.config.seed),
            self.run.directory,
            self.device,
        )
        n_steps = run_stage(
            stage, plan, self.run, self.model, preview=preview, preview_every_s=self.config.preview_every_s
        )
        if n_steps:
            finish_stage(self.run, self.model, "joint")
            with self.run.budget.work("preview/last"):
                preview(n_steps)

    def _reference_cells(self) -> GeneData:
        """Cells of the same tissue that the model was not fitted to: unlike these, a cell is called novel."""
        val = validation_rows(self.dataset)
        held_out = GeneData.from_paired(self.dataset, val, self.columns, self.proteins) if len(val) else None
        # quantiles of a few cells would make most others novel
        if held_out is None or (held_out.library_N > 0).sum() < MIN_REFERENCE_CELLS:
            return self.train_cells
        return with_neighbours(held_out, self.model.gene)

    def write(self, output: Path) -> None:
        """Write the model folder."""
        self.model.eval()
        if self.model.config.gene.centre_micro:  # another mixture would not centre z2 as the image model learnt it
            centre_micro(self.model.gene, self.train_cells)
        else:
            self._gene_stages().fit_mixture()
        encoded = encode_data(self.model.gene, self.train_cells)
        calibrate_novelty(self.model.gene, self._reference_cells(), seed=self.config.seed)
        bundle = ModelBundle(
            model=self.model,
            genes=self.panel,
            proteins=self.proteins,
            types=name_components(self.model.gene, self.train_cells, encoded=encoded),
            provenance=provenance(self.dataset, self.config, self.run.stages_done)
            | {"stage_steps": self._all_steps(), "undertrained": self.shortfall()},
            z2_range=z2_range_of(encoded.z2),
            niches=model_niches(self.model, self.dataset, self.all_cells, seed=self.config.seed),
        )
        with atomic_path(output / "README.md") as partial:
            partial.write_text(model_card(bundle), encoding="utf-8")
        bundle.save(output)
        self.run.log(f"wrote {output}")

    def _all_steps(self) -> dict[str, float]:
        """Steps per stage, those before a warm start included; none for stages of unknown steps."""
        stages = self.preset.method.stages
        steps = {name: self.steps_before.get(name, 0.0) + self.run.steps_done.get(name, 0) for name in stages}
        return {name: int(n) for name, n in steps.items() if n < float("inf")}

    def shortfall(self) -> Shortfall:
        """Stages with fewer steps than are useful."""
        return undertrained(self._all_steps(), self.useful)
