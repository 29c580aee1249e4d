"""The one training loop. A stage is a module that returns its loss terms for a step number; the loop does the rest.

Every random choice of step s comes from generators seeded by (seed, stage, s), so a checkpoint needs no generator state:
a run that was killed and resumed takes the same steps as one that was not.
"""

from __future__ import annotations

import statistics
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sge2hist.data.errors import InputError
from sge2hist.training.budget import clock_text
from sge2hist.training.checkpoint import (
    Ema,
    load_optimizer_tensors,
    optimizer_tensors,
    save_checkpoint,
)
from sge2hist.training.progress import Meter
from sge2hist.training.run import TrainingRun

REFRESH_ITEMS = 16_000  # patches or cells between two updates of what a stage caches
UNLIMITED_STEPS = 10**9
"""Steps of a stage that a time budget ends."""
N_TIMED_STEPS = 3
"""Steps from whose time the steps of a stage are estimated."""
CHECKPOINT_INTERVALS, MAX_INTERVAL = 20, 10
"""Least time between two checkpoints, in times that writing one takes; but no more than so many times the usual interval."""


def stage_rng(seed: int, stage: str, step: int) -> np.random.Generator:
    """Generator of every random choice at one step of one stage: nothing else is needed to resume."""
    return np.random.default_rng([seed, zlib.crc32(stage.encode()), step])


def stage_generator(seed: int, stage: str, step: int) -> torch.Generator:
    """As :func:`stage_rng`, for torch, on the CPU."""
    return torch.Generator().manual_seed(int(stage_rng(seed, stage, step).integers(2**62)))


class Stage(nn.Module):
    """One stage of training.

    Subclasses hold the modules they train and return from ``forward(step)`` a dict of scalar terms; "loss" carries the
    gradient. `refresh(step)` is called before each step that is a multiple of `plan.refresh_every`. A checkpoint may lie
    between two refreshes; after a resume from it `restore_cache` is called.
    """

    def forward(self, step: int) -> dict[str, Tensor]:
        """Return the loss terms of a step."""
        raise NotImplementedError

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return optimizer groups; a group's "scale" multiplies the learning rate, which for a group with an "until" falls
        to zero at that share of the stage.
        """
        return [{"params": [p for p in self.parameters() if p.requires_grad], "scale": 1.0}]

    def advance(self, share: float) -> None:
        """Called before each step with the share of the stage (0 to 1) that is done."""

    def own_state(self) -> dict[str, Tensor]:
        """Return tensors that a checkpoint has to keep beside the model's, such as a cache that depends on earlier weights."""
        return {}

    def load_own_state(self, state: dict[str, Tensor]) -> None:
        """Restore what :meth:`own_state` returned."""

    def refresh(self, step: int) -> None:
        """Recompute what is cached between steps; must depend on the weights and the step alone."""

    def restore_cache(self, step: int) -> None:
        """Restore, after :meth:`load_own_state`, what the refresh at `step` cached; here for one that ignores the weights."""
        self.refresh(step)


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """How long and how fast a stage trains."""

    name: str
    n_steps: int  # steps of the stage; with a time budget, by which the schedule then goes, an upper limit
    learning_rate: float
    items_per_step: int  # cells or patches, for the throughput shown
    useful_steps: int = 0  # from which on the result is of use; 0: not known
    warmup: float = 0.02  # share of the stage in which the learning rate rises
    decay: float = 0.5  # last share of the stage in which it falls to zero (half a cosine)
    clip_norm: float = 1.0  # largest gradient norm
    clip_apart: bool = False  # clip each parameter group by itself, for networks with losses of their own
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.99)  # of Adam
    refresh_every: int = 250  # steps between `Stage.refresh` calls
    ema: bool = False  # average the weights, and end with the average

    def learning_rate_at(self, share: float) -> float:
        """Learning rate at a share (0 to 1) of the stage."""
        rise = min(1.0, (share + 1e-3) / self.warmup) if self.warmup else 1.0
        remaining = (1 - share) / self.decay if self.decay else 1.0
        fall = 1.0 if remaining >= 1 else 0.5 - 0.5 * float(torch.cos(torch.tensor(torch.pi * max(remaining, 0.0))))
        return self.learning_rate * rise * fall


@dataclass
class _Position:
    """Where a stage stands."""

    step: int = 0
    share: float = 0.0  # of the stage, which its schedule follows
    elapsed_s: float = 0.0  # of all attempts


def run_stage(
    stage: Stage,
    plan: StagePlan,
    run: TrainingRun,
    model: nn.Module,
    *,
    preview: Callable[[int], object] | None = None,
    preview_every_s: float = 300.0,
) -> int:
    """Train `stage` (whose modules belong to `model`) as planned; skipped when it is already done.

    Returns the number of steps taken (0 when skipped); with a time budget, one at least. `model` is what a checkpoint
    stores. `preview(step)` is called at intervals, with averaged weights if there are any.

    Raises
    ------
    InputError
        When the loss is not finite: training stops at the last good checkpoint.
    """
    if plan.name in run.stages_done:
        return 0
    accelerator, budget, clock = run.accelerator, run.budget, run.budget.clock
    optimizer = torch.optim.AdamW(
        stage.parameter_groups(), lr=plan.learning_rate, betas=plan.betas, weight_decay=plan.weight_decay
    )
    ema = Ema(stage) if plan.ema else None
    at = _restore(run, plan, stage, optimizer, ema)
    prepared, optimizer_ready = accelerator.prepare(stage, optimizer)
    stage.train()
    last_checkpoint = last_preview = last_step = clock()
    checkpoint_after_s, refresh_s = run.checkpoint_every_s, 0.0
    step_times: list[float] = []
    meter = Meter(run.log if accelerator.is_main_process else lambda _: None)

    while at.share < 1:
        if step_times and clock() - last_checkpoint >= checkpoint_after_s:
            checkpoint_after_s = _save(run, plan, stage, model, optimizer, ema, at)
            last_checkpoint = clock()
        if preview is not None and accelerator.is_main_process and clock() - last_preview > preview_every_s:
            _preview(preview, stage, ema, at.step)
            last_preview = clock()
        # a refresh that would take the rest of a time budget is skipped
        if at.step % plan.refresh_every == 0 and (not step_times or _left_s(run, plan, at) > refresh_s):
            started = clock()
            stage.refresh(at.step)
            refresh_s = _of_first_process(clock() - started, run)
        stage.advance(at.share)
        _set_rates(optimizer, plan, at.share)
        started = clock()
        terms = _step(prepared, optimizer_ready, run, plan, at.step)
        if ema is not None:
            ema.update(stage, at.step)
        at.step += 1
        step_times.append(clock() - started)
        at.elapsed_s, last_step = at.elapsed_s + clock() - last_step, clock()
        at.share = _share_done(run, plan, at, step_times[-1])
        meter.add(terms, plan.items_per_step * accelerator.num_processes)
        _report(meter, run, plan, at)
        if len(step_times) == N_TIMED_STEPS:
            _log_estimate(run, plan, at, statistics.median(step_times))

    _report(meter, run, plan, at, now=True)
    if step_times and clock() - last_checkpoint >= checkpoint_after_s / 2:  # the work that closes the stage may be long
        _save(run, plan, stage, model, optimizer, ema, at)
    if ema is not None:
        ema.copy_to(stage)
    stage.eval()
    accelerator.free_memory()
    run.stages_done[plan.name], run.steps_done[plan.name] = at.elapsed_s, at.step
    budget.finish(plan.name)
    return at.step


def _left_s(run: TrainingRun, plan: StagePlan, at: _Position) -> float:
    return _of_first_process(run.budget.left_s(plan.name, at.share), run)


def _share_done(run: TrainingRun, plan: StagePlan, at: _Position, step_s: float) -> float:
    """Share of the stage that is done after a step that took `step_s`: by the clock with a time budget, else by steps.

    By the clock, the share grows by as much of what remained as the step took of the time that remained for it; so it comes
    to 1 when the time is over, also where estimates of the work ahead change and where earlier attempts had another budget.
    """
    by_steps = at.step / plan.n_steps
    if run.budget.total_s is None:
        return by_steps
    left_s = run.budget.left_s(plan.name, at.share)
    if left_s <= step_s / 2:  # another step would end nearer to twice of it
        return _of_first_process(1.0, run)
    return _of_first_process(max(by_steps, at.share + (1 - at.share) * step_s / (left_s + step_s)), run)


def _set_rates(optimizer: torch.optim.Optimizer, plan: StagePlan, share: float) -> None:
    for group in optimizer.param_groups:
        until = group.get("until", float("inf"))
        slowdown = max(0.0, 1 - share / until) if until else 0.0
        group["lr"] = plan.learning_rate_at(share) * group["scale"] * slowdown


def _report(meter: Meter, run: TrainingRun, plan: StagePlan, at: _Position, *, now: bool = False) -> None:
    remaining_s = at.elapsed_s / at.share - at.elapsed_s
    if run.budget.total_s is not None:
        remaining_s = run.budget.left_s(plan.name, at.share)
    fields = meter.report(plan.name, at.step, at.share, 0.0 if now else remaining_s, now=now)
    if fields is not None and run.accelerator.is_main_process:
        run.history.write(plan.name, at.step, at.elapsed_s, fields)


def _log_estimate(run: TrainingRun, plan: StagePlan, at: _Position, step_s: float) -> None:
    """Say how many steps a time budget will hold, and how many are of use."""
    if run.budget.total_s is None:
        return
    left_s = run.budget.left_s(plan.name, at.share)
    steps = min(plan.n_steps, at.step + round(max(left_s, 0.0) / max(step_s, 1e-9)))
    of_use = f" of some {plan.useful_steps:,} that it needs" if plan.useful_steps else ""
    run.log(f"{plan.name}: about {steps:,} steps{of_use}, {step_s:.3g} s each, in {clock_text(left_s)}")


def finish_stage(run: TrainingRun, model: nn.Module, name: str) -> None:
    """Write a checkpoint in which all stages up to `name` are done."""
    if run.accelerator.is_main_process:
        position = run.position(name, step=0, elapsed_s=0.0, unfinished=False)
        save_checkpoint(run.checkpoint_path, {"model": model.state_dict()}, position)
    run.pending = None


def _of_first_process(value: float, run: TrainingRun) -> float:
    """What the clock of the first process says: all processes must end a stage at the same step."""
    accelerator = run.accelerator
    if accelerator.num_processes == 1 or run.budget.total_s is None:
        return value
    from accelerate.utils import broadcast

    return float(broadcast(torch.tensor(value, dtype=torch.float64, device=accelerator.device)))


def _step(prepared: nn.Module, optimizer: Any, run: TrainingRun, plan: StagePlan, step: int) -> dict[str, float]:
    accelerator = run.accelerator
    own_step = step * accelerator.num_processes + accelerator.process_index
    # dropout layers use torch's global generator: seed it by the step
    with torch.random.fork_rng(), accelerator.autocast():
        torch.manual_seed(int(stage_rng(run.seed, plan.name + "/layers", own_step).integers(2**62)))
        terms = prepared(own_step)
    loss = terms["loss"]
    if not torch.isfinite(loss):
        raise InputError(
            found=f"a loss of {float(loss)} at step {step} of stage {plan.name}",
            expected="a finite loss",
            repair="train again (--overwrite) with a lower --learning-rate",
        )
    optimizer.zero_grad(set_to_none=True)
    accelerator.backward(loss)
    groups = [group["params"] for group in optimizer.param_groups]
    for parameters in groups if plan.clip_apart else [[p for group in groups for p in group]]:
        accelerator.clip_grad_norm_(parameters, plan.clip_norm)
    optimizer.step()
    return {name: float(value.detach()) for name, value in terms.items()}


def _restore(
    run: TrainingRun, plan: StagePlan, stage: Stage, optimizer: torch.optim.Optimizer, ema: Ema | None
) -> _Position:
    if run.pending is None:
        return _Position()
    sections, position = run.pending
    run.pending = None
    if not position["unfinished"] or position["stage"] != plan.name:
        return _Position()
    stage.load_own_state(sections.get("stage", {}))
    load_optimizer_tensors(optimizer, sections.get("optimizer", {}))
    if ema is not None:
        ema.restore(sections["ema"])
    step = int(position["step"])
    share = step / plan.n_steps if run.budget.total_s is None else float(position.get("share", 0.0))
    since_refresh = step % plan.refresh_every
    if since_refresh and share < 1:
        stage.restore_cache(step - since_refresh)
    return _Position(step, share, float(position["elapsed_s"]))


def _save(
    run: TrainingRun,
    plan: StagePlan,
    stage: Stage,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    ema: Ema | None,
    at: _Position,
) -> float:
    """Write a checkpoint; returns the seconds until the next one, of which writing takes a small part."""
    started = run.budget.clock()
    if run.accelerator.is_main_process:
        sections = {"model": model.state_dict(), "optimizer": optimizer_tensors(optimizer), "stage": stage.own_state()}
        if ema is not None:
            sections["ema"] = ema.average
        position = run.position(plan.name, step=at.step, share=at.share, elapsed_s=at.elapsed_s, unfinished=True)
        save_checkpoint(run.checkpoint_path, sections, position)
    return min(
        max(run.checkpoint_every_s, CHECKPOINT_INTERVALS * (run.budget.clock() - started)),
        MAX_INTERVAL * run.checkpoint_every_s,
    )


def _preview(preview: Callable[[int], object], stage: Stage, ema: Ema | None, step: int) -> None:
    """Generate the preview with the averaged weights, then restore the training weights."""
    kept = {name: value.detach().clone() for name, value in stage.named_parameters()}
    if ema is not None:
        ema.copy_to(stage)
    stage.eval()
    preview(step)
    stage.train()
    with torch.no_grad():
        for name, value in stage.named_parameters():
            value.copy_(kept[name])
