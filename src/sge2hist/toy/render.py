"""Paints the toy tissue as a bright-field H&E picture.

Stain model (Beer and Lambert): every pixel holds amounts h of haematoxylin and e of eosin, its optical density is
`h v_h + e v_e` with unit vectors v per stain, and the light that reaches the camera is `white 10^(-density)`, slightly
blurred by the optics, with noise that grows with the light.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from sge2hist.toy.architecture import Architecture, Region
from sge2hist.toy.cells import ToyCells, eosin_factor
from sge2hist.toy.config import ToyTissueConfig
from sge2hist.toy.noise import Field, smooth_noise
from sge2hist.toy.nuclei import NucleusMaps, paint_nuclei
from sge2hist.toy.stroma import fibre_eosin, muscle_eosin, red_cells

# Unit optical density vectors (red, green, blue). Between Ruifrok & Johnston (2001), used by scikit-image, and the
# reference of Macenko et al. (2009): purple nuclei, pink rather than magenta cytoplasm.
HAEMATOXYLIN = np.array([0.650, 0.704, 0.286]) / np.linalg.norm([0.650, 0.704, 0.286])
EOSIN = np.array([0.140, 0.880, 0.400]) / np.linalg.norm([0.140, 0.880, 0.400])
GLASS_RGB = np.array([244.0, 243.0, 245.0])  # the lamp through an empty slide


@dataclass(frozen=True, kw_only=True)
class StainMaps:
    """Amounts of stain per pixel, float32 [height, width], in optical density."""

    haematoxylin: Field
    eosin: Field


def stain_to_rgb(stains: StainMaps, um_per_px: float, rng: np.random.Generator) -> np.ndarray:
    """Light through the stains, blurred by 0.45 um of optics, with sensor noise: uint8 [height, width, 3]."""
    rgb = np.empty((*stains.haematoxylin.shape, 3), dtype=np.uint8)
    for channel in range(3):
        density = stains.haematoxylin * np.float32(HAEMATOXYLIN[channel]) + stains.eosin * np.float32(EOSIN[channel])
        light = np.float32(GLASS_RGB[channel]) * np.power(np.float32(10.0), -density)
        light = ndimage.gaussian_filter(light, 0.45 / um_per_px)
        light += rng.standard_normal(light.shape, dtype=np.float32) * (0.09 * np.sqrt(light) + 0.5)
        rgb[..., channel] = np.clip(np.rint(light), 0, 255)
    return rgb


def paint_stains(
    config: ToyTissueConfig, architecture: Architecture, cells: ToyCells, rng: np.random.Generator
) -> StainMaps:
    """Amounts of haematoxylin and eosin everywhere: ground by region, cytoplasm by nearest cell, nuclei on top."""
    nearest, border = nearest_cell(cells, architecture)
    eosin, haematoxylin = _ground(config, architecture, cells, nearest, border, rng)
    nuclei = paint_nuclei(cells, architecture.region.shape, config.um_per_px, rng)
    return _combine(nuclei, haematoxylin, eosin)


def _combine(nuclei: NucleusMaps, haematoxylin: Field, eosin: Field) -> StainMaps:
    outside = 1.0 - nuclei.coverage
    return StainMaps(
        haematoxylin=nuclei.haematoxylin + haematoxylin * outside,
        eosin=eosin * (outside + np.float32(0.35) * nuclei.coverage),  # a nucleus holds a third of the eosin
    )


def nearest_cell(cells: ToyCells, architecture: Architecture) -> tuple[np.ndarray, np.ndarray]:
    """Cell whose nucleus is nearest to each pixel (int32), and a bool map of the borders between those territories."""
    seeds = np.zeros(architecture.region.shape, dtype=np.int32)
    column, row = (cells.xy_um / architecture.um_per_px).astype(np.int64).T
    seeds[row, column] = np.arange(1, len(cells) + 1)
    row_of, column_of = ndimage.distance_transform_edt(seeds == 0, return_distances=False, return_indices=True)
    nearest = seeds[row_of, column_of] - 1
    border = np.zeros(nearest.shape, dtype=bool)
    border[:, 1:] |= nearest[:, 1:] != nearest[:, :-1]
    border[1:] |= nearest[1:] != nearest[:-1]
    return nearest, border


def _ground(
    config: ToyTissueConfig,
    architecture: Architecture,
    cells: ToyCells,
    nearest: np.ndarray,
    border: np.ndarray,
    rng: np.random.Generator,
) -> tuple[Field, Field]:
    """Eosin and haematoxylin of everything that is not a nucleus."""
    region, shape = architecture.region, architecture.region.shape
    gain = eosin_factor(architecture.gradient, config).astype(np.float32)
    grain = smooth_noise(rng, shape, 3.0 / config.um_per_px)
    own_factor = (cells.cytoplasm_eosin / eosin_factor(cells.gradient, config)).astype(
        np.float32
    )  # gradient is added per px
    cell_eosin = own_factor[nearest]
    eosin = np.zeros(shape, dtype=np.float32)
    haematoxylin = np.zeros(shape, dtype=np.float32)
    depth = architecture.wall_depth

    def fill(where: Region, eosin_values: Field, haematoxylin_values: Field | float) -> None:
        mask = region == where
        np.copyto(eosin, eosin_values.astype(np.float32), where=mask)
        np.copyto(haematoxylin, np.asarray(haematoxylin_values, dtype=np.float32), where=mask)

    stroma = fibre_eosin(rng, architecture, config.um_per_px)
    fill(Region.STROMA, stroma, 0.05 * stroma)
    fill(Region.MUSCLE, muscle_eosin(rng, architecture), 0.03)
    membrane = 1.0 - 0.45 * border
    fill(Region.EPITHELIUM, np.clip(cell_eosin, 0.2, 0.5) * (1.0 + 0.10 * grain) * membrane, 0.15 * membrane)
    fill(Region.AGGREGATE, 0.16 * (1.0 + 0.25 * grain) * (1.0 - 0.5 * border), 0.10)
    # Gland: pale frothy cytoplasm towards the lumen, a rim at the lumen, a basement membrane outside.
    froth = 1.0 + 0.22 * grain
    rim = np.exp(-((depth / 0.07) ** 2)) * 0.30 + np.exp(-(((depth - 1.0) / 0.06) ** 2)) * 0.30
    sides = 1.0 - 0.35 * border * (depth > 0.1) * (depth < 0.9)
    fill(Region.GLAND_WALL, ((0.12 + 0.16 * depth) * froth + rim) * sides, (0.06 + 0.14 * depth) * sides)
    layers = 1.0 + 0.28 * np.cos(2.0 * np.pi * (depth * 3.0 + 0.15 * grain))
    fill(Region.VESSEL_WALL, 0.52 * layers * (1.0 + 0.08 * grain), 0.03)
    eosin *= gain
    fill(Region.VESSEL_LUMEN, red_cells(rng, architecture), 0.0)
    return eosin, haematoxylin
