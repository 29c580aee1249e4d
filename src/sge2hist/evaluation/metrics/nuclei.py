"""Nuclei in small patches by a simple segmenter, the same for real and generated images, and the shape of each nucleus.

Segmenter: haematoxylin amount, minus its mean over a window of about four nuclei (stain drifts over a slide),
smoothed at a quarter of a nuclear radius;
above one threshold that is fitted once on real training patches (Otsu) it is nucleus; touching nuclei are separated by a
watershed from the local
maxima of the haematoxylin smoothed at half a nuclear radius. It is no match for a trained network, but errors that
are the same on both sides cancel in a comparison.

All patches of a batch are labelled at once, in one mosaic with gaps, and shapes come from sums over pixels: linear in
pixels. Solidity is area over the area of the nucleus' circumscribed polygon with 16 fixed directions, a fast stand-in
for the convex hull.

Shape letters: N images, H x W pixels, L nuclei.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.segmentation import watershed

from sge2hist.data.he_stain import stain_amounts

GAP_PX = 2
DIRECTIONS = 16
NUCLEAR_RADIUS_UM = 3.5
MIN_AREA_UM2 = 8.0
MAX_AREA_UM2 = 400.0
# Under this many pixels per nucleus its shape is an artefact of the grid, and only number and area are reported.
PIXELS_FOR_SHAPE = 25


@dataclass(frozen=True, kw_only=True)
class NucleiSegmenter:
    """Find nuclei at one resolution.

    Attributes:
        um_per_px: resolution of the images.
        threshold: haematoxylin above the local mean, in optical density.
    """

    um_per_px: float
    threshold: float

    @classmethod
    def fit(cls, image_NHWC: np.ndarray, um_per_px: float) -> NucleiSegmenter:
        """Return a segmenter whose threshold splits the haematoxylin contrast of real training patches in two (Otsu
        1979).
        """
        contrast = haematoxylin_contrast(image_NHWC, um_per_px)
        positive = contrast[contrast > 0]
        threshold = float(threshold_otsu(positive)) if len(np.unique(positive)) > 1 else 0.1
        return cls(um_per_px=um_per_px, threshold=max(threshold, 0.02))

    @property
    def resolves_shape(self) -> bool:
        """Whether a typical nucleus has enough pixels for its shape to mean anything."""
        return np.pi * (NUCLEAR_RADIUS_UM / self.um_per_px) ** 2 >= PIXELS_FOR_SHAPE

    def label(self, image_NHWC: np.ndarray) -> np.ndarray:
        """Return int32 [N, H, W]: 0 outside, one number per nucleus, unique over the batch."""
        n, height, width, _ = image_NHWC.shape
        radius_px = NUCLEAR_RADIUS_UM / self.um_per_px
        contrast = mosaic(haematoxylin_contrast(image_NHWC, self.um_per_px))
        mask = contrast > self.threshold
        smooth = mosaic(smoothed(stain_amounts(image_NHWC)[0], radius_px / 2))
        size = 2 * max(1, round(radius_px * 0.7)) + 1
        peaks = (ndimage.maximum_filter(smooth, size=size) == smooth) & mask
        markers, _ = ndimage.label(peaks, structure=np.ones((3, 3)))
        labels = watershed(-smooth, markers, mask=mask)
        areas = np.bincount(labels.ravel())
        kept = (areas * self.um_per_px**2 >= MIN_AREA_UM2) & (areas * self.um_per_px**2 <= MAX_AREA_UM2)
        kept[0] = False
        renumbered = np.where(kept, np.cumsum(kept), 0).astype(np.int32)[labels]
        return renumbered.reshape(height, n, width + GAP_PX)[:, :, :width].transpose(1, 0, 2)


def smoothed(values_NHW: np.ndarray, sigma_px: float) -> np.ndarray:
    """Return each image smoothed by a Gaussian (edges mirrored); images do not mix."""
    return ndimage.gaussian_filter(values_NHW, sigma=(0, sigma_px, sigma_px), mode="reflect", truncate=3)


def haematoxylin_contrast(image_NHWC: np.ndarray, um_per_px: float) -> np.ndarray:
    """Return float32 [N, H, W]: smoothed haematoxylin minus its local mean."""
    haematoxylin, _ = stain_amounts(image_NHWC)
    radius_px = NUCLEAR_RADIUS_UM / um_per_px
    window = 2 * round(4 * radius_px) + 1
    local = ndimage.uniform_filter(haematoxylin, size=(1, window, window), mode="reflect")
    return smoothed(haematoxylin, radius_px / 4) - local


def mosaic(values_NHW: np.ndarray) -> np.ndarray:
    """Return [H, N (W + gap)]: one row of images, lowest value in the gaps so that nothing crosses them."""
    padded = np.pad(values_NHW, ((0, 0), (0, 0), (0, GAP_PX)), constant_values=-1e6)
    return padded.transpose(1, 0, 2).reshape(values_NHW.shape[1], -1)


def shapes(label_NHW: np.ndarray) -> dict[str, np.ndarray]:
    """Return, for each of L nuclei: image (int), area_px, eccentricity in [0, 1), solidity in (0, 1].

    Eccentricity is that of the ellipse with the same second moments; a pixel is a unit square, hence the 1/12
    (as MATLAB counts; scikit-image takes pixels for points, which differs below 0.01 for nuclei of 100 px).
    """
    image, y, x = np.nonzero(label_NHW)
    label = label_NHW[image, y, x].astype(np.int64) - 1
    if len(label) == 0:
        return {name: np.empty(0) for name in ("image", "area_px", "eccentricity", "solidity")}
    count = np.bincount(label).astype(np.float64)

    def mean(values: np.ndarray) -> np.ndarray:
        return np.bincount(label, weights=values) / count

    x_mean, y_mean = mean(x), mean(y)
    var_x = mean((x - x_mean[label]) ** 2) + 1 / 12
    var_y = mean((y - y_mean[label]) ** 2) + 1 / 12
    covariance = mean((x - x_mean[label]) * (y - y_mean[label]))
    spread = np.sqrt((var_x - var_y) ** 2 + 4 * covariance**2)
    minor, major = (var_x + var_y - spread) / 2, (var_x + var_y + spread) / 2
    first = np.full(len(count), -1, np.int64)
    first[label[::-1]] = image[::-1]
    return {
        "image": first,
        "area_px": count,
        "eccentricity": np.sqrt(np.clip(1 - minor / major, 0, None)),
        "solidity": np.minimum(count / polygon_area(label, x - x_mean[label], y - y_mean[label]), 1.0),
    }


def polygon_area(label: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the area of each nucleus' circumscribed polygon with 16 directions, from its support function.

    A polygon with supports `h_k` at angles `k d` has edges `(h_(k-1) + h_(k+1) - 2 h_k cos d) / sin d` and area
    `sum(h_k edge_k) / 2`. A pixel is the diamond through the middles of its sides, as in scikit-image. The area is
    divided by that of a circle's own polygon, so that a disc has solidity 1.
    """
    step = 2 * np.pi / DIRECTIONS
    supports = np.empty((DIRECTIONS, int(label.max()) + 1))
    order = np.argsort(label, kind="stable")
    starts = np.searchsorted(label[order], np.arange(supports.shape[1]))
    for k in range(DIRECTIONS):
        c, s = np.cos(k * step), np.sin(k * step)
        supports[k] = np.maximum.reduceat((x * c + y * s)[order], starts) + max(abs(c), abs(s)) / 2
    edges = (np.roll(supports, 1, axis=0) + np.roll(supports, -1, axis=0) - 2 * supports * np.cos(step)) / np.sin(step)
    circle = np.tan(np.pi / DIRECTIONS) / (np.pi / DIRECTIONS)
    return (supports * edges).sum(axis=0) / 2 / circle


def nuclear_statistics(segmenter: NucleiSegmenter, image_NHWC: np.ndarray) -> dict[str, np.ndarray]:
    """Return, per image: nuclei_count, and the means over its nuclei of area (um2), eccentricity and solidity
    (float64 [N]).

    Means are nan in an image without nuclei; eccentricity and solidity are omitted where pixels are too coarse.
    """
    found = shapes(segmenter.label(image_NHWC))
    image = found["image"].astype(np.int64)
    count = np.bincount(image, minlength=len(image_NHWC)).astype(np.float64)
    names = {"nuclear_area_um2": found["area_px"] * segmenter.um_per_px**2}
    if segmenter.resolves_shape:
        names |= {"nuclear_eccentricity": found["eccentricity"], "nuclear_solidity": found["solidity"]}
    with np.errstate(invalid="ignore"):
        means = {
            name: np.bincount(image, weights=values, minlength=len(count)) / count for name, values in names.items()
        }
    return {"nuclei_count": count, **means}
