import json
import os
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fixtures.tissue import make_tissue
from fixtures.visium_hd import turned_homography, write_visium_hd
from sge2hist.data.errors import InputError
from sge2hist.readers import open_sections
from sge2hist.readers.tenx import visium_hd
from sge2hist.readers.tenx.visium_hd_folder import choose_square, find_squares


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    return write_visium_hd(make_tissue(), tmp_path_factory.mktemp("run_7") / "sample", bin_um=(2, 8))


@pytest.fixture
def copy(truth, tmp_path):
    shutil.copytree(truth.outs.parent, tmp_path / "sample")
    return tmp_path / "sample"


def rows_of(section, truth, factor):
    n_columns = -(-truth.cell_RC.shape[1] // factor)
    return section.obs["array_row"].to_numpy() * n_columns + section.obs["array_col"].to_numpy()


@pytest.mark.parametrize("bin_um", [2, 8, 16, 24])
def test_counts_and_positions_are_the_truth(truth, bin_um) -> None:
    section = visium_hd.read(truth.outs, image=truth.image, bin_um=bin_um)
    factor = bin_um // 2
    at = rows_of(section, truth, factor)
    expected = truth.coarse_counts(factor).toarray()
    np.testing.assert_array_equal(section.read_counts(None, None).toarray(), expected[at])
    assert section.um_per_px == 0.5
    assert section.observation_um == bin_um
    assert section.obs.index[0].startswith(f"s_{bin_um:03d}um_")
    complete = (section.obs["array_row"] < truth.cell_RC.shape[0] // factor) & (
        section.obs["array_col"] < truth.cell_RC.shape[1] // factor
    )
    centres = truth.bin_centre_xy_px(factor)[at][complete]
    np.testing.assert_allclose(section.centre_xy_px[complete], centres, atol=1e-6)


def test_all_umi_of_the_filtered_bins_arrive_in_coarser_ones(truth) -> None:
    fine = visium_hd.read(truth.outs, image=truth.image, bin_um=8).read_counts(None, None)
    coarse = visium_hd.read(truth.outs, image=truth.image, bin_um=32).read_counts(None, None)
    np.testing.assert_array_equal(fine.sum(axis=0), coarse.sum(axis=0))


def test_grouping_by_the_caller_composes_with_blocks(truth) -> None:
    section = visium_hd.read(truth.outs, image=truth.image, bin_um=16)
    group = np.random.default_rng(0).integers(-1, 4, section.n_obs)
    whole = section.read_counts(None, None).toarray()
    expected = np.stack([whole[group == g].sum(axis=0) for g in range(5)])
    np.testing.assert_array_equal(section.read_counts(group, 5).toarray(), expected)


def test_centre_of_a_block_counts_bins_without_tissue_too(truth) -> None:
    """The first column is outside the tissue; block centres must not lean away from it."""
    section = visium_hd.read(truth.outs, image=truth.image, bin_um=8)
    section = visium_hd.read(
        truth.outs.parent / "outs" / "binned_outputs" / "square_002um", image=truth.image, bin_um=8
    )
    first = section.obs["array_col"].to_numpy() == 0
    np.testing.assert_allclose(section.centre_xy_px[first, 0], 8.0)  # 8 um / 2 / 0.5


@pytest.mark.parametrize("part", ["", "outs", "outs/binned_outputs", "outs/binned_outputs/square_008um"])
def test_any_part_of_the_folder_may_be_given(truth, part) -> None:
    section = visium_hd.read(truth.outs.parent / part, image=truth.image, bin_um=8)
    assert section.observation_um == 8
    assert section.name == "sample"


def test_default_is_16_um_and_clusters_are_read_at_native_size(truth) -> None:
    (section,) = open_sections(truth.outs, image=truth.image)
    assert section.observation_um == 16
    assert "16 um bins summed from 2 x 2 bins of 8 um" in section.notes
    native = visium_hd.read(truth.outs, image=truth.image, bin_um=8)
    assert native.obs["cluster"].iloc[:3].tolist() == ["Cluster 1", "Cluster 2", "Cluster 3"]


def test_file_prefixes(copy, truth) -> None:
    square = copy / "outs" / "binned_outputs" / "square_008um"
    for path in [*square.glob("*.h5"), *(square / "spatial").iterdir()]:
        path.rename(path.with_name(f"Lung_HD_{path.name}"))
    (copy / "outs" / "binned_outputs").rename(copy / "outs" / "Lung_HD_binned_outputs")
    section = visium_hd.read(copy / "outs", image=truth.image, bin_um=8)
    reference = visium_hd.read(truth.outs, image=truth.image, bin_um=8)
    np.testing.assert_array_equal(section.centre_xy_px, reference.centre_xy_px)
    second = square.parent.parent / "Lung_HD_binned_outputs" / "square_008um" / "Kidney_filtered_feature_bc_matrix.h5"
    second.write_bytes(b"")
    with pytest.raises(InputError, match="Kidney_filtered"):
        visium_hd.read(copy / "outs", image=truth.image, bin_um=8)


def test_turned_layout_and_sources_of_scale(tmp_path) -> None:
    tissue = make_tissue()
    truth = write_visium_hd(tissue, tmp_path, bin_um=(8,), homography=turned_homography(0.5, tissue.image.shape[0]))
    section = visium_hd.read(truth.outs, image=truth.image, bin_um=8)
    np.testing.assert_allclose(section.centre_xy_px, truth.bin_centre_xy_px(4)[rows_of(section, truth, 4)], atol=1e-6)
    assert list(section.um_per_px_sources.values()) == pytest.approx([0.5, 0.5, 0.5, 0.5])


def test_reference_size_comes_from_the_previews(truth) -> None:
    reference = visium_hd.read(truth.outs, image=truth.image, bin_um=8).reference
    assert reference.source == "tissue_hires_image.png"
    np.testing.assert_allclose(reference.size_px, (260, 200), rtol=0.01)


def test_raw_matrix_is_cut_to_the_tissue(copy, truth) -> None:
    square = copy / "outs" / "binned_outputs" / "square_008um"
    filtered = visium_hd.read(square, image=truth.image, bin_um=8)
    counts = filtered.read_counts(None, None)
    (square / "filtered_feature_bc_matrix.h5").unlink()
    raw = visium_hd.read(square, image=truth.image, bin_um=8)
    assert list(raw.obs.index) == list(filtered.obs.index)
    assert (raw.read_counts(None, None) != counts).nnz == 0
    assert any("raw matrix" in note for note in raw.notes)


def test_user_folder_is_not_written_to(truth) -> None:
    before = {path: path.stat().st_mtime_ns for path in truth.outs.rglob("*")}
    visium_hd.read(truth.outs, image=truth.image, bin_um=16).read_counts(None, None)
    assert {path: path.stat().st_mtime_ns for path in truth.outs.rglob("*")} == before


def test_bin_sizes() -> None:
    squares = {2: 2, 8: 8, 16: 16}
    assert choose_square(squares, 8) == (8, 1, 8)
    assert choose_square(squares, 24) == (24, 3, 8)
    assert choose_square(squares, 6) == (6, 3, 2)
    assert choose_square(squares, None) == (16, 1, 16)
    from pathlib import Path

    for wrong in (3, 0, -8):
        with pytest.raises(InputError, match=f"--bin-um {wrong}"):
            choose_square({2: Path("a/square_002um")}, wrong)


def test_packed_and_empty_folders(tmp_path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        find_squares(tmp_path / "none")
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(InputError, match=r"no binned_outputs.*x\.txt"):
        find_squares(tmp_path)
    (tmp_path / "Lung_binned_outputs.tar.gz").write_text("x")
    with pytest.raises(InputError, match="tar -xf"):
        find_squares(tmp_path)
    with pytest.raises(InputError, match="tar -xf"):
        open_sections(tmp_path)


def test_archives_beside_the_folders_are_passed_over(copy, truth) -> None:
    for name in ("binned_outputs.tar.gz", "Lung_binned_outputs.tar.gz", "Lung_spatial.tar.gz"):
        (copy / "outs" / name).write_bytes(b"as downloaded")
    (section,) = open_sections(copy, image=truth.image, bin_um=8)
    assert section.n_obs == visium_hd.read(truth.outs, image=truth.image, bin_um=8).n_obs


@pytest.mark.parametrize("version", ["3.0.0", "4.0.1"])
def test_keys_of_both_versions_and_bins_without_umi(tmp_path, version) -> None:
    truth = write_visium_hd(make_tissue(), tmp_path, version=version, bin_um=(2,))
    section = visium_hd.read(truth.outs, image=truth.image, bin_um=2)
    assert version in section.software
    counts = section.read_counts(None, None)
    assert (np.diff(counts.indptr) == 0).any()
    assert counts.sum() == truth.counts_BG.sum()


def test_missing_pieces_are_named(copy, truth) -> None:
    square = copy / "outs" / "binned_outputs" / "square_008um"
    with pytest.raises(InputError, match="--image"):
        visium_hd.read(square, image=None, bin_um=8)
    (copy / "outs" / "feature_slice.h5").unlink()  # its homography would stand in for the table of positions
    for name in ("spatial/tissue_positions.parquet", "spatial/scalefactors_json.json"):
        os.rename(square / name, square / "hidden")
        with pytest.raises(InputError, match=name.split("/")[1]):
            visium_hd.read(square, image=truth.image, bin_um=8)
        os.rename(square / "hidden", square / name)
    for path in square.glob("*.h5"):
        path.unlink()
    with pytest.raises(InputError, match="matrix"):
        visium_hd.read(square, image=truth.image, bin_um=8)


def change_positions(square, change) -> None:
    path = square / "spatial" / "tissue_positions.parquet"
    table = pq.read_table(path).to_pandas()
    pq.write_table(pa.Table.from_pandas(change(table), preserve_index=False), path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.iloc[:-5], "without a position"),
        (lambda t: t.assign(array_row=0), "listed twice"),
        (lambda t: t.assign(pxl_col_in_fullres=np.nan), "not finite"),
        (lambda t: t.assign(array_row=10**9), "out of range"),
        (lambda t: t.assign(pxl_col_in_fullres="a"), "not numbers"),
        (lambda t: t.drop(columns="array_col"), "without array_col"),
        (lambda t: t.iloc[:0], "no bins"),
        (lambda t: t.assign(pxl_col_in_fullres=1.0), "spread"),
    ],
)
def test_wrong_positions(copy, truth, change, message) -> None:
    square = copy / "outs" / "binned_outputs" / "square_008um"
    change_positions(square, change)
    with pytest.raises(InputError, match=message):
        visium_hd.read(square, image=truth.image, bin_um=8)


def test_a_barcode_listed_twice(truth) -> None:
    from sge2hist.readers.tenx import visium_hd_grid

    grid = visium_hd_grid.read_positions(
        truth.outs / "binned_outputs" / "square_008um" / "spatial" / "tissue_positions.parquet"
    )
    with pytest.raises(InputError, match="barcodes listed twice"):
        visium_hd_grid.position_of_bins(grid, np.array([1, 2, 1]), np.array([3, 3, 3]), "m.h5")


def test_millions_of_barcodes_are_kept_as_arrow_text(truth, monkeypatch) -> None:
    plain = visium_hd.read(truth.outs, image=truth.image, bin_um=8)
    monkeypatch.setattr(visium_hd, "MANY_BARCODES", 10)
    section = visium_hd.read(truth.outs, image=truth.image, bin_um=8)
    assert section.obs.index.dtype == "string"
    assert list(section.obs.index) == list(plain.obs.index)
    assert section.obs["cluster"].tolist() == plain.obs["cluster"].tolist()


def test_any_integer_width_of_positions(copy, truth) -> None:
    square = copy / "outs" / "binned_outputs" / "square_008um"
    reference = visium_hd.read(square, image=truth.image, bin_um=8)
    change_positions(square, lambda t: t.astype({"array_row": "int64", "array_col": "uint16", "in_tissue": "int32"}))
    np.testing.assert_array_equal(
        visium_hd.read(square, image=truth.image, bin_um=8).centre_xy_px, reference.centre_xy_px
    )


def test_barcodes_of_another_bin_size(copy, truth) -> None:
    outs = copy / "outs" / "binned_outputs"
    fine = (outs / "square_002um" / "filtered_feature_bc_matrix.h5").read_bytes()
    (outs / "square_008um" / "filtered_feature_bc_matrix.h5").write_bytes(fine)
    with pytest.raises(InputError, match="this bin size"):
        visium_hd.read(outs / "square_008um", image=truth.image, bin_um=8)


@pytest.mark.parametrize("value", [-1.0, float("inf"), float("nan")])
def test_impossible_scale_factors(copy, truth, value) -> None:
    square = copy / "outs" / "binned_outputs" / "square_008um"
    path = square / "spatial" / "scalefactors_json.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "microns_per_pixel": value}))
    with pytest.raises(InputError, match="microns_per_pixel"):
        visium_hd.read(square, image=truth.image, bin_um=8)


def test_scale_from_the_pitch_when_the_factors_lack_it(copy, truth) -> None:
    square = copy / "outs" / "binned_outputs" / "square_008um"
    (square / "spatial" / "scalefactors_json.json").write_text("{}")
    section = visium_hd.read(square, image=truth.image, bin_um=8)
    assert section.um_per_px == pytest.approx(0.5)
    assert section.reference is None


FILES = [
    "filtered_feature_bc_matrix.h5",
    "spatial/tissue_positions.parquet",
    "spatial/scalefactors_json.json",
    "spatial/tissue_hires_image.png",
    "analysis/clustering/gene_expression_graphclust/clusters.csv",
]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("seed", range(8))
def test_damaged_files_give_a_section_or_one_input_error(copy, truth, name, seed) -> None:
    rng = np.random.default_rng(seed)
    square = copy / "outs" / "binned_outputs" / "square_008um"
    content = bytearray((square / name).read_bytes())
    if seed % 2:
        content = content[: int(len(content) * rng.uniform())]
    else:
        for at in rng.integers(0, len(content), 1 + len(content) // 500):
            content[at] ^= int(rng.integers(1, 256))
    (square / name).write_bytes(bytes(content))
    said, n_bins, n_counted = "", 0, 0
    try:
        section = visium_hd.read(square, image=truth.image, bin_um=8)
        n_bins, n_counted = len(section.obs), section.read_counts(None, None).shape[0]
    except InputError as error:  # the one error that users may see; any other fails this test
        said = str(error)
    assert str(copy) in said or 0 < n_bins == n_counted
