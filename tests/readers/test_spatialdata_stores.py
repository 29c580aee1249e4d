"""Stores as spatialdata-io and sopa leave them: rasterised bins, several tables, several coordinate systems, several samples."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fixtures.tissue import Tissue, make_tissue
from sge2hist.data.errors import InputError
from sge2hist.readers.spatialdata.store import read_all

spatialdata = pytest.importorskip("spatialdata")
pytestmark = pytest.mark.filterwarnings("ignore")  # other people's announcements

DAPI_UM = 0.2125
TISSUE = make_tissue()
HE_TO_DAPI = np.array([[0, -0.5 / DAPI_UM, 900.0], [0.5 / DAPI_UM, 0, 40.0], [0, 0, 1]])


def affine(matrix: np.ndarray) -> Any:
    return spatialdata.transformations.Affine(matrix, input_axes=("x", "y"), output_axes=("x", "y"))


def he(tissue: Tissue = TISSUE, **systems: Any) -> Any:
    planes = np.moveaxis(tissue.image, 2, 0)
    return spatialdata.models.Image2DModel.parse(planes, dims=("c", "y", "x"), transformations=systems or None)


def circles(xy: np.ndarray, ids: list[str], radius: float = 5.0, **systems: Any) -> Any:
    return spatialdata.models.ShapesModel.parse(
        xy, geometry=0, radius=np.full(len(xy), radius), index=pd.Index(ids), transformations=systems or None
    )


def table(region: str, tissue: Tissue = TISSUE, prefix: str = "c", **columns: Any) -> Any:
    import anndata

    ids = [f"{prefix}{number}" for number in range(len(tissue))]
    obs = pd.DataFrame({"region": pd.Categorical([region] * len(ids)), "cell_id": ids, **columns}, index=ids)
    found = anndata.AnnData(
        X=tissue.counts_NG.astype(np.float32), obs=obs, var=pd.DataFrame(index=list(tissue.gene_ids))
    )
    return spatialdata.models.TableModel.parse(found, region=region, region_key="region", instance_key="cell_id")


def ids(tissue: Tissue = TISSUE, prefix: str = "c") -> list[str]:
    return [f"{prefix}{number}" for number in range(len(tissue))]


def on_dapi(xy: np.ndarray) -> np.ndarray:
    return xy @ HE_TO_DAPI[:2, :2].T + HE_TO_DAPI[:2, 2]


def counts_of(section: Any) -> np.ndarray:
    return section.read_counts(None, None).toarray()


# ---- rasterised bins


@pytest.mark.parametrize("with_shapes", [True, False])
@pytest.mark.parametrize("bin_um", [8, 16])
def test_rasterised_bins_lie_where_the_bins_lie(tmp_path: Path, with_shapes: bool, bin_um: int) -> None:
    """`rasterize_bins` puts bins on the corners of pixels, half a bin from where labels are."""
    spatialdata_io = pytest.importorskip("spatialdata_io")
    from fixtures.visium_hd import turned_homography, write_visium_hd
    from sge2hist.readers.tenx import visium_hd

    turned = turned_homography(TISSUE.um_per_px, TISSUE.image.shape[0])
    truth = write_visium_hd(TISSUE, tmp_path / "run", homography=turned)
    theirs = spatialdata_io.visium_hd(
        truth.outs, dataset_id="x", fullres_image_file=truth.image, annotate_table_by_labels=True, bin_size=bin_um
    )
    if not with_shapes:
        for name in list(theirs.shapes):
            del theirs.shapes[name]
    theirs.write(tmp_path / "x.zarr")
    section = read_all(tmp_path / "x.zarr")[0]
    direct = visium_hd.read(truth.outs, image=truth.image, bin_um=bin_um)
    assert section.centre_xy_px == pytest.approx(direct.centre_xy_px, abs=1e-6)
    assert (counts_of(section) == counts_of(direct)).all()
    assert (section.um_per_px, section.observation, section.observation_um) == (pytest.approx(0.5), "bin", bin_um)


# ---- the scale


def test_a_segmentation_in_px_of_the_morphology_image_is_not_in_um(tmp_path: Path) -> None:
    """sopa segments on the DAPI image of a Xenium store: the table annotates outlines in its px; other elements are in um."""
    to_px = affine(np.diag([1 / DAPI_UM, 1 / DAPI_UM, 1.0]))
    shapes = {
        "cellpose_boundaries": circles(on_dapi(TISSUE.centre_xy_px), ids()),
        "cell_boundaries": circles(on_dapi(TISSUE.centre_xy_px) * DAPI_UM, ids(), **{"global": to_px}),
    }
    store = spatialdata.SpatialData(
        images={"he_image": he(**{"global": affine(HE_TO_DAPI)})},
        shapes=shapes,
        tables={"table": table("cellpose_boundaries")},
        attrs={"spatialdata_io_reader": "xenium"},
    )
    store.write(tmp_path / "x.zarr")
    (section,) = read_all(tmp_path / "x.zarr")
    assert section.centre_xy_px == pytest.approx(TISSUE.centre_xy_px)
    assert section.um_per_px_sources == {"cell_boundaries in um": pytest.approx(0.5)}


def test_a_system_named_microns_gives_the_scale(tmp_path: Path) -> None:
    scale = spatialdata.transformations.Scale([0.5, 0.5], axes=("x", "y"))
    identity = spatialdata.transformations.Identity()
    store = spatialdata.SpatialData(
        images={"he": he()},
        shapes={"cells": circles(TISSUE.centre_xy_px, ids(), **{"global": identity, "microns": scale})},
        tables={"table": table("cells")},
    )
    store.write(tmp_path / "x.zarr")
    (section,) = read_all(tmp_path / "x.zarr")
    assert section.um_per_px_sources == {"coordinate system microns": pytest.approx(0.5)}


# ---- coordinate systems


def test_systems_that_contradict_each_other_are_refused_until_one_is_named(tmp_path: Path) -> None:
    """An alignment by landmarks adds a system and leaves the wrong identity of "global" behind."""
    identity = spatialdata.transformations.Identity()
    store = spatialdata.SpatialData(
        images={"he": he(**{"global": identity, "aligned": affine(HE_TO_DAPI)})},
        shapes={"cells": circles(on_dapi(TISSUE.centre_xy_px), ids(), **{"global": identity, "aligned": identity})},
        tables={"table": table("cells")},
    )
    store.write(tmp_path / "x.zarr")
    with pytest.raises(InputError, match=r"at different places of the image: .*aligned.*--image he@"):
        read_all(tmp_path / "x.zarr", um_per_px=0.5)
    (section,) = read_all(tmp_path / "x.zarr", um_per_px=0.5, image="he@aligned")
    assert section.centre_xy_px == pytest.approx(TISSUE.centre_xy_px)
    (other,) = read_all(tmp_path / "x.zarr", um_per_px=0.5, image="he@global")
    assert other.centre_xy_px == pytest.approx(on_dapi(TISSUE.centre_xy_px))
    with pytest.raises(InputError, match="no shared system 'nowhere'"):
        read_all(tmp_path / "x.zarr", um_per_px=0.5, image="he@nowhere")


def test_elements_without_a_shared_system_are_joined_by_others(tmp_path: Path) -> None:
    """Cells in "um", the H&E in "slide", the DAPI image in both."""
    labels = spatialdata.models.Labels2DModel.parse(
        np.eye(30, dtype=np.int32),
        dims=("y", "x"),
        transformations={
            "um": affine(np.diag([DAPI_UM, DAPI_UM, 1.0])),
            "slide": affine(np.linalg.inv(HE_TO_DAPI)),
        },
    )
    store = spatialdata.SpatialData(
        images={"he": he(slide=spatialdata.transformations.Identity())},
        labels={"nuclei": labels},
        shapes={
            "cells": circles(on_dapi(TISSUE.centre_xy_px) * DAPI_UM, ids(), um=spatialdata.transformations.Identity())
        },
        tables={"table": table("cells")},
    )
    store.write(tmp_path / "x.zarr")
    (section,) = read_all(tmp_path / "x.zarr")
    assert section.centre_xy_px == pytest.approx(TISSUE.centre_xy_px)
    assert section.um_per_px == pytest.approx(0.5)


# ---- several tables, several samples


@pytest.mark.parametrize("one_table", [True, False])
def test_joined_samples_keep_their_images(tmp_path: Path, one_table: bool) -> None:
    """Both lie in "global", as `spatialdata.concatenate` leaves them: the names say which image is whose."""
    second = make_tissue(width_px=300, height_px=240, seed=3)
    samples = {
        key: spatialdata.SpatialData(
            images={"he": he(tissue)},
            shapes={"cells": circles(tissue.centre_xy_px, ids(tissue, key), radius=4.0)},
            tables={"table": table("cells", tissue, key)},
        )
        for key, tissue in (("one", TISSUE), ("two", second))
    }
    joined = spatialdata.concatenate(samples, concatenate_tables=one_table)
    joined.write(tmp_path / "x.zarr")
    sections = {section.name: section for section in read_all(tmp_path / "x.zarr", um_per_px=0.5)}
    assert len(sections) == 2
    for key, tissue in (("one", TISSUE), ("two", second)):
        section = sections[f"cells-{key}"]
        assert (section.image.as_array() == tissue.image).all()
        assert section.centre_xy_px == pytest.approx(tissue.centre_xy_px)
        assert (counts_of(section) == tissue.counts_NG).all()


def test_cells_that_sopa_made_of_bins_come_before_the_bins(tmp_path: Path) -> None:
    squares = TISSUE.centre_xy_px + 1
    store = spatialdata.SpatialData(
        images={"x_full_image": he()},
        shapes={
            "stardist_boundaries": circles(TISSUE.centre_xy_px, ids()),
            "x_square_016um": circles(squares, ids(), radius=16.0),
        },
        tables={"table": table("stardist_boundaries"), "square_016um": table("x_square_016um")},
        attrs={"spatialdata_io_reader": "visium_hd"},
    )
    store.write(tmp_path / "x.zarr")
    (section,) = read_all(tmp_path / "x.zarr")
    assert (section.observation, section.um_per_px) == ("cell", pytest.approx(0.5))
    assert section.centre_xy_px == pytest.approx(TISSUE.centre_xy_px)
    assert section.notes[-1] == "not read: table square_016um (--table reads one)"
    (bins,) = read_all(tmp_path / "x.zarr", bin_um=16)
    assert bins.centre_xy_px == pytest.approx(squares)
    with pytest.raises(InputError, match=r"no table of bins of 8 um; expected one of 16 um"):
        read_all(tmp_path / "x.zarr", bin_um=8)


def test_two_segmentations_of_one_image_are_not_two_slides(tmp_path: Path) -> None:
    store = spatialdata.SpatialData(
        images={"he": he()},
        shapes={name: circles(TISSUE.centre_xy_px, ids()) for name in ("baysor", "cellpose")},
        tables={f"{name}_table": table(name) for name in ("baysor", "cellpose")},
    )
    store.write(tmp_path / "x.zarr")
    with pytest.raises(InputError, match=r"tables baysor_table and cellpose_table of one image, he.*--table"):
        read_all(tmp_path / "x.zarr", um_per_px=0.5)
    (section,) = read_all(tmp_path / "x.zarr", um_per_px=0.5, table="cellpose_table")
    assert "cellpose" in section.notes[-1]


def test_fluorescence_in_three_bytes_is_no_histology(tmp_path: Path) -> None:
    """The largest 8-bit image with three channels, but one of them is DAPI."""
    planes = np.zeros((3, 400, 500), np.uint8)
    stains = spatialdata.models.Image2DModel.parse(planes, dims=("c", "y", "x"), c_coords=["DAPI", "18S", "aSMA"])
    store = spatialdata.SpatialData(
        images={"a_morphology_focus": stains, "he": he()},
        shapes={"cells": circles(TISSUE.centre_xy_px, ids())},
        tables={"table": table("cells")},
    )
    store.write(tmp_path / "x.zarr")
    (section,) = read_all(tmp_path / "x.zarr", um_per_px=0.5)
    assert section.image.path.name == "he"
