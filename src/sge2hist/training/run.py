"""The folder of a training run, X.model/training: its settings, its latest checkpoint and its history.

A run is resumed by the same settings only: they are stored in run.json, and a folder with others is refused.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

import sge2hist
from sge2hist.data.artifacts import atomic_path
from sge2hist.data.errors import InputError
from sge2hist.data.output_lock import remove_partial_files
from sge2hist.training.budget import TimeBudget, clock_text
from sge2hist.training.checkpoint import load_checkpoint
from sge2hist.training.progress import History
from sge2hist.training.sufficiency import Shortfall, describe
from sge2hist.training.used_time import read_used_s, recording_used_s

if TYPE_CHECKING:
    from accelerate import Accelerator

RUN_NAME = "run.json"


@dataclass(kw_only=True)
class TrainingRun:
    """What all stages of one training share: the folder, the device, the seed, and how far an earlier attempt came."""

    directory: Path  # X.model/training
    accelerator: Accelerator
    seed: int
    log: Callable[[str], None] = print
    checkpoint_every_s: float = 60.0
    budget: TimeBudget = field(default_factory=TimeBudget)
    stages_done: dict[str, float] = field(default_factory=dict)  # name -> seconds it took
    steps_done: dict[str, int] = field(default_factory=dict)  # name -> steps of the finished stages
    is_repeated: bool = False  # the command was given before
    pending: tuple[dict[str, dict[str, Tensor]], dict[str, Any]] | None = None  # checkpoint of the unfinished stage

    @property
    def checkpoint_path(self) -> Path:
        """The file of the latest checkpoint."""
        return self.directory / "checkpoint.safetensors"

    @property
    def history(self) -> History:
        """Loss terms over the steps, ``log.csv``."""
        return History(self.directory / "log.csv")

    def recording(self) -> AbstractContextManager[None]:
        """Keep the time that a budgeted run has used on disk, so that a run that is killed counts all of it."""
        return recording_used_s(self.directory, self.budget) if self.accelerator.is_main_process else nullcontext()

    def resume(self) -> None:
        """Load the latest checkpoint, if there is one, and log where the run goes on."""
        self.budget.used_before_s = read_used_s(self.directory)
        if not self.checkpoint_path.is_file():
            if self.is_repeated:
                used = f"; it used {clock_text(self.budget.used_before_s)}" if self.budget.used_before_s else ""
                self.log(
                    f"an earlier run of this command ended before its first checkpoint{used}: starting at the beginning"
                )
            return
        sections, position = load_checkpoint(self.checkpoint_path)
        self.stages_done = dict(position["stages_done"])
        self.steps_done = dict(position.get("steps_done", {}))
        self.budget.used_before_s = max(float(position.get("used_s", 0.0)), self.budget.used_before_s)
        self.pending = (sections, position)
        if self.accelerator.is_main_process:
            self.history.rewind(set(self.stages_done), position["stage"], position["step"])
        where = f"{position['stage']} at step {position['step']:,}" if position["unfinished"] else ""
        done = f"after {', '.join(self.stages_done)}" if self.stages_done else ""
        used = f"earlier runs used {clock_text(self.budget.used_before_s)}"
        self.log(f"resuming {', '.join(part for part in (where, done) if part)}; {used}")

    def position(self, stage: str, **more: Any) -> dict[str, Any]:
        """What a checkpoint says beside its tensors: how far the run is, and the time that it used."""
        progress = {"stages_done": self.stages_done, "steps_done": self.steps_done, "used_s": self.budget.used_s()}
        return {"stage": stage, **progress, **more}

    def restore_module(self, module: nn.Module) -> None:
        """Load the weights of the pending checkpoint; raises `InputError` if they are of other networks."""
        if self.pending is None:
            return
        try:
            module.load_state_dict(self.pending[0]["model"])
        except RuntimeError as error:
            raise InputError(
                found=f"unfinished training of networks of another shape ({str(error).splitlines()[0]})",
                where=str(self.checkpoint_path),
                expected="one that this version began, whose presets may differ",
                repair="finish it with the version that began it, or start again with --overwrite",
            ) from error


def open_run(
    output: Path,
    settings: dict[str, Any],
    accelerator: Accelerator,
    *,
    seed: int,
    overwrite: bool,
    log: Callable[[str], None],
    checkpoint_every_s: float = TrainingRun.checkpoint_every_s,
    budget: TimeBudget | None = None,
) -> TrainingRun:
    """Make `output` the folder of the run with these settings ("config" and other entries), new or resumed.

    The first of several processes makes the folder and logs.

    Raises
    ------
    InputError
        If the folder holds a run with other settings, or something else.
    """
    is_first = accelerator.is_main_process
    is_repeated = False
    if is_first:
        is_repeated = _claim(output, settings, overwrite)
        remove_partial_files(output)
    accelerator.wait_for_everyone()
    if is_first and accelerator.num_processes > 1:
        log(f"{accelerator.num_processes} processes, each with batches of its own")
    return TrainingRun(
        directory=output / "training",
        accelerator=accelerator,
        seed=seed,
        log=log if is_first else lambda _: None,
        checkpoint_every_s=checkpoint_every_s,
        budget=budget or TimeBudget(),
        is_repeated=is_repeated,
    )


def log_end(run: TrainingRun, shortfall: Shortfall) -> None:
    """Log what was trained too little, and how much of a time budget was used."""
    if shortfall:
        run.log(f"warning: {describe(shortfall)}")
    if run.budget.total_s is not None:
        run.log(f"used {clock_text(run.budget.used_s())} of {clock_text(run.budget.total_s)}")


def release(run: TrainingRun, output: Path) -> None:
    """Remove a folder in which nothing was trained yet, so that a corrected command finds it free."""
    if run.accelerator.is_main_process and not run.checkpoint_path.is_file() and not run.history.path.is_file():
        shutil.rmtree(run.directory, ignore_errors=True)
        if output.is_dir() and not any(output.iterdir()):
            output.rmdir()


def _claim(output: Path, settings: dict[str, Any], overwrite: bool) -> bool:
    """Make the folder, or accept that of the same settings; whether it was there."""
    directory = output / "training"
    identity = settings | {"version": sge2hist.__version__}
    if output.exists() and overwrite:
        if not (directory / RUN_NAME).is_file() and any(output.iterdir()):
            raise InputError(
                found="something that is not a model of ours", where=str(output), repair="choose another output"
            )
        shutil.rmtree(output)
    if (directory / RUN_NAME).is_file():
        known = json.loads((directory / RUN_NAME).read_text(encoding="utf-8"))
        if known != identity:
            changed = [k for k in identity["config"] if known.get("config", {}).get(k) != identity["config"][k]]
            changed += [k for k in identity if k != "config" and known.get(k) != identity[k]]
            raise InputError(
                found=f"a training run with other settings ({', '.join(changed)})",
                where=str(output),
                repair="give the same settings to resume it, --overwrite to start again, or another output",
            )
        return True
    if output.exists() and any(output.iterdir()):
        raise InputError(found="an existing output", where=str(output), repair="choose another output name")
    directory.mkdir(parents=True, exist_ok=True)
    with atomic_path(directory / RUN_NAME) as partial:
        partial.write_text(json.dumps(identity, indent=2) + "\n", encoding="utf-8")
    return False
