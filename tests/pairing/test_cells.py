import dataclasses
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import tifffile

from fixtures.tissue import make_tissue
from fixtures.visium_hd import VisiumHDTruth, turned_homography, write_visium_hd
from sge2hist.data.errors import InputError
from sge2hist.data.section import Section
from sge2hist.pairing.cells import bin_totals, cells_of_section, choose_method
from sge2hist.pairing.config import CellsConfig
from sge2hist.readers.tenx import visium_hd

TISSUE = make_tissue()


def open_bins(truth: VisiumHDTruth, bin_um: int = 2) -> Section:
    return visium_hd.read(truth.outs, image=truth.image, bin_um=bin_um)


def truth_counts(truth: VisiumHDTruth, labels: np.ndarray) -> np.ndarray:
    """Counts [cells, genes] by a loop over the bins."""
    counts = truth.counts_BG.toarray()
    return np.stack([counts[labels.ravel() == label].sum(0) for label in range(1, labels.max() + 1)])


def counts_of(section: Section) -> np.ndarray:
    return section.read_counts(None, None).toarray()


@pytest.fixture(scope="module", params=["upright", "turned"])
def version4(request, tmp_path_factory) -> VisiumHDTruth:
    homography = turned_homography(TISSUE.um_per_px, TISSUE.image.shape[0]) if request.param == "turned" else None
    folder = tmp_path_factory.mktemp(request.param)
    return write_visium_hd(TISSUE, folder, version="4.0.1", homography=homography, bin_um=(2, 8))


def without(truth: VisiumHDTruth, tmp_path: Path, *patterns: str) -> VisiumHDTruth:
    outs = tmp_path / "outs"
    shutil.copytree(truth.outs, outs, dirs_exist_ok=True)
    for pattern in patterns:
        for path in outs.glob(pattern):
            path.unlink()
    return dataclasses.replace(truth, outs=outs)


def test_barcode_mappings_give_the_exact_counts(version4):
    cells = cells_of_section(open_bins(version4), folder=version4.outs)
    np.testing.assert_array_equal(counts_of(cells), truth_counts(version4, version4.cell_RC))
    np.testing.assert_array_equal(cells.obs["n_nucleus_bins"], np.bincount(version4.nucleus_RC.ravel())[1:])
    assert cells.obs.index[0] == "cellid_000000001-1"
    assert cells.observation == "cell"
    assert cells.obs["cluster"].notna().sum() == len(cells.obs) - 1  # the table of clusters lacks the last cell
    assert "barcode_mappings" in cells.notes[-1]


def test_polygons_of_cells_give_the_exact_counts(version4, tmp_path):
    truth = without(version4, tmp_path, "barcode_mappings.parquet")
    cells = cells_of_section(open_bins(truth), folder=truth.outs)
    np.testing.assert_array_equal(counts_of(cells), truth_counts(truth, truth.cell_RC))
    np.testing.assert_allclose(cells.obs["area_um2"], cells.obs["outline_area_um2"], rtol=1e-6)
    assert "cell_segmentations.geojson" in cells.notes[-1]
    expected = np.stack([truth.bin_centre_xy_px()[truth.cell_RC.ravel() == k].mean(0) for k in range(1, 25)])
    np.testing.assert_allclose(cells.centre_xy_px, expected, atol=1e-6)


def test_polygons_of_nuclei_grow_by_four_bins(version4, tmp_path):
    truth = without(version4, tmp_path, "barcode_mappings.parquet", "segmented_outputs/*cell_segmentations.geojson")
    section = open_bins(truth)
    nuclei = cells_of_section(section, folder=truth.outs, config=CellsConfig(method="segmentation", expand_um=0.0))
    np.testing.assert_array_equal(counts_of(nuclei), truth_counts(truth, truth.nucleus_RC))
    grown = cells_of_section(section, folder=truth.outs)
    assert (grown.obs["n_bins"] > nuclei.obs["n_bins"]).all()
    np.testing.assert_array_equal(grown.obs["n_nucleus_bins"], nuclei.obs["n_bins"])
    by_ratio = cells_of_section(section, folder=truth.outs, config=CellsConfig(volume_ratio=4.0))
    assert nuclei.obs["n_bins"].sum() < by_ratio.obs["n_bins"].sum() < grown.obs["n_bins"].sum()


def test_qupath_cells_with_nuclei_and_a_parent_annotation(version4, tmp_path):
    """The truth's own outlines as QuPath exports them: the region of interest first, and everything in a zip."""

    def shapes(name: str) -> dict[int, dict]:
        features = json.loads((version4.outs / "segmented_outputs" / name).read_text())["features"]
        return {feature["properties"]["cell_id"]: feature["geometry"] for feature in features}

    cells, nuclei = shapes("cell_segmentations.geojson"), shapes("nucleus_segmentations.geojson")
    region = [[0, 0], [9999, 0], [9999, 9999], [0, 9999], [0, 0]]
    features = [
        {"type": "Feature", "id": "r", "geometry": {"type": "Polygon", "coordinates": [region]}}
        | {"properties": {"objectType": "annotation", "name": "ROI"}}
    ]
    features += [
        {"type": "Feature", "id": f"uuid-{k}", "geometry": cells[k], "nucleusGeometry": nuclei[k]}
        | {"properties": {"objectType": "cell", "name": "Cell"}}
        for k in sorted(cells)
    ]
    with zipfile.ZipFile(tmp_path / "qupath.zip", "w") as archive:
        archive.writestr("qupath.geojson", json.dumps({"type": "FeatureCollection", "features": features}))
    warnings: list[str] = []
    section = cells_of_section(
        open_bins(version4), config=CellsConfig(labels=tmp_path / "qupath.zip"), positions="px", warn=warnings.append
    )
    np.testing.assert_array_equal(counts_of(section), truth_counts(version4, version4.cell_RC))
    np.testing.assert_array_equal(section.obs["n_nucleus_bins"], np.bincount(version4.nucleus_RC.ravel())[1:])
    assert section.obs.index[0] == "uuid-1"
    assert warnings == [f"qupath.zip: 1 annotation ignored: the {len(cells)} cells are the cells"]


def test_groups_of_cells_are_sums_of_cells(version4):
    cells = cells_of_section(open_bins(version4), folder=version4.outs)
    group = np.arange(len(cells.obs)) % 3 - 1
    summed = cells.read_counts(group, 2).toarray()
    expected = np.stack([counts_of(cells)[group == number].sum(0) for number in (0, 1)])
    np.testing.assert_array_equal(summed, expected)


def test_label_image_of_the_user(version4, tmp_path):
    y, x = np.mgrid[: TISSUE.image.shape[0], : TISSUE.image.shape[1]] + 0.5
    labels = np.zeros(x.shape, np.uint16)
    for number, centre in enumerate(TISSUE.centre_xy_px):
        labels[np.hypot(x - centre[0], y - centre[1]) * TISSUE.um_per_px <= TISSUE.radius_um] = number + 1
    section = open_bins(version4)
    place = np.floor(section.centre_xy_px).astype(int)
    under = labels[place[:, 1], place[:, 0]]
    counts = counts_of(section)
    expected = np.stack([counts[under == number].sum(0) for number in range(1, 25)])
    for name, options in (("a.tif", {"tile": (64, 64), "compression": "zlib"}), ("b.tif", {"rowsperstrip": 7})):
        tifffile.imwrite(tmp_path / name, labels, **options)
        cells = cells_of_section(section, config=CellsConfig(labels=tmp_path / name))
        np.testing.assert_array_equal(counts_of(cells), expected)
    np.save(tmp_path / "c.npy", labels.astype(np.int64))
    cells = cells_of_section(section, config=CellsConfig(labels=tmp_path / "c.npy"))
    np.testing.assert_array_equal(counts_of(cells), expected)
    assert cells.obs.index[0] == "label_1"
    np.testing.assert_allclose(cells.centre_xy_px, TISSUE.centre_xy_px, atol=0.5)


@pytest.mark.parametrize("segmenter", ["network", "classical"])
def test_nuclei_of_the_image(version4, segmenter):
    section = open_bins(version4)
    config = CellsConfig(method="nuclei", segmenter=segmenter, processes=1)
    cells = cells_of_section(section, config=config, folder=version4.outs)
    distance_um = np.linalg.norm(cells.centre_xy_px[:, None] - TISSUE.centre_xy_px, axis=2).min(0) * TISSUE.um_per_px
    assert (distance_um < 2).mean() > 0.7  # flat discs of three colours: far from what the segmenters are made for
    assert cells.obs["nucleus_area_um2"].median() == pytest.approx(np.pi * TISSUE.radius_um**2, rel=0.4)
    assert counts_of(cells).sum() <= counts_of(section).sum()


def test_auto_takes_the_first_possible_method(version4, tmp_path):
    section, auto = open_bins(version4), CellsConfig()
    assert choose_method(section, version4.outs, auto) == "segmentation"
    assert choose_method(section, tmp_path, auto) == "nuclei"
    assert choose_method(dataclasses.replace(section, um_per_px=2.0), tmp_path, auto) == "bins"
    assert choose_method(open_bins(version4, 8), version4.outs, auto) == "bins"
    assert choose_method(section, version4.outs, CellsConfig(labels=Path("x.tif"))) == "labels"
    assert cells_of_section(section, config=CellsConfig(method="bins")) is section


def test_messages(version4, tmp_path):
    section = open_bins(version4)
    with pytest.raises(InputError, match="--bin-um 2"):
        cells_of_section(open_bins(version4, 8), config=CellsConfig(method="nuclei"))
    with pytest.raises(InputError, match="--cells nuclei finds"):
        cells_of_section(section, config=CellsConfig(method="segmentation"), folder=tmp_path)
    tifffile.imwrite(tmp_path / "turned.tif", np.ones((TISSUE.image.shape[1], TISSUE.image.shape[0]), np.uint8))
    with pytest.raises(InputError, match="as the slide"):
        cells_of_section(section, config=CellsConfig(labels=tmp_path / "turned.tif"))
    tifffile.imwrite(tmp_path / "none.tif", np.zeros(TISSUE.image.shape[:2], np.uint8))
    with pytest.raises(InputError, match="no label"):
        cells_of_section(section, config=CellsConfig(labels=tmp_path / "none.tif"))
    tifffile.imwrite(tmp_path / "float.tif", np.ones(TISSUE.image.shape[:2], np.float32))
    with pytest.raises(InputError, match="float32"):
        cells_of_section(section, config=CellsConfig(labels=tmp_path / "float.tif"))
    (tmp_path / "far.geojson").write_text(_square(1e6))
    with pytest.raises(InputError, match="no bin inside any outline"):
        cells_of_section(section, config=CellsConfig(labels=tmp_path / "far.geojson"))
    for bad in ({"method": "cellpose"}, {"segmenter": "x"}, {"method": "labels"}, {"expand_um": -1.0}):
        with pytest.raises(InputError):
            CellsConfig(**bad)
    with pytest.raises(InputError, match="--cells labels"):
        CellsConfig(method="nuclei", labels=Path("x.tif"))


def test_options_that_do_not_apply_to_bins_are_refused(version4):
    for given in ({"expand_um": 4.0}, {"volume_ratio": 3.0}, {"destripe": True}):
        with pytest.raises(InputError, match="with bins that stay bins"):
            cells_of_section(open_bins(version4), config=CellsConfig(method="bins", **given))


def test_segmentation_of_another_run_is_not_found(version4, tmp_path):
    """A run beside a foreign mapping: the search goes no further up than the run's own folder."""
    truth = without(version4, tmp_path / "mine", "barcode_mappings.parquet", "segmented_outputs/*.geojson")
    shutil.copy(version4.outs / "barcode_mappings.parquet", tmp_path / "barcode_mappings.parquet")
    shutil.copy(version4.outs / "barcode_mappings.parquet", tmp_path / "mine" / "barcode_mappings.parquet")
    assert choose_method(open_bins(truth), truth.outs, CellsConfig()) == "nuclei"
    square = version4.outs / "binned_outputs" / "square_002um"
    assert choose_method(open_bins(version4), square, CellsConfig()) == "segmentation"


def _square(corner: float) -> str:
    ring = [[corner, corner], [corner + 5, corner], [corner + 5, corner + 5], [corner, corner]]
    feature = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": {}}
    return json.dumps({"type": "FeatureCollection", "features": [feature]})


def test_bin_totals_are_read_in_pieces(version4, monkeypatch):
    monkeypatch.setattr("sge2hist.pairing.cells._BINS_AT_ONCE", 77)
    monkeypatch.setattr("sge2hist.readers.tenx.tenx_matrix.CHUNK_NONZEROS", 91)
    section = open_bins(version4)
    np.testing.assert_array_equal(bin_totals(section), counts_of(section).sum(1))
    np.testing.assert_array_equal(bin_totals(dataclasses.replace(section, read_totals=None)), counts_of(section).sum(1))


def test_destriped_totals_do_not_replace_raw_counts(version4):
    cells = cells_of_section(open_bins(version4), folder=version4.outs, config=CellsConfig(destripe=True))
    np.testing.assert_array_equal(counts_of(cells), truth_counts(version4, version4.cell_RC))
    assert (cells.obs["n_counts_destriped"] > 0).all()


def test_counts_stay_sparse_and_whole(version4):
    counts = cells_of_section(open_bins(version4), folder=version4.outs).read_counts(None, None)
    assert sp.issparse(counts)
    assert counts.dtype == np.int32
