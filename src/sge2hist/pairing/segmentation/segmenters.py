"""Which segmenter finds the nuclei of a slide."""

from __future__ import annotations

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.data.slides.slide_image import SlideImage
from sge2hist.pairing.segmentation.classical import ClassicalSegmenter, NucleiConfig, otsu_in_tissue
from sge2hist.pairing.segmentation.stardist import StarDistSegmenter, stardist_installed
from sge2hist.pairing.segmentation.tiles import Segmenter

SEGMENTERS = ("auto", "network", "classical", "stardist")
MAX_UM_PER_PX = 1.0  # a nucleus of 6 um is 6 px here; coarser images show dots that cannot be outlined


def choose_segmenter(
    name: str, slide: SlideImage, um_per_px: float, *, nuclei: NucleiConfig | None = None
) -> tuple[str, Segmenter]:
    """Name and segmenter for a slide.

    Parameters
    ----------
    name
        ``auto`` (StarDist when installed, else the built-in network), ``network``, ``classical`` or ``stardist``.
    slide, um_per_px
        The H&E and its scale; `classical` fits its threshold to the slide.

    Raises
    ------
    InputError
        An unknown name, StarDist that is not there, or a slide too coarse to show nuclei.
    """
    if name not in SEGMENTERS:
        raise InputError(found=f"segmenter {name!r}", where="--segmenter", expected=" | ".join(SEGMENTERS))
    if um_per_px > MAX_UM_PER_PX:
        raise InputError(
            found=f"{um_per_px:.3g} um per px",
            where=str(slide.path),
            expected=f"at most {MAX_UM_PER_PX:g} um per px to find nuclei",
            repair="--cells bins, or give outlines with --labels",
        )
    if name == "auto":
        name = "stardist" if stardist_installed() else "network"
    if name == "stardist":
        return name, StarDistSegmenter()
    if name == "network":
        from sge2hist.pairing.segmentation.network import NetworkSegmenter

        return name, NetworkSegmenter(nuclei=nuclei)
    segmenter = ClassicalSegmenter(config=nuclei)
    segmenter.threshold = slide_threshold(slide, um_per_px, segmenter)
    return name, segmenter


def slide_threshold(
    slide: SlideImage, um_per_px: float, segmenter: ClassicalSegmenter, *, n_windows: int = 36, window_px: int = 512
) -> float:
    """Otsu's threshold over windows spread evenly over the slide, so that all tiles share it."""
    step = segmenter.um_per_px / um_per_px
    side = window_px * step
    across = min(max(1, round(np.sqrt(n_windows * slide.width_px / slide.height_px))), int(slide.width_px / side) + 1)
    down = min(max(1, round(n_windows / across)), int(slide.height_px / side) + 1)
    amounts, tissues = [], []
    for y in np.linspace(0, max(slide.height_px - side, 0), down):
        for x in np.linspace(0, max(slide.width_px - side, 0), across):
            amount, tissue = segmenter.haematoxylin_in_tissue(slide.read_window(x, y, side, side, window_px, window_px))
            amounts.append(amount[::2, ::2])
            tissues.append(tissue[::2, ::2])
    return otsu_in_tissue(np.stack(amounts), np.stack(tissues))
