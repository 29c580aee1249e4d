"""Names under which version 0.1 saved configurations and weights, so that its model folders keep loading."""

from __future__ import annotations

from typing import Any

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
}
"""Old -> current part of the names of weights."""


def current_weights(state: dict[str, Any]) -> dict[str, Any]:
    """Return saved weights under their current names."""
    renamed = {}
    for name, value in state.items():
        for old, new in OLD_WEIGHTS.items():
            name = name.replace(old, new)
        renamed[name] = value
    return renamed
