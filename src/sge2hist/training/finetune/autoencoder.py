"""A model with another decoder: what the fine-tunings and fits of the decoder share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sge2hist.data.errors import InputError
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.image.autoencoder import Autoencoder
from sge2hist.models.joint_model import JointModel

PREFIX = "image.autoencoder."


def autoencoder_of(model: JointModel) -> Autoencoder:
    """The autoencoder of a model; raises `InputError` where it has none."""
    autoencoder = model.image.autoencoder
    if autoencoder is None:
        raise InputError(
            found=f"a model of preset {model.config.preset}", expected="a model that generates latents, with a decoder"
        )
    return autoencoder


def with_autoencoder(
    trained: ModelBundle, added: Mapping[str, Tensor] | None = None, *, seed: int = 0, **changes: Any
) -> ModelBundle:
    """A copy of the model whose autoencoder has `changes` of its configuration.

    `added`: weights by their name in the autoencoder. The others are those of `trained`, and where it has none, random by `seed`.
    """
    config = trained.config
    autoencoder = replace(autoencoder_of(trained.model).config, **changes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = JointModel(replace(config, image=replace(config.image, autoencoder=autoencoder)))
    fresh = model.state_dict()
    kept = {name: value for name, value in trained.model.state_dict().items() if name in fresh}
    own = {PREFIX + name: value for name, value in (added or {}).items()}
    model.load_state_dict(fresh | kept | own)
    return replace(trained, model=model.eval())


OF_STAGES = ("stage_seconds", "stage_steps", "undertrained")
"""Entries of the provenance that have one value for each stage."""
FITTED = ("detail", "correction")
"""What is fitted to the images of one decoder, by its name in configuration and provenance; in the order of its fitting."""


def without_fitted(trained: ModelBundle) -> ModelBundle:
    """The same model without what was fitted to its decoder's images: before a decoder or a detail model is trained."""
    config = autoencoder_of(trained.model).config
    if config.detail is None and not config.correction:
        return trained
    plain = with_autoencoder(trained, detail=None, correction="")
    return replace(plain, provenance=_without(FITTED, trained.provenance))


def _without(names: tuple[str, ...], provenance: dict[str, Any]) -> dict[str, Any]:
    """Provenance without these steps: their settings, and their seconds and steps among those of all stages."""
    return {
        name: _without(names, value) if isinstance(value, dict) and name in OF_STAGES else value
        for name, value in provenance.items()
        if name not in names
    }
