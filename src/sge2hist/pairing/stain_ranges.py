"""Robust range of each stain of a fluorescence image, measured near cells; the image on that scale, or as virtual H&E."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.data.section import Section
from sge2hist.data.slides.channels import is_rgb
from sge2hist.data.slides.pixel_source import ArrayPixels, ChannelPages, PixelSource, ScaledPixels, VirtualHEPixels
from sge2hist.data.slides.slide_image import SlideImage
from sge2hist.data.slides.stain_scale import LINEAR, SQRT, StainScale
from sge2hist.data.virtual_he import MARK, choose_stains, tables_of_scales

LOW_PERCENTILE, HIGH_PERCENTILE = 1.0, 99.95
"""Of all values, of those near cells: the dark level of a camera of 16 bits, and what only rare specks exceed."""
NEAR_CELLS_UM = 25.0  # side of the squares that count as near cells: those that hold cells and the eight around each
TILE_PX = 1024
MAX_MEASURED_PX = 400_000_000  # of larger images: tiles of this area together, evenly spread


@dataclass(frozen=True, kw_only=True)
class Histograms:
    """How often each value of the file occurs, int64 [C, V]."""

    everywhere: np.ndarray
    near_cells: np.ndarray


def choose_transform(sections: Sequence[Section], requested: str | None) -> str:
    """The transform of all slides of a dataset: the requested one, else the square root where any of them has 8 bits.

    The levels of 8 bits are few, and their range is not measured by the reader. 16 bits stay linear by default.
    """
    images = [section.image for section in sections if not is_rgb(section.image.channels)]
    if requested is not None and not images:
        raise InputError(
            found=f"--stain-transform {requested} with an H&E",
            where=sections[0].name,
            expected="a fluorescence image",
            repair="omit it, or name the --channels of the image",
        )
    eight_bits = any(values_of(image.levels[0]).dtype == np.uint8 for image in images)
    return requested or (SQRT if eight_bits else LINEAR)


def with_stain_scale(section: Section, transform: str) -> Section:
    """The section with its fluorescence on a scale of that transform; an H&E, and a linear scale, are as the reader gave them."""
    image = section.image
    if is_rgb(image.channels) or transform == LINEAR:
        return section
    scales = measure_scales(section, transform)
    ranges = ", ".join(f"{name} {one.low:g} to {one.high:g}" for name, one in scales.items())
    note = f"levels are the square root of light, up to its {HIGH_PERCENTILE:g}th percentile near cells: {ranges}"
    rescaled = SlideImage(
        image.path,
        [ScaledPixels(values_of(level).source, list(scales.values())) for level in image.levels],
        image.um_per_px,
        image.notes,
        channels=image.channels,
        scales=scales,
        transform=transform,
    )
    return section.with_image(rescaled, note)


def with_virtual_he(section: Section, roles: str | None) -> Section:
    """The section with its fluorescence seen as virtual H&E, computed when pixels are read; `roles`: see `choose_stains`.

    Raises
    ------
    InputError
        If the image is RGB, or the roles of its channels are not known.
    """
    image = section.image
    stains, unused = choose_stains(image.channels, roles)
    scales = measure_scales(section, LINEAR)
    n_values = np.iinfo(values_of(image.levels[0]).dtype).max + 1
    tables = tables_of_scales(stains, scales, n_values)
    ranges = {name: (scale.low, scale.high) for name, scale in scales.items()}
    note = f"{MARK}: haematoxylin {_weights(stains.haematoxylin)}; eosin {_weights(stains.eosin) or 'none'}"
    note += f"; not shown {', '.join(unused)}" if unused else ""
    virtual = SlideImage(
        image.path,
        [VirtualHEPixels(values_of(level).source, tables) for level in image.levels],
        image.um_per_px,
        virtual_he={**stains.as_dict(), "not_shown": unused, "ranges": ranges},
    )
    return section.with_image(virtual, note)


def _weights(weights: dict[str, float]) -> str:
    return ", ".join(f"{name} x {weight:.3g}" for name, weight in weights.items())


@dataclass(frozen=True, kw_only=True)
class Values:
    """The numbers of a file behind a level of an image, 8 or 16 bits."""

    source: ChannelPages | ArrayPixels
    dtype: np.dtype


def values_of(level: PixelSource) -> Values:
    """What a level of a fluorescence image was scaled from."""
    source = level.values if isinstance(level, ScaledPixels) else level
    if not isinstance(source, ChannelPages | ArrayPixels):
        raise TypeError(f"{type(level).__name__} holds no channels")
    return Values(source=source, dtype=source.array.dtype if isinstance(source, ArrayPixels) else source.dtype)


def measure_scales(section: Section, transform: str) -> dict[str, StainScale]:
    """Range of each channel by its histogram over the image (streamed, a tile in memory at a time).

    `high` is the 99.95th percentile near cells: values of empty glass say nothing about a stain. `low` is the 1st percentile
    of all values for 16 bits, which hold the offset of a camera, and 0 for 8 bits.
    """
    found = measure_histograms(section)
    eight_bits = found.everywhere.shape[1] == 256
    scales = {}
    for name, everywhere, near in zip(section.image.channels, found.everywhere, found.near_cells, strict=True):
        low = 0.0 if eight_bits else percentile(everywhere, LOW_PERCENTILE)
        high = max(percentile(near if near.any() else everywhere, HIGH_PERCENTILE), low + 1)
        scales[name] = StainScale(low=low, high=high, transform=transform)
    return scales


def percentile(histogram: np.ndarray, percent: float) -> float:
    """The least value that `percent` of the counted ones do not exceed.

    >>> percentile(np.array([0, 2, 0, 2]), 50.0), percentile(np.array([0, 2, 0, 2]), 51.0)
    (1.0, 3.0)
    """
    return float(np.searchsorted(np.cumsum(histogram), percent / 100 * histogram.sum()))


def measure_histograms(section: Section) -> Histograms:
    """Count the values of the largest level, everywhere and near cells."""
    source = values_of(section.image.levels[0])
    n_values, n_channels = np.iinfo(source.dtype).max + 1, len(section.image.channels)
    everywhere = np.zeros((n_channels, n_values), np.int64)
    near_cells = np.zeros_like(everywhere)
    near, step_px = cells_grid(section)
    for y0, x0, y1, x1 in tiles_to_measure(source.source.height_px, source.source.width_px):
        row, column = (np.arange(a, b) // step_px for a, b in ((y0, y1), (x0, x1)))
        inside = near[row][:, column]
        values = source.source.region(y0, x0, y1, x1)
        for channel in range(n_channels):
            plane = values[..., channel]
            everywhere[channel] += np.bincount(plane.ravel(), minlength=n_values)
            if inside.any():
                near_cells[channel] += np.bincount(plane[inside], minlength=n_values)
    return Histograms(everywhere=everywhere, near_cells=near_cells)


def cells_grid(section: Section) -> tuple[np.ndarray, int]:
    """Squares that hold cells or touch one that does, bool [rows, columns], and their side in px of the image."""
    from scipy.ndimage import binary_dilation

    image = section.image
    step_px = max(1, round(NEAR_CELLS_UM / section.um_per_px))
    grid = np.zeros((-(-image.height_px // step_px), -(-image.width_px // step_px)), bool)
    column, row = np.floor(section.centre_xy_px / step_px).astype(np.int64).T
    inside = (row >= 0) & (column >= 0) & (row < grid.shape[0]) & (column < grid.shape[1])
    grid[row[inside], column[inside]] = True
    return binary_dilation(grid, np.ones((3, 3), bool)), step_px


def tiles_to_measure(height_px: int, width_px: int) -> Iterator[tuple[int, int, int, int]]:
    """Tiles (y0, x0, y1, x1) of an image; of a large one every k-th, along diagonals."""
    tops, lefts = range(0, height_px, TILE_PX), range(0, width_px, TILE_PX)
    every = max(1, math.ceil(height_px * width_px / MAX_MEASURED_PX))
    for i, y0 in enumerate(tops):
        for j, x0 in enumerate(lefts):
            if (i + j) % every == 0:
                yield y0, x0, min(y0 + TILE_PX, height_px), min(x0 + TILE_PX, width_px)
