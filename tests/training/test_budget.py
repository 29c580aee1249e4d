"""Time budgets, by a clock that the test sets: they are kept whatever steps and the work beside them take."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from torch import nn

from sge2hist.devices import make_accelerator
from sge2hist.training.budget import Clock, TimeBudget, clock_text
from sge2hist.training.config import STAGE_SHARES
from sge2hist.training.loop import UNLIMITED_STEPS, Stage, StagePlan, finish_stage, run_stage
from sge2hist.training.run import TrainingRun

STAGES = ("autoencoder", "gene", "mixture", "joint", "expression")
WORK_S = {"autoencoder": 3.0, "gene": 9.0, "mixture": 12.0, "joint": 4.0, "expression": 20.0}
"""Estimates of the work that follows each stage."""


class Killed(BaseException):
    """Stands for a kill: nothing may catch it."""


class Machine:
    """A machine with its own time: a step of `step_s` and work, `slowness(now)` times as long as expected."""

    def __init__(self, *, step_s: float, slowness=lambda now: 1.0, dies_at: float = float("inf")) -> None:
        self.time, self.step_s, self.slowness, self.dies_at = 100.0, step_s, slowness, dies_at

    def now(self) -> float:
        return self.time

    def work(self, seconds: float) -> None:
        self.time += seconds * self.slowness(self.time - 100)
        if self.time - 100 >= self.dies_at:
            raise Killed


class Steps(Stage):
    """Steps of a model of one number; the first one encodes, and so does the one after a third of the stage."""

    def __init__(self, machine: Machine, freezes: TimeBudget | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.machine, self.freezes, self.frozen, self.shares = machine, freezes, False, []

    def forward(self, step: int) -> dict[str, torch.Tensor]:
        self.machine.work(self.machine.step_s)
        return {"loss": (self.weight - 1).square().sum()}

    def refresh(self, step: int) -> None:
        self.machine.work(2.0)

    def advance(self, share: float) -> None:
        self.shares.append(share)
        if self.freezes is not None and share >= 1 / 3 and not self.frozen:
            self.frozen = True
            with self.freezes.work("joint/freeze"):
                self.machine.work(5.0)


def attempt(folder: Path, total_s: float | None, machine: Machine, *, n_steps: int = UNLIMITED_STEPS):
    """Reading, all stages with the work that follows each; returns the run, and the shares of each stage that ran."""
    budget = TimeBudget(total_s=total_s, clock=Clock(machine.now))
    logged: list[str] = []
    folder.mkdir(exist_ok=True)
    accelerator = make_accelerator("no")
    run = TrainingRun(directory=folder, accelerator=accelerator, seed=0, log=logged.append, budget=budget)
    run.resume()
    machine.work(25.0)
    todo = [name for name in STAGES if name not in run.stages_done]
    budget.shares = {name: STAGE_SHARES[name] for name in todo}
    budget.expect({f"after/{name}": WORK_S[name] for name in todo} | {"joint/freeze": 5.0})
    shares = {}
    for name in todo:
        stage = Steps(machine, budget if name == "joint" else None)
        run.restore_module(stage)
        plan = StagePlan(name=name, n_steps=n_steps, learning_rate=0.1, items_per_step=1, ema=name == "joint")
        run_stage(stage, plan, run, stage)
        with budget.work(f"after/{name}"):
            machine.work(WORK_S[name])
        finish_stage(run, stage, name)
        shares[name] = stage.shares
    return run, shares, logged


SLOW_LATER = {"as expected": lambda now: 1.0, "three times": lambda now: 3.0, "faster": lambda now: 0.4}
SLOW_LATER |= {"slower from the middle": lambda now: 1.0 if now < 150 else 3.0, "bursts": lambda now: 1 + now // 40 % 3}


@pytest.mark.parametrize("name", SLOW_LATER)
@pytest.mark.parametrize("step_s", [1.0, 6.0])
def test_a_budget_is_kept_on_any_machine(tmp_path, name, step_s):
    machine = Machine(step_s=step_s, slowness=SLOW_LATER[name])
    run, shares, _ = attempt(tmp_path, 400.0, machine)
    assert machine.time - 100 == pytest.approx(400, rel=0.1)
    assert all(n >= 1 for n in run.steps_done.values())
    for of_stage in shares.values():  # schedules begin at 0 and end near 1
        assert of_stage[0] == 0
        assert all(0 <= a <= b < 1 for a, b in itertools.pairwise(of_stage))
    assert step_s > 1 or shares["joint"][-1] > 0.9


@pytest.mark.parametrize("dies_at", [30.0, 80.0, 120.0, 220.0, 370.0])
def test_a_budget_counts_earlier_runs(tmp_path, dies_at):
    """What a kill loses is what came after the last checkpoint: a minute, or the work that follows a stage."""
    with pytest.raises(Killed):
        attempt(tmp_path, 400.0, Machine(step_s=1.0, dies_at=dies_at))
    again = Machine(step_s=1.0)
    run, _shares, logged = attempt(tmp_path, 400.0, again)
    used_before_s = run.budget.used_before_s
    assert dies_at - 61 <= used_before_s <= dies_at
    assert run.budget.used_s() == pytest.approx(400, rel=0.1)
    assert used_before_s + again.time - 100 == pytest.approx(400, rel=0.1)
    if used_before_s:
        assert logged[0].startswith("resuming")
        assert f"earlier runs used {clock_text(used_before_s)}" in logged[0]


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_goes_on_near_where_it_was_killed(tmp_path, stage, monkeypatch):
    taken: list[tuple[str, int, float]] = []
    machine = Machine(step_s=1.0)
    forward = Steps.forward

    def dies_in_stage(self, step):
        terms = forward(self, step)
        taken.append((stage_of[id(self)], step, machine.time))
        if taken[-1][0] == stage and step == 130:
            raise Killed
        return terms

    stage_of: dict[int, str] = {}
    init, names = Steps.__init__, iter(STAGES)
    monkeypatch.setattr(
        Steps, "__init__", lambda self, *a: (init(self, *a), stage_of.update({id(self): next(names)}))[0]
    )
    monkeypatch.setattr(Steps, "forward", dies_in_stage)
    with pytest.raises(Killed):
        attempt(tmp_path, None, machine, n_steps=150)
    monkeypatch.undo()
    run, shares, logged = attempt(tmp_path, None, Machine(step_s=1.0), n_steps=150)
    first = int(logged[0].split("at step ")[1].split(",")[0].split(";")[0])
    assert logged[0].startswith(f"resuming {stage} at step {first}")
    assert 130 - 61 <= first <= 130
    assert len(shares[stage]) == 150 - first
    assert run.steps_done == dict.fromkeys(STAGES, 150)


def test_more_time_continues_the_schedule(tmp_path):
    with pytest.raises(Killed):
        attempt(tmp_path, 400.0, Machine(step_s=1.0, dies_at=220.0))
    run, shares, _ = attempt(tmp_path, 800.0, Machine(step_s=1.0))
    assert run.budget.used_s() == pytest.approx(800, rel=0.1)
    assert shares["joint"][0] > 0.1  # it does not begin again
    assert max(b - a for a, b in zip(shares["joint"], shares["joint"][1:], strict=False)) < 0.01


def test_a_budget_that_is_used_up_leaves_one_step_per_stage(tmp_path):
    run, _, _ = attempt(tmp_path, 5.0, Machine(step_s=1.0))
    assert run.steps_done == dict.fromkeys(STAGES, 1)


def test_an_attempt_without_a_checkpoint_is_said(tmp_path):
    run = TrainingRun(directory=tmp_path, accelerator=make_accelerator("no"), seed=0, is_repeated=True)
    logged: list[str] = []
    run.log = logged.append
    run.resume()
    assert "before its first checkpoint" in logged[0]


def test_checkpoints_take_a_small_part_of_the_time(tmp_path, monkeypatch):
    """Where writing one takes 6 s, every minute would be a tenth of it."""
    machine, written = Machine(step_s=1.0), []

    def slow(path, sections, position):
        machine.work(6.0)
        written.append(position["unfinished"])

    monkeypatch.setattr("sge2hist.training.loop.save_checkpoint", slow)
    attempt(tmp_path, None, machine, n_steps=400)
    assert 6 * sum(written) < 0.06 * (machine.time - 100)
    assert sum(written) >= 2 * len(STAGES)
