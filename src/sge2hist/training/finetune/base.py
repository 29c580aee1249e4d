"""Fine-tuning: a trained model -> a copy of which some networks are trained further; opened, resumed, written as in training."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from sge2hist.data.artifacts import atomic_path
from sge2hist.data.errors import InputError
from sge2hist.data.output_lock import locks_output
from sge2hist.data.paired import PairedDataset
from sge2hist.data.slides.channels import require_same_channels
from sge2hist.devices import make_accelerator
from sge2hist.models.bundle import CONFIG_NAME, ModelBundle
from sge2hist.models.image.denoiser import LearntGuidance
from sge2hist.models.image.samplers import SamplerConfig
from sge2hist.models.joint_model import JointModel
from sge2hist.training.budget import TimeBudget
from sge2hist.training.card import model_card
from sge2hist.training.gene.data import GeneData, split_groups, with_neighbours
from sge2hist.training.image.conditioning import ConditioningCells
from sge2hist.training.image.exclusion_mask import read_exclusion_mask
from sge2hist.training.image.patches import PatchSource
from sge2hist.training.loop import Stage, StagePlan, finish_stage, run_stage
from sge2hist.training.run import TrainingRun, log_end, open_run
from sge2hist.training.sufficiency import USEFUL_SHARE, undertrained

WRITE_S = 3.0
"""Seconds expected for the last checkpoint and for writing the model."""


class TuningConfig(Protocol):
    """Settings that every fine-tuning has; a frozen dataclass."""

    @property
    def seed(self) -> int:
        """Of batches and noise."""

    @property
    def exclude(self) -> str | None:
        """GeoJSON of areas of the slides from which no image is taken."""


class DistillationSettings(Protocol):
    """What the two distillations share: settings of so many steps."""

    @property
    def steps(self) -> int:
        """Of the optimiser."""

    @property
    def learning_rate(self) -> float:
        """Highest of the schedule."""

    @property
    def batch(self) -> int:
        """Patches of a step."""


def distillation_plan(name: str, config: DistillationSettings, *, default_steps: int) -> StagePlan:
    """The plan of a distillation, with averaged weights; a share of the default number of steps is of use."""
    return StagePlan(
        name=name,
        n_steps=config.steps,
        learning_rate=config.learning_rate,
        items_per_step=config.batch,
        useful_steps=round(USEFUL_SHARE * default_steps),
        ema=True,
        refresh_every=min(100, config.steps),
    )


MakeStage = Callable[[JointModel, PatchSource, ConditioningCells, TrainingRun], Stage]
"""(model, crops, cells, run) -> the stage, which marks the parameters that it trains."""


@locks_output()
def tune(
    trained: ModelBundle,
    dataset: PairedDataset,
    output: Path,
    config: TuningConfig,
    stages: Sequence[tuple[StagePlan, MakeStage]],
    *,
    sampler: SamplerConfig | None = None,
    learnt_guidance: LearntGuidance | None = None,
    overwrite: bool = False,
    log: Callable[[str], None] = print,
    budget: TimeBudget | None = None,
    crop_px: int | None = None,
) -> ModelBundle:
    """Train more stages on a copy of `trained` and write it to `output`; the same call resumes a run that was stopped.

    The provenance of the new model has the settings under the last stage's name and the fingerprint of `trained` under "teacher".
    `sampler`: the default sampler of the new model, `learnt_guidance`: the guidance in its weights; None: as in `trained`.
    `budget`: of time, over everything; the plans then give the largest numbers of steps. `crop_px`: side of the crops to learn
    from; None: as the model was trained.

    Raises
    ------
    InputError
        If `output` holds something else, or if the model does not fit the dataset.
    """
    budget = budget or TimeBudget()
    check_tunable(trained, dataset)
    excluded = read_exclusion_mask(config.exclude, dataset)
    shape = trained.config
    source = PatchSource(
        dataset,
        patch_px=trained.with_patch_px(crop_px).config.patch_px,
        um_per_px=shape.um_per_px,
        receptive_radius_um=shape.receptive_radius_um,
        jitter_um=shape.image.condition.grid_um,
        excluded=excluded,
    )
    accelerator = make_accelerator("auto")
    settings = asdict(config)  # type: ignore[call-overload]
    identity = {
        "config": {name: value for name, value in settings.items() if name != "hours"},  # a resumed run may have more
        "data": dataset.fingerprint,
        "teacher": trained.fingerprint,
        "excluded": excluded.fingerprint,
    }
    run = open_run(output, identity, accelerator, seed=config.seed, overwrite=overwrite, log=log, budget=budget)
    if (output / CONFIG_NAME).is_file():
        run.log(f"{output} is finished already; --overwrite does it again")
        return ModelBundle.load(output)
    model = copy.deepcopy(trained.model).to(accelerator.device)
    model.requires_grad_(False)
    run.resume()
    run.restore_module(model)
    if trained.provenance.get("data_fingerprint") != dataset.fingerprint:
        run.log("these are not the data that the model was trained on: cells that were held out may be trained on")
    with run.recording():
        cells = conditioning_cells(model, trained, dataset, str(accelerator.device))
        budget.expect({"write/model": WRITE_S})
        for plan, make_stage in stages:
            if plan.name not in run.stages_done:
                run_stage(make_stage(model, source, cells, run), plan, run, model)
                model.requires_grad_(False)
                finish_stage(run, model, plan.name)
    model.config = replace(
        shape, sampler=sampler or shape.sampler, learnt_guidance=learnt_guidance or shape.learnt_guidance
    )
    before = trained.provenance
    shortfall = undertrained(run.steps_done, {plan.name: plan.useful_steps for plan, _ in stages})
    provenance = before | {
        "teacher": trained.fingerprint,
        stages[-1][0].name: settings,
        "stage_seconds": before.get("stage_seconds", {}) | run.stages_done,
        "stage_steps": before.get("stage_steps", {}) | run.steps_done,
        "undertrained": before.get("undertrained", {}) | shortfall,
    }
    bundle = ModelBundle(
        model=model.cpu().eval(),
        genes=trained.genes,
        proteins=trained.proteins,
        types=trained.types,
        z2_range=trained.z2_range,
        niches=trained.niches,
        provenance=provenance,
    )
    if accelerator.is_main_process:
        with atomic_path(output / "README.md") as partial:
            partial.write_text(model_card(bundle), encoding="utf-8")
        bundle.save(output)
        run.log(f"wrote {output}")
        log_end(run, shortfall)
    accelerator.wait_for_everyone()
    return ModelBundle.load(output)


def conditioning_cells(
    model: JointModel, trained: ModelBundle, dataset: PairedDataset, device: str
) -> ConditioningCells:
    """All cells of the dataset on the genes and proteins of `trained`, encoded by `model`."""
    column = {gene: i for i, gene in enumerate(dataset.genes.ids)}
    columns = np.array([column[gene] for gene in trained.genes.ids])
    cells = GeneData.from_paired(dataset, np.arange(len(dataset)), columns, trained.proteins)
    return ConditioningCells(model, with_neighbours(cells, model.gene, split_groups(dataset)), device)


def check_tunable(trained: ModelBundle, dataset: PairedDataset) -> None:
    """Raise `InputError` unless the model can be trained further on this dataset."""
    if trained.config.image.diffusion.formulation != "edm" or trained.config.image.condition.form != "map":
        raise InputError(
            found=f"a model of preset {trained.config.preset}", expected="a model conditioned on a map of cells"
        )
    require_same_channels(dataset.channels, trained.config.channels, where=str(dataset.path))
    dataset.rows("train")  # an empty split is an error before any work
    if len(dataset.slide_ids) > trained.config.image.n_slides:
        raise InputError(
            found=f"{len(dataset.slide_ids)} slides",
            where=str(dataset.path),
            expected=f"the {trained.config.image.n_slides} that the model was trained on",
        )
    if trained.proteins is not None:
        if dataset.proteins is None:
            raise InputError(
                found=f"a model that reads {len(trained.proteins):,} proteins, and a dataset without proteins",
                where=str(dataset.path),
                expected="the dataset that the model was trained on",
            )
        trained.proteins.columns(dataset.proteins)
    known = set(dataset.genes.ids)
    missing = [gene for gene in trained.genes.ids if gene not in known]
    if missing:
        raise InputError(
            found=f"{len(missing):,} of the model's {len(trained.genes):,} genes are not in the data, e.g. {missing[0]}",
            where=str(dataset.path),
            expected="the dataset that the model was trained on",
        )
