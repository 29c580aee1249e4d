"""The folder of a training run, X.model/training: its settings, its latest checkpoint and its history.

A run is resumed by the same settings only: they are stored in run.json, and a folder with others is refused.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

import sge2hist
from sge2hist.data.artifacts import atomic_path
from sge2hist.data.errors import InputError
from sge2hist.data.output_lock import remove_partial_files
from sge2hist.training.checkpoint import load_checkpoint
from sge2hist.training.progress import History

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
    checkpoint_every_s: float = 120.0
    stages_done: dict[str, float] = field(default_factory=dict)  # name -> seconds it took
    pending: tuple[dict[str, dict[str, Tensor]], dict[str, Any]] | None = None  # checkpoint of the unfinished stage

    @property
    def checkpoint_path(self) -> Path:
        """The file of the latest checkpoint."""
        return self.directory / "checkpoint.safetensors"

    @property
    def history(self) -> History:
        """Loss terms over the steps, ``log.csv``."""
        return History(self.directory / "log.csv")

    def resume(self) -> None:
        """Load the latest checkpoint, if there is one."""
        if self.checkpoint_path.is_file():
            sections, position = load_checkpoint(self.checkpoint_path)
            self.stages_done = dict(position["stages_done"])
            self.pending = (sections, position)
            self.history.rewind(set(self.stages_done), position["stage"], position["step"])

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
) -> TrainingRun:
    """Make `output` the folder of the run with these settings ("config" and other entries), new or resumed.

    The first of several processes makes the folder and logs.

    Raises
    ------
    InputError
        If the folder holds a run with other settings, or something else.
    """
    is_first = accelerator.is_main_process
    if is_first:
        _claim(output, settings, overwrite)
        remove_partial_files(output)
    accelerator.wait_for_everyone()
    return TrainingRun(
        directory=output / "training",
        accelerator=accelerator,
        seed=seed,
        log=log if is_first else lambda _: None,
        checkpoint_every_s=checkpoint_every_s,
    )


def release(run: TrainingRun, output: Path) -> None:
    """Remove a folder in which nothing was trained yet, so that a corrected command finds it free."""
    if run.accelerator.is_main_process and not run.checkpoint_path.is_file() and not run.history.path.is_file():
        shutil.rmtree(run.directory, ignore_errors=True)
        if output.is_dir() and not any(output.iterdir()):
            output.rmdir()


def _claim(output: Path, settings: dict[str, Any], overwrite: bool) -> None:
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
        return
    if output.exists() and any(output.iterdir()):
        raise InputError(found="an existing output", where=str(output), repair="choose another output name")
    directory.mkdir(parents=True, exist_ok=True)
    with atomic_path(directory / RUN_NAME) as partial:
        partial.write_text(json.dumps(identity, indent=2) + "\n", encoding="utf-8")
