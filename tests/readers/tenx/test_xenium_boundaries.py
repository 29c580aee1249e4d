"""Outlines of Xenium cells: every form of the file gives the polygons that were written, in the frame of the image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import shapely

from fixtures.tissue import make_tissue
from fixtures.xenium import alignment_matrix, write_xenium
from sge2hist.data.errors import InputError
from sge2hist.readers.outlines import MAX_VERTICES
from sge2hist.readers.tenx import xenium
from sge2hist.readers.tenx.xenium_boundaries import read_boundaries


def _write(path: Path, rings: dict[str, list]) -> Path:
    rows = [(cell, x, y) for cell, ring in rings.items() for x, y in ring]
    pd.DataFrame(rows, columns=["cell_id", "vertex_x", "vertex_y"]).to_parquet(path)
    return path


def _ring(n: int, radius: float = 5.0, phase: float = 0.0) -> list:
    angle = phase + 2 * np.pi * np.arange(n) / n
    return np.stack([10 + radius * np.cos(angle), 20 + radius * np.sin(angle)], 1).tolist()


def test_each_cell_has_its_own_outline(tmp_path):
    triangle, square, circle = _ring(3), _ring(4), _ring(200)
    rings = {"b": [*square, square[0]], "other": _ring(7), "a": triangle, "c": [*circle, circle[0]]}
    found = read_boundaries(_write(tmp_path / "x.parquet", rings), pd.Index(["a", "none", "b", "c"]))
    assert found.shape == (4, MAX_VERTICES, 2)
    assert np.isnan(found[1]).all()
    for row, ring in ((0, triangle), (2, square)):
        assert shapely.Polygon(found[row]).equals_exact(shapely.Polygon(ring), 1e-9) or shapely.Polygon(
            found[row]
        ).equals(shapely.Polygon(ring))
    area = shapely.Polygon(found[3]).area
    assert area == pytest.approx(shapely.Polygon(circle).area, rel=0.005)


def test_outlines_of_another_run_are_refused(tmp_path):
    path = _write(tmp_path / "x.parquet", {"a": _ring(5)})
    with pytest.raises(InputError, match="outlines of other cells"):
        read_boundaries(path, pd.Index(["z"]))


@pytest.mark.parametrize("quarter_turns", range(4))
@pytest.mark.parametrize("ids", ["string", "bytes", "integer"])
def test_outlines_lie_on_the_image(tmp_path, quarter_turns, ids):
    tissue = make_tissue()
    matrix = alignment_matrix(tissue.um_per_px, quarter_turns=quarter_turns, shift_px=(900, 1200))
    section = xenium.read(write_xenium(tissue, tmp_path / "x", he_to_dapi=matrix, ids=ids).folder)
    radius_px = (tissue.radius_um + 2) / tissue.um_per_px
    assert np.linalg.norm(section.outline_px, axis=2) == pytest.approx(radius_px, rel=1e-3)


def test_outlines_move_with_their_cells(tmp_path):
    section = xenium.read(write_xenium(make_tissue(), tmp_path / "x").folder)
    half_turn = section.moved(lambda xy_px: 1000 - 2 * xy_px)
    assert half_turn.outline_px == pytest.approx(-2 * section.outline_px, abs=1e-3)
