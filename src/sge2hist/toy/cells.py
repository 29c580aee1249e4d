"""Place nuclei in the architecture, with type, shape, stain and neighbours of each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import special
from scipy.spatial import cKDTree

from sge2hist.toy.architecture import Architecture, Region
from sge2hist.toy.cell_types import CELL_TYPES, trait, type_index
from sge2hist.toy.config import ToyTissueConfig
from sge2hist.toy.rings import ring_cells


@dataclass(frozen=True, kw_only=True)
class ToyCells:
    """The truth about every toy cell; one row per cell in each array."""

    xy_um: np.ndarray  # float64 [n, 2], x and y in the image
    type_N: np.ndarray  # int64, index into `CELL_TYPES`
    nucleus_area_um2: np.ndarray
    nucleus_axis_ratio: np.ndarray  # minor / major
    orientation_rad: np.ndarray  # of the major axis, from x towards y
    nucleus_haematoxylin: np.ndarray  # optical density
    cytoplasm_eosin: np.ndarray  # optical density, gradient included
    gradient: np.ndarray  # 0..1
    immune_fraction: np.ndarray  # 0..1, share of immune cells among the neighbours

    def __len__(self) -> int:
        return len(self.type_N)

    @property
    def eccentricity(self) -> np.ndarray:
        """Eccentricity of the nuclear ellipse, 0 is round."""
        return np.sqrt(1.0 - self.nucleus_axis_ratio**2)

    def to_frame(self, um_per_px: float) -> pd.DataFrame:
        """Table of the truth: index `cell_id`, positions in um and px, type by name, every trait."""
        columns = {
            "x_um": self.xy_um[:, 0],
            "y_um": self.xy_um[:, 1],
            "x_px": self.xy_um[:, 0] / um_per_px,
            "y_px": self.xy_um[:, 1] / um_per_px,
            "cell_type": np.asarray(trait("name"))[self.type_N],
            "nucleus_area_um2": self.nucleus_area_um2,
            "nucleus_eccentricity": self.eccentricity,
            "nucleus_orientation_rad": np.mod(self.orientation_rad, np.pi),
            "nucleus_haematoxylin": self.nucleus_haematoxylin,
            "cytoplasm_eosin": self.cytoplasm_eosin,
            "gradient": self.gradient,
            "immune_fraction": self.immune_fraction,
        }
        index = pd.Index([f"toycell_{i:07d}" for i in range(len(self))], name="cell_id")
        return pd.DataFrame(columns, index=index)


def place_cells(config: ToyTissueConfig, architecture: Architecture, rng: np.random.Generator) -> ToyCells:
    """Fill the architecture with cells: positions, then traits that depend on type and neighbours."""
    xy_um, type_N, orientation = _positions(config, architecture, rng)
    keep = _without_overlap(xy_um, type_N)
    xy_um, type_N, orientation = xy_um[keep], type_N[keep], orientation[keep]
    n = len(type_N)
    immune_fraction = _immune_fraction(xy_um, type_N, config.neighbourhood_radius_um)
    gradient = architecture.at(architecture.gradient, xy_um).astype(np.float64)
    area = np.asarray(trait("nucleus_area_um2"))[type_N] * np.exp(rng.normal(0.0, 0.12, n))
    other = type_N != type_index("Immune")
    area = area * np.where(other, np.exp(config.nucleus_log_gain * immune_fraction), 1.0)
    axis_ratio = np.clip(np.asarray(trait("nucleus_axis_ratio"))[type_N] * np.exp(rng.normal(0.0, 0.10, n)), 0.15, 0.98)
    haematoxylin = np.asarray(trait("nucleus_haematoxylin"))[type_N] * np.exp(rng.normal(0.0, 0.10, n))
    eosin = np.asarray(trait("cytoplasm_eosin"))[type_N] * np.exp(rng.normal(0.0, 0.07, n))
    return ToyCells(
        xy_um=xy_um,
        type_N=type_N,
        nucleus_area_um2=area,
        nucleus_axis_ratio=axis_ratio,
        orientation_rad=orientation,
        nucleus_haematoxylin=haematoxylin,
        cytoplasm_eosin=eosin * eosin_factor(gradient, config),
        gradient=gradient,
        immune_fraction=immune_fraction,
    )


def eosin_factor(gradient: np.ndarray, config: ToyTissueConfig) -> np.ndarray:
    """How much redder the tissue is at a gradient value: exp(gain (gradient - 1/2))."""
    return np.exp(config.eosin_log_gain * (gradient - 0.5))


def _lattice(rng: np.random.Generator, side_um: float, spacing_um: float, jitter: float) -> np.ndarray:
    """Jittered triangular lattice over the image, [n, 2] x,y in um, inside the image."""
    n_columns, n_rows = int(side_um / spacing_um) + 2, int(side_um / (spacing_um * 0.866)) + 2
    column, row = np.meshgrid(np.arange(n_columns), np.arange(n_rows), indexing="xy")
    xy = np.stack([(column + 0.5 * (row % 2)) * spacing_um, row * spacing_um * 0.866], axis=-1).reshape(-1, 2)
    xy = xy + rng.normal(0.0, jitter * spacing_um, xy.shape)
    return xy[(xy > 0).all(axis=1) & (xy < side_um).all(axis=1)]


def _positions(
    config: ToyTissueConfig, architecture: Architecture, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Candidates in order of precedence: rings, then filled regions, then infiltrating immune cells."""
    parts: list[tuple[np.ndarray, np.ndarray, int]] = []
    for outline in architecture.outlines:
        if outline.structure != "aggregate":
            index = type_index("Gland" if outline.structure == "gland" else "Vessel")
            xy, angle = ring_cells(rng, outline, CELL_TYPES[index].spacing_um)
            parts.append((xy, angle, index))
    for name, region, jitter in _FILLED:
        index = type_index(name)
        xy = _lattice(rng, config.side_um, CELL_TYPES[index].spacing_um, jitter)
        xy = xy[architecture.at(architecture.region, xy) == region]
        parts.append((xy, _orientation(name, architecture, xy, rng), index))
    xy = _lattice(rng, config.side_um, 15.0, 0.3)
    chance = 0.5 * special.expit(3.0 * (architecture.at(architecture.inflammation, xy) - 1.0))
    allowed = np.isin(architecture.at(architecture.region, xy), [Region.STROMA, Region.EPITHELIUM])
    xy = xy[allowed & (rng.uniform(size=len(xy)) < chance)]
    parts.append((xy, rng.uniform(0.0, np.pi, len(xy)), type_index("Immune")))
    types = [np.full(len(xy), index, dtype=np.int64) for xy, _, index in parts]
    return np.concatenate([p[0] for p in parts]), np.concatenate(types), np.concatenate([p[1] for p in parts])


_FILLED = (
    ("Immune", Region.AGGREGATE, 0.13),
    ("Epithelium", Region.EPITHELIUM, 0.13),
    ("Muscle", Region.MUSCLE, 0.22),
    ("Stroma", Region.STROMA, 0.24),
)


def _orientation(name: str, architecture: Architecture, xy_um: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if name == "Stroma":
        return architecture.stroma_angle(xy_um) + rng.normal(0.0, 0.15, len(xy_um))
    if name == "Muscle":
        return architecture.fibre_angle(architecture.muscle_phase_um, xy_um) + rng.normal(0.0, 0.06, len(xy_um))
    return rng.uniform(0.0, np.pi, len(xy_um))


def _without_overlap(xy_um: np.ndarray, type_N: np.ndarray) -> np.ndarray:
    """Bool [n]: False for a cell whose nucleus would overlap one of higher precedence (earlier in the list)."""
    minor_um = np.sqrt(
        np.asarray(trait("nucleus_area_um2")) * np.asarray(trait("nucleus_axis_ratio")) / np.pi
    )  # semi-minor axis: elongated nuclei may lie in parallel
    keep = np.ones(len(xy_um), dtype=bool)
    pairs = cKDTree(xy_um).query_pairs(12.0, output_type="ndarray")
    distance = np.hypot(*(xy_um[pairs[:, 0]] - xy_um[pairs[:, 1]]).T)
    touching = distance < 1.0 + minor_um[type_N[pairs[:, 0]]] + minor_um[type_N[pairs[:, 1]]]
    keep[pairs[touching].max(axis=1)] = False
    return keep


def _immune_fraction(xy_um: np.ndarray, type_N: np.ndarray, radius_um: float) -> np.ndarray:
    """Share of immune cells within `radius_um` of each cell, the cell itself not counted."""
    is_immune = type_N == type_index("Immune")
    n_all = cKDTree(xy_um).query_ball_point(xy_um, radius_um, return_length=True) - 1
    if not is_immune.any():
        return np.zeros(len(xy_um))
    n_immune = cKDTree(xy_um[is_immune]).query_ball_point(xy_um, radius_um, return_length=True) - is_immune
    return n_immune / np.maximum(n_all, 1)
