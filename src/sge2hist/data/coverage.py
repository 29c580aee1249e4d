"""Where on a slide cells were measured: tissue goes on where the RNA ends, and a generated slide is glass there by rule.

A place is covered if a cell lies within `REACH_UM`. Gaps between the cells of pale stroma are narrower, bins touch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from sge2hist.data.artifacts import atomic_path

COVERAGE_NAME = "coverage.geojson"
REACH_UM = 25.0
GRID_UM = 4.0
MIN_COVERED = 0.95  # of a window that is compared with the real slide


class Coverage:
    """The covered part of a rectangle from (0, 0), on squares of `GRID_UM`.

    Parameters
    ----------
    xy_um_N2
        Positions of the cells, um from the corner of the rectangle; also of those a little outside, if they are known.
    size_um
        Width and height of the rectangle.
    """

    def __init__(self, xy_um_N2: np.ndarray, size_um: tuple[float, float]) -> None:
        from scipy.spatial import cKDTree

        columns, rows = (max(1, int(np.ceil(side / GRID_UM))) for side in size_um)
        self.covered_RC = np.zeros((rows, columns), bool)
        if len(xy_um_N2):
            tree = cKDTree(np.asarray(xy_um_N2, np.float64))
            x = (np.arange(columns) + 0.5) * GRID_UM
            for row in range(rows):
                places = np.stack([x, np.full(columns, (row + 0.5) * GRID_UM)], 1)
                self.covered_RC[row] = np.isfinite(tree.query(places, distance_upper_bound=REACH_UM)[0])

    @property
    def share(self) -> float:
        """Share of the rectangle that is covered."""
        return float(self.covered_RC.mean())

    def share_of(self, centre_um_M2: np.ndarray, side_um: float) -> np.ndarray:
        """Covered share of square windows, float64 [M]; what lies outside of the rectangle does not count."""
        total = np.zeros(np.add(self.covered_RC.shape, 1))
        total[1:, 1:] = self.covered_RC.cumsum(0).cumsum(1)
        corner = np.asarray(centre_um_M2, np.float64)[:, ::-1] - side_um / 2  # y, x
        first = np.round(corner / GRID_UM).astype(np.int64).clip(0, np.subtract(self.covered_RC.shape, 1))
        last = np.round((corner + side_um) / GRID_UM).astype(np.int64).clip(first + 1, self.covered_RC.shape)
        (top, left), (bottom, right) = first.T, last.T
        inside = total[bottom, right] - total[top, right] - total[bottom, left] + total[top, left]
        return np.asarray(inside / ((bottom - top) * (right - left)))

    def geojson(self, um_per_px: float) -> dict[str, Any]:
        """The covered part in px of an image of the rectangle, an annotation as QuPath imports it; none if nothing is covered."""
        import shapely

        runs = np.diff(np.pad(self.covered_RC, ((0, 0), (1, 1))).astype(np.int8), axis=1)
        row, start = np.nonzero(runs == 1)
        _, stop = np.nonzero(runs == -1)
        area = shapely.union_all(shapely.box(start, row, stop, row + 1))
        feature = {
            "type": "Feature",
            "geometry": shapely.geometry.mapping(shapely.transform(area, lambda xy: xy * GRID_UM / um_per_px)),
            "properties": {"objectType": "annotation", "name": f"within {REACH_UM:g} um of a cell"},
        }
        return {"type": "FeatureCollection", "features": [feature] if len(row) else []}


def write_coverage(path: Path, geojson: dict[str, Any]) -> None:
    """Write an annotation of the covered part beside a slide."""
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(geojson) + "\n", encoding="utf-8")
