"""The published configuration, from training to images, on a tiny dataset and in a short time."""

from __future__ import annotations

import pytest

from sge2hist.api import SGE2Hist
from sge2hist.models.image.samplers import SamplerConfig
from sge2hist.training.config import TrainConfig


@pytest.mark.slow
def test_the_published_configuration_trains_and_generates(tiny_paired, tmp_path):
    config = TrainConfig(preset="paper", hours=0.02, batch=8, patch_px=32)
    model = SGE2Hist.train(tiny_paired, tmp_path / "paper.model", config)
    assert model.bundle.config.image.condition.form == "vector"
    assert model.bundle.config.sampler == SamplerConfig(sampler="ancestral", n_steps=1000)
    assert model.bundle.config.gene.likelihood == "mse"
    few = SamplerConfig(sampler="ancestral", n_steps=4)
    images = model.generate_from_genes(tiny_paired, rows=tiny_paired.rows("test")[:2], n_samples=2, sampler=few)
    assert images.shape == (2, 2, 32, 32, 3)
    assert (images[:, 0] != images[:, 1]).any()
    typed = model.generate_from_types(model.types.names[0], n=2, sampler=few)
    assert typed.shape == (2, 32, 32, 3)
