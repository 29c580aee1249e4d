"""Nuclei in H&E without a trained model: haematoxylin density, threshold, distance transform, watershed.

Steps: optical density, haematoxylin channel (Ruifrok & Johnston 2001), Gaussian of 0.6 um, Otsu inside the tissue,
opening, hole filling, distance transform, peaks at least 2 um apart, watershed, nuclei of at least 8 um2. Every
function works on one array; `tiles` runs them over a slide.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.filters import threshold_otsu
from skimage.morphology import disk
from skimage.segmentation import watershed

from sge2hist.data.errors import InputError
from sge2hist.data.he_stain import haematoxylin_log10, optical_density_log10


@dataclass(frozen=True, kw_only=True)
class NucleiConfig:
    """What counts as a nucleus."""

    smoothing_um: float = 0.6  # Gaussian standard deviation before the threshold (classical)
    opening_um: float = 0.5  # radius of the opening that cuts thin bridges (classical)
    min_peak_distance_um: float = 2.0  # two seeds are at least this far apart (classical)
    min_depth_um: float = 1.0  # a seed lies at least this far from the outline (classical)
    local_window_um: float = 25.0  # side of the window of the local threshold (classical)
    min_area_um2: float = 8.0  # smaller pieces are dropped
    max_area_um2: float = 400.0  # larger pieces are dropped (folds, pigment, ink)
    tissue_density: float = 0.08  # mean optical density above which a pixel is tissue

    def __post_init__(self) -> None:
        lengths = (self.smoothing_um, self.opening_um, self.min_peak_distance_um, self.min_depth_um)
        if (
            min(*lengths, self.tissue_density) < 0
            or self.local_window_um <= 0
            or not 0 <= self.min_area_um2 < self.max_area_um2
        ):
            raise InputError(
                found=f"{self}", where="NucleiConfig", expected="lengths >= 0 and 0 <= min_area_um2 < max_area_um2"
            )


class ClassicalSegmenter:
    """Callable: uint8 [H, W, 3] at `um_per_px` -> int32 labels [H, W], 0 = no nucleus.

    Parameters
    ----------
    um_per_px
        Pixel side of its images.
    threshold
        Amount of haematoxylin between nuclei and the rest; None = Otsu inside the tissue of each image. One number
        for a whole slide (see `slide_threshold`) makes the tiles agree.
    """

    parallel = True

    def __init__(
        self, *, um_per_px: float = 0.5, threshold: float | None = None, config: NucleiConfig | None = None
    ) -> None:
        self.um_per_px = um_per_px
        self.threshold = threshold
        self.config = config or NucleiConfig()

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Label the nuclei of one image or tile."""
        amount, tissue = self.haematoxylin_in_tissue(image)
        threshold = self.threshold if self.threshold is not None else otsu_in_tissue(amount, tissue)
        inside = tissue & (amount > self._local_threshold(amount, tissue, threshold))
        inside = ndimage.binary_opening(inside, disk(round(self.config.opening_um / self.um_per_px)))
        inside = ndimage.binary_fill_holes(inside)
        depth = ndimage.distance_transform_edt(inside).astype(np.float32)
        depth = ndimage.gaussian_filter(depth, 1.0 / self.um_per_px, truncate=2.0)  # one peak for each convex part
        peaks = peak_local_max(
            depth,
            min_distance=max(1, round(self.config.min_peak_distance_um / self.um_per_px)),
            threshold_abs=self.config.min_depth_um / self.um_per_px,
            exclude_border=False,
        )
        markers = np.zeros(inside.shape, np.int32)
        markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
        return labels_of_seeds(inside, depth, markers, um_per_px=self.um_per_px, config=self.config)

    def haematoxylin_in_tissue(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Smoothed amount of haematoxylin float32 [H, W], and which pixels are tissue bool [H, W]."""
        sigma_px = self.config.smoothing_um / self.um_per_px
        amount = ndimage.gaussian_filter(haematoxylin_log10(image), sigma_px, truncate=3.0)
        mean_density = optical_density_log10(image).mean(-1)
        return amount, ndimage.uniform_filter(mean_density, 9) > self.config.tissue_density

    def _local_threshold(self, amount: np.ndarray, tissue: np.ndarray, threshold: float) -> np.ndarray:
        """Mean of the slide's threshold and of (local mean + half a local standard deviation), inside the tissue."""
        side_px = max(3, round(self.config.local_window_um / self.um_per_px))
        share = np.maximum(ndimage.uniform_filter(tissue.astype(np.float32), side_px), 1e-3)
        inside = np.where(tissue, amount, 0)
        mean = ndimage.uniform_filter(inside, side_px) / share
        square = ndimage.uniform_filter(inside * inside, side_px) / share
        return (threshold + mean + 0.5 * np.sqrt(np.maximum(square - mean * mean, 0))) / 2


def otsu_in_tissue(amount: np.ndarray, tissue: np.ndarray) -> float:
    """Otsu's threshold of the amounts inside the tissue; infinite (nothing is nucleus) without enough tissue."""
    values = amount[tissue]
    if len(values) < 100 or values.min() == values.max():
        return float("inf")
    return float(threshold_otsu(values))


def labels_of_seeds(
    inside: np.ndarray, depth: np.ndarray, seeds: np.ndarray, *, um_per_px: float, config: NucleiConfig
) -> np.ndarray:
    """Grow seeds down the depth map until they fill `inside`; pieces without a seed or of a wrong area are dropped.

    Parameters
    ----------
    inside
        bool [H, W], pixels of nuclei.
    depth
        float [H, W], larger further from the outline.
    seeds
        bool [H, W] (each connected piece is a nucleus) or int [H, W] markers.
    um_per_px
        Pixel side.
    config
        Limits of area.

    Returns
    -------
    int32 [H, W]
        Labels 1..n without gaps, 0 = none.
    """
    markers = ndimage.label(seeds)[0] if seeds.dtype == bool else seeds
    labels = watershed(-depth, markers, mask=inside).astype(np.int32, copy=False)
    area_px = np.bincount(labels.ravel())
    keep = (area_px * um_per_px**2 >= config.min_area_um2) & (area_px * um_per_px**2 <= config.max_area_um2)
    keep[0] = False
    renumbered = np.where(keep, np.cumsum(keep), 0).astype(np.int32)
    return renumbered[labels]
