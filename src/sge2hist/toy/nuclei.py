"""Render nuclei: sharp-edged, slightly irregular ellipses with chromatin texture, a dark border and a nucleolus."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sge2hist.toy.cell_types import trait
from sge2hist.toy.cells import ToyCells
from sge2hist.toy.noise import Field, smooth_noise

CHUNK = 2000  # nuclei rendered at once: bounds memory


@dataclass(frozen=True, kw_only=True)
class NucleusMaps:
    """float32 [height, width]."""

    haematoxylin: Field  # optical density from nuclei
    coverage: Field  # share of the pixel that nuclei cover, 0..1


@dataclass(frozen=True, kw_only=True)
class _Shape:
    """Parameters of a chunk of nuclei, each [n, 1, 1]."""

    semi_major_um: np.ndarray
    semi_minor_um: np.ndarray
    lobe: np.ndarray  # relative amplitude of the three-lobed deformation
    lobe_phase: np.ndarray


def paint_nuclei(cells: ToyCells, shape: tuple[int, int], um_per_px: float, rng: np.random.Generator) -> NucleusMaps:
    """Stamp every nucleus into the maps; where two touch, the denser one is visible."""
    chromatin = 0.75 * smooth_noise(rng, shape, 1.8 / um_per_px) + 0.65 * smooth_noise(rng, shape, 3.6 / um_per_px)
    lobe, lobe_phase = rng.uniform(0.0, 0.09, len(cells)), rng.uniform(0.0, 2.0 * np.pi, len(cells))
    spot = rng.normal(0.0, 0.25, (len(cells), 2))  # nucleolus, in units of the semi-axes
    # A nucleus needs a window of its own reach; sorting by reach lets small ones use small windows.
    extent_um = np.sqrt(cells.nucleus_area_um2 / np.pi / cells.nucleus_axis_ratio) * 1.1 + 1.5 * um_per_px
    order = np.argsort(extent_um)
    haematoxylin, coverage = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for start in range(0, len(cells), CHUNK):
        chunk = order[start : start + CHUNK]
        extent_px = int(np.ceil(extent_um[chunk[-1]] / um_per_px))
        _paint_chunk(
            cells,
            chunk,
            extent_px,
            um_per_px,
            chromatin,
            lobe[chunk],
            lobe_phase[chunk],
            spot[chunk],
            haematoxylin,
            coverage,
        )
    return NucleusMaps(haematoxylin=haematoxylin, coverage=coverage)


def _paint_chunk(
    cells: ToyCells,
    chunk: np.ndarray,
    extent_px: int,
    um_per_px: float,
    chromatin: Field,
    lobe: np.ndarray,
    lobe_phase: np.ndarray,
    spot: np.ndarray,
    haematoxylin: Field,
    coverage: Field,
) -> None:
    def per_cell(values: np.ndarray | list[float]) -> np.ndarray:
        return np.asarray(values, dtype=np.float32)[:, None, None]

    xy_um, type_N = cells.xy_um[chunk], cells.type_N[chunk]
    offset = np.arange(-extent_px, extent_px + 1)
    column = (xy_um[:, 0] / um_per_px).astype(np.int64)[:, None, None] + offset[None, None, :]
    row = (xy_um[:, 1] / um_per_px).astype(np.int64)[:, None, None] + offset[None, :, None]
    dx = ((column + 0.5) * um_per_px - xy_um[:, 0, None, None]).astype(np.float32)
    dy = ((row + 0.5) * um_per_px - xy_um[:, 1, None, None]).astype(np.float32)
    cos, sin = per_cell(np.cos(cells.orientation_rad[chunk])), per_cell(np.sin(cells.orientation_rad[chunk]))
    semi_major = np.sqrt(cells.nucleus_area_um2[chunk] / (np.pi * cells.nucleus_axis_ratio[chunk]))
    semi_minor = semi_major * cells.nucleus_axis_ratio[chunk]
    u, v = (dx * cos + dy * sin) / per_cell(semi_major), (dy * cos - dx * sin) / per_cell(semi_minor)
    radius, cover = _coverage(
        u,
        v,
        _Shape(
            semi_major_um=per_cell(semi_major),
            semi_minor_um=per_cell(semi_minor),
            lobe=per_cell(lobe),
            lobe_phase=per_cell(lobe_phase),
        ),
        um_per_px,
    )
    height, width = haematoxylin.shape
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width) & (cover > 0)
    flat = (np.clip(row, 0, height - 1) * width + np.clip(column, 0, width - 1))[inside]
    texture = np.zeros_like(cover)
    texture[inside] = chromatin.reshape(-1)[flat]
    pallor = per_cell(np.asarray(trait("nucleus_pallor"))[type_N])
    contrast = per_cell(np.asarray(trait("chromatin_contrast"))[type_N])
    dot = per_cell(np.asarray(trait("nucleolus"))[type_N])
    density = per_cell(cells.nucleus_haematoxylin[chunk]) * (1.0 - pallor * (1.0 - np.minimum(radius, 1.0) ** 4))
    density = np.clip(density * (1.0 + contrast * texture), 0.0, None)
    distance2 = ((u - per_cell(spot[:, 0])) * per_cell(semi_major)) ** 2 + (
        (v - per_cell(spot[:, 1])) * per_cell(semi_minor)
    ) ** 2
    density = density + dot * np.exp(-distance2 / (2.0 * 0.9**2))
    np.maximum.at(haematoxylin.reshape(-1), flat, (density * cover)[inside])
    np.maximum.at(coverage.reshape(-1), flat, cover[inside])


def _coverage(u: np.ndarray, v: np.ndarray, shape: _Shape, um_per_px: float) -> tuple[np.ndarray, np.ndarray]:
    """Elliptic radius (1 at the edge) and share of each pixel inside the nucleus, from the distance to its edge.

    The edge is rho(phi) = 1 + lobe cos(3 phi + phase), divided by sqrt(1 + lobe^2 / 2) so that the area stays that of
    the ellipse. Distance to first order: (rho - r) / |grad r|.
    """
    radius = np.sqrt(u * u + v * v) + 1e-6
    c, s = u / radius, v / radius
    cos3, sin3 = 4.0 * c**3 - 3.0 * c, 3.0 * s - 4.0 * s**3
    edge = 1.0 + shape.lobe * (cos3 * np.cos(shape.lobe_phase) - sin3 * np.sin(shape.lobe_phase))
    edge = edge / np.sqrt(1.0 + 0.5 * shape.lobe**2)
    slope_per_um = np.sqrt((c / shape.semi_major_um) ** 2 + (s / shape.semi_minor_um) ** 2)
    distance_px = (edge - radius) / slope_per_um / um_per_px
    return radius / edge, np.clip(0.5 + distance_px, 0.0, 1.0)
