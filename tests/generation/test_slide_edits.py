"""Edits of a slide, read from annotations."""

import json

import numpy as np
import pytest

from sge2hist.data.errors import InputError
from sge2hist.generation.slide_edits import Edit, gene_edit, read_edits


def test_an_edit_file_from_qupath(tmp_path):
    square = [[[0, 0], [10, 0], [10, 20], [0, 20], [0, 0]]]
    features = [
        {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": square}, "properties": said}
        for said in (
            {"objectType": "annotation", "classification": {"name": "Podocyte", "color": [1, 2, 3]}},
            {"classification": {"name": "Remove"}},
            {"gene": "UMOD", "factor": 3},
        )
    ]
    path = tmp_path / "edits.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    edits = read_edits(path, 2.0)
    assert [(e.set_type, e.remove, e.gene, e.factor) for e in edits] == [
        ("Podocyte", False, None, 0.0), (None, True, None, 0.0), (None, False, "UMOD", 3),
    ]  # fmt: skip
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
