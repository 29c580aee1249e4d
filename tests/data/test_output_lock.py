"""One writer per output, with real processes: two at once, killed ones, reused process ids, other hosts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from sge2hist.data import artifacts, output_lock
from sge2hist.data.errors import InputError
from sge2hist.data.output_lock import Owner, lock_path

WRITER = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell begins with it ignored
from pathlib import Path
from sge2hist.data.artifacts import atomic_directory, atomic_path, write_manifest
with atomic_directory(sys.argv[1], overwrite=True, kind="paired") as partial:
    (partial / "half").write_text("x" * 1000)
    print("writing", flush=True)
    time.sleep(float(sys.argv[2]))
    write_manifest(partial, "paired", writer=sys.argv[3])
"""
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@pytest.fixture
def start():
    """`start(output, seconds, name)`: a process that is busy writing."""
    with ExitStack() as stack:

        def start(output: Path, seconds: float, name: str = "a") -> subprocess.Popen[str]:
            command = [sys.executable, "-c", WRITER, str(output), str(seconds), name]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start


def _entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _write(output: Path, **fields: object) -> None:
    with artifacts.atomic_directory(output, overwrite=True, kind="paired") as partial:
        artifacts.write_manifest(partial, "paired", **fields)


def test_of_two_runs_one_is_refused_and_the_other_is_whole(start, tmp_path):
    output = tmp_path / "a.paired"
    first = start(output, 4, "first")
    assert first.stdout.readline() == "writing\n"
    for overwrite in (False, True):
        refused = pytest.raises(InputError, match=rf"another run.*process {first.pid}, since .*another output name")
        with refused, artifacts.atomic_directory(output, overwrite=overwrite, kind="paired"):
            raise AssertionError("written by two")
    with pytest.raises(InputError, match="another run"):  # the same folder by another path
        _write(tmp_path / "x" / ".." / "a.paired")
    _write(tmp_path / "b.paired")  # another output is free
    assert first.wait(30) == 0
    assert artifacts.read_manifest(output, "paired")["writer"] == "first"
    assert _entries(tmp_path) == ["a.paired", "b.paired"]
    _write(output, writer="second")
    assert artifacts.read_manifest(output, "paired")["writer"] == "second"


def test_many_at_once_one_wins(start, tmp_path):
    output = tmp_path / "a.paired"
    stale = replace(Owner.this_process(), pid=2**22 + 5, process_start="1")
    lock_path(output).write_text(json.dumps(asdict(stale)))  # all of them find a lock to take over
    writers = [start(output, 6, str(n)) for n in range(4)]
    ended = [(writer.wait(60), writer.stderr.read()) for writer in writers]
    assert sorted(code for code, _ in ended) == [0, 1, 1, 1]
    assert all("another run" in error for code, error in ended if code)
    winner = [code for code, _ in ended].index(0)
    assert artifacts.read_manifest(output, "paired")["writer"] == str(winner)
    assert _entries(tmp_path) == ["a.paired"]


@pytest.mark.parametrize("signal_", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_what_a_killed_run_left_is_cleaned(start, tmp_path, signal_):
    output = tmp_path / "a.paired"
    _write(output, writer="old")
    killed = start(output, 60)
    killed.stdout.readline()
    killed.send_signal(signal_)
    killed.wait(10)
    assert artifacts.read_manifest(output, "paired")["writer"] == "old"
    if signal_ == signal.SIGKILL:
        assert lock_path(output).is_file()
        assert any(name.endswith(".partial") for name in _entries(tmp_path))
    _write(output, writer="new")
    assert artifacts.read_manifest(output, "paired")["writer"] == "new"
    assert _entries(tmp_path) == ["a.paired"]


@linux
def test_a_killed_run_that_nobody_waited_for_has_ended(start, tmp_path):
    killed = start(tmp_path / "a.paired", 60)
    killed.stdout.readline()
    killed.kill()
    deadline = time.monotonic() + 10
    while output_lock._process_start(killed.pid) is not None and time.monotonic() < deadline:
        time.sleep(0.05)
    _write(tmp_path / "a.paired")  # a zombie
    killed.wait()
    assert _entries(tmp_path) == ["a.paired"]


@linux
@pytest.mark.parametrize("changed", [{"process_start": "17"}, {"boot": "another"}])
def test_another_process_with_the_same_id_is_not_the_owner(tmp_path, changed):
    """This process runs, but it is not the one that wrote the lock: the id was given again, or the host was restarted."""
    output = tmp_path / "a.paired"
    lock_path(output).write_text(json.dumps(asdict(replace(Owner.this_process(), **changed))))
    _write(output)
    assert _entries(tmp_path) == ["a.paired"]


@pytest.mark.parametrize("changed", [{"host": "node17"}, {"namespace": "pid:[4026532000]"}])
def test_a_lock_of_another_host_is_refused_with_the_command_that_removes_it(tmp_path, changed):
    output = tmp_path / "my data.paired"
    there = replace(Owner.this_process(), pid=2**22 + 5, **changed)
    lock_path(output).write_text(json.dumps(asdict(there)))
    with pytest.raises(InputError, match="another host") as error:
        _write(output)
    command = error.value.repair.split("ended: ")[1]
    subprocess.run(command, shell=True, check=True)
    _write(output)
    assert _entries(tmp_path) == ["my data.paired"]


def test_a_lock_that_says_nothing(tmp_path, monkeypatch):
    output = tmp_path / "a.paired"
    lock_path(output).write_text("no JSON")
    with pytest.raises(InputError, match="cannot be read"):
        _write(output)
    lock_path(output).write_text("")  # killed before it wrote anything
    os.utime(lock_path(output), (1, 1))
    _write(output)
    assert _entries(tmp_path) == ["a.paired"]


def test_released_after_errors_and_held_within_itself(tmp_path):
    output = tmp_path / "deep" / "er" / "a.paired"
    with pytest.raises(ZeroDivisionError), output_lock.output_lock(output), output_lock.output_lock(output):
        _ = lock_path(output).stat().st_size / 0
    assert _entries(tmp_path) == []
    refused: list[InputError] = []

    def other_thread() -> None:
        try:
            _write(output)
        except InputError as error:
            refused.append(error)

    with output_lock.output_lock(output):
        thread = threading.Thread(target=other_thread)
        thread.start()
        thread.join()
        _write(output)
    assert len(refused) == 1


def test_an_earlier_output_comes_back_if_a_run_was_killed_while_replacing_it(tmp_path):
    output = tmp_path / "a.paired"
    _write(output, writer="old")
    code = """
import os, sys
from pathlib import Path
from sge2hist.data import artifacts
rename = Path.rename
def rename_once(self, target):
    rename(self, target)
    os._exit(9)
Path.rename = rename_once
with artifacts.atomic_directory(sys.argv[1], overwrite=True, kind="paired") as partial:
    artifacts.write_manifest(partial, "paired", writer="new")
"""
    assert subprocess.run([sys.executable, "-c", code, str(output)], check=False).returncode == 9
    assert not output.exists()
    with pytest.raises(InputError, match="an existing output"), artifacts.atomic_directory(output):
        pass
    assert artifacts.read_manifest(output, "paired")["writer"] == "old"
    assert _entries(tmp_path) == ["a.paired"]


def test_what_belongs_to_others_is_named_and_kept(tmp_path):
    elsewhere = owner = f"{'0' * 8}-abcdef01-17-99-0"
    for tag in (elsewhere, "0a1b2c3d"):  # of another host; of version 0.1
        (tmp_path / f".a.paired.{tag}.partial").mkdir()
    (tmp_path / f".b.paired.{owner}.partial").mkdir()  # of another output
    with pytest.warns(UserWarning, match="unfinished work on a.paired") as warned:
        _write(tmp_path / "a.paired")
    assert len(warned) == 2
    assert len(_entries(tmp_path)) == 4


def test_files_that_a_killed_run_was_writing_are_removed(tmp_path):
    code = """
import os, sys
from sge2hist.data.artifacts import atomic_path
with atomic_path(sys.argv[1]) as partial:
    partial.write_text("half")
    os._exit(9)
"""
    (tmp_path / "training").mkdir()
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "training" / "checkpoint.safetensors")], check=False)
    assert len(_entries(tmp_path / "training")) == 1
    with artifacts.atomic_path(tmp_path / "other") as mine:
        mine.write_text("half")
        output_lock.remove_partial_files(tmp_path)
        assert mine.is_file()
    assert _entries(tmp_path / "training") == []


def test_every_function_that_writes_an_output_holds_its_lock(tmp_path):
    """Refused at once, before an argument is looked at."""
    from sge2hist.cli.demo import run_demo
    from sge2hist.cli.generate import generate as generate_verb
    from sge2hist.evaluation.evaluate import evaluate
    from sge2hist.generation.patches import generate
    from sge2hist.generation.slide.merge import merge_slides
    from sge2hist.generation.slide.render import generate_slide
    from sge2hist.pairing.export_spatialdata import export_spatialdata
    from sge2hist.pairing.prepare import prepare
    from sge2hist.training.finetune.base import tune
    from sge2hist.training.finetune.upsampler import train_upsampler
    from sge2hist.training.train import train
    from sge2hist.viewer.build import build_viewer

    output = tmp_path / "out"
    there = replace(Owner.this_process(), host="node17")
    lock_path(output).write_text(json.dumps(asdict(there)))
    calls = {
        prepare: (None, output),
        export_spatialdata: (None, output),
        train: (None, output),
        tune: (None, None, output, None, None),
        train_upsampler: (None, output, None),
        generate: (None, None, output),
        generate_slide: (None, None, output),
        merge_slides: ([], output),
        evaluate: (None, None, output),
        build_viewer: (None, output),
        run_demo: (output, None),
    }
    for function, arguments in calls.items():
        with pytest.raises(InputError, match="another run"):
            function(*arguments)
    with pytest.raises(InputError, match="another run"):
        generate_verb(model=None, output=output)
