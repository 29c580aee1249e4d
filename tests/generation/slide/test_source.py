"""Cells of an AnnData for a slide: positions that are not in um are refused, and any change of the cells is noticed."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest

from sge2hist.data.errors import InputError
from sge2hist.generation.slide.source import open_source, source_from_adata

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
    for wrong, match in ((3, "type int"), (tmp_path / "none.h5ad", "cannot be read"), (tmp_path, "manifest")):
        with pytest.raises(InputError, match=match):
            open_source(wrong)
    with pytest.raises(InputError, match="slide 4"):
        open_source(tiny_paired, 4)
