"""Visium v1/v2: spots, positions and scale of both generations of Space Ranger."""

import json
from pathlib import Path

import pytest

from fixtures.visium import write_visium
from sge2hist.data.errors import InputError
from sge2hist.pairing.alignment.image_checks import check_image
from sge2hist.readers.tenx import visium


@pytest.mark.parametrize(
    ("space_ranger", "header", "prefix"),
    [("1.3.1", None, ""), ("1.3.1", True, ""), ("2.1.0", None, "V1_Sample_"), ("3.0.0", None, "")],
)
def test_spots_equal_what_was_written(tmp_path: Path, space_ranger: str, header: bool | None, prefix: str) -> None:
    truth = write_visium(tmp_path / "run", space_ranger=space_ranger, full_header=header, prefix=prefix)
    section = visium.read(truth.outs, image=truth.image)
    assert list(section.obs.index) == truth.barcodes
    assert section.centre_xy_px == pytest.approx(truth.tissue.centre_xy_px, abs=1e-3)
    assert (section.read_counts(None, None).toarray() == truth.tissue.counts_NG).all()
    assert section.obs[["array_row", "array_col"]].to_numpy().tolist() == truth.array_rowcol.tolist()
    assert section.name == "run"
    assert space_ranger in section.software
    assert check_image(section)[1] == [
        "2 um/px is coarse: nuclei are dots of a few pixels; if a finer H&E exists, give it"
    ]


def test_the_scale_comes_from_the_pitch_not_from_the_spot_diameter(tmp_path: Path) -> None:
    truth = write_visium(tmp_path, um_per_px=0.7)
    factors = json.loads((truth.outs / "spatial" / "scalefactors_json.json").read_text())
    assert 55.0 / factors["spot_diameter_fullres"] != pytest.approx(0.7, rel=0.1)
    section = visium.read(tmp_path, image=truth.image)
    assert section.um_per_px == pytest.approx(0.7, rel=1e-5)
    assert visium.read(tmp_path, image=truth.image, um_per_px=0.71).um_per_px == 0.71


def test_without_the_filtered_matrix_spots_in_tissue_are_taken_from_the_raw_one(tmp_path: Path) -> None:
    truth = write_visium(tmp_path)
    (truth.outs / "filtered_feature_bc_matrix.h5").unlink()
    section = visium.read(tmp_path, image=truth.image)
    assert list(section.obs.index) == truth.barcodes
    assert (section.read_counts(None, None).toarray() == truth.tissue.counts_NG).all()


def test_a_mirrored_array_is_noted(tmp_path: Path) -> None:
    truth = write_visium(tmp_path)
    path = truth.outs / "spatial" / "tissue_positions.csv"
    path.write_text(
        path.read_text().replace("pxl_row", "pxl_tmp").replace("pxl_col", "pxl_row").replace("pxl_tmp", "pxl_col")
    )
    section = visium.read(tmp_path, image=truth.image)
    assert any("x and y are swapped" in note for note in section.notes)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda spatial: (spatial / "tissue_positions.csv").unlink(), "no spatial/tissue_positions.csv"),
        (lambda spatial: (spatial / "tissue_positions.csv").write_text("a,b\n1,2\n"), "2 columns"),
        (lambda spatial: _first_lines(spatial, 10), "38 of 47 barcodes without a position|without a position"),
        (lambda spatial: (spatial / "tissue_positions.csv").write_bytes(b"\xff\xfe\x00"), "cannot be read|columns"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, damage: object, message: str) -> None:
    truth = write_visium(tmp_path)
    damage(truth.outs / "spatial")  # type: ignore[operator]
    with pytest.raises(InputError, match=message):
        visium.read(tmp_path, image=truth.image)


def _first_lines(spatial: Path, n_lines: int) -> None:
    path = spatial / "tissue_positions.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:n_lines]) + "\n")
