"""Two processes on the CPU: the training of one with the two batches together, written once."""

from __future__ import annotations

import contextlib
import csv
import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sge2hist.models.joint_model import JointModel
from sge2hist.training import train as train_module
from sge2hist.training.config import TrainConfig
from sge2hist.training.image.stages import AutoencoderTraining
from sge2hist.training.train import train


class Enough(BaseException):
    """Ends a training after its first stage."""


def _launch(*arguments: str, n_processes: int = 2) -> subprocess.CompletedProcess[str]:
    """Run the command line in several processes, as torchrun and accelerate do."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(n_processes)]
    address = ["--master_addr", "127.0.0.1", "--master_port", str(port)]
    command = [*launcher, *address, "-m", "sge2hist", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


def _losses(model: Path) -> dict[str, float]:
    """Last loss of each stage; every step was written once."""
    with open(model / "training" / "log.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["name"] == "loss"]
    steps = [(row["stage"], row["step"]) for row in rows]
    assert len(set(steps)) == len(steps)
    return {row["stage"]: float(row["value"]) for row in rows}


def _files(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*")}


def test_two_processes_train_one_model(tiny_paired, tiny_model, tmp_path, monkeypatch):
    output = tmp_path / "two.model"
    done = _launch("train", str(tiny_paired.path), "-o", str(output), "--preset", "tiny", "--mixed-precision", "no")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("training cells; reading expression") == 1  # one of them logs
    assert "2 processes" in done.stdout
    assert _files(output) == _files(tiny_model)
    assert not list(tmp_path.glob(".*"))  # no lock is left
    two, one = _losses(output), _losses(tiny_model)
    assert list(two) == list(one)
    for stage in {*one} - {"joint"}:  # where it ends depends on whether the gene model is frozen in the last step
        # a row is the mean since the row before, and rows come by the clock: a sum in place of a mean would double it
        assert 2 / 3 < two[stage] / one[stage] < 3 / 2, stage
    weights = load_file(output / "model.safetensors")
    assert {name: value.shape for name, value in weights.items()} == {
        name: value.shape for name, value in load_file(tiny_model / "model.safetensors").items()
    }
    _check_autoencoder(weights, tiny_paired, tmp_path, monkeypatch)


def _check_autoencoder(weights, dataset, tmp_path, monkeypatch) -> None:
    """Truth: one process whose loss is the mean of those of both batches, after the stage that has no gene model."""
    forward, found = AutoencoderTraining.forward, {}

    def of_both(self, step):
        terms = [forward(self, 2 * step + process) for process in range(2)]
        return {name: (terms[0][name] + terms[1][name]) / 2 for name in terms[0]}

    def stop(run, model: JointModel, name: str) -> None:
        found.update(model.state_dict())
        raise Enough

    monkeypatch.setattr(AutoencoderTraining, "forward", of_both)
    monkeypatch.setattr(train_module, "finish_stage", stop)
    monkeypatch.setattr(train_module._Training, "_gene_stages", lambda self: None)
    with contextlib.suppress(Enough):
        train(dataset, tmp_path / "truth.model", TrainConfig(preset="tiny", mixed_precision="no"), log=lambda _: None)
    assert _distance(weights, found) < 0.01  # the batch of one process alone: 0.09


def _distance(weights: dict[str, torch.Tensor], truth: dict[str, torch.Tensor]) -> float:
    """Norm of the difference of all weights of the autoencoder over that of the truth.

    Not element by element: where a gradient is nearly zero, the sign of a step of the optimiser is that of the rounding.
    """
    names = [name for name in weights if name.startswith("image.autoencoder.") and name.endswith("weight")]
    found, expected = (torch.cat([of[name].flatten() for name in names]) for of in (weights, truth))
    return float((found - expected).norm() / expected.norm())


@pytest.mark.slow
def test_a_time_budget_ends_both_processes_at_one_step(tiny_paired, tmp_path):
    output = tmp_path / "budget.model"
    done = _launch("train", str(tiny_paired.path), "-o", str(output), "--preset", "tiny", "--hours", "0.003")
    assert done.returncode == 0, done.stderr
    assert json.loads((output / "config.json").read_text())["provenance"]["stage_steps"]["joint"] >= 1
