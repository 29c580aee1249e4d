"""Settings of the toy tissue, and the capture array under it: a square of bins, rotated a little against the image.

Array coordinates are um from the outer corner of bin (row 0, column 0), x along columns and y along rows. A bin of
side b covers [column b, (column + 1) b) x [row b, (row + 1) b); `tissue_positions.parquet` stores its centre.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sge2hist.data.errors import Problems

MAX_BIN_UM = 16  # the array is a whole number of these


@dataclass(frozen=True, kw_only=True)
class ToyTissueConfig:
    """Settings of `simulate`. Lengths in um; raises `InputError` with every field that is out of range."""

    side_um: float = 3000.0  # side of the square image
    um_per_px: float = 1.0  # resolution of the image
    rotation_deg: float = 3.0  # of the capture array against the image, clockwise on the screen
    region_um: float = 130.0  # typical size of a region
    glands_per_mm2: float = 34.0  # attempted; those without room are omitted
    vessels_per_mm2: float = 22.0  # likewise
    aggregates_per_mm2: float = 6.0  # immune aggregates, likewise
    epithelium_fraction: float = 0.28  # of the tissue outside glands, vessels and immune aggregates
    muscle_fraction: float = 0.22  # likewise
    n_markers: int = 20  # marker genes of each of the six types
    n_gradient_genes: int = 32  # half rise, half fall along the gradient
    n_neighbourhood_genes: int = 16  # rise with the share of immune cells among the neighbours
    n_flat_genes: int = 82  # carry no information
    marker_fold: float = 14.0  # expression of a marker in its own type over its expression elsewhere
    gradient_log_fold: float = 2.2  # change of log expression from gradient 0 to 1
    neighbourhood_log_fold: float = 3.0  # change of log expression from no to only immune neighbours
    dispersion: float = 4.0  # inverse dispersion r of the gamma-Poisson: var = mean + mean^2 / r
    depth_factor: float = 1.0  # multiplies the transcripts of every cell
    neighbourhood_radius_um: float = 50.0  # radius of the neighbourhood
    eosin_log_gain: float = 1.0  # change of log eosin from gradient 0 to 1: an effect of the microenvironment
    nucleus_log_gain: float = 0.6  # change of log nuclear area from no to only immune neighbours (other types only)

    def __post_init__(self) -> None:
        problems = Problems()
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if not (math.isfinite(value) and low <= value <= high):
                problems.add(
                    found=f"{name}={value!r}",
                    where="ToyTissueConfig",
                    expected=f"a number from {low} to {high}",
                    repair=f"pass {name} within that range",
                )
        problems.raise_if_any()

    @classmethod
    def tiny(cls) -> ToyTissueConfig:
        """600 um and 40 genes, in about a second: the size for tests. Every type occurs."""
        return cls(
            side_um=600.0,
            region_um=60.0,
            glands_per_mm2=60.0,
            vessels_per_mm2=60.0,
            aggregates_per_mm2=12.0,
            n_markers=3,
            n_gradient_genes=8,
            n_neighbourhood_genes=4,
            n_flat_genes=10,
        )

    @property
    def side_px(self) -> int:
        """Width and height of the image in px."""
        return round(self.side_um / self.um_per_px)

    @property
    def n_genes(self) -> int:
        """Genes in the panel."""
        return 6 * self.n_markers + self.n_gradient_genes + self.n_neighbourhood_genes + self.n_flat_genes


_RANGES: tuple[tuple[str, float, float], ...] = (
    ("side_um", 400.0, 20_000.0),
    ("um_per_px", 0.2, 2.0),
    ("rotation_deg", -45.0, 45.0),
    ("region_um", 30.0, 1000.0),
    ("glands_per_mm2", 0.0, 100.0),
    ("vessels_per_mm2", 0.0, 100.0),
    ("aggregates_per_mm2", 0.0, 100.0),
    ("epithelium_fraction", 0.0, 0.5),
    ("muscle_fraction", 0.0, 0.5),
    ("n_markers", 1, 1000),
    ("n_gradient_genes", 0, 10_000),
    ("n_neighbourhood_genes", 0, 10_000),
    ("n_flat_genes", 0, 50_000),
    ("marker_fold", 1.0, 1000.0),
    ("gradient_log_fold", 0.0, 5.0),
    ("neighbourhood_log_fold", 0.0, 5.0),
    ("dispersion", 0.01, 1e6),
    ("depth_factor", 0.01, 100.0),
    ("neighbourhood_radius_um", 5.0, 500.0),
    ("eosin_log_gain", 0.0, 3.0),
    ("nucleus_log_gain", 0.0, 1.5),
)


@dataclass(frozen=True, kw_only=True)
class ArrayFrame:
    """Rigid map between the image (um from its top left corner) and the capture array."""

    side_um: float
    centre_xy_um: tuple[float, float]  # of the array, in the image
    rotation_rad: float  # array x axis seen in the image; positive turns x towards y, clockwise on the screen

    @classmethod
    def from_config(cls, config: ToyTissueConfig) -> ArrayFrame:
        """The largest array of whole 16 um bins that stays inside the image when rotated."""
        rotation = math.radians(config.rotation_deg)
        largest = config.side_um / (math.cos(rotation) + abs(math.sin(rotation)))
        side_um = math.floor(largest / MAX_BIN_UM) * MAX_BIN_UM
        centre = config.side_um / 2.0
        return cls(side_um=float(side_um), centre_xy_um=(centre, centre), rotation_rad=rotation)

    def n_bins(self, bin_um: int) -> int:
        """Bins along one side."""
        return round(self.side_um / bin_um)

    def to_array(self, xy_um: np.ndarray) -> np.ndarray:
        """Image um [n, 2] -> array um [n, 2]."""
        return (xy_um - self.centre_xy_um) @ self._rotation() + self.side_um / 2.0

    def to_image(self, array_xy_um: np.ndarray) -> np.ndarray:
        """Array um [n, 2] -> image um [n, 2]; inverse of `to_array`."""
        return (array_xy_um - self.side_um / 2.0) @ self._rotation().T + self.centre_xy_um

    def _rotation(self) -> np.ndarray:
        cos, sin = math.cos(self.rotation_rad), math.sin(self.rotation_rad)
        return np.array([[cos, -sin], [sin, cos]])  # columns are the array axes seen in the image
