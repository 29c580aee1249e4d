"""Regions of the toy tissue: glands, vessels, immune aggregates, muscle, epithelium, stroma and empty glass."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from scipy import ndimage, special

from sge2hist.toy.config import ArrayFrame, ToyTissueConfig
from sge2hist.toy.noise import Field, resize_field, smooth_noise
from sge2hist.toy.rings import Outline, place_outlines

SHEATH_UM = 6.0  # of stroma around glands and vessels that lie in epithelium or muscle
COARSE_UM = 4.0  # grid on which regions are made before they are resampled to image resolution


class Region(IntEnum):
    """What a pixel of the toy tissue belongs to."""

    GLASS = 0
    STROMA = 1
    EPITHELIUM = 2
    MUSCLE = 3
    AGGREGATE = 4
    GLAND_WALL = 5
    GLAND_LUMEN = 6
    VESSEL_WALL = 7
    VESSEL_LUMEN = 8


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Regions and fields at image resolution; arrays are [height, width], positions are x,y."""

    um_per_px: float
    region: np.ndarray  # uint8, values of `Region`
    wall_depth: Field  # 0 at the lumen to 1 at the outside of a gland or vessel wall, 0 elsewhere
    sheet_phase_um: Field  # level lines are collagen fibres that run in sheets
    wrap_phase_um: Field  # level lines are collagen fibres that wrap glands, vessels and epithelium
    wrap_weight: Field  # 0..1, weight of the wrapping fibres
    muscle_phase_um: Field  # level lines are muscle fibres
    gradient: Field  # 0..1, the spatial gradient of genes and eosin
    inflammation: Field  # mean 0, sd 1: where single immune cells infiltrate other tissue
    outlines: tuple[Outline, ...]

    def at(self, field: np.ndarray, xy_um: np.ndarray) -> np.ndarray:
        """Value of a field in the pixel that contains each position; positions outside take the nearest edge pixel."""
        height, width = field.shape
        column = np.clip((xy_um[:, 0] / self.um_per_px).astype(np.int64), 0, width - 1)
        row = np.clip((xy_um[:, 1] / self.um_per_px).astype(np.int64), 0, height - 1)
        return field[row, column]

    def stroma_angle(self, xy_um: np.ndarray) -> np.ndarray:
        """Direction (radians) of the collagen fibres at each position."""
        wraps = self.at(self.wrap_weight, xy_um) > 0.5
        return np.where(
            wraps, self.fibre_angle(self.wrap_phase_um, xy_um), self.fibre_angle(self.sheet_phase_um, xy_um)
        )

    def fibre_angle(self, phase_um: Field, xy_um: np.ndarray) -> np.ndarray:
        """Direction (radians) of the fibres of one pattern at each position: along the level lines of the phase."""
        extent = 3.0 * self.um_per_px
        sideways, downwards = np.array([extent, 0.0]), np.array([0.0, extent])
        slope_x = self.at(phase_um, xy_um + sideways) - self.at(phase_um, xy_um - sideways)
        slope_y = self.at(phase_um, xy_um + downwards) - self.at(phase_um, xy_um - downwards)
        return np.arctan2(-slope_x, slope_y)


def build_architecture(config: ToyTissueConfig, rng: np.random.Generator) -> Architecture:
    """Sample the regions and fields of one toy tissue."""
    n_coarse = round(config.side_um / COARSE_UM)
    shape = (n_coarse, n_coarse)
    tissue = _tissue_outline(config, rng, shape)
    outlines = _place_all(config, rng, tissue)
    fine = (config.side_px, config.side_px)
    region = _background_regions(config, rng, tissue, fine)
    wall_depth = np.zeros(fine, dtype=np.float32)
    for outline in outlines:
        _stamp(region, wall_depth, outline, config.um_per_px)
    sheet_phase, muscle_phase = _sheet_phases(config, rng, shape)
    wrap_phase, wrap_weight = _wrap_phase(config, rng, shape, region)
    return Architecture(
        um_per_px=config.um_per_px,
        region=region,
        wall_depth=wall_depth,
        sheet_phase_um=resize_field(sheet_phase, fine),
        wrap_phase_um=resize_field(wrap_phase, fine),
        wrap_weight=resize_field(wrap_weight, fine),
        muscle_phase_um=resize_field(muscle_phase, fine),
        gradient=_gradient(config, rng, shape, fine),
        inflammation=resize_field(smooth_noise(rng, shape, 1.6 * config.region_um / COARSE_UM), fine),
        outlines=tuple(outlines),
    )


def _grid_xy_um(config: ToyTissueConfig, shape: tuple[int, int]) -> tuple[Field, Field]:
    step = config.side_um / shape[0]
    axis = ((np.arange(shape[0]) + 0.5) * step).astype(np.float32)
    return np.meshgrid(axis, axis, indexing="xy")  # x varies along columns, y along rows


def _tissue_outline(config: ToyTissueConfig, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Bool mask: a rounded square with a wavy edge, with a margin of empty glass, that stays inside the capture array."""
    x_um, y_um = _grid_xy_um(config, shape)
    half = config.side_um / 2.0
    u, v = (x_um - half) / half, (y_um - half) / half
    radius = (np.abs(u) ** 5 + np.abs(v) ** 5) ** 0.2
    wave = smooth_noise(rng, shape, 0.25 * shape[0]) * 0.03 + smooth_noise(rng, shape, 30.0 / COARSE_UM) * 0.006
    frame = ArrayFrame.from_config(config)
    array_xy_um = frame.to_array(np.stack([x_um.ravel(), y_um.ravel()], axis=1))
    margin_um = 30.0  # transcripts spread this far at most: all stay on the array
    on_array = ((array_xy_um > margin_um) & (array_xy_um < frame.side_um - margin_um)).all(axis=1)
    return (radius + wave < 0.92) & on_array.reshape(shape)


def _place_all(config: ToyTissueConfig, rng: np.random.Generator, tissue: np.ndarray) -> list[Outline]:
    area_mm2 = tissue.sum() * (config.side_um / tissue.shape[0] / 1000.0) ** 2
    depth_um = ndimage.distance_transform_edt(tissue) * COARSE_UM
    preference = smooth_noise(rng, tissue.shape, 1.8 * config.region_um / COARSE_UM)
    outlines: list[Outline] = []
    for structure, per_mm2, sign in (
        ("aggregate", config.aggregates_per_mm2, -1.0),
        ("gland", config.glands_per_mm2, 1.0),
        ("vessel", config.vessels_per_mm2, -1.0),
    ):
        rows, columns = np.nonzero(depth_um > 45.0)
        order = rng.permutation(len(rows))[: 12 * max(1, round(area_mm2 * 400))]
        rows, columns = rows[order], columns[order]
        # Glands cluster where the preference field is high, the others where it is low.
        score = sign * preference[rows, columns] + rng.standard_normal(len(rows)) * 0.6
        order = np.argsort(-score, kind="stable")
        xy_um = (np.stack([columns, rows], axis=1)[order] + 0.5) * (config.side_um / tissue.shape[0])
        n = round(per_mm2 * area_mm2)
        best = xy_um[: max(1, len(xy_um) // 2)]
        outlines += place_outlines(rng, structure, n, rng.permutation(best), outlines)
    return outlines


def _background_regions(
    config: ToyTissueConfig, rng: np.random.Generator, tissue: np.ndarray, fine: tuple[int, int]
) -> np.ndarray:
    """Glass, stroma, epithelial sheets and muscle bundles, uint8 at image resolution with smooth borders."""
    length = config.region_um / COARSE_UM
    sheets = smooth_noise(rng, tissue.shape, length) + 0.12 * smooth_noise(rng, tissue.shape, length / 5.0)
    bundles = smooth_noise(rng, tissue.shape, 1.3 * length) - 0.8 * sheets
    region = np.zeros(fine, dtype=np.uint8)
    inside = resize_field(ndimage.gaussian_filter(tissue.astype(np.float32), 1.2), fine) > 0.5
    region[inside] = Region.STROMA
    if config.muscle_fraction > 0:
        level = np.quantile(bundles[tissue], 1.0 - config.muscle_fraction)
        region[inside & (resize_field(bundles, fine) > level)] = Region.MUSCLE
    if config.epithelium_fraction > 0:
        level = np.quantile(sheets[tissue], 1.0 - config.epithelium_fraction)
        region[inside & (resize_field(sheets, fine) > level)] = Region.EPITHELIUM
    return region


def _stamp(region: np.ndarray, wall_depth: Field, outline: Outline, um_per_px: float) -> None:
    """Write one outline into the maps, in place."""
    x_um, y_um = outline.centre_xy_um
    height, width = region.shape
    extent_um = outline.extent_um + SHEATH_UM + 2.0
    low_x, high_x = (int(np.clip((x_um + d) / um_per_px, 0, width)) for d in (-extent_um, extent_um))
    low_y, high_y = (int(np.clip((y_um + d) / um_per_px, 0, height)) for d in (-extent_um, extent_um))
    dx = (np.arange(low_x, high_x) + 0.5) * um_per_px - x_um
    dy = ((np.arange(low_y, high_y) + 0.5) * um_per_px - y_um)[:, None]
    beyond = np.hypot(dx, dy) - outline.radius_at(np.arctan2(dy, dx))
    window = region[low_y:high_y, low_x:high_x]
    if outline.structure == "aggregate":
        window[(beyond < 0.0) & (window != Region.GLASS)] = Region.AGGREGATE
        return
    lumen, wall = (
        (Region.GLAND_LUMEN, Region.GLAND_WALL)
        if outline.structure == "gland"
        else (Region.VESSEL_LUMEN, Region.VESSEL_WALL)
    )
    in_wall = (beyond >= 0.0) & (beyond < outline.wall_um)
    sheath = (beyond >= outline.wall_um) & (beyond < outline.wall_um + SHEATH_UM)
    window[sheath & ((window == Region.EPITHELIUM) | (window == Region.MUSCLE))] = Region.STROMA
    window[beyond < 0.0] = lumen
    window[in_wall] = wall
    wall_depth[low_y:high_y, low_x:high_x][in_wall] = beyond[in_wall] / outline.wall_um


def _sheet_phases(config: ToyTissueConfig, rng: np.random.Generator, shape: tuple[int, int]) -> tuple[Field, Field]:
    """Stroma fibres in wavy sheets, and muscle fibres that run straighter, in another direction."""
    x_um, y_um = _grid_xy_um(config, shape)
    angle = rng.uniform(0.0, np.pi)
    sheet = x_um * np.cos(angle) + y_um * np.sin(angle) + 45.0 * smooth_noise(rng, shape, 260.0 / COARSE_UM)
    turned = angle + rng.uniform(0.25 * np.pi, 0.75 * np.pi)
    muscle = x_um * np.cos(turned) + y_um * np.sin(turned) + 45.0 * smooth_noise(rng, shape, 300.0 / COARSE_UM)
    return sheet + 2.0 * smooth_noise(rng, shape, 30.0 / COARSE_UM), muscle


def _wrap_phase(
    config: ToyTissueConfig, rng: np.random.Generator, shape: tuple[int, int], region: np.ndarray
) -> tuple[Field, Field]:
    """Distance to the structures that stroma fibres wrap, and the weight (1 to 0 within some 30 um) of that pattern."""
    pick = ((np.arange(shape[0]) + 0.5) * (region.shape[0] / shape[0])).astype(np.int64)
    outside = np.isin(region[np.ix_(pick, pick)], _FIBROUS)
    if outside.all():
        return np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    distance = ndimage.gaussian_filter(ndimage.distance_transform_edt(outside).astype(np.float32) * COARSE_UM, 1.0)
    weight = special.expit((26.0 - distance) / 4.0)
    return distance + 1.5 * smooth_noise(rng, shape, 30.0 / COARSE_UM), weight.astype(np.float32)


_FIBROUS = [Region.STROMA, Region.GLASS, Region.AGGREGATE]


def _gradient(
    config: ToyTissueConfig, rng: np.random.Generator, shape: tuple[int, int], fine: tuple[int, int]
) -> Field:
    """A smooth field from 0 to 1: a ramp across the tissue, bent by noise so that it varies locally too."""
    x_um, y_um = _grid_xy_um(config, shape)
    angle = rng.uniform(0.0, 2.0 * np.pi)
    ramp = ((x_um - config.side_um / 2) * np.cos(angle) + (y_um - config.side_um / 2) * np.sin(angle)) / config.side_um
    bent = 0.5 + 0.7 * ramp + 0.14 * smooth_noise(rng, shape, 3.0 * config.region_um / COARSE_UM)
    return resize_field(np.clip(bent, 0.0, 1.0).astype(np.float32), fine)
