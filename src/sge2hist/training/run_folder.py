"""The folder of a training run: what the run was asked for, so that only the same run is resumed there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sge2hist
from sge2hist.data.artifacts import atomic_path
from sge2hist.data.errors import InputError
from sge2hist.training.loop import Run

if TYPE_CHECKING:
    from accelerate import Accelerator

RUN_NAME = "run.json"


def open_run(
    output: Path,
    asked: dict[str, Any],
    accelerator: Accelerator,
    *,
    seed: int,
    overwrite: bool,
    say: Callable[[str], None],
    checkpoint_every_s: float = Run.checkpoint_every_s,
) -> Run:
    """Make `output` the folder of the run that was `asked` for ("config" and other entries), new or resumed.

    The first of several processes makes it and speaks.

    Raises
    ------
    InputError
        If the folder holds a run with other settings, or something else.
    """
    first = accelerator.is_main_process
    if first:
        _claim(output, asked, overwrite)
    accelerator.wait_for_everyone()
    return Run(
        directory=output / "training",
        accelerator=accelerator,
        seed=seed,
        say=say if first else lambda _: None,
        checkpoint_every_s=checkpoint_every_s,
    )


def release(run: Run, output: Path) -> None:
    """Give a folder back in which nothing was trained yet, so that a corrected command finds it free."""
    if run.accelerator.is_main_process and not run.checkpoint_path.is_file() and not run.log.path.is_file():
        shutil.rmtree(run.directory, ignore_errors=True)
        if output.is_dir() and not any(output.iterdir()):
            output.rmdir()


def _claim(output: Path, asked: dict[str, Any], overwrite: bool) -> None:
    directory = output / "training"
    identity = asked | {"version": sge2hist.__version__}
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
                repair="give the same settings to resume it, --overwrite to start anew, or another output",
            )
        return
    if output.exists() and any(output.iterdir()):
        raise InputError(found="an existing output", where=str(output), repair="choose another output name")
    directory.mkdir(parents=True, exist_ok=True)
    with atomic_path(directory / RUN_NAME) as partial:
        partial.write_text(json.dumps(identity, indent=2) + "\n", encoding="utf-8")
