"""Statistics of a patch that mean something to a person: stain, lumen and nuclei of H&E; light of each channel of fluorescence.

Haematoxylin, eosin, lumen and the nuclei that the segmenter finds have no meaning in fluorescence: they are left out there.

Shape letters: N images.
"""

from __future__ import annotations

import numpy as np

from sge2hist.data.channels import Channels, is_rgb
from sge2hist.evaluation.describe import Morphometry
from sge2hist.evaluation.nuclei import NucleiSegmenter, nuclear_statistics
from sge2hist.evaluation.stain import stain_statistics


def fit_morphometry(train_NHWC: np.ndarray, um_per_px: float, channels: Channels) -> Morphometry:
    """Return what measures images of these channels; what has to be fitted is fitted to real training patches."""
    if not is_rgb(channels):
        return lambda image_NHWC: light_statistics(image_NHWC, channels)
    segmenter = NucleiSegmenter.fit(train_NHWC, um_per_px)
    return lambda image_NHWC: stain_statistics(image_NHWC) | nuclear_statistics(segmenter, image_NHWC)


def light_statistics(image_NHWC: np.ndarray, channels: Channels) -> dict[str, np.ndarray]:
    """Return mean and standard deviation of each channel over the pixels of each image, in grey levels: float64 [N] each.

    >>> light_statistics(np.full((1, 8, 8, 1), 7, np.uint8), ("DAPI",))
    {'DAPI light mean': array([7.]), 'DAPI light SD': array([0.])}
    """
    pixels = (1, 2)
    found = {}
    for number, name in enumerate(channels):
        found[f"{name} light mean"] = image_NHWC[..., number].mean(axis=pixels, dtype=np.float64)
        found[f"{name} light SD"] = image_NHWC[..., number].std(axis=pixels, dtype=np.float64)
    return found
