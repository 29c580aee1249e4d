"""Mistakes that users of other tools report again and again: each one is fed to the readers, and the message is checked.

| pitfall                                         | fed by                                                        |
| ----------------------------------------------- | ------------------------------------------------------------- |
| x and y swapped                                 | test_x_and_y_swapped                                          |
| wrong image: turned, preview, CytAssist, foreign | test_transposed_image, test_preview_given_instead_of_the_slide, |
|                                                 | test_another_image, test_cytassist_image_given                |
| array turned, mirrored, slanted in the image    | test_axes_of_the_array_turned_against_the_image,              |
|                                                 | test_perspective_of_the_array_by_the_homography_alone         |
| scale factors of cells lack the spot diameter   | test_segmented_outputs_without_a_spot_diameter                |
| file prefix, no prefix, several prefixes        | test_file_prefix_or_none, test_files_of_two_runs_in_one_folder |
| no microscope image, or no transform to it      | test_no_feature_slice_and_no_microscope_image_in_outs,        |
|                                                 | test_space_ranger_was_run_without_a_microscope_image,         |
|                                                 | test_no_transform_to_a_microscope_image                       |
| BTF                                             | test_btf                                                      |
| counts made dense                               | test_counts_are_never_dense                                   |
| hundreds of thousands of polygons               | test_very_many_polygons                                       |
| one symbol for several genes                    | test_duplicate_symbols_stay_apart_by_id                       |
| pixel limit of picture libraries                | test_image_beyond_the_pixel_limit_of_picture_libraries        |
"""

import json
import re
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from PIL import Image

from fixtures.anndata_image import write_anndata
from fixtures.tenx import write_matrix_h5
from fixtures.tissue import make_tissue
from fixtures.visium import write_visium
from fixtures.visium_hd import turned_homography, write_visium_hd
from sge2hist.data.errors import InputError
from sge2hist.data.gene_panel import GenePanel
from sge2hist.data.slides.slide_image import SlideImage
from sge2hist.pairing.alignment.image_checks import check_image
from sge2hist.readers import open_sections
from sge2hist.readers.geojson import read_geojson
from sge2hist.readers.tenx.tenx_matrix import TenxMatrix

# A field wide enough that its transpose, preview and CytAssist image differ.
TISSUE = make_tissue(width_px=520, height_px=200, um_per_px=0.5)


def test_x_and_y_swapped(tmp_path: Path) -> None:
    path, image = write_anndata(TISSUE, tmp_path, spatial=TISSUE.centre_xy_px[:, ::-1])
    with pytest.raises(InputError, match="x and y look swapped"):
        check_image(open_sections(path, image=image, um_per_px=0.5)[0])


def test_transposed_image(tmp_path: Path) -> None:
    truth = write_visium_hd(TISSUE, tmp_path)
    tifffile.imwrite(tmp_path / "t.tif", np.swapaxes(TISSUE.image, 0, 1).copy(), photometric="rgb")
    with pytest.raises(InputError, match="transposed or rotated by 90 degrees"):
        check_image(open_sections(truth.outs, image=tmp_path / "t.tif", bin_um=8)[0])


def test_preview_given_instead_of_the_slide(tmp_path: Path) -> None:
    truth = write_visium_hd(TISSUE, tmp_path)
    preview = truth.outs / "spatial" / "tissue_hires_image.png"
    section, warnings = check_image(open_sections(truth.outs, image=preview, bin_um=8)[0])
    assert any("preview tissue_hires_image.png" in warning for warning in warnings)
    assert section.um_per_px == pytest.approx(2.0)
    assert section.centre_xy_px == pytest.approx(truth.bin_centre_xy_px(4)[_in_tissue(truth, 4)] / 4)
    lowres = truth.outs / "spatial" / "tissue_lowres_image.png"
    with pytest.raises(InputError, match=r"preview tissue_lowres_image.png.*full-resolution microscope H&E"):
        check_image(open_sections(truth.outs, image=lowres, bin_um=8)[0])


def test_another_image(tmp_path: Path) -> None:
    truth = write_visium_hd(TISSUE, tmp_path)
    tifffile.imwrite(tmp_path / "other.tif", np.zeros((333, 444, 3), np.uint8), photometric="rgb")
    with pytest.raises(InputError, match=r"444 x 333 px, another shape.*520 x 200 px \(from tissue_hires_image.png\)"):
        check_image(open_sections(truth.outs, image=tmp_path / "other.tif", bin_um=8)[0])


def test_cytassist_image_given(tmp_path: Path) -> None:
    truth = write_visium_hd(TISSUE, tmp_path)
    small = np.asarray(Image.fromarray(TISSUE.image).resize((70, 80)))
    for folder in truth.outs.glob("binned_outputs/*/spatial"):
        tifffile.imwrite(folder / "cytassist_image.tiff", small, photometric="rgb")
    with pytest.raises(InputError, match=r"the CytAssist image; .*give the microscope H&E"):
        check_image(open_sections(truth.outs, image=folder / "cytassist_image.tiff", bin_um=8)[0])


def test_space_ranger_was_run_without_a_microscope_image(tmp_path: Path) -> None:
    coarse = make_tissue(width_px=132, height_px=100, um_per_px=5.0)
    truth = write_visium_hd(coarse, tmp_path, bin_um=(8,))
    with pytest.raises(InputError, match=r"5.00 um per px.*CytAssist.*run Space Ranger again with --image"):
        check_image(open_sections(truth.outs, image=truth.image)[0])


def mirrored_homography(um_per_px: float, width_px: int) -> np.ndarray:
    """Columns of the array run to the left."""
    scale = 2.0 / um_per_px
    return np.array([[-scale, 0, width_px - scale / 2], [0, scale, scale / 2], [0, 0, 1.0]])


@pytest.mark.parametrize("homography", [None, turned_homography(0.5, 200), mirrored_homography(0.5, 520)])
def test_axes_of_the_array_turned_against_the_image(tmp_path: Path, homography: np.ndarray | None) -> None:
    truth = write_visium_hd(TISSUE, tmp_path, homography=homography, bin_um=(2,))
    section = open_sections(truth.outs, image=truth.image, bin_um=2)[0]
    assert section.centre_xy_px == pytest.approx(truth.bin_centre_xy_px()[_in_tissue(truth, 1)])
    dark = section.image.as_array()[tuple(np.floor(section.centre_xy_px[:, ::-1]).astype(int).T)].sum(axis=1) < 450
    cell = truth.nucleus_RC.ravel()[_in_tissue(truth, 1)] > 0
    assert (dark == cell).mean() > 0.97


def test_perspective_of_the_array_by_the_homography_alone(tmp_path: Path) -> None:
    slant = np.array([[1, 0, 0], [0, 1, 0], [2e-4, -1e-4, 1]])
    truth = write_visium_hd(TISSUE, tmp_path, homography=turned_homography(0.5, 200) @ slant, bin_um=(2,))
    (truth.outs / "binned_outputs" / "square_002um" / "spatial" / "tissue_positions.parquet").unlink()
    section = open_sections(truth.outs, image=truth.image, bin_um=2)[0]
    assert section.centre_xy_px == pytest.approx(truth.bin_centre_xy_px()[_in_tissue(truth, 1)])
    assert any("homography of feature_slice.h5" in note for note in section.notes)


def test_no_transform_to_a_microscope_image(tmp_path: Path) -> None:
    truth = write_visium_hd(TISSUE, tmp_path, bin_um=(8,))
    (truth.outs / "binned_outputs" / "square_008um" / "spatial" / "tissue_positions.parquet").unlink()
    with h5py.File(truth.outs / "feature_slice.h5", "r+") as file:
        metadata = json.loads(file.attrs["metadata_json"])
        del metadata["transform_matrices"]["spot_colrow_to_microscope_colrow"]
        file.attrs["metadata_json"] = json.dumps(metadata)
    with pytest.raises(
        InputError, match=r"without a homography to a microscope image.*run Space Ranger again with --im"
    ):
        open_sections(truth.outs, image=truth.image)


def test_very_many_polygons(tmp_path: Path) -> None:
    """40,000 staircase outlines: ragged arrays, at the cost of parsing the text a few times over."""
    corner = np.random.default_rng(0).integers(0, 20_000, (40_000, 2))
    steps = np.array([[0, 0], [8, 0], [8, 4], [12, 4], [12, 12], [4, 12], [4, 8], [0, 8], [0, 0]])
    features = [
        {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": {"cell_id": number}}
        for number, ring in enumerate((corner[:, None] + steps).tolist(), start=1)
    ]
    text = json.dumps({"type": "FeatureCollection", "features": features})
    (tmp_path / "cells.geojson").write_text(text)
    started = time.process_time()
    json.loads(text)
    parsed = time.process_time()
    polygons = read_geojson(tmp_path / "cells.geojson")
    assert time.process_time() - parsed < 12 * (parsed - started) + 1
    assert polygons.corner_xy_px.shape == (40_000 * 9, 2)
    assert polygons.area_px2_and_centroid()[0] == pytest.approx(np.full(40_000, 112.0))


def test_segmented_outputs_without_a_spot_diameter(tmp_path: Path) -> None:
    truth = write_visium_hd(TISSUE, tmp_path, version="4.0.1")
    factors = json.loads((truth.outs / "segmented_outputs" / "spatial" / "scalefactors_json.json").read_text())
    assert "spot_diameter_fullres" not in factors
    section = open_sections(truth.outs, format="visium_hd_segmented", image=truth.image)[0]
    assert section.um_per_px == 0.5
    assert section.um_per_px_sources == {"scale factors: microns_per_pixel": 0.5}


@pytest.mark.parametrize("prefix", ["", "Visium_HD_Mouse_Brain_"])
def test_file_prefix_or_none(tmp_path: Path, prefix: str) -> None:
    hd = write_visium_hd(TISSUE, tmp_path / "hd", prefix=prefix, bin_um=(8,))
    assert open_sections(hd.outs, image=hd.image)[0].n_obs > 0
    spots = write_visium(tmp_path / "v", prefix=prefix)
    assert open_sections(spots.outs, image=spots.image)[0].n_obs == 47


def test_files_of_two_runs_in_one_folder(tmp_path: Path) -> None:
    truth = write_visium_hd(TISSUE, tmp_path, prefix="One_", bin_um=(8,))
    square = truth.outs / "binned_outputs" / "square_008um"
    matrix = square / "filtered_feature_bc_matrix.h5"
    (square / "Two_filtered_feature_bc_matrix.h5").write_bytes(matrix.read_bytes())
    matrix.rename(square / "One_filtered_feature_bc_matrix.h5")
    with pytest.raises(InputError, match=r"One_filtered.*Two_filtered.*expected one filtered.*keep one run per folder"):
        open_sections(truth.outs, image=truth.image)


def test_no_feature_slice_and_no_microscope_image_in_outs(tmp_path: Path) -> None:
    truth = write_visium_hd(TISSUE, tmp_path, feature_slice=False, bin_um=(8,))
    with pytest.raises(InputError, match=r"no microscope image.*never copied into outs/.*--image"):
        open_sections(truth.outs)
    assert open_sections(truth.outs, image=truth.image)[0].um_per_px == 0.5


def test_btf(tmp_path: Path) -> None:
    truth = write_visium_hd(TISSUE, tmp_path, bin_um=(8,))
    tifffile.imwrite(tmp_path / "he.btf", TISSUE.image, bigtiff=True, photometric="rgb", tile=(64, 64))
    section = open_sections(truth.outs, image=tmp_path / "he.btf")[0]
    assert (section.image.as_array() == TISSUE.image).all()


def test_counts_are_never_dense(tmp_path: Path) -> None:
    """4 million bins of which a few hundred hold something: dense they would be 305 GB."""
    n_bins, n_genes = 4_000_000, 19_059
    seen = np.linspace(0, n_bins - 1, 500).astype(np.int64)
    path = write_matrix_h5(
        tmp_path / "m.h5",
        barcodes=["a"],
        gene_ids=[f"G{g}" for g in range(n_genes)],
        symbols=["g"] * n_genes,
        counts_NG=np.ones((1, n_genes), np.int32),
    )
    indptr = np.searchsorted(seen, np.arange(n_bins + 1)).astype(np.int64)
    with h5py.File(path, "r+") as file:
        matrix = file["matrix"]
        for name, values in (
            ("data", np.ones(500, np.int32)),
            ("indices", np.arange(500) % n_genes),
            ("indptr", indptr),
            ("shape", np.array([n_genes, n_bins], np.int64)),
        ):
            del matrix[name]
            matrix[name] = values
        del matrix["barcodes"]
        matrix.create_dataset("barcodes", shape=(n_bins,), dtype="S1", chunks=True, compression="gzip")
    opened = TenxMatrix.open(path)
    summed = opened.read_counts(np.arange(n_bins) // 4, n_bins // 4)
    assert summed.nnz == 500
    assert summed.sum() == 500


def test_duplicate_symbols_stay_apart_by_id(tmp_path: Path) -> None:
    truth = write_visium_hd(TISSUE, tmp_path, bin_um=(8,))
    section = open_sections(truth.outs, image=truth.image)[0]
    assert list(section.genes["symbol"]).count("TBCE") == 2
    assert section.genes.index.is_unique
    assert "1 repeated gene symbols kept under their own ids" in section.notes
    panel = GenePanel([TISSUE.gene_ids[7]], ["TBCE"])
    alignment = panel.align(GenePanel(list(section.genes.index), list(section.genes["symbol"])))
    assert alignment.columns.tolist() == [7]


def test_image_beyond_the_pixel_limit_of_picture_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(TISSUE.image).save(tmp_path / "he.png")
    tifffile.imwrite(tmp_path / "he.tif", TISSUE.image, photometric="rgb")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # a slide of billions of pixels, in small
    for name in ("he.png", "he.tif"):
        assert (SlideImage.open(tmp_path / name).as_array() == TISSUE.image).all()


def test_the_table_at_the_head_names_every_test() -> None:
    named = re.findall(r"\btest_\w+", sys.modules[__name__].__doc__ or "")
    fed = {name for name in globals() if name.startswith("test_")} - {"test_the_table_at_the_head_names_every_test"}
    assert sorted(named) == sorted(fed)


def _in_tissue(truth, factor: int) -> np.ndarray:  # type: ignore[no-untyped-def]
    n_rows, n_columns = (-(-side // factor) for side in truth.in_tissue_RC.shape)
    found = np.zeros((n_rows, n_columns), bool)
    row, column = np.nonzero(truth.in_tissue_RC)
    found[row // factor, column // factor] = True
    return found.ravel()
