"""Colours of images on the screen: RGB as it is, stains as colours that are added up, or as virtual H&E."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from sge2hist.data.generated import GeneratedSlide
from sge2hist.data.paired import PairedDataset
from sge2hist.data.slides.channels import Channels, composite, is_rgb
from sge2hist.data.virtual_he import MANIFEST_KEY, MARK, mark_of, recipe_of

FULL = 255


@dataclass(frozen=True, kw_only=True)
class Colours:
    """How images with these channels are shown."""

    channels: Channels
    note: str  # what is seen
    show: Callable[[np.ndarray], np.ndarray]  # uint8 [..., C] -> RGB uint8 [..., 3]

    def legend(self) -> list[dict[str, str]]:
        """Name and colour (#rrggbb) of each stain alone at its full level; none of RGB."""
        if is_rgb(self.channels):
            return []
        alone = self.show(np.eye(len(self.channels), dtype=np.uint8) * FULL)
        return [
            {"name": name, "colour": "#{:02x}{:02x}{:02x}".format(*colour)}
            for name, colour in zip(self.channels, alone.tolist(), strict=True)
        ]


def colours_of(channels: Channels, transform: str, beside: GeneratedSlide | None, he: str = "H&E") -> Colours:
    """Colours of images of a dataset or a model: of stains as virtual H&E, if the generated slide beside them is that.

    `transform`: how their levels relate to light (`data.slides.stain_scale`); `he`: what RGB is called.
    """
    recipe = None if beside is None or is_rgb(channels) else recipe_of(beside.manifest)
    if recipe is not None:
        return Colours(channels=channels, note=MARK, show=lambda x: recipe.render_levels(x, channels, transform))
    note = he if is_rgb(channels) else ", ".join(channels)
    return Colours(channels=channels, note=note, show=lambda image: composite(image, channels))


def colours_of_dataset(dataset: PairedDataset, beside: GeneratedSlide | None) -> Colours:
    """Colours of the slides of a dataset."""
    return colours_of(dataset.channels, dataset.stain_transform, beside, mark_of(dataset.manifest) or "H&E")


def shown_slide_number(generated: GeneratedSlide, dataset: PairedDataset) -> int:
    """Index of the real slide in `dataset.slides`, to look at beside the generated one: virtual H&E beside its stains too.

    Raises
    ------
    InputError
        If the dataset has no such slide, or other channels.
    """
    recipe: Any = generated.manifest.get(MANIFEST_KEY)
    rendered = isinstance(recipe, dict) and tuple(recipe.get("stains", ())) == dataset.channels
    return generated.slide_number(dataset, dataset.channels if rendered else generated.channels)
