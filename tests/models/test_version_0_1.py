"""Configurations and weights of version 0.1 load under their current names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sge2hist.models.image.denoiser import LearntGuidance
from sge2hist.models.joint_model import JointModel, ModelConfig
from sge2hist.models.version_0_1 import current_weights

GOLDEN = Path(__file__).parents[1] / "golden" / "kidney_v0_1.json"


@pytest.fixture
def stored():
    """What version 0.1 wrote of a trained model: the model section of config.json, and the shape of each weight."""
    return json.loads(GOLDEN.read_text(encoding="utf-8"))


@pytest.fixture
def written(stored):
    return stored["model"]


def test_old_field_names_are_read_and_written_back_as_new_ones(written):
    config = ModelConfig.from_dict(written)
    assert config.gene.neighbour_um == written["gene"]["around_um"] == 50
    assert config.gene.neighbour_dropout == written["gene"]["around_dropout"]
    assert config.image.autoencoder is not None
    assert config.image.autoencoder.decoder_noise_channels == written["image"]["autoencoder"]["grain"] == 4
    assert config.image.condition.form == written["image"]["condition"]["kind"] == "map"
    assert config.image.diffusion.formulation == written["image"]["diffusion"]["kind"] == "edm"
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_guidance_learnt_by_the_image_network_stands_beside_the_sampler(written):
    written["image"] |= {"own_guidance": 2.0, "own_guidance_interval": [0.5, 4.5]}
    config = ModelConfig.from_dict(written)
    assert config.learnt_guidance == LearntGuidance(weight=2.0, interval=(0.5, 4.5))
    assert JointModel(config).image.learnt_guidance == config.learnt_guidance


def test_every_old_weight_has_its_place(stored):
    generator = torch.Generator().manual_seed(0)
    old = {name: torch.randn(shape, generator=generator) for name, shape in stored["weights"].items()}
    assert any(".place." in name for name in old)
    model = JointModel(ModelConfig.from_dict(stored["model"]))
    renamed = current_weights(old)
    # components without cells were removed after training, so the first axis of some differs
    assert {name: value.shape[1:] for name, value in renamed.items()} == {
        name: value.shape[1:] for name, value in model.state_dict().items()
    }
    # the current names hold the old values, and nothing was swapped or lost
    assert len(renamed) == len(old)
    assert sorted(float(value.sum()) for value in renamed.values()) == sorted(
        float(value.sum()) for value in old.values()
    )


def test_models_from_before_z2_was_centred_get_centres_of_zero():
    state = current_weights({"gene.mixture.micro_means_KM": torch.ones(3, 2)})
    assert torch.equal(state["gene.micro.centres_KM"], torch.zeros(3, 2))
    assert torch.equal(state["gene.micro.centre_mass_K"], torch.zeros(3))
