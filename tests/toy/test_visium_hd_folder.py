import json

import h5py
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import scanpy as sc
import tifffile
from PIL import Image
from skimage.transform import EuclideanTransform

from sge2hist.data.artifacts import read_manifest
from sge2hist.data.errors import InputError
from sge2hist.data.slides.slide_image import SlideImage
from sge2hist.toy.visium_hd_folder import TOY_SOFTWARE, write_visium_hd


def _bins(paths, bin_um):
    return paths.outs / "binned_outputs" / f"square_{bin_um:03d}um"


@pytest.mark.parametrize("bin_um", [8, 16])
def test_scanpy_reads_the_matrix_and_finds_the_truth(tiny_tissue, tiny_paths, bin_um):
    adata = sc.read_10x_h5(_bins(tiny_paths, bin_um) / "filtered_feature_bc_matrix.h5")
    assert list(adata.var["gene_ids"]) == list(tiny_tissue.genes.frame.index)
    assert list(adata.var_names) == list(tiny_tissue.genes.frame["symbol"])
    np.testing.assert_array_equal(np.asarray(adata.X.sum(axis=0)).ravel(), tiny_tissue.counts_NG.sum(axis=0))
    row_column = np.array([[int(name[8:13]), int(name[14:19])] for name in adata.obs_names])
    n = tiny_tissue.frame.n_bins(bin_um)
    expected = tiny_tissue.bin_counts(bin_um)[row_column[:, 0] * n + row_column[:, 1]]
    np.testing.assert_array_equal(adata.X.toarray(), expected.toarray())
    assert list(adata.obs_names) == sorted(adata.obs_names)
    assert {len(name) for name in adata.obs_names} == {21}


def test_positions_round_trip_through_the_rotation(tiny_tissue, tiny_paths):
    positions = pq.read_table(_bins(tiny_paths, 8) / "spatial" / "tissue_positions.parquet").to_pandas()
    xy_px = positions[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy()
    array_xy_um = (positions[["array_col", "array_row"]].to_numpy() + 0.5) * 8.0
    fitted = EuclideanTransform.from_estimate(array_xy_um, xy_px * tiny_tissue.config.um_per_px)
    assert np.isclose(np.degrees(fitted.rotation), tiny_tissue.config.rotation_deg)
    # the transcripts of a bin lie at the position of the table
    transcripts, index = tiny_tissue.transcripts, positions.set_index("barcode").index
    assert index.is_unique
    bins = transcripts.bin_of(tiny_tissue.frame, 8)
    xy_um = tiny_tissue.frame.to_image(transcripts.array_xy_um.astype(float))
    assert np.abs(xy_um - xy_px[bins]).max() <= 8.0 * np.sqrt(0.5) + 1e-3


def test_scale_factors_images_and_slide_agree(tiny_tissue, tiny_paths):
    for bin_um in (8, 16):
        spatial = _bins(tiny_paths, bin_um) / "spatial"
        factors = json.loads((spatial / "scalefactors_json.json").read_text())
        assert factors["microns_per_pixel"] == factors["bin_size_um"] / factors["spot_diameter_fullres"]
        for name in ("hires", "lowres"):
            with Image.open(spatial / f"tissue_{name}_image.png") as picture:
                assert abs(picture.width / factors[f"tissue_{name}_scalef"] / tiny_tissue.config.side_px - 1) < 0.01
    slide = SlideImage.open(tiny_paths.image)
    assert np.isclose(slide.um_per_px, tiny_tissue.config.um_per_px)
    np.testing.assert_array_equal(tifffile.imread(tiny_paths.image), tiny_tissue.image)
    np.testing.assert_array_equal(slide.as_array(), tiny_tissue.image)


def test_everything_says_toy(tiny_paths):
    manifest = read_manifest(tiny_paths.root, "toy_visium_hd")
    assert manifest["toy"] is True
    assert (tiny_paths.outs / "TOY").is_file()
    with h5py.File(_bins(tiny_paths, 8) / "filtered_feature_bc_matrix.h5") as file:
        assert file.attrs["software_version"].startswith(TOY_SOFTWARE)
    with tifffile.TiffFile(tiny_paths.image) as tiff:
        assert "toy" in tiff.pages[0].description


def test_truth_tables(tiny_tissue, tiny_paths):
    cells = pd.read_csv(tiny_paths.truth / "cells.csv", index_col="cell_id")
    assert cells["n_transcripts"].sum() == len(tiny_tissue.transcripts)
    types = pd.read_csv(tiny_paths.types_csv[16])
    assert set(types["cell_type"]) == set(cells["cell_type"])
    adata = sc.read_10x_h5(_bins(tiny_paths, 16) / "filtered_feature_bc_matrix.h5")
    assert set(types["barcode"]) <= set(adata.obs_names)
    # bins without a label are those without a transcript
    unlabelled = ~adata.obs_names.isin(types["barcode"])
    assert adata.X[unlabelled].sum() == 0


def test_overwriting(tiny_tissue, tmp_path):
    write_visium_hd(tiny_tissue, tmp_path / "toy", bins_um=(16,))
    with pytest.raises(InputError):
        write_visium_hd(tiny_tissue, tmp_path / "toy", bins_um=(16,))
    write_visium_hd(tiny_tissue, tmp_path / "toy", bins_um=(16,), overwrite=True)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "letter.txt").write_text("keep me")
    with pytest.raises(InputError):
        write_visium_hd(tiny_tissue, mine, overwrite=True)
    assert (mine / "letter.txt").read_text() == "keep me"
    with pytest.raises(ValueError, match="divisors"):
        write_visium_hd(tiny_tissue, tmp_path / "other", bins_um=(5,))
