"""The homography of feature_slice.h5: in place of a table of positions, and compared with one."""

import json
import shutil

import h5py
import numpy as np
import pytest

from fixtures.tissue import make_tissue
from fixtures.visium_hd import turned_homography, upright_homography, write_visium_hd
from sge2hist.data.errors import InputError
from sge2hist.pairing.cells import cells_of_section
from sge2hist.readers.tenx import visium_hd

TISSUE = make_tissue()
HEIGHT_PX = TISSUE.image.shape[0]
SLANT = np.array([[1, 0, 0], [0, 1, 0], [2e-4, -1e-4, 1.0]])  # of (column, row): the far side is 2 % smaller
LAYOUTS = {
    "upright": upright_homography(0.5),
    "turned": turned_homography(0.5, HEIGHT_PX),
    "mirrored": np.array([[-1, 0, TISSUE.image.shape[1]], [0, 1, 0], [0, 0, 1.0]]) @ upright_homography(0.5),
    "perspective": upright_homography(0.5) @ SLANT,
}


@pytest.fixture(params=list(LAYOUTS))
def truth(request, tmp_path):
    homography = LAYOUTS[request.param]
    return write_visium_hd(TISSUE, tmp_path / "run", version="4.0.1", homography=homography, bin_um=(2, 8))


@pytest.fixture
def upright(tmp_path):
    return write_visium_hd(TISSUE, tmp_path / "run", bin_um=(8,))


def remove_tables(truth) -> None:
    for path in truth.outs.rglob("tissue_positions.parquet"):
        path.unlink()


def change_metadata(truth, change) -> None:
    with h5py.File(truth.outs / "feature_slice.h5", "r+") as file:
        metadata = json.loads(file.attrs["metadata_json"])
        change(metadata)
        file.attrs["metadata_json"] = json.dumps(metadata)


def test_positions_without_a_table(truth) -> None:
    with_table = {um: visium_hd.read(truth.outs, image=truth.image, bin_um=um) for um in (2, 8, 16)}
    remove_tables(truth)
    for um, expected in with_table.items():
        section = visium_hd.read(truth.outs, image=truth.image, bin_um=um)
        np.testing.assert_allclose(section.centre_xy_px, expected.centre_xy_px, atol=1e-6)
        assert list(section.obs.index) == list(expected.obs.index)
        assert any("by the homography of feature_slice.h5" in note for note in section.notes)
        assert section.um_per_px_sources["feature_slice.h5: homography"] == pytest.approx(0.5, rel=0.03)


def test_cells_of_every_layout_are_exact(truth) -> None:
    """Bins are tested against polygons in px: with positions by the homography each falls into its own cell."""
    (truth.outs / "barcode_mappings.parquet").unlink()
    remove_tables(truth)
    cells = cells_of_section(visium_hd.read(truth.outs, image=truth.image, bin_um=2), folder=truth.outs)
    counts = truth.counts_BG.toarray()
    expected = [counts[truth.cell_RC.ravel() == label].sum(0) for label in range(1, truth.cell_RC.max() + 1)]
    np.testing.assert_array_equal(cells.read_counts(None, None).toarray(), expected)


def test_a_table_of_another_run_is_noted(upright) -> None:
    assert not any("homography" in note for note in visium_hd.read(upright.outs, image=upright.image).notes)

    def move(metadata) -> None:
        metadata["transform_matrices"]["spot_colrow_to_microscope_colrow"][0][2] += 40

    change_metadata(upright, move)
    section = visium_hd.read(upright.outs, image=upright.image)
    assert any("up to 20 um apart" in note for note in section.notes)


def test_damage_is_a_note_beside_a_table_and_an_error_without(upright) -> None:
    (upright.outs / "feature_slice.h5").write_bytes(b"nothing")
    section = visium_hd.read(upright.outs, image=upright.image)
    assert any("feature_slice.h5 not compared" in note for note in section.notes)
    remove_tables(upright)
    with pytest.raises(InputError, match=r"feature_slice.h5: found an HDF5 file that cannot be read"):
        visium_hd.read(upright.outs, image=upright.image)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["transform_matrices"].pop("spot_colrow_to_microscope_colrow"), "run Space Ranger again with --im"),
        (lambda m: m.pop("transform_matrices"), "without a homography to a microscope image"),
        (lambda m: m.update(nrows=0), "0 x 65 bins"),
        (lambda m: m.update(ncols=float("inf")), "cannot be read"),
        (
            lambda m: m["transform_matrices"].update(spot_colrow_to_microscope_colrow=[[1, 2], [3, 4]]),
            r"shape \(2, 2\)",
        ),
        (
            lambda m: m["transform_matrices"].update(
                spot_colrow_to_microscope_colrow=[[1, 0, 0], [0, 1, 0], [1, 0, -5]]
            ),
            "folds the array",
        ),
    ],
)
def test_no_usable_homography(upright, change, message) -> None:
    remove_tables(upright)
    change_metadata(upright, change)
    with pytest.raises(InputError, match=message):
        visium_hd.read(upright.outs, image=upright.image)


def test_neither_table_nor_homography_nor_filtered_matrix(upright) -> None:
    remove_tables(upright)
    for path in upright.outs.rglob("filtered_feature_bc_matrix.h5"):
        path.unlink()
    with pytest.raises(InputError, match=r"no tissue_positions.parquet beside a raw matrix"):
        visium_hd.read(upright.outs, image=upright.image)
    (upright.outs / "feature_slice.h5").unlink()
    with pytest.raises(InputError, match=r"no tissue_positions.parquet and no feature_slice.h5"):
        visium_hd.read(upright.outs, image=upright.image)


def test_a_prefix_is_found_and_other_runs_are_not(upright, tmp_path) -> None:
    remove_tables(upright)
    (upright.outs / "feature_slice.h5").rename(upright.outs / "Lung_feature_slice.h5")
    assert visium_hd.read(upright.outs, image=upright.image, bin_um=8).n_obs
    lonely = tmp_path / "elsewhere" / "square_008um"
    shutil.copytree(upright.outs / "binned_outputs" / "square_008um", lonely)
    shutil.copy(upright.outs / "Lung_feature_slice.h5", tmp_path / "feature_slice.h5")
    with pytest.raises(InputError, match=r"no feature_slice.h5"):
        visium_hd.read(lonely, image=upright.image, bin_um=8)
