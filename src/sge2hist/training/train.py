"""`PairedDataset` -> model folder: all stages in order, resumable at any moment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from sge2hist.data.artifacts import atomic_path
from sge2hist.data.errors import InputError
from sge2hist.data.gene_panel import GenePanel
from sge2hist.data.paired import PairedDataset
from sge2hist.devices import make_accelerator
from sge2hist.models.bundle import CONFIG_NAME, ModelBundle, model_folder, z2_range_of
from sge2hist.models.joint_model import JointModel
from sge2hist.training.card import model_card, provenance
from sge2hist.training.config import TrainConfig, model_shape
from sge2hist.training.gene.data import GeneData, encode_data, gene_statistics, split_groups, with_neighbours
from sge2hist.training.gene.mixture_em import centre_micro
from sge2hist.training.gene.selection import select_genes
from sge2hist.training.gene.stages import GeneStage, GeneStages, calibrate_novelty
from sge2hist.training.gene.type_names import name_components
from sge2hist.training.image.exclusion_mask import LeftOut, read_left_out
from sge2hist.training.image.patches import PatchSource
from sge2hist.training.image.preview import Preview
from sge2hist.training.image.stages import (
    SHARE_ANYWHERE,
    SHARE_CENTRE,
    AutoencoderTraining,
    JointConfig,
    JointTraining,
)
from sge2hist.training.loop import Run, StagePlan, finish_stage, run_stage
from sge2hist.training.presets import IS_PAPER, PRESETS
from sge2hist.training.run_folder import open_run, release
from sge2hist.training.warm_start import shape_of_start, start_from

REFRESH_ITEMS = 16_000  # patches or cells between two renewals of what a stage caches


def train(
    dataset: PairedDataset,
    output: str | Path,
    config: TrainConfig | None = None,
    *,
    overwrite: bool = False,
    say: Callable[[str], None] = print,
) -> ModelBundle:
    """Train a model and write it to the folder `output`; the same call resumes a run that was stopped.

    Raises
    ------
    InputError
        If `output` holds another run or something else, if the dataset has no training cells, if a stage collapses.
    """
    config = config or TrainConfig()
    output = Path(output)
    start = None
    if config.start is not None:
        start = ModelBundle.load(model_folder(config.start))  # one that cannot be opened: an error before any work
    dataset.rows("train")  # an empty split is an error before any work
    model_shape(dataset, config, n_genes=len(dataset.genes))  # so is a patch that the networks cannot take
    left_out = read_left_out(config.leave_out, dataset)
    accelerator = make_accelerator(config.mixed_precision)
    asked = {"config": config.identity(), "data": dataset.fingerprint, "left_out": left_out.fingerprint}
    run = open_run(
        output,
        asked,
        accelerator,
        seed=config.seed,
        overwrite=overwrite,
        say=say,
        checkpoint_every_s=config.checkpoint_every_s,
    )
    if (output / CONFIG_NAME).is_file():
        run.say(f"{output} is trained already; --overwrite trains it again")
        return ModelBundle.load(output)
    training = _Training(dataset, output, config, run, left_out, start)
    try:
        training.run()
    except InputError:
        release(run, output)
        raise
    if accelerator.is_main_process:
        training.write()
    accelerator.wait_for_everyone()
    return ModelBundle.load(output)


class _Training:
    """One run: the data on the model's panel, the model, and the stages in order."""

    def __init__(
        self,
        dataset: PairedDataset,
        output: Path,
        config: TrainConfig,
        run: Run,
        left_out: LeftOut,
        start: ModelBundle | None,
    ) -> None:
        self.dataset, self.output, self.config, self.left_out, self.start = dataset, output, config, left_out, start
        self.preset = PRESETS[config.preset]
        self.device = str(run.accelerator.device)
        self.runner = run

    def run(self) -> None:
        """Run or resume all stages."""
        say, dataset = self.runner.say, self.dataset
        say(f"{len(dataset.rows('train')):,} training cells; reading expression")
        columns = select_genes(dataset, self.preset.genes)
        self.panel = GenePanel([dataset.genes.ids[c] for c in columns], [dataset.genes.symbols[c] for c in columns])
        self.columns = columns
        self.all_cells = GeneData.from_paired(dataset, dataset.rows("all"), columns)
        self.train_rows = dataset.rows("train")
        self.train_cells = GeneData.from_paired(dataset, self.train_rows, columns)
        self.model = self._build_model()
        self.runner.resume()
        self.skipped = self._start()
        self.runner.restore_module(self.model)
        self.model.to(self.device)
        self._look_around()
        model_um_per_px = self.model.config.um_per_px
        say(f"{len(columns):,} genes, {sum(p.numel() for p in self.model.parameters()) / 1e6:.1f} M parameters")
        self.source = PatchSource(
            dataset,
            patch_px=self.model.config.patch_px,
            um_per_px=model_um_per_px,
            reach_um=self.model.config.receptive_radius_um,
            jitter_um=0.0 if self._is_paper else self.model.config.image.condition.grid_um,
            left_out=self.left_out,
        )
        self._train_autoencoder()
        genes = self._gene_stages()
        self._train_jointly(genes.before_images())
        if not self._is_paper:
            genes.after_images()

    def _gene_stages(self) -> GeneStages:
        return GeneStages(
            self.model,
            self.train_cells,
            self.runner,
            self._plan,
            n_steps=(self.preset.gene_steps, self.preset.mixture_steps),
            use_labels=self.config.use_labels,
            device=self.device,
        )

    def _look_around(self) -> None:
        """Tell the encoder of z2 what is around each cell."""
        self.all_cells = with_neighbours(self.all_cells, self.model.gene, split_groups(self.dataset))
        self.train_cells = with_neighbours(self.train_cells, self.model.gene)

    def _start(self) -> list[str]:
        """Take over the weights of the model to start from; returns the stages that are skipped for it."""
        if self.start is None:
            return []
        skipped = start_from(
            self.model, self.panel, self.start, self.dataset.fingerprint, renew_genes=self.config.renew_genes
        )
        self.runner.stages_done = dict.fromkeys(skipped, 0.0) | self.runner.stages_done
        self.runner.say(f"starting from {self.config.start}" + (f", without {', '.join(skipped)}" if skipped else ""))
        return skipped

    @property
    def _is_paper(self) -> bool:
        return self.config.preset in IS_PAPER

    def _build_model(self) -> JointModel:
        seed = self.config.seed
        shape = model_shape(self.dataset, self.config, n_genes=len(self.panel))
        if self.start is not None:
            shape = shape_of_start(shape, self.start.config, renew_genes=self.config.renew_genes)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = JointModel(shape)
        model.gene.set_statistics(gene_statistics(self.train_cells, shape.gene.n_axes, seed=seed))
        return model

    def _plan(self, name: str, n_steps: int, rate: float, items: int, most: int = 0, **more: float | bool) -> StagePlan:
        """A stage of `n_steps` or, with a time budget, as long as that lasts, but of `most` steps."""
        budget = self.config.budget_s(name, self.skipped)
        return StagePlan(
            name=name,
            n_steps=n_steps if budget is None else most or 10**9,
            learning_rate=rate,
            items_per_step=items,
            budget_s=budget,
            refresh_every=max(250, REFRESH_ITEMS // items) if budget or n_steps > 1000 else max(1, n_steps // 4),
            **more,  # type: ignore[arg-type]
        )

    def _train_autoencoder(self) -> None:
        autoencoder = self.model.image.autoencoder
        if autoencoder is None or "autoencoder" in self.runner.stages_done:
            return
        batch = min(32, max(8, self.preset.batch))
        stage = AutoencoderTraining(autoencoder, self.source, batch=batch, seed=self.config.seed, device=self.device)
        run_stage(stage, self._plan("autoencoder", self.preset.ae_steps, 2e-3, batch), self.runner, self.model)
        with torch.no_grad():
            images = torch.cat([stage.images(i, "autoencoder/statistics") for i in range(max(1, 512 // batch))])
            autoencoder.set_latent_statistics(images)
        finish_stage(self.runner, self.model, "autoencoder")

    def _train_jointly(self, gene_stage: GeneStage) -> None:
        batch = self.config.batch or self.preset.batch
        train_row_of_cell = np.full(len(self.dataset), -1, np.int64)
        train_row_of_cell[self.train_rows] = np.arange(len(self.train_rows))
        joint = JointConfig(
            batch=batch,
            seed=self.config.seed,
            n_gradient_cells=16 * batch,
            n_expression_cells=2 * batch,
            share_centre=0.9 if self._is_paper else SHARE_CENTRE,
            share_anywhere=0.0 if self._is_paper else SHARE_ANYWHERE,
            draw_micro=self._is_paper,
            type_gradient=1.0 if self._is_paper else 0.0,
            gene_until=1.0 if self._is_paper else 0.0 if "gene" in self.skipped else 1 / 3,
        )
        stage = JointTraining(
            self.model,
            self.source,
            gene_stage,
            self.all_cells,
            joint,
            train_row_of_cell=train_row_of_cell,
            device=self.device,
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
            self._preview_rows(),
            self.runner.directory,
            self.device,
        )
        n_steps = run_stage(
            stage, plan, self.runner, self.model, preview=preview, preview_every_s=self.config.preview_every_s
        )
        if n_steps:
            finish_stage(self.runner, self.model, "joint")
            preview(n_steps)

    def _preview_rows(self) -> np.ndarray:
        split = self.dataset.obs["split"].astype(str).to_numpy()
        rows = np.flatnonzero(split == "val") if (split == "val").any() else self.train_rows
        return np.sort(np.random.default_rng(self.config.seed).choice(rows, min(8, len(rows)), replace=False))

    def _reference_cells(self) -> GeneData:
        """Cells that the model was not fitted to, of the same tissue: against them others are called novel."""
        val = np.flatnonzero(self.dataset.obs["split"].astype(str).to_numpy() == "val")
        if not len(val):
            return self.train_cells
        return with_neighbours(GeneData.from_paired(self.dataset, val, self.columns), self.model.gene)

    def write(self) -> None:
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
            types=name_components(self.model.gene, self.train_cells, encoded=encoded),
            provenance=provenance(self.dataset, self.config, self.runner.stages_done),
            z2_range=z2_range_of(encoded.z2),
        )
        with atomic_path(self.output / "README.md") as partial:
            partial.write_text(model_card(bundle), encoding="utf-8")
        bundle.save(self.output)
        self.runner.say(f"wrote {self.output}")
