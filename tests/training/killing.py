"""A run that is killed at its first checkpoint within a stage, and resumed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sge2hist.training import loop


class Killed(BaseException):
    """Stands for a kill: nothing may catch it."""


def check_a_kill_changes_nothing(
    run: Callable[[Path, Callable[[str], None]], object], folder: Path, resuming: str
) -> None:
    """`run(output, log)` killed and resumed (it logs `resuming`) ends with the weights of an uninterrupted one."""
    save, init = loop.save_checkpoint, loop.TrainingRun.__init__

    def save_then_die(path, sections, position):
        save(path, sections, position)
        if position["unfinished"]:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            loop.TrainingRun, "__init__", lambda self, **given: init(self, **(given | {"checkpoint_every_s": 0.0}))
        )
        patch.setattr(loop, "save_checkpoint", save_then_die)
        with pytest.raises(Killed):
            run(folder / "a.model", lambda _: None)
    logged: list[str] = []
    run(folder / "a.model", logged.append)
    assert any(line.startswith(resuming) for line in logged)
    run(folder / "b.model", lambda _: None)
    resumed, whole = (load_file(folder / f"{name}.model" / "model.safetensors") for name in "ab")
    for name in whole:
        assert torch.equal(resumed[name], whole[name]), name
