"""Haematoxylin and eosin amounts and glass, by colour deconvolution with fixed vectors (Ruifrok & Johnston 2001).

The vectors and the white point are the same for every image of every set: a correction fitted to each image, or to
each generated image's own
truth, would hide the very errors that are measured.

Shape letters: N images, H x W pixels.
"""

from __future__ import annotations

import numpy as np

HAEMATOXYLIN_OD_RGB = (0.65, 0.70, 0.29)
EOSIN_OD_RGB = (0.07, 0.99, 0.11)
WHITE = 255.0
# Below this mean optical density (natural logarithm: 0.15 is 86 % transmitted light) a pixel is glass: lumen or
# background.
GLASS_OD = 0.15


def optical_density(image_NHWC: np.ndarray) -> np.ndarray:
    """Return `-ln((I + 1) / 256)` as float32 of the same shape; 0 for white, 5.5 for black."""
    table = -np.log((np.arange(256, dtype=np.float32) + 1) / (WHITE + 1))
    return table[image_NHWC]


def unmixing_matrix() -> np.ndarray:
    """Return float32 [3, 2] that maps optical density (R, G, B) to amounts of haematoxylin and eosin.

    The third vector is their cross product, the residual, which is dropped.
    """
    stains = np.array([HAEMATOXYLIN_OD_RGB, EOSIN_OD_RGB])
    stains /= np.linalg.norm(stains, axis=1, keepdims=True)
    residual = np.cross(stains[0], stains[1])
    basis = np.vstack([stains, residual / np.linalg.norm(residual)])
    return np.linalg.inv(basis)[:, :2].astype(np.float32)


def stain_amounts(image_NHWC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return haematoxylin and eosin amounts, float32 [N, H, W] each (in optical density; slightly negative in pure
    other stain).
    """
    amounts = optical_density(image_NHWC) @ unmixing_matrix()
    return amounts[..., 0], amounts[..., 1]


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
