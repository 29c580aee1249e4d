"""The one training loop. A stage is a module that returns its loss terms for a step number; the loop does the rest.

Every random choice of step s comes from generators seeded by (seed, stage, s), so a checkpoint needs no generator state:
a run that was killed and resumed takes the same steps as one that was not.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from sge2hist.data.errors import InputError
from sge2hist.training.checkpoint import (
    Ema,
    load_optimizer_tensors,
    optimizer_tensors,
    save_checkpoint,
)
from sge2hist.training.progress import Meter
from sge2hist.training.run import TrainingRun

if TYPE_CHECKING:
    from accelerate import Accelerator


UNLIMITED_STEPS = 10**9
"""Steps of a stage that a time budget ends."""


def stage_rng(seed: int, stage: str, step: int) -> np.random.Generator:
    """Generator of every random choice at one step of one stage: nothing else is needed to resume."""
    return np.random.default_rng([seed, zlib.crc32(stage.encode()), step])


def stage_generator(seed: int, stage: str, step: int) -> torch.Generator:
    """As :func:`stage_rng`, for torch, on the CPU."""
    return torch.Generator().manual_seed(int(stage_rng(seed, stage, step).integers(2**62)))


class Stage(nn.Module):
    """One stage of training.

    Subclasses hold the modules they train and return from ``forward(step)`` a dict of scalar terms; "loss" carries the
    gradient. `refresh(step)` is called before each step that is a multiple of `plan.refresh_every`, and after a resume.
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
        """Return tensors that a checkpoint has to keep beside the model's."""
        return {}

    def load_own_state(self, state: dict[str, Tensor]) -> None:
        """Restore what :meth:`own_state` returned."""

    def refresh(self, step: int) -> None:
        """Recompute what is cached between steps; must depend on the weights and the step alone."""


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """How long and how fast a stage trains."""

    name: str
    n_steps: int  # steps of the stage; with a time budget, an upper limit
    learning_rate: float
    items_per_step: int  # cells or patches, for the throughput shown
    budget_s: float | None = None  # seconds; the schedule then follows the clock instead of the step
    warmup: float = 0.02  # share of the stage in which the learning rate rises
    decay: float = 0.5  # last share of the stage in which it falls to zero (half a cosine)
    clip_norm: float = 1.0  # largest gradient norm
    clip_apart: bool = False  # clip each parameter group by itself, for networks with losses of their own
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.99)  # of Adam
    refresh_every: int = 250  # steps between `Stage.refresh` calls; checkpoints are taken only there
    ema: bool = False  # average the weights, and end with the average

    def learning_rate_at(self, share: float) -> float:
        """Learning rate at a share (0 to 1) of the stage."""
        rise = min(1.0, (share + 1e-3) / self.warmup) if self.warmup else 1.0
        remaining = (1 - share) / self.decay if self.decay else 1.0
        fall = 1.0 if remaining >= 1 else 0.5 - 0.5 * float(torch.cos(torch.tensor(torch.pi * max(remaining, 0.0))))
        return self.learning_rate * rise * fall


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

    Returns the number of steps taken (0 when skipped). `model` is what a checkpoint stores. `preview(step)` is called at
    intervals, with averaged weights if there are any.

    Raises
    ------
    InputError
        When the loss is not finite: training stops at the last good checkpoint.
    """
    if plan.name in run.stages_done:
        return 0
    accelerator = run.accelerator
    optimizer = torch.optim.AdamW(
        stage.parameter_groups(), lr=plan.learning_rate, betas=plan.betas, weight_decay=plan.weight_decay
    )
    ema = Ema(stage) if plan.ema else None
    step, elapsed_before = _restore(run, plan, stage, optimizer, ema)
    prepared, optimizer_ready = accelerator.prepare(stage, optimizer)
    stage.train()
    started = last_checkpoint = last_preview = time.monotonic()
    meter = Meter(run.log if accelerator.is_main_process else lambda _: None)

    while True:
        elapsed = _synchronised(elapsed_before + time.monotonic() - started, accelerator)
        share = step / plan.n_steps if plan.budget_s is None else max(step / plan.n_steps, elapsed / plan.budget_s)
        if share >= 1:
            break
        if step % plan.refresh_every == 0:
            now = time.monotonic()
            if step and (now - last_checkpoint > run.checkpoint_every_s):
                _save(run, plan, stage, model, optimizer, ema, step, elapsed)
                last_checkpoint = now
            if preview is not None and accelerator.is_main_process and step and now - last_preview > preview_every_s:
                _preview(preview, stage, ema, step)
                last_preview = now
            stage.refresh(step)
        stage.advance(share)
        for group in optimizer.param_groups:
            until = group.get("until", float("inf"))
            slowdown = max(0.0, 1 - share / until) if until else 0.0
            group["lr"] = plan.learning_rate_at(share) * group["scale"] * slowdown
        terms = _step(prepared, optimizer_ready, run, plan, step)
        if ema is not None:
            ema.update(stage, step)
        step += 1
        meter.add(terms, plan.items_per_step * accelerator.num_processes)
        remaining_s = elapsed / share - elapsed if share > 0 else 0.0
        fields = meter.report(plan.name, step, share, remaining_s)
        if fields is not None and accelerator.is_main_process:
            run.history.write(plan.name, step, elapsed, fields)

    elapsed = elapsed_before + time.monotonic() - started
    fields = meter.report(plan.name, step, 1.0, 0.0, now=True)
    if fields is not None and accelerator.is_main_process:
        run.history.write(plan.name, step, elapsed, fields)
    if ema is not None:
        ema.copy_to(stage)
    stage.eval()
    accelerator.free_memory()
    run.stages_done[plan.name] = elapsed
    return step


def finish_stage(run: TrainingRun, model: nn.Module, name: str) -> None:
    """Write a checkpoint in which all stages up to `name` are done."""
    if run.accelerator.is_main_process:
        position = {"stage": name, "step": 0, "elapsed_s": 0.0, "stages_done": run.stages_done, "unfinished": False}
        save_checkpoint(run.checkpoint_path, {"model": model.state_dict()}, position)
    run.pending = None


def _synchronised(seconds: float, accelerator: Accelerator) -> float:
    """The clock of the first process: all processes must end a stage at the same step."""
    if accelerator.num_processes == 1:
        return seconds
    from accelerate.utils import broadcast

    return float(broadcast(torch.tensor(seconds, dtype=torch.float64, device=accelerator.device)))


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
) -> tuple[int, float]:
    if run.pending is None:
        return 0, 0.0
    sections, position = run.pending
    run.pending = None
    if not position["unfinished"] or position["stage"] != plan.name:
        return 0, 0.0
    stage.load_own_state(sections.get("stage", {}))
    load_optimizer_tensors(optimizer, sections.get("optimizer", {}))
    if ema is not None:
        ema.restore(sections["ema"])
    run.log(f"resuming {plan.name} at step {position['step']:,}")
    return int(position["step"]), float(position["elapsed_s"])


def _save(
    run: TrainingRun,
    plan: StagePlan,
    stage: Stage,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    ema: Ema | None,
    step: int,
    elapsed: float,
) -> None:
    if not run.accelerator.is_main_process:
        return
    sections = {"model": model.state_dict(), "optimizer": optimizer_tensors(optimizer), "stage": stage.own_state()}
    if ema is not None:
        sections["ema"] = ema.average
    position = {
        "stage": plan.name,
        "step": step,
        "elapsed_s": elapsed,
        "stages_done": run.stages_done,
        "unfinished": True,
    }
    save_checkpoint(run.checkpoint_path, sections, position)


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
