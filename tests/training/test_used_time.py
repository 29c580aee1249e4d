"""The time that a budgeted run has used survives a kill before its first checkpoint."""

from __future__ import annotations

import time

from sge2hist.devices import make_accelerator
from sge2hist.training.budget import Clock, TimeBudget
from sge2hist.training.run import TrainingRun
from sge2hist.training.used_time import USED_NAME, read_used_s, recording_used_s, write_used_s


def _run(folder, budget, logged, *, is_repeated=False) -> TrainingRun:
    return TrainingRun(
        directory=folder,
        accelerator=make_accelerator("no"),
        seed=0,
        log=logged.append,
        budget=budget,
        is_repeated=is_repeated,
    )


def test_a_run_without_a_checkpoint_counts_what_earlier_ones_used(tmp_path):
    now, logged = [0.0], []
    first = _run(tmp_path, TimeBudget(total_s=600.0, clock=Clock(lambda: now[0])), logged)
    first.resume()
    now[0] = 130.0
    write_used_s(tmp_path, first.budget)  # then it is killed
    second = _run(tmp_path, TimeBudget(total_s=600.0, clock=Clock(lambda: now[0])), logged, is_repeated=True)
    second.resume()
    assert second.budget.used_s() == 130.0
    assert second.budget.for_steps_s() == 470.0
    assert logged == [
        "an earlier run of this command ended before its first checkpoint; it used 0:02:10: starting at the beginning"
    ]
    now[0] = 200.0
    write_used_s(tmp_path, second.budget)
    assert read_used_s(tmp_path) == 200.0


def test_the_time_is_written_while_the_run_works(tmp_path):
    budget = TimeBudget(total_s=600.0)
    with recording_used_s(tmp_path, budget, every_s=0.01):
        deadline = time.monotonic() + 20
        while not (tmp_path / USED_NAME).is_file() and time.monotonic() < deadline:
            time.sleep(0.01)
    assert 0 <= read_used_s(tmp_path) <= budget.used_s() + 0.1


def test_nothing_is_written_without_a_budget_or_a_folder(tmp_path):
    with recording_used_s(tmp_path, TimeBudget(), every_s=0.001):
        time.sleep(0.05)
    assert not any(tmp_path.iterdir())
    write_used_s(tmp_path / "removed", TimeBudget(total_s=1.0))
    assert not any(tmp_path.iterdir())
    (tmp_path / USED_NAME).write_text("[broken")
    assert read_used_s(tmp_path) == 0.0
