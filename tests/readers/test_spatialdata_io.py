"""Our readers against those of spatialdata-io and scanpy, on the same vendor files; skipped where they are absent."""

from pathlib import Path

import numpy as np
import pytest

from fixtures.tissue import make_tissue
from fixtures.visium import write_visium
from fixtures.visium_hd import turned_homography, write_visium_hd
from fixtures.xenium import alignment_matrix, write_xenium
from sge2hist.data.section import Section
from sge2hist.readers.spatialdata.store import read_all
from sge2hist.readers.tenx import visium, visium_hd, visium_hd_segmented, xenium

spatialdata = pytest.importorskip("spatialdata")
spatialdata_io = pytest.importorskip("spatialdata_io")
pytestmark = pytest.mark.filterwarnings("ignore")  # other people's announcements

XENIUM_WITHOUT_IMAGES = {
    "cells_labels": False,
    "nucleus_labels": False,
    "transcripts": False,
    "morphology_focus": False,
    "morphology_mip": False,
}


def counts_of(section: Section) -> np.ndarray:
    return section.read_counts(None, None).toarray()


@pytest.mark.parametrize("bin_um", [2, 8, 16])
@pytest.mark.parametrize("turned", [False, True])
def test_visium_hd_bins(tmp_path: Path, bin_um: int, turned: bool) -> None:
    tissue = make_tissue()
    homography = turned_homography(tissue.um_per_px, tissue.image.shape[0]) if turned else None
    truth = write_visium_hd(tissue, tmp_path / "run", homography=homography)
    theirs = spatialdata_io.visium_hd(
        truth.outs, dataset_id="x", fullres_image_file=truth.image, load_segmentations_only=False, bin_size=bin_um
    )
    table = theirs[f"square_{bin_um:03d}um"]
    ours = visium_hd.read(truth.outs, image=truth.image, bin_um=bin_um)
    assert list(ours.obs.index) == list(table.obs_names)
    assert (counts_of(ours) == table.X.toarray()).all()
    assert ours.centre_xy_px == pytest.approx(table.obsm["spatial"])
    assert list(ours.genes.index) == list(table.var["gene_ids"])


def test_visium_hd_cells(tmp_path: Path) -> None:
    truth = write_visium_hd(make_tissue(), tmp_path / "run", version="4.0.1")
    theirs = spatialdata_io.visium_hd(
        truth.outs, dataset_id="x", fullres_image_file=truth.image, load_segmentations_only=True
    )
    ours = visium_hd_segmented.read(truth.outs, image=truth.image)
    table, shapes = theirs["cell_segmentations"], theirs["x_cell_segmentations"]
    assert (counts_of(ours) == table[ours.obs.index].X.toarray()).all()
    polygons = shapes.loc[ours.obs.index].geometry
    assert ours.centre_xy_px == pytest.approx(np.stack([polygons.centroid.x, polygons.centroid.y], axis=1))
    assert ours.obs["area_um2"].to_numpy() == pytest.approx(polygons.area.to_numpy() * 0.25)


def test_visium_spots(tmp_path: Path) -> None:
    truth = write_visium(tmp_path / "run")
    theirs = spatialdata_io.visium(truth.outs, dataset_id="x", fullres_image_file=truth.image)
    table = theirs["table"]
    ours = visium.read(truth.outs, image=truth.image)
    assert list(ours.obs.index) == list(table.obs_names)
    assert (counts_of(ours) == table.X.toarray()).all()
    points = theirs["x"].geometry
    assert ours.centre_xy_px == pytest.approx(np.stack([points.x, points.y], axis=1))


@pytest.mark.parametrize("quarter_turns", [0, 1, 2])
def test_xenium_cells_on_the_aligned_image(tmp_path: Path, quarter_turns: int) -> None:
    tissue = make_tissue()
    matrix = alignment_matrix(tissue.um_per_px, quarter_turns=quarter_turns, shift_px=(900, 1200))
    truth = write_xenium(tissue, tmp_path / "x", he_to_dapi=matrix)
    theirs = spatialdata_io.xenium(truth.folder, **XENIUM_WITHOUT_IMAGES)
    ours = xenium.read(truth.folder)
    table = theirs["table"]
    assert list(ours.obs.index) == list(table.obs["cell_id"])
    assert (counts_of(ours) == table.X.toarray()).all()
    # Their way to px of the H&E: um -> global (px of DAPI) -> inverse of the image's affine.
    to_global = spatialdata.transformations.get_transformation(theirs["he_image"], "global")
    affine = to_global.to_affine_matrix(("x", "y"), ("x", "y"))
    dapi_xy_px = table.obsm["spatial"] / 0.2125
    theirs_xy_px = (np.column_stack([dapi_xy_px, np.ones(len(ours.obs))]) @ np.linalg.inv(affine).T)[:, :2]
    assert ours.centre_xy_px == pytest.approx(theirs_xy_px)


@pytest.mark.parametrize("container", ["0.1", "0.2"])
def test_visium_hd_through_a_store(tmp_path: Path, container: str) -> None:
    tissue = make_tissue()
    truth = write_visium_hd(tissue, tmp_path / "run", version="4.0.1")
    theirs = spatialdata_io.visium_hd(
        truth.outs, dataset_id="x", fullres_image_file=truth.image, load_segmentations_only=False
    )
    write_store(theirs, tmp_path / "x.zarr", container)
    section = read_all(tmp_path / "x.zarr")[0]
    direct = visium_hd_segmented.read(truth.outs, image=truth.image)
    assert list(section.obs.index) == list(direct.obs.index)
    assert section.centre_xy_px == pytest.approx(direct.centre_xy_px)
    assert (counts_of(section) == counts_of(direct)).all()
    assert section.um_per_px == pytest.approx(0.5)
    assert (section.image.as_array() == tissue.image).all()
    bins = read_all(tmp_path / "x.zarr", bin_um=8)[0]
    direct = visium_hd.read(truth.outs, image=truth.image, bin_um=8)
    assert bins.centre_xy_px == pytest.approx(direct.centre_xy_px)
    assert (counts_of(bins) == counts_of(direct)).all()
    assert bins.observation_um == 8


@pytest.mark.parametrize("container", ["0.1", "0.2"])
def test_xenium_through_a_store(tmp_path: Path, container: str) -> None:
    tissue = make_tissue()
    matrix = alignment_matrix(tissue.um_per_px, quarter_turns=1, shift_px=(900, 100))
    truth = write_xenium(tissue, tmp_path / "x", he_to_dapi=matrix)
    write_store(spatialdata_io.xenium(truth.folder, **XENIUM_WITHOUT_IMAGES), tmp_path / "x.zarr", container)
    section = read_all(tmp_path / "x.zarr")[0]
    assert section.centre_xy_px == pytest.approx(tissue.centre_xy_px, abs=1e-3)
    assert (counts_of(section) == tissue.counts_NG).all()
    assert section.um_per_px == pytest.approx(0.5)


def test_labels_as_the_annotated_region(tmp_path: Path) -> None:
    tissue = make_tissue()
    height, width = tissue.image.shape[:2]
    y, x = np.mgrid[:height, :width] + 0.5
    labels = np.zeros((height, width), np.int32)
    for number, centre in enumerate(np.floor(tissue.centre_xy_px) + 0.5, start=1):
        labels[np.hypot(x - centre[0], y - centre[1]) <= 6] = number * 3
    table = spatialdata.models.TableModel.parse(
        _adata(tissue), region="nuclei", region_key="region", instance_key="instance_id"
    )
    image = spatialdata.models.Image2DModel.parse(np.moveaxis(tissue.image, 2, 0), dims=("c", "y", "x"))
    elements = {"labels": {"nuclei": spatialdata.models.Labels2DModel.parse(labels, dims=("y", "x"))}}
    spatialdata.SpatialData(images={"he": image}, tables={"table": table}, **elements).write(tmp_path / "x.zarr")
    section = read_all(tmp_path / "x.zarr", um_per_px=0.5)[0]
    assert section.centre_xy_px == pytest.approx(np.floor(tissue.centre_xy_px) + 0.5, abs=1e-6)
    assert (counts_of(section) == tissue.counts_NG).all()


def _adata(tissue):  # type: ignore[no-untyped-def]
    import anndata
    import pandas as pd

    obs = pd.DataFrame({"region": pd.Categorical(["nuclei"] * 24), "instance_id": np.arange(1, 25) * 3})
    obs.index = obs.index.astype(str)
    return anndata.AnnData(X=tissue.counts_NG.astype(np.float32), obs=obs, var=pd.DataFrame(index=tissue.gene_ids))


def write_store(data, path: Path, container: str) -> None:  # type: ignore[no-untyped-def]
    from spatialdata._io import format as layout

    if container == "0.2":
        data.write(path)
    else:
        data.write(path, sdata_formats=layout.SpatialDataContainerFormatV01())
