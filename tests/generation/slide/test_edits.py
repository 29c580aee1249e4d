"""Edits of a slide, read from annotations."""

import json

import numpy as np
import pytest

from sge2hist.data.errors import InputError
from sge2hist.generation.slide.edits import Edit, check_edits, gene_edit, read_edits
from sge2hist.models.bundle import ModelBundle


def test_an_edit_file_from_qupath(tmp_path):
    square = [[[0, 0], [10, 0], [10, 20], [0, 20], [0, 0]]]
    features = [
        {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": square}, "properties": properties}
        for properties in (
            {"objectType": "annotation", "classification": {"name": "Podocyte", "color": [1, 2, 3]}},
            {"classification": {"name": "Remove"}},
            {"gene": "UMOD", "factor": 3},
        )
    ]
    path = tmp_path / "edits.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    edits = read_edits(path, 2.0)
    assert [(e.set_type, e.remove, e.gene, e.factor) for e in edits] == [
        ("Podocyte", False, None, 0.0),
        (None, True, None, 0.0),
        (None, False, "UMOD", 3),
    ]
    assert edits[0].covers(np.array([[19.0, 39.0], [21.0, 39.0]])).tolist() == [True, False]
    assert len({edit.fingerprint() for edit in edits}) == 3
    features[0]["properties"] = {}
    features[1]["geometry"] = {"type": "Point", "coordinates": [1, 2]}
    path.write_text(json.dumps(features))
    with pytest.raises(InputError, match=r"2 problems(.|\n)*feature 0(.|\n)*feature 1"):
        read_edits(path, 2.0)
    assert gene_edit("UMOD=0") == Edit(gene="UMOD", factor=0.0)
    for wrong in ("UMOD", "UMOD=x", "=2", "UMOD=-1"):
        with pytest.raises(InputError, match="GENE=FACTOR"):
            gene_edit(wrong)


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ({"classification": {"name": "Immune"}, "spacing_um": 12}, "spacing_um without add_type"),
        ({"factor": 0}, "factor without gene"),
        ({"remove": "false"}, "remove is 'false'"),
        ({"remove": False}, "remove is false"),
        ({"set_type": 5}, "set_type is 5"),
        ({"set_type": "Podocyte", "addtype": "x"}, "addtype"),
        ({"set_type": "Podocyte", "add_type": "Immune"}, "two features"),
        ({"gene": "UMOD", "factor": float("nan")}, "factor is 0 to"),
        ({"gene": "UMOD", "factor": 1e30}, "factor is 0 to"),
        ({"add_type": "Immune", "spacing_um": float("inf")}, "spacing_um above 0"),
    ],
)
def test_a_feature_that_would_do_nothing_or_the_opposite_is_refused(tmp_path, properties, message):
    square = {"type": "Polygon", "coordinates": [[[0, 0], [9, 0], [9, 9], [0, 9], [0, 0]]]}
    feature = {"type": "Feature", "geometry": square, "properties": properties}
    path = tmp_path / "edits.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    with pytest.raises(InputError, match=message):
        read_edits(path, 1.0)


def test_without_a_polygon_only_genes_are_changed(tmp_path):
    path = tmp_path / "edits.geojson"
    for properties, fine in (({"gene": "UMOD"}, True), ({"classification": {"name": "remove"}}, False)):
        path.write_text(
            json.dumps(
                {
                    "type": "FeatureCollection",
                    "features": [{"type": "Feature", "geometry": None, "properties": properties}],
                }
            )
        )
        if fine:
            assert read_edits(path, 1.0)[0].gene == "UMOD"
        else:
            with pytest.raises(InputError, match="only a gene"):
                read_edits(path, 1.0)


@pytest.mark.parametrize("geometry_type", ["Circle", "Polygon"])
def test_an_invalid_geometry_is_refused(tmp_path, geometry_type):
    geometry = {"type": geometry_type, "coordinates": [[[0, 0], [float("nan"), 0], [9, 9], [0, 0]]]}
    path = tmp_path / "edits.geojson"
    feature = {"type": "Feature", "geometry": geometry, "properties": {"set_type": "Podocyte"}}
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    with pytest.raises(InputError, match="feature 0"):
        read_edits(path, 1.0)


@pytest.mark.parametrize("value", ["UMOD=nan", "UMOD=inf", "UMOD=1e30", "UMOD=-1", "UMOD", "=2"])
def test_a_gene_factor_that_is_none_is_refused(value):
    with pytest.raises(InputError, match="GENE=FACTOR"):
        gene_edit(value)


def test_edits_that_meet_no_cell_are_refused(tiny_model):
    import shapely

    bundle = ModelBundle.load(tiny_model)
    name = bundle.types.names[0]
    xy = np.array([[10.0, 10.0], [20.0, 20.0]])
    check_edits([Edit(area=shapely.box(5, 5, 15, 15), set_type=name)], bundle, bundle.genes, xy)
    check_edits([Edit(area=shapely.box(50, 50, 90, 90), add_type=name)], bundle, bundle.genes, xy)
    with pytest.raises(InputError, match="no cell lies in"):
        check_edits([Edit(area=shapely.box(50, 50, 90, 90), set_type=name)], bundle, bundle.genes, xy)
    with pytest.raises(InputError, match="no room in the polygon"):
        check_edits([Edit(area=shapely.box(50, 50, 52, 52), add_type=name, spacing_um=500)], bundle, bundle.genes, xy)
