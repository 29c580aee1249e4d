"""Cells of an AnnData for a slide: positions that are not in um are refused, and any change of the cells is noticed."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest

from sge2hist.data.errors import InputError
from sge2hist.generation.slide.source import _slide_number, open_source, source_from_adata

XY = np.stack(np.meshgrid(np.arange(5) * 16.0, np.arange(5) * 16.0), -1).reshape(-1, 2)


def cells(xy: np.ndarray = XY) -> anndata.AnnData:
    counts = np.random.default_rng(0).poisson(2, (len(xy), 3)).astype(np.float32)
    obs = pd.DataFrame(
        {"cell_type": ["a", "", None, "nan", "b"] * (len(xy) // 5)}, index=[f"c{i}" for i in range(len(xy))]
    )
    adata = anndata.AnnData(counts, obs=obs, var=pd.DataFrame(index=["G1", "G2", "G3"]))
    adata.obsm["spatial"] = xy
    return adata


def test_all_that_decides_the_slide_is_in_the_fingerprint():
    def fingerprint(adata: anndata.AnnData) -> str:
        return str(source_from_adata(adata).manifest["data_fingerprint"])

    own, changed = fingerprint(cells()), []
    for change in ("genes", "names", "types", "counts", "positions"):
        adata = cells()
        if change == "genes":
            adata.var_names = ["G1", "G2", "G4"]
        elif change == "names":
            adata.obs_names = [f"d{i}" for i in range(len(XY))]
        elif change == "types":
            adata.obs["cell_type"] = "a"
        elif change == "counts":
            adata.X[0, 0] += 1
        else:
            adata.obsm["spatial"] = XY + 1
        changed.append(fingerprint(adata))
    assert fingerprint(cells()) == own
    assert len({own, *changed}) == 6


def test_types_that_are_missing_or_empty_are_unknown():
    assert source_from_adata(cells()).type_N.tolist() == ["a", "unknown", "unknown", "unknown", "b"] * 5


@pytest.mark.parametrize(
    ("key", "value"),
    [("sge2hist", {"um_per_px": 2.0}), ("spatial", {"library": {"scalefactors": {"spot_diameter_fullres": 9.0}}})],
)
def test_positions_in_px_are_refused_unless_um_are_there_too(key, value):
    adata = cells(XY / 2)
    adata.uns[key] = value
    with pytest.raises(InputError, match="positions in px"):
        source_from_adata(adata)
    adata.uns[key] = {} if key == "sge2hist" else {"library": {"scalefactors": {"transformation_matrix": 1}}}  # um
    source_from_adata(adata)
    adata.uns[key] = value
    adata.obs["x_um"], adata.obs["y_um"] = XY.T
    np.testing.assert_allclose(source_from_adata(adata).xy_um_N2, XY)


def test_positions_in_mm_are_refused_and_cells_at_one_position_are_not():
    with pytest.raises(InputError, match=r"0\.016 um apart"):
        source_from_adata(cells(XY / 1000))
    source_from_adata(cells(np.repeat(XY[:5] * 4, 5, axis=0)))


def test_cells_are_opened_from_objects_and_paths(tiny_paired, tmp_path):
    cells().write_h5ad(tmp_path / "a.h5ad")
    assert open_source(tmp_path / "a.h5ad").slide == "a"
    from_path, from_object = open_source(tiny_paired.path), open_source(tiny_paired)
    assert from_path.manifest == from_object.manifest
    for wrong, match in ((3, "type int"), (tmp_path / "none.h5ad", "no such file"), (tmp_path, "manifest")):
        with pytest.raises(InputError, match=match):
            open_source(wrong)
    with pytest.raises(InputError, match="slide 4"):
        open_source(tiny_paired, 4)


def test_positions_in_px_and_previews_are_converted_where_their_unit_is_stated():
    adata = cells(XY / 2)
    adata.uns["sge2hist"] = {"um_per_px": 2.0}
    with pytest.raises(InputError, match=r"--positions px"):
        source_from_adata(adata)
    source = source_from_adata(adata, positions="px")
    np.testing.assert_allclose(source.xy_um_N2, XY)
    assert source.manifest["positions"] == "px"
    np.testing.assert_allclose(source_from_adata(cells(XY / 2), positions="px", um_per_px=2.0).xy_um_N2, XY)
    with pytest.raises(InputError, match="--image-um-per-px"):
        source_from_adata(cells(XY / 2), positions="px")
    adata = cells(XY / 2 * 0.1)
    adata.uns["spatial"] = {"library": {"scalefactors": {"tissue_hires_scalef": 0.1}}}
    np.testing.assert_allclose(source_from_adata(adata, positions="hires", um_per_px=2.0).xy_um_N2, XY)
    with pytest.raises(InputError, match="tissue_lowres_scalef"):
        source_from_adata(adata, positions="lowres", um_per_px=2.0)
    assert source_from_adata(cells(XY / 1000), positions="um").warnings  # stated, but absurd
    with pytest.raises(InputError, match=r"auto \| px"):
        source_from_adata(cells(), positions="mm")


def test_cells_farther_apart_than_cells_can_be_are_px():
    jitter = np.random.default_rng(0).uniform(-3, 3, XY.shape)
    with pytest.raises(InputError, match=r"um apart.*--positions px --image-um-per-px"):
        source_from_adata(cells((XY + jitter) * 8))
    assert source_from_adata(cells((XY + jitter) * 3)).warnings
    assert not source_from_adata(cells(XY + jitter)).warnings
    assert not source_from_adata(cells(XY * 100 / 16)).warnings  # spots


def test_one_of_several_sections_is_asked_for(tiny_paired):
    adata = cells(np.concatenate([XY, XY]))
    adata.obs["sample"] = ["s1"] * len(XY) + ["s2"] * len(XY)
    with pytest.raises(InputError, match=r"s1, s2.*--section s1"):
        source_from_adata(adata)
    assert source_from_adata(adata, section="s2").id_N[0] == "c25"
    with pytest.raises(InputError, match="--section other"):
        open_source(tiny_paired, section="other")
    assert open_source(tiny_paired, section=tiny_paired.slide_ids[0]).slide == tiny_paired.slide_ids[0]
    with pytest.raises(InputError, match="--positions px with a paired dataset"):
        open_source(tiny_paired, positions="px")


def test_a_paired_dataset_of_several_slides_needs_a_name(tiny_paired):
    class Several:
        slide_ids, path = ["a", "b"], tiny_paired.path

    with pytest.raises(InputError, match=r"2 slides \(a, b\).*--section a"):
        _slide_number(Several(), None, None)  # type: ignore[arg-type]
    assert _slide_number(Several(), None, "b") == 1  # type: ignore[arg-type]
    assert _slide_number(Several(), 1, None) == 1  # type: ignore[arg-type]
