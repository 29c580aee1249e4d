"""`texture-v1`: 98 fixed numbers that describe a patch of H&E, for when no trained extractor is at hand.

No weights, no download, about 1 ms per image. Layout of the 98 features:

| columns | content |
| --- | --- |
| 0-23 | haematoxylin, eosin, total optical density: mean, SD, skewness, percentiles 5, 25, 50, 75, 95 of the pixels |
| 24-32 | optical density of R, G, B: means and the six covariances |
| 33 | share of glass |
| 34-57 | haematoxylin, eosin, density at 4 dyadic scales: log gradient energy, log Laplacian energy |
| 58-97 | haematoxylin and density at 2 scales: rotation-invariant uniform local binary patterns (Ojala et al. 2002),
10 bins |

It measures stain, sharpness and noise well, anatomy hardly: scores with it rank degradations and do not compare with
those of a trained network.

Shape letters: N images, H x W pixels.
"""

from __future__ import annotations

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.data.he_stain import GLASS_OD, optical_density, unmixing_matrix

FEATURES = 98
SCALES = 4
MIN_SIDE = 3 * 2 ** (SCALES - 1)  # px
PATTERN_SCALES = 2
PATTERN_WEIGHT = 4.0
MIN_ENERGY = 1e-5
PERCENTILES = (5, 25, 50, 75, 95)
NEIGHBOURS_YX = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))


def texture_features(image_NHWC: np.ndarray) -> np.ndarray:
    """Return float32 [N, 98] for uint8 images [N, H, W, 3].

    Raises
    ------
    InputError
        If H or W is below `MIN_SIDE`: the coarsest scale would have no pixel with four neighbours.
    """
    if min(image_NHWC.shape[1:3]) < MIN_SIDE:
        raise InputError(
            found=f"patches of {image_NHWC.shape[2]} x {image_NHWC.shape[1]} px",
            where="texture-v1",
            expected=f"at least {MIN_SIDE} px",
            repair=f"sge2hist evaluate ... --extractor-px {2 * MIN_SIDE}, or prepare with more --patch-px",
        )
    density_rgb = optical_density(image_NHWC)
    stains = density_rgb @ unmixing_matrix()
    total = density_rgb.mean(axis=-1)
    channels = [stains[..., 0], stains[..., 1], total]
    parts = [intensity_moments(channel) for channel in channels]
    parts.append(colour_moments(density_rgb))
    parts.append((total < GLASS_OD).mean(axis=(1, 2))[:, None])
    parts.extend(energies(channel) for channel in channels)
    parts.extend(patterns(channel) for channel in (channels[0], total))
    return np.concatenate(parts, axis=1).astype(np.float32)


def intensity_moments(values_NHW: np.ndarray) -> np.ndarray:
    """Return [N, 8]: mean, SD, skewness and five percentiles of the pixels."""
    flat = values_NHW.reshape(len(values_NHW), -1)
    mean, sd = flat.mean(axis=1), flat.std(axis=1)
    skewness = ((flat - mean[:, None]) ** 3).mean(axis=1) / np.maximum(sd, 0.02) ** 3
    percentiles = np.percentile(flat, PERCENTILES, axis=1).T
    return np.column_stack([mean, sd, np.clip(skewness, -3, 3) / 3, percentiles])


def colour_moments(density_NHWC: np.ndarray) -> np.ndarray:
    """Return [N, 9]: mean and covariance of the three optical densities."""
    flat = density_NHWC.reshape(len(density_NHWC), -1, 3)
    mean = flat.mean(axis=1)
    centred = flat - mean[:, None]
    covariance = np.einsum("npi,npj->nij", centred, centred) / flat.shape[1]
    rows, columns = np.triu_indices(3)
    return np.concatenate([mean, covariance[:, rows, columns]], axis=1)


def halved(values_NHW: np.ndarray) -> np.ndarray:
    """Return each image at half the side, by means over 2 x 2 pixels (an odd last row or column is dropped)."""
    n, height, width = values_NHW.shape
    even = values_NHW[:, : height - height % 2, : width - width % 2]
    return even.reshape(n, height // 2, 2, width // 2, 2).mean(axis=(2, 4))


def energies(values_NHW: np.ndarray) -> np.ndarray:
    """Return [N, 8]: natural log of gradient and of Laplacian energy at 4 scales, divided by 4."""
    columns = []
    for _ in range(SCALES):
        dx, dy = np.diff(values_NHW, axis=2), np.diff(values_NHW, axis=1)
        gradient = (dx**2).mean(axis=(1, 2)) + (dy**2).mean(axis=(1, 2))
        middle = values_NHW[:, 1:-1, 1:-1]
        ring = values_NHW[:, :-2, 1:-1] + values_NHW[:, 2:, 1:-1] + values_NHW[:, 1:-1, :-2] + values_NHW[:, 1:-1, 2:]
        laplacian = ((ring - 4 * middle) ** 2).mean(axis=(1, 2))
        columns += [np.log(gradient + MIN_ENERGY) / 4, np.log(laplacian + MIN_ENERGY) / 4]
        values_NHW = halved(values_NHW)
    return np.column_stack(columns)


def patterns(values_NHW: np.ndarray) -> np.ndarray:
    """Return [N, 20]: shares of the 10 local binary patterns at 2 scales, times 4.

    Pattern of a pixel: number of the 8 neighbours that are at least as dense when they form at most one arc (0-8),
        else 9.
    """
    columns = []
    for _ in range(PATTERN_SCALES):
        height, width = values_NHW.shape[1:]
        middle = values_NHW[:, 1:-1, 1:-1]
        above = [values_NHW[:, 1 + dy : height - 1 + dy, 1 + dx : width - 1 + dx] >= middle for dy, dx in NEIGHBOURS_YX]
        code = sum((bit.astype(np.int32) << place for place, bit in enumerate(above)), np.zeros(middle.shape, np.int32))
        pattern = PATTERN_OF_CODE[code].reshape(len(values_NHW), -1)
        counted = np.bincount((pattern + 10 * np.arange(len(pattern))[:, None]).ravel(), minlength=10 * len(pattern))
        columns.append(PATTERN_WEIGHT * counted.reshape(-1, 10) / pattern.shape[1])
        values_NHW = halved(values_NHW)
    return np.concatenate(columns, axis=1)


def pattern_of_code() -> np.ndarray:
    """Return int [256]: the rotation-invariant uniform pattern of each 8-bit neighbourhood."""
    bits = (np.arange(256)[:, None] >> np.arange(8)) & 1
    changes = (bits != np.roll(bits, 1, axis=1)).sum(axis=1)
    return np.where(changes <= 2, bits.sum(axis=1), 9)


PATTERN_OF_CODE = pattern_of_code()
