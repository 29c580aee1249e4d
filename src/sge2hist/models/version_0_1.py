"""Names under which version 0.1 saved configurations and weights, so that its model folders keep loading."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sge2hist.models.gene.config import GeneModelConfig
from sge2hist.models.image.autoencoder import AutoencoderConfig
from sge2hist.models.image.conditioning import ConditionConfig
from sge2hist.models.image.preconditioning import DiffusionConfig

OLD_FIELDS: dict[type, dict[str, str]] = {
    GeneModelConfig: {"around_um": "neighbour_um", "around_dropout": "neighbour_dropout"},
    AutoencoderConfig: {"grain": "decoder_noise_channels"},
    ConditionConfig: {"kind": "form"},
    DiffusionConfig: {"kind": "formulation"},
}
"""Old -> current name of the fields of a configuration."""
OLD_WEIGHTS = {
    ".place.": ".cond_proj.",
    ".read_grain.": ".noise_proj.",
    ".from_around.": ".from_neighbours.",
    "gene.mixture.micro_means_KM": "gene.micro.means_KM",
    "gene.mixture.micro_vars_KM": "gene.micro.vars_KM",
    "gene.mixture.centres_KM": "gene.micro.centres_KM",
    "gene.mixture.centre_mass_K": "gene.micro.centre_mass_K",
}
"""Old -> current part of the names of weights."""


def current_config(model: dict[str, Any]) -> dict[str, Any]:
    """Return the model's configuration with the learnt guidance beside the sampler: it was part of the image network's."""
    if "own_guidance" not in model.get("image", {}):
        return model
    image = dict(model["image"])
    learnt = {"weight": image.pop("own_guidance"), "interval": image.pop("own_guidance_interval", (0.0, 0.0))}
    return {**model, "image": image, "learnt_guidance": learnt}


def current_weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return saved weights under their current names; models from before z2 was centred get centres of zero."""
    renamed = {}
    for name, value in state.items():
        for old, new in OLD_WEIGHTS.items():
            name = name.replace(old, new)
        renamed[name] = value
    means_KM = renamed.get("gene.micro.means_KM")
    if means_KM is not None:
        renamed.setdefault("gene.micro.centres_KM", torch.zeros_like(means_KM))
        renamed.setdefault("gene.micro.centre_mass_K", torch.zeros(len(means_KM)))
    return renamed
