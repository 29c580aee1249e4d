"""The preset for a GPU at the size it is made for, 256 px at half a micrometre, some steps of every stage on the CPU."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest

from sge2hist.api import SGE2Hist
from sge2hist.models.image.samplers import SamplerConfig
from sge2hist.training import presets, train
from sge2hist.training.config import TrainConfig
from tests.fixtures.paired import write_tiny_paired

N_STEPS = 20


@pytest.mark.slow  # 20 joint steps of networks of 30 M parameters
def test_base_trains_and_generates_at_256_px(tmp_path, monkeypatch):
    short = replace(
        presets.PRESETS["base"],
        ae_batch=1,
        ae_steps=4,
        gene_steps=10,
        mixture_steps=5,
        hidden=(64,),
        sampler=SamplerConfig(n_steps=1),
    )
    monkeypatch.setitem(presets.PRESETS, "base", short)
    data = write_tiny_paired(tmp_path / "tiny.paired", patch_px=64, outlines=True)
    config = TrainConfig(preset="base", patch_px=256, um_per_px=0.5, batch=1, steps=N_STEPS)
    lines: list[str] = []
    bundle = train.train(data, tmp_path / "base.model", config, log=lines.append)
    assert bundle.provenance["stage_steps"]["joint"] == N_STEPS
    with open(tmp_path / "base.model/training/log.csv", newline="") as file:
        losses = [
            float(row["value"]) for row in csv.DictReader(file) if (row["stage"], row["name"]) == ("joint", "loss")
        ]
    assert losses
    assert np.isfinite(losses).all()
    images = SGE2Hist(bundle=bundle).generate_from_genes(data, rows=[0], sampler=SamplerConfig(n_steps=1))
    assert images.shape == (1, 1, 256, 256, 3)
    assert images.std() > 0
