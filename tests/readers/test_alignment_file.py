"""Every form in which other programs state a map is read as the same matrix."""

import json
from pathlib import Path

import numpy as np
import pytest

from sge2hist.data.errors import InputError
from sge2hist.readers.alignment_file import read_alignment_file, refuse_other_reading

MATRIX = np.array([[2.0, 0.5, 40.0], [-0.3, 1.5, -70.0], [0, 0, 1]])  # px of the image -> cells
(A, B, TX), (C, D, TY) = MATRIX[:2]
IMAGE_XY = np.array([[10.0, 20], [900, 40], [880, 700], [30, 650], [400, 300]])
CELLS_XY = IMAGE_XY @ MATRIX[:2, :2].T + MATRIX[:2, 2]


def rows(*columns: np.ndarray) -> str:
    return "".join(",".join(map(repr, map(float, row))) + "\n" for row in np.hstack(columns))


FORMS = {
    "xenium explorer": rows(MATRIX),
    "two rows, tabs": f"{A}\t{B}\t{TX}\n{C}\t{D}\t{TY}\n",
    "qupath text": f"{A}, \t {B},\t {TX},\n{C},\t {D},\t {TY}",
    "qupath json": json.dumps({"transforms": [{"m00": A, "m10": C, "m01": B, "m11": D, "m02": TX, "m12": TY}]}),
    "java": f"AffineTransform[[{A}, {B}, {TX}], [{C}, {D}, {TY}]]",
    "keypoints": "fixedX,fixedY,alignmentX,alignmentY\n" + rows(CELLS_XY, IMAGE_XY),
    "keypoints, byte order mark": "\ufefffixedX,fixedY,alignmentX,alignmentY\n" + rows(CELLS_XY, IMAGE_XY),
    "bigwarp": "".join(
        f'"Pt-{i}","true","{x}","{y}","{u}","{v}"\n'
        for i, ((x, y), (u, v)) in enumerate(zip(IMAGE_XY, CELLS_XY, strict=True))
    )
    + '"Pt-5","false","1","2","300","4"\n"Pt-6","true","7","8","Infinity","Infinity"\n',
    "bigwarp 3d": "".join(
        f'"Pt-{i}","true","{x}","{y}","0.0","{u}","{v}","0.0"\n'
        for i, ((x, y), (u, v)) in enumerate(zip(IMAGE_XY, CELLS_XY, strict=True))
    ),
    "register virtual stack slices": f'<iict_transform class="mpicbg.trakem2.transform.AffineModel2D" '
    f'data="{A} {C} {B} {D} {TX} {TY}" />',
    "trakem2": f'<t2_layer><t2_patch transform="matrix({A},{C},{B},{D},{TX},{TY})"/>'
    '<t2_patch transform="matrix(1.0,0.0,0.0,1.0,0.0,0.0)"/></t2_layer>',
    "napari layer": json.dumps({"name": "he", "affine": [[D, C, TY], [B, A, TX], [0, 0, 1]]}),
    "alignment.json": json.dumps({"kind": "alignment", "version": 1, "image_to_cells": MATRIX.tolist()}),
}


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_are_one_map(tmp_path: Path, form: str) -> None:
    path = tmp_path / "map.txt"
    path.write_text(FORMS[form], encoding="utf-8")
    np.testing.assert_allclose(read_alignment_file(path).image_to_cells, MATRIX, atol=1e-9)


def test_napari_scale_and_translation_come_before_the_affine(tmp_path: Path) -> None:
    path = tmp_path / "layer.json"
    path.write_text(json.dumps({"affine": [[1, 0, 5], [0, 2, 7], [0, 0, 1]], "scale": [3, 4], "translate": [10, 20]}))
    # row r, column c -> world row 3 r + 10 + 5, column 2 (4 c + 20) + 7
    expected = [[8, 0, 47], [0, 3, 15], [0, 0, 1]]
    np.testing.assert_allclose(read_alignment_file(path).image_to_cells, expected)
    path.write_text(json.dumps({"affine": np.eye(3).tolist(), "rotate": 30.0}))
    with pytest.raises(InputError, match="a layer with rotate"):
        read_alignment_file(path)


def test_two_point_files_of_napari(tmp_path: Path) -> None:
    for name, points in (("image.csv", IMAGE_XY), ("cells.csv", CELLS_XY)):
        numbered = np.column_stack([np.arange(len(points)), points[:, ::-1]])
        np.savetxt(tmp_path / name, numbered, delimiter=",", header="index,axis-0,axis-1", comments="")
    both = f"{tmp_path / 'image.csv'},{tmp_path / 'cells.csv'}"
    np.testing.assert_allclose(read_alignment_file(both).image_to_cells, MATRIX, atol=1e-9)
    (tmp_path / "cells.csv").write_text("index,axis-0,axis-1\n0,1,2\n")
    with pytest.raises(InputError, match="5 points on the image and 1 on the cells"):
        read_alignment_file(both)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "another form"),
        ("1,0\n0,1\n", r"rows of 2 \+ 2 numbers"),
        ("1,0\n0,1\n5,6\n", r"rows of 2 \+ 2 \+ 2 numbers"),  # the transposed 2 x 3: not read as if it were right
        ("1,0,0\n0,0,0\n0,0,1\n", "without an inverse"),
        ("1,0,0\n0,1,0\n0.1,0,1\n", "a last row"),
        ("hello, world\n", "another form"),
        ('{"a": 1}', "JSON without a map"),
        ('{"a": ', "cannot be read"),
        ('{"kind": "alignment", "image_to_cells": [[1, 2]]}', "3 x 3 or 2 x 3"),
        ("<a/>", "0 affine transforms"),
        ('<a transform="matrix(1,0,0,1,5,5)"/><a transform="matrix(2,0,0,2,5,5)"/>', "2 affine transforms"),
        ("fixedX,fixedY,alignmentX\n1,2,3\n", "no column alignmentY"),
        ("fixedX,fixedY,alignmentX,alignmentY\n1,2,3,\n", "empty keypoint"),
        ("fixedX,fixedY,alignmentX,alignmentY\n1,2,3,4\n5,6,7,8\n", "2 keypoints on one line"),
        ("fixedX,fixedY,alignmentX,alignmentY\n0,0,1,1\n9,0,0,9\n0,9,3,3\n9,9,0,0\n", "miss each other"),
    ],
)
def test_what_is_no_map_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(InputError, match=message):
        read_alignment_file(tmp_path / "a.csv")
    with pytest.raises(InputError, match="no such file"):
        read_alignment_file(tmp_path / "b.csv")


def test_a_map_read_the_wrong_way_is_named() -> None:
    def lands(matrix: np.ndarray) -> float:
        return float(np.allclose(matrix, MATRIX))

    refuse_other_reading(lands, MATRIX, "a.csv")
    with pytest.raises(InputError, match=r"maps the cells to the image.*give the inverse"):
        refuse_other_reading(lands, np.linalg.inv(MATRIX), "a.csv")
    order = [1, 0, 2]
    with pytest.raises(InputError, match=r"rows before columns.*swap"):
        refuse_other_reading(lands, MATRIX[np.ix_(order, order)], "a.csv")
    refuse_other_reading(lambda _: 0.2, MATRIX, "a.csv")  # no reading hits: the image check says so
