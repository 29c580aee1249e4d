"""Smooth random fields and fibre patterns: the textures of the toy tissue."""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy import ndimage

Field = np.ndarray  # float32 [height, width]


def resize_field(field: Field, shape: tuple[int, int]) -> Field:
    """Resample a float32 field to `shape` (height, width) by bicubic interpolation."""
    image = Image.fromarray(np.ascontiguousarray(field, dtype=np.float32))
    return np.asarray(image.resize((shape[1], shape[0]), Image.Resampling.BICUBIC), dtype=np.float32)


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], length_px: float) -> Field:
    """Gaussian field of mean 0 and standard deviation 1, correlated over about `length_px`.

    Sampled on a grid four times finer than its length and interpolated, so the cost does not grow with the length.
    """
    step = max(1.0, length_px / 4.0)
    coarse_shape = (max(2, round(shape[0] / step)) + 1, max(2, round(shape[1] / step)) + 1)
    white = rng.standard_normal(coarse_shape, dtype=np.float32)
    coarse = ndimage.gaussian_filter(white, length_px / step / 2.0, mode="wrap")
    field = resize_field(coarse, shape) if step > 1.0 else coarse[: shape[0], : shape[1]]
    return (field - field.mean()) / (field.std() + 1e-6)


def fibre_profile(rng: np.random.Generator, phase_um: Field, width_um: float) -> Field:
    """Value of a random one-dimensional texture at `phase_um`: level lines of the phase become fibres `width_um` wide.

    Mean about 0 and standard deviation about 1.
    """
    n_knots = 8192
    knots = ndimage.gaussian_filter1d(rng.standard_normal(n_knots), 1.0, mode="wrap").astype(np.float32)
    knots = (knots - knots.mean()) / knots.std()
    position = phase_um * np.float32(2.0 / width_um)
    below = np.floor(position)
    weight = position - below
    index = below.astype(np.int32) % n_knots
    return knots[index] * (1.0 - weight) + knots[(index + 1) % n_knots] * weight
