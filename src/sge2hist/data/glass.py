"""The colour of empty glass on a slide."""

from __future__ import annotations

import numpy as np

from sge2hist.data.slide_image import SlideImage

GLASS_OD = 0.15  # mean optical density (natural logarithm) below which a pixel is glass
SMALLEST_SHARE = 0.002  # of the slide; less glass than this says nothing
THUMBNAIL_PX = 1500


def glass_colour(slide: SlideImage) -> tuple[int, int, int] | None:
    """Median colour (R, G, B) of the glass on a slide, None when there is too little of it to tell."""
    pixels, _ = slide.thumbnail(THUMBNAIL_PX)
    density = -np.log((pixels.astype(np.float32) + 1) / 256).mean(axis=-1)
    # the bright half of what is glass: the rest is the pale edge of tissue and lumens
    bright = pixels[density < GLASS_OD]
    if len(bright) < SMALLEST_SHARE * density.size:
        return None
    light = bright.sum(axis=-1, dtype=np.int64)
    red, green, blue = np.median(bright[light >= np.median(light)], axis=0).round()
    return int(red), int(green), int(blue)
