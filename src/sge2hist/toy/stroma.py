"""Eosin of what lies between the cells: collagen fibres, muscle fibres, red blood cells."""

from __future__ import annotations

import numpy as np
from scipy import special

from sge2hist.toy.architecture import Architecture, Region
from sge2hist.toy.cell_types import CELL_TYPES, type_index
from sge2hist.toy.noise import Field, fibre_profile, smooth_noise


def fibre_eosin(rng: np.random.Generator, architecture: Architecture, um_per_px: float) -> Field:
    """Wavy collagen with white clefts between bundles, float32 [height, width]; mean over stroma as the type says."""
    shape = architecture.region.shape
    wave = 1.0 * smooth_noise(rng, shape, 14.0 / um_per_px)
    near = architecture.around_weight
    sheet, around = architecture.sheet_phase_um + wave, architecture.around_phase_um + wave
    bundles = fibre_profile(rng, sheet, 11.0) * (1.0 - near) + fibre_profile(rng, around, 9.0) * near
    strands = fibre_profile(rng, sheet, 3.6) * (1.0 - near) + fibre_profile(rng, around, 3.4) * near
    open_weave = bundles + 0.35 * strands + 0.55 * smooth_noise(rng, shape, 26.0 / um_per_px)
    cleft = special.expit(-7.0 * (open_weave + 0.95))  # 1 in the gaps
    fibres = np.clip(1.0 + 0.14 * bundles + 0.36 * strands, 0.2, None) * (1.0 - 0.9 * cleft)
    return _with_mean(fibres, architecture, Region.STROMA, "Stroma")


def muscle_eosin(rng: np.random.Generator, architecture: Architecture) -> Field:
    """Dense straight fibres in bundles with thin pale gaps; mean over muscle as the cell type says."""
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
    reach = int(np.ceil(radius_um / um_per_px)) + 1
    offset = np.arange(-reach, reach + 1)
    for outline in architecture.outlines:
        if outline.kind != "vessel" or rng.uniform() < 0.45:
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
            window = field[row0 - reach : row0 + reach + 1, column0 - reach : column0 + reach + 1]
            if window.shape == disc.shape:
                np.maximum(window, disc, out=window)
    return field
