import json
import time
from pathlib import Path

import numpy as np
import pytest
import shapely
from skimage.draw import polygon as draw_polygon

from sge2hist.data.errors import InputError
from sge2hist.pairing.segmentation.polygons import bounds_px, polygon_at, runs_of_polygons
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
    start = time.monotonic()
    found = polygon_at(polygons, np.random.default_rng(0).uniform(0, 1000, (1000, 2)))
    assert set(found) <= {0, 1}
    assert time.monotonic() - start < 5


def test_no_position(tmp_path):
    assert polygon_at(read_shapes(tmp_path, [shapely.box(0, 0, 4, 4)]), np.empty((0, 2))).shape == (0,)


def test_pixels_agree_with_skimage(tmp_path):
    shape = star_shaped(1, 3, spread=1.0)[0]
    shape = shapely.affinity.translate(shape, 20.3, 18.7)
    runs = runs_of_polygons(read_shapes(tmp_path, [shape]), width_px=50, height_px=45)
    expected = np.zeros((45, 50), int)
    x, y = np.asarray(shape.exterior.coords).T
    expected[draw_polygon(y - 0.5, x - 0.5, expected.shape)] = 1  # skimage: pixel centres at whole numbers
    np.testing.assert_array_equal(runs.window(0, 0, 50, 45), expected)


def test_pixels_are_those_whose_centre_is_inside(tmp_path):
    shapes = [*star_shaped(6, 5, spread=60.0), shapely.Point(70, 70).buffer(9).difference(shapely.box(68, 68, 72, 72))]
    polygons = read_shapes(tmp_path, shapes)
    runs = runs_of_polygons(polygons, width_px=45, height_px=42, image_px=2.0)
    y, x = np.mgrid[:42, :45] * 2.0 + 1.0
    expected = np.array([shapely.contains_xy(shape, x, y).sum() for shape in shapes])
    lonely = [
        i for i in range(len(shapes)) if not any(i != j and shapes[i].intersects(s) for j, s in enumerate(shapes))
    ]
    np.testing.assert_array_equal(runs.area_px()[lonely], expected[lonely])


def test_a_list_of_features_in_small_pieces(tmp_path, monkeypatch):
    shapes = star_shaped(40, 7)
    path = write(tmp_path / "b.geojson", [shapely.geometry.mapping(s) for s in shapes], cell_id=list(range(1, 41)))
    whole = read_geojson(path)
    path.write_text(json.dumps(json.loads(path.read_text())["features"], indent=1))
    monkeypatch.setattr("sge2hist.readers.geojson._PIECE", 97)
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
