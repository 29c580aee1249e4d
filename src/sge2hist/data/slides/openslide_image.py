"""Slide scanner formats that only OpenSlide reads (NDPI, MRXS, SCN, BIF, ...), where it is installed."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.data.slides.colour_space import on_white
from sge2hist.data.slides.image_metadata import pixel_side_um
from sge2hist.data.slides.pixel_source import PixelSource

# Formats that OpenSlide reads better than a TIFF reader does, or that are no TIFF. SVS is read without it.
SUFFIXES = (".ndpi", ".mrxs", ".vms", ".vmu", ".scn", ".svslide", ".bif", ".dcm", ".czi")


def is_installed() -> bool:
    """Whether the optional package is there."""
    return importlib.util.find_spec("openslide") is not None


class OpenSlidePixels:
    """One level of a slide; opened again in every process, since its handles cannot be shared by forked ones."""

    def __init__(self, path: Path, level: int, width_px: int, height_px: int, downsample: float) -> None:
        self._path, self._level, self._downsample = path, level, downsample
        self.width_px, self.height_px = width_px, height_px
        self._slide: Any = None
        self._owner = -1

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_slide": None, "_owner": -1}

    def region(self, y0: int, x0: int, y1: int, x1: int) -> np.ndarray:
        """See `PixelSource.region`; areas that were not scanned are transparent and becomes white."""
        if self._owner != os.getpid():
            import openslide

            self._slide, self._owner = openslide.OpenSlide(self._path), os.getpid()
        corner = (round(x0 * self._downsample), round(y0 * self._downsample))
        rgba = np.asarray(self._slide.read_region(corner, self._level, (x1 - x0, y1 - y0)))
        return on_white(rgba)


def needed(path: Path) -> InputError:
    """The error for a slide that cannot be read without OpenSlide."""
    return InputError(
        found=f"a slide of type {path.suffix}",
        where=str(path),
        expected="TIFF, BTF, OME-TIFF, SVS, JPEG or PNG, or OpenSlide to read it",
        repair='pip install "sge2hist[slides]", or save it as a tiled TIFF',
    )


def open_levels(path: Path) -> tuple[list[PixelSource], float | None, list[str]]:
    """Levels (largest first), um/px of the scanner (None when it states none), notes.

    Raises
    ------
    InputError
        If OpenSlide is not installed, or does not know the file.
    """
    if not is_installed():
        raise needed(path)
    import openslide

    try:
        slide = openslide.OpenSlide(path)
        shapes = list(zip(slide.level_dimensions, slide.level_downsamples, strict=True))
        stated = [slide.properties.get(f"openslide.mpp-{axis}") for axis in "xy"]
        vendor = slide.properties.get("openslide.vendor", "unknown")
        slide.close()
    except openslide.OpenSlideError as error:
        raise InputError(
            found=f"a slide that OpenSlide cannot read ({error})",
            where=str(path),
            expected="a complete slide",
            repair="copy it again, with the files that lie beside it",
        ) from error
    levels: list[PixelSource] = [
        OpenSlidePixels(path, level, width, height, downsample)
        for level, ((width, height), downsample) in enumerate(shapes)
    ]
    um_per_px, notes = pixel_side_um(*(float(side) if side else None for side in stated))
    return levels, um_per_px, [f"read by OpenSlide (vendor {vendor})", *notes]
