"""Which part of a slide lies near a cell, against the area of discs."""

from __future__ import annotations

import numpy as np
import pytest
import shapely

from sge2hist.data.coverage import GRID_UM, REACH_UM, Coverage


def test_one_cell_covers_a_disc():
    found = Coverage(np.array([[120.0, 60.0]]), (200.0, 100.0))
    disc = shapely.Point(120, 60).buffer(REACH_UM)
    assert found.share * 200 * 100 == pytest.approx(disc.area, rel=0.03)
    (feature,) = found.geojson(um_per_px=0.5)["features"]
    area = shapely.geometry.shape(feature["geometry"])
    assert area.area * 0.25 == pytest.approx(disc.area, rel=0.03)
    assert area.centroid.coords[0] == pytest.approx((240, 120), abs=2)


def test_windows_at_the_margin_are_covered_in_part():
    """Cells on a lattice left of 100 um: covered up to 25 um beyond the last."""
    x, y = np.meshgrid(np.arange(2.0, 100, 8), np.arange(2.0, 200, 8))
    found = Coverage(np.stack([x.ravel(), y.ravel()], 1), (200.0, 200.0))
    edge = x.max() + REACH_UM
    centres = np.array([[40.0, 100.0], [edge, 100.0], [edge + 32, 100.0], [190.0, 100.0]])
    assert found.share_of(centres, 64.0) == pytest.approx([1.0, 0.5, 0.0, 0.0], abs=1.5 * GRID_UM / 64)


def test_a_place_outside_of_the_rectangle_does_not_count():
    found = Coverage(np.array([[50.0, 50.0]]), (40.0, 40.0))
    assert 0 < found.share < 1  # a cell beyond the edge covers what it reaches
    assert found.share_of(np.array([[40.0, 40.0]]), 16.0) == pytest.approx([1.0])


def test_without_cells_nothing_is_covered():
    found = Coverage(np.empty((0, 2)), (10.0, 10.0))
    assert found.share == 0
    assert found.geojson(1.0)["features"] == []
