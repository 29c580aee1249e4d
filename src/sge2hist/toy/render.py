"""Render the toy tissue as a bright-field H&E image.

Stain model (Beer and Lambert): every pixel holds amounts h of haematoxylin and e of eosin, its optical density is
`h v_h + e v_e` with unit vectors v per stain, and the light at the camera is `white 10^(-density)`, slightly
blurred by the optics, with noise that grows with the light.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage, special

from sge2hist.toy.architecture import Architecture, Region
from sge2hist.toy.cell_types import CELL_TYPES, type_index
from sge2hist.toy.cells import ToyCells, eosin_factor
from sge2hist.toy.config import ToyTissueConfig
from sge2hist.toy.noise import Field, fibre_profile, smooth_noise
from sge2hist.toy.nuclei import NucleusMaps, paint_nuclei

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
    texture = smooth_noise(rng, shape, 3.0 / config.um_per_px)
    own_factor = (cells.cytoplasm_eosin / eosin_factor(cells.gradient, config)).astype(
        np.float32
    )  # the gradient is applied per px
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
    fill(Region.EPITHELIUM, np.clip(cell_eosin, 0.2, 0.5) * (1.0 + 0.10 * texture) * membrane, 0.15 * membrane)
    fill(Region.AGGREGATE, 0.16 * (1.0 + 0.25 * texture) * (1.0 - 0.5 * border), 0.10)
    # Gland: pale frothy cytoplasm towards the lumen, a dark border at the lumen, a basement membrane outside.
    froth = 1.0 + 0.22 * texture
    borders = np.exp(-((depth / 0.07) ** 2)) * 0.30 + np.exp(-(((depth - 1.0) / 0.06) ** 2)) * 0.30
    sides = 1.0 - 0.35 * border * (depth > 0.1) * (depth < 0.9)
    fill(Region.GLAND_WALL, ((0.12 + 0.16 * depth) * froth + borders) * sides, (0.06 + 0.14 * depth) * sides)
    layers = 1.0 + 0.28 * np.cos(2.0 * np.pi * (depth * 3.0 + 0.15 * texture))
    fill(Region.VESSEL_WALL, 0.52 * layers * (1.0 + 0.08 * texture), 0.03)
    eosin *= gain
    fill(Region.VESSEL_LUMEN, red_cells(rng, architecture), 0.0)
    return eosin, haematoxylin


# Eosin between the cells: collagen fibres, muscle fibres, red blood cells.


def fibre_eosin(rng: np.random.Generator, architecture: Architecture, um_per_px: float) -> Field:
    """Wavy collagen with white clefts between bundles, float32 [height, width]; mean over stroma as in `CELL_TYPES`."""
    shape = architecture.region.shape
    wave = 1.0 * smooth_noise(rng, shape, 14.0 / um_per_px)
    wrapped = architecture.wrap_weight
    sheet, wrap = architecture.sheet_phase_um + wave, architecture.wrap_phase_um + wave
    bundles = fibre_profile(rng, sheet, 11.0) * (1.0 - wrapped) + fibre_profile(rng, wrap, 9.0) * wrapped
    strands = fibre_profile(rng, sheet, 3.6) * (1.0 - wrapped) + fibre_profile(rng, wrap, 3.4) * wrapped
    open_weave = bundles + 0.35 * strands + 0.55 * smooth_noise(rng, shape, 26.0 / um_per_px)
    cleft = special.expit(-7.0 * (open_weave + 0.95))  # 1 in the gaps
    fibres = np.clip(1.0 + 0.14 * bundles + 0.36 * strands, 0.2, None) * (1.0 - 0.9 * cleft)
    return _with_mean(fibres, architecture, Region.STROMA, "Stroma")


def muscle_eosin(rng: np.random.Generator, architecture: Architecture) -> Field:
    """Dense straight fibres in bundles with thin pale gaps; mean over muscle as in `CELL_TYPES`."""
    phase = architecture.muscle_phase_um
    fibres = 1.0 + 0.16 * fibre_profile(rng, phase, 5.0) + 0.06 * fibre_profile(rng, phase, 2.6)
    bundles = fibre_profile(rng, phase, 34.0)
    gap = np.exp(-((bundles / 0.09) ** 2))  # where the profile crosses zero: a thin line every bundle or so
    return _with_mean(np.clip(fibres, 0.2, None) * (1.0 - 0.75 * gap), architecture, Region.MUSCLE, "Muscle")


def _with_mean(texture: Field, architecture: Architecture, region: Region, cell_type: str) -> Field:
    inside = texture[architecture.region == region]
    mean = float(inside.mean()) if inside.size else 1.0
    return (texture * (CELL_TYPES[type_index(cell_type)].cytoplasm_eosin / mean)).astype(np.float32)


def red_cells(rng: np.random.Generator, architecture: Architecture) -> Field:
    """Discs of red blood cells in about half of the vessels, float32 [height, width]."""
    field = np.zeros(architecture.region.shape, dtype=np.float32)
    um_per_px, radius_um = architecture.um_per_px, 3.3
    extent = int(np.ceil(radius_um / um_per_px)) + 1
    offset = np.arange(-extent, extent + 1)
    for outline in architecture.outlines:
        if outline.structure != "vessel" or rng.uniform() < 0.45:
            continue
        # a jittered grid over the lumen, so that discs touch without piling up
        n = int(2 * outline.radius_um / 6.6) + 2
        column, row = np.meshgrid(np.arange(n), np.arange(n), indexing="xy")
        corner = np.asarray(outline.centre_xy_um) - 3.3 * n
        xy_um = corner + (np.stack([column, row], axis=-1).reshape(-1, 2) + rng.uniform(0.2, 0.8, (n * n, 2))) * 6.6
        depth = np.hypot(*(xy_um - outline.centre_xy_um).T) / outline.radius_um
        for x_um, y_um in xy_um[(depth < 0.78) & (rng.uniform(size=len(xy_um)) < 0.8)]:
            column0, row0 = int(x_um / um_per_px), int(y_um / um_per_px)
            dx = (column0 + offset + 0.5) * um_per_px - x_um
            dy = ((row0 + offset + 0.5) * um_per_px - y_um)[:, None]
            distance = np.hypot(dx, dy)
            disc = np.clip(0.5 + (radius_um - distance) / um_per_px, 0.0, 1.0) * (0.50 + 0.03 * distance**2)
            window = field[row0 - extent : row0 + extent + 1, column0 - extent : column0 + extent + 1]
            if window.shape == disc.shape:
                np.maximum(window, disc, out=window)
    return field
