"""How generated images look: the channels of the model as they are, or its stains rendered as virtual H&E."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.data.slides.channels import RGB, Channels, is_rgb
from sge2hist.data.slides.stain_scale import LINEAR
from sge2hist.data.virtual_he import MANIFEST_KEY, REQUEST, choose_stains
from sge2hist.models.bundle import ModelBundle

RENDERS = (REQUEST,)


@dataclass(frozen=True, kw_only=True)
class Look:
    """Channels of the images that are written, and how they come from those of the model."""

    channels: Channels
    apply: Callable[[np.ndarray], np.ndarray]  # uint8 [..., C of the model] -> uint8 [..., C of the images]
    manifest: dict[str, Any]  # fields that say what the images are


def look_of(bundle: ModelBundle, render: str | None = None, roles: str | None = None) -> Look:
    """The look of the images of a model; `render` "virtual-he" shows its stains as H&E, with `roles` as in `choose_stains`.

    Raises
    ------
    InputError
        If `render` is something else, or the model generates RGB, or has no nuclear stain.
    """
    channels = bundle.config.channels
    if render is None:
        if roles is not None:
            raise InputError(found="--stain-roles without --render", repair=f"--render {REQUEST}")
        marked = {MANIFEST_KEY: True} if bundle.provenance.get(MANIFEST_KEY) else {}
        stated = {} if is_rgb(channels) else {"stain_transform": transform_of(bundle)}
        return Look(channels=channels, apply=lambda image: image, manifest={"channels": channels, **stated, **marked})
    if render not in RENDERS:
        raise InputError(found=f"--render {render}", expected=" | ".join(RENDERS))
    if is_rgb(channels):
        look = "virtual H&E" if bundle.provenance.get(MANIFEST_KEY) else "H&E"
        raise InputError(
            found=f"--render {render} with a model that generates {look}",
            expected="a model of fluorescence",
            repair="omit it",
        )
    stains, unused = choose_stains(channels, roles)
    transform = transform_of(bundle)
    recipe = {**stains.as_dict(), "not_shown": unused, "stains": list(channels), "stain_transform": transform}
    return Look(
        channels=RGB,
        apply=lambda levels: stains.render_levels(levels, channels, transform),
        manifest={"channels": RGB, MANIFEST_KEY: recipe},
    )


def transform_of(bundle: ModelBundle) -> str:
    """How the levels that a model generates relate to light; models of older versions: linear."""
    return str(bundle.provenance.get("stain_transform", LINEAR))
