"""`prepare --alignment`: cells land where they were painted, by a file or by registration; maps are written and given back."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile

from fixtures.anndata_image import write_anndata
from fixtures.stained_cells import map_matrix, on_image, stained_tissue
from fixtures.tissue import make_tissue
from fixtures.visium_hd import write_visium_hd
from fixtures.xenium import PIXEL_SIZE_UM, write_xenium
from pairing.test_prepare_formats import EVERYTHING
from sge2hist.data.artifacts import read_manifest
from sge2hist.data.errors import InputError
from sge2hist.pairing.prepare import prepare

TISSUE = make_tissue(width_px=400, height_px=300, n_cells=300)
TO_CELLS = np.array([[0.0, 3.0, 50], [-3.0, 0.1, 900], [0, 0, 1]])  # px of the image -> numbers of the table
SETTINGS = replace(EVERYTHING, image_um_per_px=0.5)


def silent(_: str) -> None:
    """Log nothing."""


@pytest.fixture
def table(tmp_path: Path) -> tuple[Path, Path]:
    """An h5ad whose positions lie in a frame of their own, and its image."""
    return write_anndata(TISSUE, tmp_path, spatial=on_image(TO_CELLS, TISSUE.centre_xy_px))


def test_a_file_puts_the_cells_of_an_anndata_on_the_image(tmp_path: Path, table: tuple[Path, Path]) -> None:
    np.savetxt(tmp_path / "map.csv", TO_CELLS, delimiter=",")
    options = {"images": table[1], "log": silent}
    dataset = prepare(table[0], tmp_path / "a.paired", SETTINGS, alignment=tmp_path / "map.csv", **options)
    np.testing.assert_allclose(dataset.centre_xy_px, TISSUE.centre_xy_px, atol=1e-6)
    assert (dataset.path / "registration.png").is_file()
    np.testing.assert_allclose(np.loadtxt(dataset.path / "alignment.csv", delimiter=","), TO_CELLS, atol=1e-9)
    record = read_manifest(dataset.path, "paired")["alignment"][0]
    assert record["map"]["evidence"] is None
    assert "map.csv (3x3)" in record["map"]["source"]

    written = dataset.path / "alignment.json"
    again = prepare(table[0], tmp_path / "b.paired", SETTINGS, alignment=written, **options)
    np.testing.assert_allclose(again.centre_xy_px, dataset.centre_xy_px, atol=1e-9)

    half = tmp_path / "half.tif"  # a scaled copy of the image that alignment.json was made for
    tifffile.imwrite(half, np.ascontiguousarray(TISSUE.image[::2, ::2]), photometric="rgb")
    options["images"] = half
    scaled = prepare(
        table[0], tmp_path / "c.paired", replace(SETTINGS, image_um_per_px=1.0), alignment=written, **options
    )
    np.testing.assert_allclose(scaled.centre_xy_px, TISSUE.centre_xy_px / 2, atol=1e-6)

    tifffile.imwrite(half, np.ascontiguousarray(TISSUE.image[:, :200]), photometric="rgb")
    with pytest.raises(InputError, match="400 x 300 px that"):
        prepare(table[0], tmp_path / "d.paired", SETTINGS, alignment=written, **options)


def test_a_map_in_the_wrong_direction_is_refused(tmp_path: Path, table: tuple[Path, Path]) -> None:
    np.savetxt(tmp_path / "map.csv", np.linalg.inv(TO_CELLS), delimiter=",")
    with pytest.raises(InputError, match="maps the cells to the image"):
        prepare(table[0], tmp_path / "a.paired", SETTINGS, images=table[1], alignment=tmp_path / "map.csv", log=silent)
    assert not (tmp_path / "a.paired").exists()


def test_the_scale_of_visium_hd_comes_from_the_map(tmp_path: Path) -> None:
    """Another scan of the section at twice the resolution, its map to the image that Space Ranger was given."""
    truth = write_visium_hd(TISSUE, tmp_path / "hd")
    fine = tmp_path / "fine.tif"
    tifffile.imwrite(fine, TISSUE.image.repeat(2, axis=0).repeat(2, axis=1), photometric="rgb")
    np.savetxt(tmp_path / "map.csv", np.diag([0.5, 0.5, 1]), delimiter=",")
    plain = prepare(tmp_path / "hd", tmp_path / "a.paired", EVERYTHING, images=truth.image, bin_um=8, log=silent)
    mapped = prepare(
        tmp_path / "hd",
        tmp_path / "b.paired",
        EVERYTHING,
        images=fine,
        bin_um=8,
        alignment=tmp_path / "map.csv",
        log=silent,
    )
    np.testing.assert_allclose(mapped.centre_xy_px, plain.centre_xy_px * 2, atol=1e-6)
    ratio = read_manifest(mapped.path, "paired")["um_per_px"] / read_manifest(plain.path, "paired")["um_per_px"]
    assert ratio == pytest.approx(0.5)
    warnings = read_manifest(plain.path, "paired")["alignment"][0]["warnings"]
    assert any("spaceranger-3.0.0: before 3.1.2" in warning for warning in warnings)


def test_a_file_belongs_to_one_input(tmp_path: Path, table: tuple[Path, Path]) -> None:
    with pytest.raises(InputError, match=r"for 2 inputs.*--alignment auto"):
        prepare(["a.h5ad", "b.h5ad"], tmp_path / "a.paired", SETTINGS, alignment="map.csv", log=silent)


def test_registration_of_a_xenium_run(tmp_path: Path) -> None:
    um_per_px, size_px = 1.7, (700, 900)
    um_to_px = map_matrix(um_per_px, degrees=100.0, mirror=True, at_px=(350, 450))
    tissue = stained_tissue(um_to_px, size_px, um_per_px)
    he_to_dapi = np.diag([1 / PIXEL_SIZE_UM, 1 / PIXEL_SIZE_UM, 1]) @ np.linalg.inv(um_to_px)
    truth = write_xenium(tissue, tmp_path / "x", he_to_dapi=he_to_dapi, alignment="none")
    lines: list[str] = []
    dataset = prepare(
        truth.folder, tmp_path / "x.paired", EVERYTHING, images=truth.image, alignment="auto", log=lines.append
    )
    on_slide = ((tissue.centre_xy_px >= 0) & (tissue.centre_xy_px < size_px)).all(axis=1)
    order = {name: number for number, name in enumerate(truth.cell_ids)}
    rows = [order[str(name).split(":")[-1]] for name in dataset.obs.index]
    assert len(rows) > 0.9 * on_slide.sum()
    error_um = np.linalg.norm(dataset.centre_xy_px - tissue.centre_xy_px[rows], axis=1) * um_per_px
    assert error_um.max() < 1.0
    found = json.loads((dataset.path / "alignment.json").read_text())
    corner = np.array([[0, 0], [700, 0], [0, 900], [700, 900.0]])
    in_dapi_px = on_image(np.array(found["image_to_cells"]), corner)
    assert np.abs(in_dapi_px - on_image(he_to_dapi, corner)).max() * PIXEL_SIZE_UM < 2.0
    assert found["evidence"]["residual_um"] < 1.5
    assert found["um_per_unit"] == PIXEL_SIZE_UM
    assert found["image"]["um_per_px"] == pytest.approx(um_per_px, rel=2e-3)
    assert any("registration against the positions of" in line for line in lines)
