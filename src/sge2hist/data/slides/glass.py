"""The colour of empty glass on a slide."""

from __future__ import annotations

import numpy as np

from sge2hist.data.he_stain import GLASS_OD, optical_density
from sge2hist.data.slides.channels import is_rgb
from sge2hist.data.slides.slide_image import SlideImage
from sge2hist.data.slides.stain_scale import linear_light

GLASS_LIGHT = 0.04  # of the full scale above the darkest pixels of fluorescence: below it a pixel is glass
MIN_SHARE = 0.002  # of the slide; with less glass, no colour is given
THUMBNAIL_PX = 1500


def glass_colour(slide: SlideImage) -> tuple[int, ...] | None:
    """Median level of each channel on the glass of a slide, None when there is too little of it."""
    pixels, _ = slide.thumbnail(THUMBNAIL_PX)
    # distance from pure glass, which is white in bright field and black in fluorescence
    if is_rgb(slide.channels):
        tissue, limit = optical_density(pixels).mean(axis=-1), GLASS_OD
    else:
        light = linear_light(pixels, slide.transform).mean(axis=-1)
        tissue, limit = light - light.min(), GLASS_LIGHT
    glass = pixels[tissue < limit]
    if len(glass) < MIN_SHARE * tissue.size:
        return None
    # the clear half of what is glass: the rest is the edge of tissue and lumens
    far = glass.sum(axis=-1, dtype=np.int64) * (-1 if is_rgb(slide.channels) else 1)
    return tuple(int(level) for level in np.median(glass[far <= np.median(far)], axis=0).round())
