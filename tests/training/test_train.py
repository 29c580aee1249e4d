"""The whole training on a tiny dataset: it learns, it resumes exactly, it refuses what does not fit."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sge2hist.data.errors import InputError
from sge2hist.models.bundle import ModelBundle
from sge2hist.training import loop
from sge2hist.training import train as train_module
from sge2hist.training.budget import Clock, clock_text
from sge2hist.training.checkpoint import load_checkpoint, save_checkpoint
from sge2hist.training.config import STAGE_SHARES, TrainConfig
from sge2hist.training.estimate import Rates
from sge2hist.training.train import train
from tests.fixtures.paired import TYPES

TINY = TrainConfig(preset="tiny", mixed_precision="no")
KILLED = replace(TINY, checkpoint_every_s=0.0)


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


@pytest.mark.parametrize(
    ("stage", "step"),
    # the joint stage encodes all cells at steps 0, 5, ... until the gene model is frozen at step 7
    [("autoencoder", 3), ("gene", 8), ("mixture", 10), ("joint", 3), ("joint", 5), ("joint", 12), ("expression", 1)],
)
def test_a_killed_run_ends_with_the_same_weights(dataset, trained, tmp_path, monkeypatch, stage, step):
    save = loop.save_checkpoint

    def save_then_die(path, sections, position):
        if position["unfinished"] and position["stage"] == stage and position["step"] == step:
            save(path, sections, position)
            raise Killed

    monkeypatch.setattr(loop, "save_checkpoint", save_then_die)
    output = tmp_path / "killed.model"
    with pytest.raises(Killed):
        train(dataset, output, KILLED, log=lambda _: None)
    monkeypatch.setattr(loop, "save_checkpoint", save)
    with pytest.raises(InputError, match="not finished"):
        ModelBundle.load(output)
    logged: list[str] = []
    train(dataset, output, TINY, log=logged.append)
    assert any(line.startswith(f"resuming {stage} at step {step}") for line in logged)
    expected, found = _weights(trained), _weights(output)
    assert expected.keys() == found.keys()
    for name in expected:
        assert torch.equal(expected[name], found[name]), name


DIES = """
import os, signal, sys
from sge2hist.data.paired import PairedDataset
from sge2hist.training import loop
from sge2hist.training.config import TrainConfig
from sge2hist.training.train import train

paired, output, stage = sys.argv[1:]
save = loop.save_checkpoint

def save_then_die(path, sections, position):
    save(path, sections, position)
    if position["unfinished"] and position["stage"] == stage and position["step"] > 1:
        os.kill(os.getpid(), signal.SIGKILL)

loop.save_checkpoint = save_then_die
config = TrainConfig(preset="tiny", checkpoint_every_s=0.0, mixed_precision="no")
train(PairedDataset.open(paired), output, config, log=lambda line: print(line, flush=True))
"""


@pytest.mark.slow
def test_kill_9_in_each_stage_and_resume(dataset, trained, tmp_path):
    """One process after another, each killed in the next stage; the last one is the command."""
    output, stages = tmp_path / "killed.model", ["autoencoder", "gene", "mixture", "joint", "expression"]
    said = []
    for stage in stages:
        command = [sys.executable, "-c", DIES, str(dataset.path), str(output), stage]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == -signal.SIGKILL, done.stderr
        said.append(done.stdout)
    command = [sys.executable, "-m", "sge2hist", "train", str(dataset.path), "-o", str(output)]
    done = subprocess.run(
        [*command, "--preset", "tiny", "--mixed-precision", "no"],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said.append(done.stdout)
    assert "resuming" not in said[0]
    for i, stage in enumerate(stages):
        after = f", after {', '.join(stages[:i])}" if i else ""
        assert f"resuming {stage} at step 2{after}; earlier runs used 0:0" in said[i + 1]
    expected, found = _weights(trained), _weights(output)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_time_budget_is_kept_and_logged(dataset, tmp_path, monkeypatch):
    """A clock on which each step takes 1 s, and the work beside the steps twice what was estimated."""
    time_s = [0.0]

    def takes(function, seconds):
        def timed(*args, **kwargs):
            time_s[0] += seconds
            return function(*args, **kwargs)

        return timed

    module = "sge2hist.training.train"
    rates = Rates(step_s=dict.fromkeys(STAGE_SHARES, 1.0), encode_s=0.4, frozen_step_s=1.0)
    monkeypatch.setattr(f"{module}.measure_rates", lambda *args, **kwargs: rates)
    monkeypatch.setattr(f"{module}.select_genes", takes(train_module.select_genes, 12.0))
    monkeypatch.setattr(f"{module}.calibrate_novelty", takes(train_module.calibrate_novelty, 12.0))
    monkeypatch.setattr(loop, "_step", takes(loop._step, 1.0))
    logged: list[str] = []
    clock = Clock(lambda: time_s[0])
    train(dataset, tmp_path / "t.model", replace(TINY, hours=180 / 3600), log=logged.append, clock=clock)
    assert time_s[0] == pytest.approx(180, rel=0.1)
    assert any(line.startswith("time budget 0:03:00: 0:00:12 used") for line in logged)
    estimate = next(line for line in logged if line.startswith("estimated steps:"))
    assert all(f"{stage} " in estimate for stage in STAGE_SHARES)
    assert logged[-1] == f"used {clock_text(time_s[0])} of 0:03:00"
    known = json.loads((tmp_path / "t.model" / "config.json").read_text())["provenance"]
    steps = known["stage_steps"]
    assert steps["joint"] == pytest.approx(0.75 / 1.0 * sum(steps.values()), rel=0.15)


def test_what_a_budget_is_too_short_for_is_logged_before_and_after(dataset, tmp_path):
    logged: list[str] = []
    train(dataset, tmp_path / "t.model", replace(TINY, hours=0.1 / 3600), log=logged.append)
    before = next(i for i, line in enumerate(logged) if "is too short here to train" in line)
    assert "about --hours" in logged[before]
    assert not any(line.startswith("autoencoder ") for line in logged[:before])
    assert any("the work beside the steps alone takes longer" in line for line in logged)
    assert any(line.startswith("warning: undertrained: 1 of some 10 steps (autoencoder), 1 of some") for line in logged)
    card = (tmp_path / "t.model" / "README.md").read_text()
    assert "Undertrained: 1 of some 10 steps (autoencoder)" in card
    assert ModelBundle.load(tmp_path / "t.model").provenance["undertrained"]["joint"] == {"steps": 1, "useful": 10}


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
