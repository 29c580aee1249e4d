"""Xenium: every form of ids, image axes and alignment gives the cells that were written."""

import json
from pathlib import Path

import numpy as np
import pytest

from fixtures.tissue import make_tissue
from fixtures.xenium import alignment_matrix, write_xenium
from sge2hist.data.errors import InputError
from sge2hist.pairing.alignment.image_checks import check_image
from sge2hist.readers.detect import detect_format
from sge2hist.readers.tenx import xenium, xenium_alignment


@pytest.mark.parametrize("quarter_turns", range(4))
@pytest.mark.parametrize(
    ("axes", "alignment", "ids"),
    [
        ("SYX", "matrix", "string"),
        ("1YXS", "keypoints", "bytes"),
        ("YXS", "matrix", "integer"),
        ("AYX", "matrix", "string"),
    ],
)
def test_cells_equal_what_was_written(tmp_path: Path, quarter_turns: int, axes: str, alignment: str, ids: str) -> None:
    tissue = make_tissue()
    matrix = alignment_matrix(tissue.um_per_px, quarter_turns=quarter_turns, shift_px=(900, 1200))
    truth = write_xenium(tissue, tmp_path / "x", he_to_dapi=matrix, axes=axes, alignment=alignment, ids=ids)  # type: ignore[arg-type]
    section = xenium.read(truth.folder)
    assert list(section.obs.index) == truth.cell_ids
    assert section.centre_xy_px == pytest.approx(tissue.centre_xy_px, abs=1e-6)
    assert section.um_per_px == pytest.approx(0.5)
    assert (section.read_counts(None, None).toarray() == tissue.counts_NG).all()
    assert list(section.genes.index) == tissue.gene_ids
    assert (section.image.as_array() == tissue.image).all()
    assert section.obs["nucleus_area_um2"].to_numpy() == pytest.approx(np.pi * tissue.radius_um**2)
    checked, warnings = check_image(section)
    assert warnings == []
    assert checked.software == "Xenium Onboard Analysis 3.0.0.15"


def test_an_unaligned_image_needs_the_word_of_the_user(tmp_path: Path) -> None:
    tissue = make_tissue(um_per_px=0.2125)
    truth = write_xenium(tissue, tmp_path / "x", he_to_dapi=np.eye(3), alignment="none")
    with pytest.raises(InputError, match=r"0 alignment files.*--alignment identity"):
        xenium.read(truth.folder)
    section = xenium.read(truth.folder, alignment="identity")
    assert section.centre_xy_px == pytest.approx(tissue.centre_xy_px)


def test_the_inverse_matrix_is_recognised(tmp_path: Path) -> None:
    tissue = make_tissue()
    truth = write_xenium(tissue, tmp_path / "x", he_to_dapi=alignment_matrix(0.5, shift_px=(5000, 0)))
    path = truth.folder / "fixture_he_imagealignment.csv"
    np.savetxt(path, np.linalg.inv(truth.he_to_dapi), delimiter=",")
    with pytest.raises(InputError, match=r"maps the cells to the image.*give the inverse matrix"):
        xenium.read(truth.folder)


def test_another_alignment_puts_the_cells_outside(tmp_path: Path) -> None:
    truth = write_xenium(make_tissue(), tmp_path / "x")
    path = truth.folder / "fixture_he_imagealignment.csv"
    np.savetxt(path, alignment_matrix(0.5, shift_px=(9000, 9000)), delimiter=",")
    with pytest.raises(InputError, match="100% of the cells outside the image"):
        check_image(xenium.read(truth.folder))


def test_a_stretch_of_the_keypoints_is_fitted_over_all_of_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    moving = rng.uniform(0, 2000, (9, 2))
    matrix = np.array([[2.1, 0.3, 40], [-0.2, 1.9, -70], [0, 0, 1]])
    fixed = (np.column_stack([moving, np.ones(9)]) @ matrix.T)[:, :2] + rng.normal(0, 2.0, (9, 2))
    rows = np.hstack([fixed, moving])
    header = "fixedX,fixedY,alignmentX,alignmentY"
    np.savetxt(tmp_path / "k.csv", rows, delimiter=",", header=header, comments="")
    fitted = xenium_alignment.read_alignment(tmp_path / "k.csv")
    assert fitted.scale == pytest.approx(np.sqrt(np.linalg.det(matrix[:2, :2])), rel=2e-3)
    assert np.linalg.norm(fitted.from_he(moving) - fixed, axis=1).mean() < 4
    np.savetxt(tmp_path / "k.csv", rng.permutation(rows[:, :2]).tolist(), delimiter=",", header=header, comments="")
    with pytest.raises(InputError, match=r"no column|miss each other|empty keypoint"):
        xenium_alignment.read_alignment(tmp_path / "k.csv")
    rows[:, :2] = rng.permutation(rows[:, :2])
    np.savetxt(tmp_path / "k.csv", rows, delimiter=",", header=header, comments="")
    with pytest.raises(InputError, match="keypoints that miss each other"):
        xenium_alignment.read_alignment(tmp_path / "k.csv")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1,0\n0,1\n", r"rows of 2 \+ 2 numbers"),
        ("1,0,0\n0,0,0\n0,0,1\n", "without an inverse"),
        ("1,0,0\n0,x,0\n0,0,1\n", "another form"),
        ("fixedX,fixedY,alignmentX\n1,2,3\n", "no column alignmentY"),
        ("fixedX,fixedY,alignmentX,alignmentY\n1,2,3,4\n5,6,7,8\n", "2 keypoints on one line"),
        ("", "another form"),
    ],
)
def test_alignment_files_that_are_none(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(InputError, match=message):
        xenium_alignment.read_alignment(tmp_path / "a.csv")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    folder = write_xenium(make_tissue(), tmp_path / "x").folder
    image = folder / "fixture_he_image.ome.tif"
    image.rename(folder / "other.tif")
    with pytest.raises(InputError, match=r"0 H&E images.*--image"):
        xenium.read(folder)
    assert xenium.read(folder, image=folder / "other.tif").n_obs == 24
    (folder / "cells.parquet").rename(folder / "cells.bak")
    with pytest.raises(InputError, match=r"cells\.parquet.*no such file"):
        xenium.read(folder, image=folder / "other.tif")
    (folder / "cells.bak").rename(folder / "cells.parquet")
    (folder / "experiment.xenium").write_text(json.dumps({"pixel_size": "small"}))
    with pytest.raises(InputError, match="pixel_size 'small'"):
        xenium.read(folder, image=folder / "other.tif")


@pytest.mark.parametrize("given", ["run", "run/outs"])
def test_a_prefix_and_a_level_above_are_found(tmp_path: Path, given: str) -> None:
    tissue = make_tissue()
    truth = write_xenium(tissue, tmp_path / "run" / "outs")
    for name in ("experiment.xenium", "cells.parquet", "cell_feature_matrix.h5"):
        (truth.folder / name).rename(truth.folder / f"Xenium_V1_Kidney_{name}")
    assert detect_format(tmp_path / given).format == "xenium"
    section = xenium.read(tmp_path / given)
    assert (section.read_counts(None, None).toarray() == tissue.counts_NG).all()


def test_cells_of_another_run_are_refused(tmp_path: Path) -> None:
    folder = write_xenium(make_tissue(), tmp_path / "x").folder
    other = write_xenium(make_tissue(), tmp_path / "y", ids="integer").folder
    (other / "cells.parquet").replace(folder / "cells.parquet")
    with pytest.raises(InputError, match="24 cells of the matrix without a position"):
        xenium.read(folder)
