"""The whole training on a tiny dataset: it learns, it resumes exactly, it refuses what does not fit."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sge2hist.data.errors import InputError
from sge2hist.models.bundle import ModelBundle
from sge2hist.training import loop
from sge2hist.training.checkpoint import load_checkpoint, save_checkpoint
from sge2hist.training.config import TrainConfig
from sge2hist.training.train import train
from tests.fixtures.paired import TYPES

TINY = TrainConfig(preset="tiny", checkpoint_every_s=0.0, mixed_precision="no")


class Killed(BaseException):
    """Stands for a kill: nothing may catch it."""


@pytest.fixture
def dataset(tiny_paired):
    return tiny_paired


@pytest.fixture
def trained(tiny_model):
    return tiny_model


def _weights(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path / "model.safetensors")


def test_writes_a_model_that_loads(dataset, trained):
    bundle = ModelBundle.load(trained)
    assert set(TYPES) <= set(bundle.types.names)
    assert bundle.provenance["data_fingerprint"] == dataset.fingerprint
    assert bundle.is_toy
    assert bundle.config.patch_um == 64.0
    assert not list(trained.rglob("*.partial*"))
    assert "synthetic" in (trained / "README.md").read_text()
    with open(trained / "training" / "log.csv", newline="") as file:
        stages = {row["stage"] for row in csv.DictReader(file)}
    assert stages == {"autoencoder", "gene", "mixture", "joint", "expression"}


@pytest.mark.parametrize("stage", ["autoencoder", "gene", "mixture", "joint", "expression"])
def test_a_killed_run_ends_with_the_same_weights(dataset, trained, tmp_path, monkeypatch, stage):
    save = loop.save_checkpoint

    def save_then_die(path, sections, position):
        save(path, sections, position)
        if position["unfinished"] and position["stage"] == stage:
            raise Killed

    monkeypatch.setattr(loop, "save_checkpoint", save_then_die)
    output = tmp_path / "killed.model"
    with pytest.raises(Killed):
        train(dataset, output, TINY, log=lambda _: None)
    monkeypatch.setattr(loop, "save_checkpoint", save)
    with pytest.raises(InputError, match="not finished"):
        ModelBundle.load(output)
    logged: list[str] = []
    train(dataset, output, TINY, log=logged.append)
    assert any(line.startswith(f"resuming {stage}") for line in logged)
    expected, found = _weights(trained), _weights(output)
    assert expected.keys() == found.keys()
    for name in expected:
        assert torch.equal(expected[name], found[name]), name


@pytest.mark.slow
def test_kill_9_of_the_command_and_resume(dataset, trained, tmp_path):
    output = tmp_path / "killed.model"
    command = [
        sys.executable,
        "-m",
        "sge2hist",
        "train",
        str(dataset.path),
        "-o",
        str(output),
        "--preset",
        "tiny",
        "--steps",
        "4000",
        "--mixed-precision",
        "no",
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while not (output / "training" / "checkpoint.safetensors").is_file() and time.monotonic() < deadline:
            time.sleep(0.1)
        os.kill(process.pid, signal.SIGKILL)
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert ModelBundle.load(output).types.names


def test_another_seed_is_another_model(dataset, trained, tmp_path):
    other = TrainConfig(preset="tiny", seed=1, mixed_precision="no")
    train(dataset, tmp_path / "other.model", other, log=lambda _: None)
    name = "image.unet.stem.weight"
    assert not torch.equal(_weights(trained)[name], _weights(tmp_path / "other.model")[name])


def test_the_same_call_on_a_finished_model_changes_nothing(dataset, trained):
    before = (trained / "model.safetensors").stat().st_mtime_ns
    logged: list[str] = []
    train(dataset, trained, TINY, log=logged.append)
    assert (trained / "model.safetensors").stat().st_mtime_ns == before
    assert "trained already" in logged[-1]


def test_refuses_to_resume_with_other_settings(dataset, trained):
    with pytest.raises(InputError, match=r"other settings \(seed\)"):
        train(dataset, trained, TrainConfig(preset="tiny", seed=5, mixed_precision="no"), log=lambda _: None)


def test_a_command_that_was_refused_leaves_the_folder_free(dataset, trained, tmp_path):
    output = tmp_path / "m.model"
    with pytest.raises(InputError, match="multiple of"):
        train(dataset, output, replace(TINY, patch_px=33), log=lambda _: None)
    assert not output.exists()
    with pytest.raises(InputError, match="to start from"):
        train(dataset, output, replace(TINY, um_per_px=3.0, warm_start=str(trained)), log=lambda _: None)
    assert not output.exists()


def test_refuses_a_folder_that_is_not_a_model(dataset, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(InputError):
            train(dataset, tmp_path / "mine", TINY, overwrite=overwrite, log=lambda _: None)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_damaged_model_files_are_named(trained, tmp_path):
    import shutil

    for name, damage in {
        "model.safetensors": b"x" * 100,
        "config.json": b"{",
        "genes.csv": b"gene_id,symbol\na,b\n",
        "types.csv": b"component\n0\n",
    }.items():
        copy = tmp_path / name
        shutil.copytree(trained, copy)
        (copy / name).write_bytes(damage)
        with pytest.raises(InputError, match=name):
            ModelBundle.load(copy)
    content = json.loads((trained / "config.json").read_text())
    content["model"]["patch_px"] = 33
    shutil.copytree(trained, tmp_path / "odd")
    (tmp_path / "odd" / "config.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="multiple of 8"):
        ModelBundle.load(tmp_path / "odd")


def test_config_refuses_nonsense():
    nan = float("nan")
    for wrong in (
        {"preset": "huge"},
        {"hours": -1},
        {"hours": 1.0, "steps": 5},
        {"mixed_precision": "fp8"},
        {"hours": nan},
        {"hours": float("inf")},
        {"learning_rate": nan},
        {"um_per_px": nan},
        {"patch_px": 7},
        {"pool_um": -1.0},
        {"pool_um": nan},
        {"refit_genes": True},
        {"checkpoint_every_s": -1.0},
        {"pool_um": 24.0, "warm_start": "kidney.model"},
    ):
        with pytest.raises(InputError):
            TrainConfig(**wrong)


def test_unknown_type_names_the_known_ones(trained):
    with pytest.raises(InputError, match=r"did you mean 'alpha'"):
        ModelBundle.load(trained).components_of("alpa")
    components, weights = ModelBundle.load(trained).components_of("ALPHA")
    assert np.isclose(weights.sum(), 1)
    assert len(components) >= 1


def test_one_process_trains_with_one_precision_after_another():
    from sge2hist.devices import make_accelerator

    assert [make_accelerator(p).mixed_precision for p in ("no", "bf16", "no")] == ["no", "bf16", "no"]


def test_a_checkpoint_of_other_networks_is_refused_and_kept(dataset, trained, tmp_path):
    """As after an update that changed a preset."""
    config = TrainConfig(preset="tiny", steps=4, mixed_precision="no", seed=5)
    output = tmp_path / "stopped.model"
    train(dataset, output, config, log=lambda _: None)
    for name in ("config.json", "model.safetensors"):
        (output / name).unlink()
    checkpoint = output / "training" / "checkpoint.safetensors"
    sections, position = load_checkpoint(checkpoint)
    del sections["model"]["image.unet.grow.0.weight"]
    save_checkpoint(checkpoint, sections, position)
    before = checkpoint.read_bytes()
    with pytest.raises(InputError, match="networks of another shape"):
        train(dataset, output, config, log=lambda _: None)
    assert checkpoint.read_bytes() == before
