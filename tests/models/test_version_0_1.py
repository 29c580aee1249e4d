"""Configurations and weights of version 0.1 load under their current names."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from sge2hist.models.bundle import CONFIG_NAME, SHIPPED, WEIGHTS_NAME, ModelBundle
from sge2hist.models.image.denoiser import LearntGuidance
from sge2hist.models.joint_model import JointModel, ModelConfig
from sge2hist.models.version_0_1 import current_weights


@pytest.fixture
def written():
    """The model section of config.json as version 0.1 wrote it."""
    return json.loads((SHIPPED / "kidney" / CONFIG_NAME).read_text(encoding="utf-8"))["model"]


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


def test_every_old_weight_has_its_place():
    stored = load_file(SHIPPED / "kidney" / WEIGHTS_NAME)
    assert any(".place." in name for name in stored)
    model = ModelBundle.load(SHIPPED / "kidney").model
    state = model.state_dict()
    renamed = current_weights(stored)
    assert renamed.keys() == state.keys()
    for name, value in renamed.items():
        assert torch.equal(value.to(state[name].dtype), state[name])


def test_models_from_before_z2_was_centred_get_centres_of_zero():
    state = current_weights({"gene.mixture.micro_means_KM": torch.ones(3, 2)})
    assert torch.equal(state["gene.micro.centres_KM"], torch.zeros(3, 2))
    assert torch.equal(state["gene.micro.centre_mass_K"], torch.zeros(3))
