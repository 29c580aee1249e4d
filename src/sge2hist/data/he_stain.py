"""Haematoxylin, eosin and glass: optical density and colour deconvolution with fixed vectors (Ruifrok & Johnston 2001).

The vectors and the white point are the same for every image: a correction fitted to each image, or to the real image of
each generated one, would hide the very errors that evaluation measures.

Two units of optical density are in use, and every function says which: the natural logarithm (evaluation, glass) and log10
(segmentation and alignment). ``OD_ln = 2.303 OD_log10``; stain vectors are directions and hold for both.

Shape letters: N images, H x W pixels.
"""

from __future__ import annotations

import numpy as np

# Absorption in (R, G, B), as in skimage.color.hed_from_rgb.
HAEMATOXYLIN_OD_RGB = (0.65, 0.70, 0.29)
EOSIN_OD_RGB = (0.07, 0.99, 0.11)
RESIDUAL_OD_RGB = (0.27, 0.57, 0.78)  # what is neither (the paper's DAB)
# Mean optical density (natural logarithm) below which a pixel is glass: lumen or background. 0.15 is 86 % transmitted light.
GLASS_OD = 0.15

_LEVELS = np.arange(256)
_DENSITY_LN = -np.log((_LEVELS.astype(np.float32) + 1) / np.float32(256))
_DENSITY_LOG10 = (-np.log10((_LEVELS + 1.0) / 256)).astype(np.float32)


def optical_density(image: np.ndarray) -> np.ndarray:
    """Return `-ln((I + 1) / 256)` of uint8 pixels, float32 of the same shape; 0 for white, 5.5 for black."""
    return _DENSITY_LN[image]


def optical_density_log10(image: np.ndarray) -> np.ndarray:
    """Return `-log10((I + 1) / 256)` of uint8 pixels, float32 of the same shape; 0 for white, 2.41 for black."""
    return _DENSITY_LOG10[image]


def unmixing_matrix() -> np.ndarray:
    """Return float32 [3, 2] that maps optical density (R, G, B) to amounts of haematoxylin and eosin, in the same unit.

    The third vector is their cross product; its amount is dropped.
    """
    stains = np.array([HAEMATOXYLIN_OD_RGB, EOSIN_OD_RGB])
    stains /= np.linalg.norm(stains, axis=1, keepdims=True)
    residual = np.cross(stains[0], stains[1])
    basis = np.vstack([stains, residual / np.linalg.norm(residual)])
    return np.linalg.inv(basis)[:, :2].astype(np.float32)


def stain_amounts(image_NHWC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return haematoxylin and eosin amounts, float32 [N, H, W] each: natural logarithm; slightly negative in pure other stain."""
    amounts = optical_density(image_NHWC) @ unmixing_matrix()
    return amounts[..., 0], amounts[..., 1]


def haematoxylin_log10(image_HWC: np.ndarray) -> np.ndarray:
    """Return the haematoxylin amount beside eosin and the measured residual, float32 [H, W]; 0 on white, 0.1-1.5 in nuclei.

    Unit: log10. Linear in optical density, so three look-up tables and two sums.
    """
    stains = np.array([HAEMATOXYLIN_OD_RGB, EOSIN_OD_RGB, RESIDUAL_OD_RGB])
    per_channel = np.linalg.inv(stains / np.linalg.norm(stains, axis=1, keepdims=True))[:, 0]
    tables = _DENSITY_LOG10[:, None] * per_channel.astype(np.float32)
    amount = tables[:, 0][image_HWC[..., 0]]
    amount += tables[:, 1][image_HWC[..., 1]]
    amount += tables[:, 2][image_HWC[..., 2]]
    return amount


def glass_mask(image_NHWC: np.ndarray) -> np.ndarray:
    """Return bool [N, H, W]: pixels so bright that no tissue lies there."""
    return optical_density(image_NHWC).mean(axis=-1) < GLASS_OD


def stain_statistics(image_NHWC: np.ndarray) -> dict[str, np.ndarray]:
    """Return, per image, mean and standard deviation of both stains and the share of glass (float64 [N] each)."""
    haematoxylin, eosin = stain_amounts(image_NHWC)
    pixels = (1, 2)
    return {
        "haematoxylin_mean": haematoxylin.mean(axis=pixels, dtype=np.float64),
        "haematoxylin_sd": haematoxylin.std(axis=pixels, dtype=np.float64),
        "eosin_mean": eosin.mean(axis=pixels, dtype=np.float64),
        "eosin_sd": eosin.std(axis=pixels, dtype=np.float64),
        "lumen_fraction": glass_mask(image_NHWC).mean(axis=pixels),
    }
