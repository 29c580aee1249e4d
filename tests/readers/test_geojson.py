"""Polygon files of other programs: which features are cells, under which ids; packed files; what is ignored is said."""

import gzip
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely

from sge2hist.data.annotations import class_name, read_annotations
from sge2hist.data.errors import InputError
from sge2hist.readers.geojson import Polygons, read_geojson


def disc(x: float, y: float, radius: float = 4.0) -> shapely.Polygon:
    return shapely.Point(x, y).buffer(radius)


def feature(shape: Any, *, id: str | None = None, nucleus: Any = None, **properties: Any) -> dict[str, Any]:
    """One feature as QuPath writes it; `shape` is a geometry of shapely, or one as JSON, or None."""

    def written(geometry: Any) -> Any:
        return shapely.geometry.mapping(geometry) if isinstance(geometry, shapely.Geometry) else geometry

    out: dict[str, Any] = {"type": "Feature", "geometry": written(shape), "properties": properties}
    if id is not None:
        out["id"] = id
    if nucleus is not None:
        out["nucleusGeometry"] = written(nucleus)
    return out


def write(path: Path, features: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def read(tmp_path: Path, features: list[dict[str, Any]]) -> Polygons:
    return read_geojson(write(tmp_path / "a.geojson", features))


def grid(n: int) -> list[shapely.Polygon]:
    return [disc(20 + 20 * (i % 40), 20 + 20 * (i // 40)) for i in range(n)]


def centres(polygons: Polygons) -> list[list[float]]:
    return polygons.area_px2_and_centroid()[1].round(6).tolist()


def test_a_multipolygon_of_a_class_is_one_cell_per_part(tmp_path):
    """As CellViT exports: one annotation per class."""
    nuclei = grid(1439)
    features = [
        feature(
            shapely.MultiPolygon(part),
            id=name,
            objectType="annotation",
            classification={"name": name, "color": [1, 2, 3]},
        )
        for name, part in (("Neoplastic", nuclei[:1000]), ("Dead", nuclei[1000:1001]), ("Epithelial", nuclei[1001:]))
    ]
    polygons = read(tmp_path, features)
    assert len(polygons) == 1439 == len(set(polygons.ids))
    assert polygons.ids[0] == "Neoplastic_1"
    assert polygons.ids[1000:1002] == ["Dead", "Epithelial_1"]
    assert polygons.classes == ["Neoplastic"] * 1000 + ["Dead"] + ["Epithelial"] * 438
    np.testing.assert_allclose(centres(polygons), [[p.centroid.x, p.centroid.y] for p in nuclei], atol=1e-5)
    assert any("2 MultiPolygons" in note and "1,438 cells" in note for note in polygons.notes)


TWO = shapely.MultiPolygon([disc(20, 20), disc(29, 20)])
FAR = shapely.MultiPolygon([disc(20, 20), disc(90, 20)])


@pytest.mark.parametrize(
    ("shape", "properties", "n_cells"),
    [
        (FAR, {"cell_id": 7}, 1),  # a cell's own id: its pieces are one cell, wherever they lie
        (FAR, {"cell": 7}, 1),  # proseg
        (FAR, {"label": 7}, 1),
        (FAR, {"label": "Tumor", "classification": "Tumor"}, 2),  # the name of a class is no cell's id
        (TWO, {"objectType": "annotation"}, 2),
        (TWO, {"classification": {"name": "Tumor"}}, 2),
        (FAR, {"objectType": "detection", "classification": {"name": "Tumor"}}, 1),
        (shapely.MultiPolygon(grid(21)), {"objectType": "detection"}, 21),
        (TWO, {}, 1),  # geopandas: pieces that lie together
        (FAR, {}, 2),
    ],
)
def test_when_a_multipolygon_is_one_cell(tmp_path, shape, properties, n_cells):
    polygons = read(tmp_path, [feature(shape, **properties)])
    assert len(polygons) == n_cells
    area = polygons.area_px2_and_centroid()[0]
    assert area.sum() == pytest.approx(shape.area)
    assert bool(polygons.notes) == (n_cells > 1)


def test_qupath_cells_are_read_and_what_lies_beside_them_is_not(tmp_path):
    """Parent annotation, cells with nuclei, a subcellular detection, a measured line: names repeat, ids do not."""
    cells = grid(30)
    nuclei = [disc(p.centroid.x + 1, p.centroid.y, 2.0) for p in cells]
    features = [
        feature(shapely.box(0, 0, 900, 100), id="r", objectType="annotation", name="Tissue"),
        *(
            feature(cell, id=f"u-{i}", nucleus=nucleus, objectType="cell", name="Cell", isLocked=False)
            for i, (cell, nucleus) in enumerate(zip(cells, nuclei, strict=True))
        ),
        feature(disc(20, 20, 1), id="s", objectType="detection", name="Subcellular spot"),
        feature(shapely.LineString([(0, 0), (50, 50)]), id="l", objectType="annotation"),
    ]
    polygons = read(tmp_path, features)
    assert polygons.ids == [f"u-{i}" for i in range(30)]
    assert polygons.area_px2_and_centroid()[0] == pytest.approx([cell.area for cell in cells])
    assert polygons.nuclei is not None
    assert polygons.nuclei.ids == polygons.ids
    assert polygons.nuclei.area_px2_and_centroid()[0] == pytest.approx([nucleus.area for nucleus in nuclei])
    assert polygons.notes == [
        "1 LineString ignored: only polygons are outlines",
        "1 annotation, 1 detection ignored: the 30 cells are the cells",
    ]


@pytest.mark.parametrize("at", [0, 15, 30])
@pytest.mark.parametrize("object_type", ["annotation", None])
def test_a_region_is_no_cell_wherever_it_stands(tmp_path, at, object_type):
    cells = grid(30)
    shapes = [*cells[:at], shapely.box(0, 0, 900, 100), *cells[at:]]
    properties = {} if object_type is None else {"objectType": object_type}
    polygons = read(tmp_path, [feature(shape, id=str(i), **properties) for i, shape in enumerate(shapes)])
    assert str(at) not in polygons.ids
    assert centres(polygons) == [[round(p.centroid.x, 6), round(p.centroid.y, 6)] for p in cells]
    assert polygons.notes == ["1 outline ignored: it holds the centres of 30 others, a region and no cell"]


def test_a_large_cell_is_no_region(tmp_path):
    """It holds the centre of one other; and whatever has a cell_id is a cell."""
    shapes = [*grid(30), disc(20, 20, 15)]
    assert len(read(tmp_path, [feature(shape) for shape in shapes])) == 31
    shapes = [*grid(30), disc(30, 30, 60)]
    assert len(read(tmp_path, [feature(shape) for shape in shapes])) == 30
    assert len(read(tmp_path, [feature(shape, cell_id=i) for i, shape in enumerate(shapes)])) == 31


def test_what_is_no_polygon_is_ignored_and_counted(tmp_path):
    features = [
        feature(shapely.Point(3, 3)),
        feature(shapely.LineString([(0, 0), (1, 1)])),
        feature(None),
        feature(shapely.LineString([(0, 0), (1, 1)])),
        feature({"type": "Polygon", "coordinates": []}),
        feature({"type": "Polygon", "coordinates": [[[1, 1], [2, 2], [1, 1]]]}),
        feature(shapely.GeometryCollection([disc(20, 20), shapely.LineString([(0, 0), (1, 1)])])),
        feature(disc(60, 20)),
    ]
    polygons = read(tmp_path, features)
    assert centres(polygons) == [[20, 20], [60, 20]]
    for words in ("2 LineStrings", "1 Point,", "1 feature without geometry", "1 empty outline", "fewer than three"):
        assert any(words in note for note in polygons.notes), words
    with pytest.raises(InputError, match=r"2 LineStrings, 1 Point.*FeatureCollection of polygons"):
        read(tmp_path, features[:4])
    with pytest.raises(InputError, match="1 tile ignored"):
        read(tmp_path, [feature(disc(20, 20), objectType="tile")])


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([{"id": "a", "name": "N"}, {"id": "b", "name": "N"}], ["a", "b"]),
        ([{"id": "PathDetectionObject", "name": "x"}, {"id": "PathDetectionObject", "name": "y"}], ["x", "y"]),
        ([{"name": "N"}, {"name": "N"}], ["1", "2"]),
        ([{"id": "", "name": "N"}, {"id": "", "name": "M"}], ["N", "M"]),
        ([{"cell_id": 3, "id": "a"}, {"cell_id": 9, "id": "b"}], ["3", "9"]),
        ([{"cell_id": None, "id": "a"}, {"cell_id": 9, "id": "b"}], ["a", "b"]),
        ([{}, {}], ["1", "2"]),
    ],
)
def test_ids_are_unique(tmp_path, fields, expected):
    polygons = read(tmp_path, [feature(shape, **values) for shape, values in zip(grid(2), fields, strict=True)])
    assert polygons.ids == expected


def test_a_cell_id_that_repeats_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"repeated cell ids \(1, e.g. 4\)"):
        read(tmp_path, [feature(shape, cell_id=4, id=str(i)) for i, shape in enumerate(grid(2))])


def test_derived_classes_of_qupath():
    assert class_name({"classification": {"names": ["Tumor", "Positive"], "color": [1, 2, 3]}}) == "Tumor: Positive"
    assert class_name({"classification": {"name": "Tumor"}}) == class_name({"classification": "Tumor"}) == "Tumor"
    assert class_name({"classification": {}}) is class_name({}) is None


@pytest.mark.parametrize("packing", ["gz", "zip", "zip with the finder's folder", "BOM"])
def test_packed_files(tmp_path, packing):
    plain = write(tmp_path / "cells.geojson", [feature(shape) for shape in grid(5)])
    path = tmp_path / ("cells.zip" if packing.startswith("zip") else "cells.geojson.gz")
    if packing == "gz":
        path.write_bytes(gzip.compress(plain.read_bytes()))
    elif packing == "BOM":
        path.write_bytes(b"\xef\xbb\xbf" + plain.read_bytes())
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(plain, "folder/cells.geojson")
            if "finder" in packing:
                archive.writestr("__MACOSX/folder/._cells.geojson", b"\x00")
    np.testing.assert_array_equal(read_geojson(path).corner_xy_px, read_geojson(plain).corner_xy_px)
    assert read_annotations(path) == read_annotations(plain)


def test_packed_files_that_cannot_be_read(tmp_path):
    plain = write(tmp_path / "cells.geojson", [feature(shape) for shape in grid(50)])
    path = tmp_path / "cells.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(plain, "a.geojson")
        archive.write(plain, "b.geojson")
    cut = tmp_path / "cut.geojson.gz"
    cut.write_bytes(gzip.compress(plain.read_bytes())[:-200])
    broken = tmp_path / "broken.zip"
    broken.write_bytes(path.read_bytes()[:-30])
    for reader in (read_geojson, read_annotations):
        with pytest.raises(InputError, match=r"2 files ending in .geojson or .json \(a.geojson, b.geojson\)"):
            reader(path)
        for damaged in (cut, broken):
            with pytest.raises(InputError, match=damaged.name):
                reader(damaged)


def test_one_feature_without_a_collection(tmp_path):
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps(feature(disc(5, 5))))
    assert centres(read_geojson(path)) == [[5, 5]]


def test_a_feature_longer_than_a_piece_is_decoded_few_times(tmp_path, monkeypatch):
    path = write(tmp_path / "a.geojson", [feature(shapely.MultiPolygon(grid(400)), objectType="annotation")])
    monkeypatch.setattr("sge2hist.readers.geojson_features._PIECE", 1000)
    tried = []
    decode = json.JSONDecoder.raw_decode
    monkeypatch.setattr(json.JSONDecoder, "raw_decode", lambda *args: (tried.append(1), decode(*args))[1])
    assert len(read_geojson(path)) == 400
    assert len(tried) <= np.log2(path.stat().st_size / 1000) + 3
