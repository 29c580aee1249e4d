"""Tissue and stain at low resolution: mask and optical density maps of a slide."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sge2hist.data.he_stain import optical_density_log10, unmixing_matrix
from sge2hist.data.section import Section
from sge2hist.data.slides.channels import is_rgb, nuclear_channel
from sge2hist.data.slides.stain_scale import linear_light

TISSUE_DENSITY = (0.05, 0.09)  # optical density (log10): glass lies below the first, the palest eosin above the second
TISSUE_LIGHT = (0.01, 0.05)  # the same for fluorescence, of the full scale above the darkest part of the slide
BACKGROUND_PERCENTILE = 1.0
MAX_MAP_SIDE = 2500  # px of the low-resolution map on which tissue and shift are measured
MIN_MAP_UM_PER_PX = 4.0
MAX_HOLE_UM = 100.0  # smaller holes (lumens) count as tissue


@dataclass(frozen=True, kw_only=True)
class TissueMap:
    """A slide at low resolution; maps are [H, W]."""

    step_px: float  # slide px per map px
    um_per_px: float  # of the map
    density: np.ndarray  # float32: mean optical density over R, G, B; mean light over the channels of fluorescence
    nuclear: np.ndarray  # float32: share of haematoxylin in it; the nuclear channel of fluorescence
    nuclear_name: str  # "haematoxylin", or the name of that channel
    mask: np.ndarray  # bool: tissue, with small holes filled

    def fraction(self, centre_xy_px: np.ndarray, side_um: float) -> np.ndarray:
        """Share of tissue in a square of `side_um` centred on each position (slide px): float [N]; outside the slide is none."""
        from scipy.ndimage import uniform_filter

        size = max(1, round(side_um / self.um_per_px))
        share = uniform_filter(self.mask.astype(np.float32), size, mode="constant")
        column, row = np.floor(centre_xy_px / self.step_px).astype(np.int64).T
        inside = (column >= 0) & (row >= 0) & (column < share.shape[1]) & (row < share.shape[0])
        return np.where(inside, share[np.where(inside, row, 0), np.where(inside, column, 0)], 0)

    def stain(self) -> dict[str, float]:
        """Mean and standard deviation of the two densities inside the tissue, to compare slides."""
        inside = self.mask if self.mask.any() else np.ones_like(self.mask)
        return {
            f"{name}_{statistic.__name__}": float(statistic(values[inside]))
            for name, values in (("density", self.density), (self.nuclear_name, self.nuclear))
            for statistic in (np.mean, np.std)
        }


def tissue_of(section: Section) -> TissueMap:
    """Map the slide at the resolution on which tissue and shift are measured."""
    longest_um = max(section.image.width_px, section.image.height_px) * section.um_per_px
    return map_tissue(section, max(MIN_MAP_UM_PER_PX, longest_um / MAX_MAP_SIDE, section.um_per_px))


def map_tissue(section: Section, um_per_px: float) -> TissueMap:
    """Map the slide at about `um_per_px`; tissue is denser than Otsu's threshold, clipped to plausible bounds."""
    from skimage.filters import threshold_otsu

    channels = section.image.channels
    longest_um = max(section.image.width_px, section.image.height_px) * section.um_per_px
    pixels, step_px = section.image.thumbnail(max(8, round(longest_um / um_per_px)))
    map_um_per_px = step_px * section.um_per_px
    density, nuclear = (
        _absorbed(pixels)
        if is_rgb(channels)
        else _emitted(linear_light(pixels, section.image.transform), nuclear_channel(channels))
    )
    otsu = threshold_otsu(density) if np.ptp(density) > 0 else 0.0
    dense = density > np.clip(otsu, *(TISSUE_DENSITY if is_rgb(channels) else TISSUE_LIGHT))
    hole_px = max(1, int(np.pi / 4 * (MAX_HOLE_UM / map_um_per_px) ** 2))
    return TissueMap(
        step_px=step_px,
        um_per_px=map_um_per_px,
        density=density,
        nuclear=nuclear,
        nuclear_name="haematoxylin" if is_rgb(channels) else channels[nuclear_channel(channels)],
        mask=_fill_holes(dense, hole_px),
    )


def _absorbed(pixels_HWC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean optical density and haematoxylin of bright field, float32 [H, W]."""
    density_RGB = optical_density_log10(pixels_HWC)
    amounts = density_RGB.reshape(-1, 3) @ unmixing_matrix()
    return density_RGB.mean(axis=-1), amounts[:, 0].reshape(pixels_HWC.shape[:2])


def _emitted(light_HWC: np.ndarray, nuclear: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean light over the channels and that of the nuclear one, each above the slide's darkest part, float32 [H, W]."""
    light_HWC = light_HWC - np.percentile(light_HWC, BACKGROUND_PERCENTILE, axis=(0, 1)).astype(np.float32)
    return light_HWC.mean(axis=-1), light_HWC[..., nuclear]


def _fill_holes(mask: np.ndarray, max_px: int) -> np.ndarray:
    from scipy.ndimage import label

    hole, _ = label(~mask)
    small = np.bincount(hole.ravel()) <= max_px
    small[0] = False  # label 0 is the mask itself
    return mask | small[hole]
