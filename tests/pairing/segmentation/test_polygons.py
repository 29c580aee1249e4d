import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import shapely

from sge2hist.data.errors import InputError
from sge2hist.pairing.segmentation.polygons import bounds_px, polygon_at
from sge2hist.readers.geojson import Polygons, read_geojson


def write(path: Path, geometries: list[dict], **properties: list) -> Path:
    features = [
        {"type": "Feature", "geometry": geometry, "properties": {key: values[i] for key, values in properties.items()}}
        for i, geometry in enumerate(geometries)
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def star_shaped(n: int, seed: int, spread: float = 200.0) -> list[shapely.Polygon]:
    rng = np.random.default_rng(seed)
    shapes = []
    for centre in rng.uniform(0, spread, (n, 2)):
        angle = np.sort(rng.uniform(0, 2 * np.pi, 14))
        radius = rng.uniform(3, 12, (14, 1))
        shapes.append(shapely.Polygon(centre + radius * np.stack([np.cos(angle), np.sin(angle)], 1)))
    return shapes


def read_shapes(tmp_path: Path, shapes: list) -> Polygons:
    return read_geojson(write(tmp_path / "a.geojson", [shapely.geometry.mapping(s) for s in shapes]))


def test_positions_in_polygons_agree_with_shapely(tmp_path):
    shapes = star_shaped(60, 0)
    polygons = read_shapes(tmp_path, shapes)
    xy_px = np.random.default_rng(1).uniform(-20, 220, (5000, 2))
    inside = np.stack([shapely.contains_xy(shape, xy_px) for shape in shapes])
    expected = np.where(inside.any(0), inside.argmax(0), -1)
    assert (expected >= 0).mean() > 0.1
    np.testing.assert_array_equal(polygon_at(polygons, xy_px), expected)


def test_holes_and_several_parts(tmp_path):
    ring = shapely.Point(30, 30).buffer(20).difference(shapely.Point(30, 30).buffer(8))
    two = shapely.MultiPolygon([shapely.box(60, 10, 70, 20), shapely.box(80, 10, 90, 20)])
    polygons = read_shapes(tmp_path, [ring, two])
    xy_px = np.random.default_rng(2).uniform(0, 100, (3000, 2))
    expected = np.where(shapely.contains_xy(ring, xy_px), 0, np.where(shapely.contains_xy(two, xy_px), 1, -1))
    np.testing.assert_array_equal(polygon_at(polygons, xy_px), expected)
    np.testing.assert_allclose(bounds_px(polygons)[1], [60, 10, 90, 20])


def test_a_polygon_far_away_costs_nothing(tmp_path):
    polygons = read_shapes(tmp_path, [shapely.box(0, 0, 4, 4), shapely.box(-1e9, -1e9, 1e9, 1e9)])
    found = polygon_at(polygons, np.random.default_rng(0).uniform(0, 1000, (1000, 2)))
    assert set(found) <= {0, 1}  # within the time that the suite takes for one test, not in hours


def test_no_position(tmp_path):
    assert polygon_at(read_shapes(tmp_path, [shapely.box(0, 0, 4, 4)]), np.empty((0, 2))).shape == (0,)


def test_shared_edges_belong_to_one_polygon(tmp_path):
    tiles = [shapely.box(x, y, x + 10, y + 10) for y in (0, 10) for x in (0, 10)]
    on_edges = np.array([[0, 0], [10, 5], [5, 10], [10, 10], [20, 5], [5, 20], [0, 5], [9, 0]])
    for shapes in (tiles, [shapely.unary_union(tiles[:1]), *tiles[1:]]):
        assert polygon_at(read_shapes(tmp_path, shapes), on_edges).tolist() == [0, 1, 2, 3, -1, -1, 0, 0]


@pytest.mark.parametrize("max_tests", [0, 250_000])
def test_large_polygons_follow_the_same_rule_as_small_ones(tmp_path, monkeypatch, max_tests):
    """Whole-numbered corners and positions: many of them lie exactly on edges and corners."""
    rng = np.random.default_rng(4)
    shapes = [shapely.Polygon(np.rint(np.asarray(s.exterior.coords))) for s in star_shaped(50, 11, spread=60.0)]
    polygons = read_shapes(tmp_path, shapes)
    xy_px = rng.integers(-5, 66, (4000, 2)).astype(float)
    monkeypatch.setattr("sge2hist.pairing.segmentation.polygons._MAX_TESTS", max_tests)
    monkeypatch.setattr("sge2hist.pairing.segmentation.polygons._TESTS_AT_ONCE", 777)
    found = polygon_at(polygons, xy_px)
    # a hair to the right and below: the same answer as on the edge, and no position on an edge any more
    inside = np.stack([shapely.contains_xy(shape, xy_px + np.array([1e-7, 1e-9])) for shape in shapes])
    np.testing.assert_array_equal(found, np.where(inside.any(0), inside.argmax(0), -1))
    assert (found >= 0).mean() > 0.2


def wavy_outline(n_corners: int, side: float) -> shapely.Polygon:
    angle = np.linspace(0, 2 * np.pi, n_corners, endpoint=False)
    radius = side * (0.35 + 0.1 * np.sin(37 * angle))
    return shapely.Polygon(side / 2 + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1))


@pytest.mark.parametrize("name", ["one outline of 5,000 corners", "one cell of 1,439 parts"])
def test_memory_is_bounded_whatever_the_polygon(tmp_path, name):
    """Both took more than 12 GB once: every position against every edge."""
    side, n_side = 2000.0, 700
    if name.startswith("one outline"):
        shape, cell_id = wavy_outline(5000, side), "a"
    else:
        centres = np.random.default_rng(6).uniform(20, side - 20, (1439, 2))
        shape, cell_id = shapely.union_all(shapely.buffer(shapely.points(centres), 8.0)), "a"
    polygons = read_geojson(write(tmp_path / "a.geojson", [shapely.geometry.mapping(shape)], cell_id=[cell_id]))
    xy_px = np.stack(np.meshgrid(*2 * [np.linspace(0, side, n_side) + 0.013]), -1).reshape(-1, 2)
    tracemalloc.start()
    found = polygon_at(polygons, xy_px)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(found == 0, shapely.contains_xy(shape, xy_px))
    assert peak < 300e6


def test_a_list_of_features_in_small_pieces(tmp_path, monkeypatch):
    shapes = star_shaped(40, 7)
    path = write(tmp_path / "b.geojson", [shapely.geometry.mapping(s) for s in shapes], cell_id=list(range(1, 41)))
    whole = read_geojson(path)
    path.write_text(json.dumps(json.loads(path.read_text())["features"], indent=1))
    monkeypatch.setattr("sge2hist.readers.geojson_features._PIECE", 97)
    pieces = read_geojson(path)
    assert pieces.ids == whole.ids == [str(number) for number in range(1, 41)]
    np.testing.assert_array_equal(pieces.corner_xy_px, whole.corner_xy_px)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
def test_a_truncated_file(tmp_path, share):
    path = write(tmp_path / "c.geojson", [shapely.geometry.mapping(s) for s in star_shaped(30, 8)])
    text = path.read_text()
    path.write_text(text[: int(len(text) * share)])
    with pytest.raises(InputError, match=r"c\.geojson"):
        read_geojson(path)


def test_damage_in_the_middle_is_found_without_reading_the_rest(tmp_path):
    path = write(tmp_path / "d.geojson", [shapely.geometry.mapping(s) for s in star_shaped(2000, 9)])
    text = path.read_text()
    middle = text.index("[", len(text) // 2)
    path.write_text(text[:middle] + "[[}" + text[middle:])
    with pytest.raises(InputError, match="damaged"):
        read_geojson(path)
