"""What a time budget will hold: seconds per step measured on a few steps of a copy of the model, before training starts."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import numpy as np
import torch

from sge2hist.models.joint_model import JointModel, ModelConfig
from sge2hist.training.budget import TimeBudget, clock_text
from sge2hist.training.gene.data import GeneData, encode_data
from sge2hist.training.gene.mixture_init import MAX_FIT_CELLS
from sge2hist.training.gene.stages import MAX_REFERENCE_CELLS, GeneStage, GeneStageConfig, GeneTraining
from sge2hist.training.image.patches import PatchSource
from sge2hist.training.image.preview import preview_sampler
from sge2hist.training.image.stages import AutoencoderTraining, JointConfig, JointTraining
from sge2hist.training.loop import Stage

PROBE_CELLS = 1024
SLOW_S = 1.0  # a smaller first step that takes as long is not repeated with the whole batch
GENE_STAGES = ("gene", "mixture", "expression")
STATISTICS_IMAGES = 512  # images for the mean and variance of the latents
PREVIEW_IMAGES = 16
OPEN_AND_SAVE_S = 3.0
# measured on 80,000 cells, in times that encoding the same cells takes
FIT_ENCODINGS = {True: 2.4, False: 14.0}  # a mixture, with and without labels
NOVELTY_ENCODINGS, TARGETS_ENCODINGS = 3.0, 0.3


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Seconds that steps and encoding take on this machine, as busy as it is."""

    step_s: dict[str, float]  # stage -> seconds per step, a mean over the stage
    encode_s: float  # all training cells, once
    frozen_step_s: float = 0.0  # of the joint stage, once the gene model is frozen


def measure_rates(
    model: JointModel,
    source: PatchSource,
    train_cells: GeneData,
    all_cells: GeneData,
    stages: Iterable[str],
    *,
    joint: JointConfig,
    autoencoder_batch: int,
    device: str,
    autocast: Callable[[], AbstractContextManager[object]],
    clock: Callable[[], float],
) -> Rates:
    """Take a few steps of each of `stages` on a copy of the model, without training it, and encode some cells."""
    model, stages = copy.deepcopy(model), set(stages)
    rows = np.linspace(0, train_cells.n_cells - 1, min(PROBE_CELLS, train_cells.n_cells)).astype(np.int64)
    some = train_cells.subset(rows)
    encode_data(model.gene, train_cells, rows[:64])  # the first call is slower
    started = clock()
    encode_data(model.gene, train_cells, rows)
    encode_s = (clock() - started) * train_cells.n_cells / len(rows)
    found: dict[str, float] = {}

    def measure(make: Callable[[int], Stage], batch: int) -> float:
        return _seconds_per_step(make, batch, autocast, clock)

    def gene_stage(batch: int) -> GeneStage:
        return GeneStage(model.gene, some, GeneStageConfig(batch_size=batch), device=device)

    if own := stages.intersection(GENE_STAGES):
        seconds = measure(lambda batch: GeneTraining(gene_stage(batch)), GeneStageConfig.batch_size)
        found |= dict.fromkeys(own, seconds)
    if "autoencoder" in stages and (autoencoder := model.image.autoencoder) is not None:
        found["autoencoder"] = measure(
            lambda batch: AutoencoderTraining(autoencoder, source, batch=batch, seed=0, device=device),
            autoencoder_batch,
        )
    frozen_s = 0.0
    if "joint" in stages:
        latents = torch.zeros(all_cells.n_cells, model.config.gene.n_latent)

        def joint_stage(batch: int, frozen: bool) -> Stage:
            stage = JointTraining(
                model,
                source,
                gene_stage(GeneStageConfig.batch_size),
                all_cells,
                replace(joint, batch=batch, n_gradient_cells=16 * batch, n_expression_cells=2 * batch),
                train_row_of_cell=np.zeros(all_cells.n_cells, np.int64),
                device=device,
            )
            stage.load_own_state({"frozen": torch.tensor(frozen), "mean_NZ": latents, "sd_NZ": latents})
            return stage

        until = joint.gene_until
        whole_s = measure(lambda batch: joint_stage(batch, False), joint.batch) if until else 0.0
        frozen_s = measure(lambda batch: joint_stage(batch, True), joint.batch) if until < 1 else whole_s
        found["joint"] = until * whole_s + (1 - until) * frozen_s
    return Rates(step_s=found, encode_s=encode_s, frozen_step_s=frozen_s)


def _seconds_per_step(
    make: Callable[[int], Stage],
    batch: int,
    autocast: Callable[[], AbstractContextManager[object]],
    clock: Callable[[], float],
) -> float:
    """The faster of two steps; on a slow machine, that of a quarter of the batch times four."""

    def seconds(stage: Stage, step: int) -> float:
        started = clock()
        with torch.random.fork_rng(), autocast():
            loss = stage(step)["loss"]
        loss.backward()
        for parameter in stage.parameters():
            parameter.grad = None
        return clock() - started

    part = max(1, batch // 4)
    first = seconds(make(part), 0)
    if first > SLOW_S:
        return first * batch / part
    stage = make(batch)
    return min(seconds(stage, step) for step in (1, 2))


def expected_work(
    rates: Rates,
    stages: Iterable[str],
    *,
    n_train: int,
    n_all: int,
    n_reference: int,
    labelled: bool,
    shape: ModelConfig,
    joint: JointConfig,
    autoencoder_batch: int,
) -> dict[str, float]:
    """Seconds of the work beside the steps of the stages that are not done, by its name in `TimeBudget.work`.

    `n_reference`: cells of the novelty statistics; `labelled`: labels start the mixture.
    """
    stages = set(stages)

    def encoding_s(n_cells: int) -> float:
        return rates.encode_s * min(n_cells, n_train) / n_train

    fit_s = (FIT_ENCODINGS[labelled] + 1) * encoding_s(MAX_FIT_CELLS)
    targets_s = TARGETS_ENCODINGS * rates.encode_s
    work = {"targets/first": targets_s}
    if "autoencoder" in stages:
        # a forward pass is a third of a step
        work["autoencoder/statistics"] = STATISTICS_IMAGES / autoencoder_batch * rates.step_s["autoencoder"] / 3
    if "gene" in stages:
        work["mixture/start"] = fit_s + rates.encode_s
    if "mixture" in stages:
        work["fit/mixture"] = fit_s + 2 * rates.encode_s
    if "joint" in stages:
        # at most two evaluations per step of the sampler, each a third of a training step
        steps = PREVIEW_IMAGES / joint.batch * 2 * preview_sampler(shape.sampler).n_steps / 3
        work["preview/last"] = steps * rates.frozen_step_s
        if joint.gene_until < 1:
            work["joint/freeze"] = rates.encode_s * (1 + n_all / n_train)
    if "expression" in stages:
        work["targets/last"] = targets_s
    closing_s = rates.encode_s if shape.gene.centre_micro else fit_s + 2 * rates.encode_s
    novelty_s = NOVELTY_ENCODINGS * encoding_s(min(n_reference, MAX_REFERENCE_CELLS))
    work["write/model"] = closing_s + 1.3 * rates.encode_s + novelty_s + OPEN_AND_SAVE_S
    return work


def announce(
    budget: TimeBudget,
    rates: Rates,
    *,
    useful: dict[str, int],
    max_steps: dict[str, int],
    begun: tuple[str, int, float],
    before: dict[str, float],
    log: Callable[[str], None],
) -> None:
    """Log how a time budget will be spent, and warn where it is too short.

    `begun`: the unfinished stage, its steps and its share that is done; `before`: steps that its networks took in an
    earlier training (infinite: unknown, enough).
    """
    assert budget.total_s is not None
    total = clock_text(budget.total_s)
    log(
        f"time budget {total}: {clock_text(budget.used_s())} used, about {clock_text(budget.ahead_s())} for work beside "
        f"the steps, {clock_text(budget.for_steps_s())} for steps"
    )
    steps, needed_s, short = {}, 0.0, []
    all_shares = sum(budget.shares.values())
    for stage, share in budget.shares.items():
        done, share_done = begun[1:] if stage == begun[0] else (0, 0.0)
        step_s = max(rates.step_s.get(stage, 0.0), 1e-9)
        n = done + max(1, round(max(0.0, budget.left_s(stage, share_done)) / step_s))
        steps[stage] = min(n, max_steps.get(stage, n))
        missing = useful.get(stage, 0) - before.get(stage, 0.0)
        if steps[stage] < missing:
            short.append(stage)
            needed_s = max(needed_s, (missing - done) * step_s * all_shares / share)
    log("estimated steps: " + ", ".join(f"{stage} {n:,} of some {useful[stage]:,}" for stage, n in steps.items()))
    if budget.for_steps_s() <= 0:
        log(f"warning: the work beside the steps alone takes longer than {total}: one step per stage, and a later end")
    if short:
        hours = (budget.used_s() + budget.ahead_s() + needed_s) / 3600
        log(
            f"warning: {total} is too short here to train {', '.join(short)} usefully; about --hours {hours:.2g} would do, "
            "or a smaller preset, or --warm-start from a trained model"
        )
