"""The capture array under the tissue: a square of bins, rotated a little against the microscope image.

Array coordinates are um from the outer corner of bin (row 0, column 0), x along columns and y along rows. A bin of
side b covers [column b, (column + 1) b) x [row b, (row + 1) b); `tissue_positions.parquet` stores its centre.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sge2hist.toy.config import ToyTissueConfig

MAX_BIN_UM = 16  # the array is a whole number of these


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
