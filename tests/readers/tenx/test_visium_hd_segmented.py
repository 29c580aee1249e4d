"""Space Ranger's own cells: counts, centres and areas equal the bins that they were made of."""

import json
from pathlib import Path

import numpy as np
import pytest

from fixtures.tissue import make_tissue
from fixtures.visium_hd import VisiumHDTruth, turned_homography, write_visium_hd
from sge2hist.data.errors import InputError
from sge2hist.readers.tenx import visium_hd_segmented


@pytest.mark.parametrize("turned", [False, True])
def test_cells_equal_their_bins(tmp_path: Path, turned: bool) -> None:
    tissue = make_tissue()
    homography = turned_homography(tissue.um_per_px, tissue.image.shape[0]) if turned else None
    truth = write_visium_hd(tissue, tmp_path / "run", version="4.0.1", homography=homography)
    section = visium_hd_segmented.read(tmp_path / "run", image=truth.image)
    assert list(section.obs.index) == [f"cellid_{number:09d}-1" for number in range(1, 24)]
    assert (section.read_counts(None, None).toarray() == tissue.counts_NG[:-1]).all()
    bins_xy_px = truth.bin_centre_xy_px()
    for cell in range(23):
        mine = truth.cell_RC.ravel() == cell + 1
        assert section.centre_xy_px[cell] == pytest.approx(bins_xy_px[mine].mean(axis=0))
        assert section.obs["area_um2"].iloc[cell] == pytest.approx(4.0 * mine.sum())
        nucleus = (truth.nucleus_RC == cell + 1).sum()
        assert section.obs["nucleus_area_um2"].iloc[cell] == pytest.approx(4.0 * nucleus)
    assert section.um_per_px == 0.5
    assert section.name == "run"
    assert section.obs["cluster"].iloc[:2].tolist() == ["Cluster 1", "Cluster 2"]
    assert "1 polygons are not in filtered_feature_cell_matrix.h5" in section.notes[0]


def test_clusters_come_from_annotated_polygons_when_there_is_no_table(tmp_path: Path) -> None:
    truth = write_visium_hd(make_tissue(), tmp_path, version="4.0.1")
    folder = truth.outs / "segmented_outputs"
    (folder / "analysis" / "clustering" / "gene_expression_graphclust" / "clusters.csv").unlink()
    assert "cluster" not in visium_hd_segmented.read(tmp_path, image=truth.image).obs
    content = json.loads((folder / "cell_segmentations.geojson").read_text())
    for feature in content["features"]:
        number = feature["properties"]["cell_id"]
        feature["properties"]["classification"] = {"name": f"Cluster-{number % 3}", "color": [0, 0, 0]}
    (folder / "graphclust_annotated_cell_segmentations.geojson").write_text(json.dumps(content))
    section = visium_hd_segmented.read(tmp_path, image=truth.image)
    assert section.obs["cluster"].iloc[:3].tolist() == ["Cluster 1", "Cluster 2", "Cluster 0"]


def test_a_prefix_and_a_missing_outs_level_are_found(tmp_path: Path) -> None:
    truth = write_visium_hd(make_tissue(), tmp_path, version="4.0.1")
    (truth.outs / "segmented_outputs").rename(truth.outs / "Sample_1_segmented_outputs")
    assert visium_hd_segmented.read(truth.outs, image=truth.image).n_obs == 23
    folder = truth.outs / "Sample_1_segmented_outputs"
    assert visium_hd_segmented.read(folder, image=truth.image).n_obs == 23


def test_scale_factors_without_a_spot_diameter_are_enough(tmp_path: Path) -> None:
    truth = write_visium_hd(make_tissue(), tmp_path, version="4.0.1")
    path = truth.outs / "segmented_outputs" / "spatial" / "scalefactors_json.json"
    factors = json.loads(path.read_text())
    assert "spot_diameter_fullres" not in factors
    del factors["microns_per_pixel"]
    path.write_text(json.dumps(factors))
    with pytest.raises(InputError, match=r"no microns_per_pixel.*--image-um-per-px"):
        visium_hd_segmented.read(tmp_path, image=truth.image)
    assert visium_hd_segmented.read(tmp_path, image=truth.image, um_per_px=0.5).um_per_px == 0.5


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "cell_segmentations.geojson").unlink(), "no cell_segmentations.geojson"),
        (lambda f: (f / "nucleus_segmentations.geojson").unlink(), None),
        (lambda f: _drop_features(f, 5), r"18 of 23 cells without a polygon \(e.g. cellid_000000006-1\)"),
        (lambda f: (f / "cell_segmentations.geojson").write_text('{"features": [{"geometry": null}]}'), "GeoJSON"),
        (lambda f: [path.unlink() for path in f.glob("*.h5")], r"no segmented_outputs with a matrix of cells.*--cells"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, damage: object, message: str | None) -> None:
    truth: VisiumHDTruth = write_visium_hd(make_tissue(), tmp_path, version="4.0.1")
    damage(truth.outs / "segmented_outputs")  # type: ignore[operator]
    if message is None:
        assert "nucleus_area_um2" not in visium_hd_segmented.read(tmp_path, image=truth.image).obs
        return
    with pytest.raises(InputError, match=message):
        visium_hd_segmented.read(tmp_path, image=truth.image)


def _drop_features(folder: Path, n_kept: int) -> None:
    path = folder / "cell_segmentations.geojson"
    content = json.loads(path.read_text())
    content["features"] = content["features"][:n_kept]
    path.write_text(json.dumps(content))


def test_no_cell_is_far_from_where_it_was_planted(tmp_path: Path) -> None:
    tissue = make_tissue()
    truth = write_visium_hd(tissue, tmp_path, version="4.0.1")
    section = visium_hd_segmented.read(tmp_path, image=truth.image)
    assert np.abs(section.centre_xy_px - tissue.centre_xy_px[:-1]).max() * tissue.um_per_px < 1.0
