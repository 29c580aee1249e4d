"""Where nuclei are, as rasters of any resolution: from the pixels of an image, or from the positions of cells.

Both sources answer the same two requests, so that an image is registered to another image or to bare positions by the same
code. The frame of a source is px of its image, or the unit of its positions; x is the column, y the row, corner-based.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from sge2hist.data.he_stain import haematoxylin_log10
from sge2hist.data.slides.channels import is_rgb, nuclear_channel
from sge2hist.data.slides.slide_image import SlideImage

MAX_OVERVIEW_PX = 2500  # longest side of an overview; coarser maps are averages of it
OVERVIEW_UM = 4.0  # per px of an overview, at least: nuclei of one group merge, groups do not
MIN_STAIN, MIN_LIGHT = 0.06, 3.0  # optical density (log10) of the palest nuclei, above the noise of glass; grey levels
HULL_MARGIN_UM = 40.0  # beyond the outermost cells the instrument still looked, and found none
HULL_PX = 512  # longest side of the raster of the convex hull


@dataclass(frozen=True, kw_only=True)
class NuclearMap:
    """A raster in the frame of its source: pixel (row, column) covers ``origin_xy + step * [column, column + 1)`` and so on."""

    values_HW: np.ndarray  # float32: nuclear stain, or cells per pixel
    known_HW: np.ndarray  # bool: the source says something about this pixel
    origin_xy: np.ndarray  # float64 [2]
    step: float  # side of a pixel in the frame of the source

    def centres_xy(self) -> np.ndarray:
        """Centres of all pixels in the frame of the source, float64 [H, W, 2]."""
        height, width = self.values_HW.shape
        y, x = np.mgrid[0:height, 0:width] + 0.5
        return self.origin_xy + self.step * np.stack([x, y], axis=-1)

    def coarser(self, factor: float) -> NuclearMap:
        """The map with pixels `factor` times as large, by area averages; itself below 1.01."""
        if factor < 1.01:
            return self
        height, width = self.values_HW.shape
        shape = max(1, int(height / factor)), max(1, int(width / factor))
        rows, columns = (_averaging(n_out, factor, n_in) for n_out, n_in in zip(shape, (height, width), strict=True))
        share = rows @ self.known_HW.astype(np.float32) @ columns.T
        values = rows @ np.where(self.known_HW, self.values_HW, 0) @ columns.T
        known = share > 0.5
        return NuclearMap(
            values_HW=np.where(known, values / np.maximum(share, 1e-6), 0).astype(np.float32),
            known_HW=known,
            origin_xy=self.origin_xy,
            step=self.step * factor,
        )


class NuclearSource(Protocol):
    """Anything that shows nuclei."""

    um_per_unit: float  # of its frame; of an image it may be a guess
    finest_um: float  # finer maps show nothing more
    min_contrast: float  # range of values below which it shows nothing

    def overview(self) -> NuclearMap:
        """All of it at low resolution."""
        ...

    def window(self, x: float, y: float, width: int, height: int, step: float) -> NuclearMap:
        """`width` x `height` pixels of side `step` from the corner (x, y) of its frame on."""
        ...


class ImageNuclei:
    """The nuclear stain of a slide: haematoxylin of bright field, the nuclear channel of fluorescence."""

    def __init__(self, slide: SlideImage, um_per_px: float) -> None:
        self.slide, self.um_per_unit, self.finest_um = slide, um_per_px, um_per_px
        self.min_contrast = MIN_STAIN if is_rgb(slide.channels) else MIN_LIGHT
        self._overview: NuclearMap | None = None

    def overview(self) -> NuclearMap:
        """See `NuclearSource`."""
        if self._overview is None:
            longest = max(self.slide.width_px, self.slide.height_px)
            side = min(MAX_OVERVIEW_PX, max(8, round(longest * self.um_per_unit / OVERVIEW_UM)))
            pixels, step = self.slide.thumbnail(side)
            values = self._nuclear(pixels)
            self._overview = NuclearMap(
                values_HW=values, known_HW=np.ones(values.shape, bool), origin_xy=np.zeros(2), step=step
            )
        return self._overview

    def window(self, x: float, y: float, width: int, height: int, step: float) -> NuclearMap:
        """See `NuclearSource`."""
        pixels = self.slide.read_window(x, y, width * step, height * step, width, height)
        column, row = x + step * (np.arange(width) + 0.5), y + step * (np.arange(height) + 0.5)
        known = ((row >= 0) & (row < self.slide.height_px))[:, None] & ((column >= 0) & (column < self.slide.width_px))
        return NuclearMap(values_HW=self._nuclear(pixels), known_HW=known, origin_xy=np.array([x, y]), step=step)

    def _nuclear(self, pixels_HWC: np.ndarray) -> np.ndarray:
        if is_rgb(self.slide.channels):
            return np.maximum(haematoxylin_log10(pixels_HWC), 0)
        return pixels_HWC[..., nuclear_channel(self.slide.channels)].astype(np.float32)


class PointNuclei:
    """Positions of cells, each a Gaussian of the size of a nucleus; weighted, e.g. by the counts of a bin.

    Parameters
    ----------
    xy_N2
        float [N, 2] in any unit.
    um_per_unit
        Of that unit.
    sigma_um
        Standard deviation of the Gaussian.
    weight_N
        float [N]; 1 when None.
    """

    def __init__(
        self, xy_N2: np.ndarray, um_per_unit: float, *, sigma_um: float, weight_N: np.ndarray | None = None
    ) -> None:
        order = np.argsort(xy_N2[:, 1], kind="stable")  # a window is a slice of the rows, searched in its columns
        self.xy_N2, self.um_per_unit, self.finest_um = xy_N2[order], um_per_unit, sigma_um / 2
        self.min_contrast = 0.0
        self.sigma, self.weight_N = sigma_um / um_per_unit, None if weight_N is None else weight_N[order]
        self.margin = max(HULL_MARGIN_UM, 3 * sigma_um) / um_per_unit
        low, high = xy_N2.min(axis=0) - self.margin, xy_N2.max(axis=0) + self.margin
        self._low, self._high = low, high
        self._hull: tuple[np.ndarray, float] | None = None
        self._overview: NuclearMap | None = None

    def overview(self) -> NuclearMap:
        """See `NuclearSource`."""
        if self._overview is None:
            longest = float((self._high - self._low).max())
            step = max(OVERVIEW_UM / self.um_per_unit, longest / MAX_OVERVIEW_PX)
            width, height = (max(1, int(np.ceil(side / step))) for side in self._high - self._low)
            self._overview = self.window(float(self._low[0]), float(self._low[1]), width, height, step)
        return self._overview

    def window(self, x: float, y: float, width: int, height: int, step: float) -> NuclearMap:
        """See `NuclearSource`."""
        from scipy.ndimage import gaussian_filter

        sigma_px = self.sigma / step
        pad = int(np.ceil(3 * sigma_px)) + 1
        rows = slice(*np.searchsorted(self.xy_N2[:, 1], [y - (pad + 1) * step, y + (height + pad + 1) * step]))
        weight_N = None if self.weight_N is None else self.weight_N[rows]
        grid = _splat((self.xy_N2[rows] - [x, y]) / step + pad, weight_N, width + 2 * pad, height + 2 * pad)
        values = gaussian_filter(grid, sigma_px, mode="constant", truncate=3.0)[pad : pad + height, pad : pad + width]
        origin = np.array([x, y])
        known = self._within_hull(origin + step * _pixel_centres(width, height))
        return NuclearMap(values_HW=values, known_HW=known, origin_xy=origin, step=step)

    def _within_hull(self, xy_HW2: np.ndarray) -> np.ndarray:
        if self._hull is None:
            self._hull = self._raster_of_hull()
        mask, step = self._hull
        column, row = np.floor(np.clip((xy_HW2 - self._low) / step, -1, 1e6)).astype(np.int64).transpose(2, 0, 1)
        inside = (column >= 0) & (row >= 0) & (column < mask.shape[1]) & (row < mask.shape[0])
        return inside & mask[np.where(inside, row, 0), np.where(inside, column, 0)]

    def _raster_of_hull(self) -> tuple[np.ndarray, float]:
        """Convex hull with its margin, bool raster from the lower corner on, and the side of its pixels."""
        from scipy.ndimage import distance_transform_edt
        from skimage.morphology import convex_hull_image

        step = float((self._high - self._low).max()) / HULL_PX
        width, height = (max(1, int(np.ceil(side / step))) for side in self._high - self._low)
        occupied = _splat((self.xy_N2 - self._low) / step, None, width, height) > 0
        hull = convex_hull_image(occupied) if occupied.sum() > 2 else occupied
        return distance_transform_edt(~hull) * step <= self.margin, step


def _pixel_centres(width: int, height: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width] + 0.5
    return np.stack([x, y], axis=-1)


def _splat(at_N2: np.ndarray, weight_N: np.ndarray | None, width: int, height: int) -> np.ndarray:
    """Sum of points, at pixel coordinates (corner-based), shared among the four nearest pixel centres: float32 [H, W]."""
    near = ((at_N2 > -0.5) & (at_N2 < [width + 0.5, height + 0.5])).all(axis=1)
    at = at_N2[near] - 0.5
    weight = np.ones(len(at)) if weight_N is None else weight_N[near]
    first = np.floor(at).astype(np.int64)
    part = at - first
    total = np.zeros(width * height)
    for dx in (0, 1):
        for dy in (0, 1):
            column, row = first[:, 0] + dx, first[:, 1] + dy
            inside = (column >= 0) & (row >= 0) & (column < width) & (row < height)
            share = np.abs(1 - dx - part[:, 0]) * np.abs(1 - dy - part[:, 1]) * weight
            total += np.bincount(row[inside] * width + column[inside], share[inside], width * height)
    return total.reshape(height, width).astype(np.float32)


def _averaging(n_out: int, factor: float, n_in: int) -> np.ndarray:
    """Matrix float32 [n_out, n_in] of area averages over intervals of `factor` pixels."""
    edge = np.arange(n_out)[:, None] * factor
    pixel = np.arange(n_in)[None, :]
    overlap = np.minimum(edge + factor, pixel + 1) - np.maximum(edge, pixel)
    return (np.clip(overlap, 0, None) / factor).astype(np.float32)
