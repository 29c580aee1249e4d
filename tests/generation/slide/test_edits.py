"""Edits of a slide, read from annotations."""

import json

import numpy as np
import pytest

from sge2hist.data.errors import InputError
from sge2hist.generation.slide.edits import Edit, edits_of, gene_edit, read_edits


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
    "classification", ["Tumor", {"name": "Tumor"}, {"names": ["Tumor"]}, {"name": None, "names": ["Tumor"]}]
)
def test_every_spelling_of_a_class_is_the_new_type(classification):
    square = {"type": "Polygon", "coordinates": [[[0, 0], [9, 0], [9, 9], [0, 9], [0, 0]]]}
    feature = {"type": "Feature", "geometry": square, "properties": {"classification": classification}}
    assert [edit.set_type for edit in edits_of([feature], 1.0, "here")] == ["Tumor"]


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


def test_cells_types_counts_moves_and_points():
    def of(properties, geometry=None):
        (edit,) = edits_of([{"type": "Feature", "geometry": geometry, "properties": properties}], 2.0)
        return edit

    assert of({"cells": ["a", "b"], "gene": "UMOD", "counts": 12, "name": "more"}) == Edit(
        cells=("a", "b"), gene="UMOD", counts=12
    )
    assert of({"of_type": "Podocyte", "remove": True}) == Edit(of_type="Podocyte", remove=True)
    assert of({"cells": ["a"], "move_um": [3, -4.5]}) == Edit(cells=("a",), move_um=(3.0, -4.5))
    points = {"type": "MultiPoint", "coordinates": [[1, 2], [3.5, 4]]}
    assert of({"add_type": "Immune"}, points) == Edit(add_type="Immune", at_um=((2.0, 4.0), (7.0, 8.0)))


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ({"cells": [], "remove": True}, "no list of ids"),
        ({"cells": [5], "remove": True}, "no list of ids"),
        ({"cells": "a", "remove": True}, "cells is 'a'"),
        ({"gene": "UMOD", "factor": 1, "counts": 2}, "choose one"),
        ({"gene": "UMOD", "counts": float("inf")}, "counts is 0 to"),
        ({"gene": "UMOD", "counts": -1}, "counts is 0 to"),
        ({"counts": 3}, "counts without gene"),
        ({"cells": ["a"], "move_um": [1]}, "feature 0"),
        ({"cells": ["a"], "move_um": [1, float("nan")]}, "no two numbers"),
        ({"cells": ["a"]}, "neither a class nor a property"),
        ({"add_type": "Immune"}, "no cell can be added"),
        ({"remove": True}, "only a gene"),
    ],
)
def test_scopes_and_numbers_that_make_no_sense_are_refused(properties, message):
    with pytest.raises(InputError, match=message):
        edits_of([{"type": "Feature", "geometry": None, "properties": properties}], 1.0)
