"""The table of a slide is written group by group and holds what one made in memory holds."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from sge2hist.generation.slide import cells as slide_cells
from sge2hist.generation.slide import table as cell_table
from sge2hist.generation.slide.edits import Edit
from sge2hist.generation.slide.render import SlideConfig, generate_slide, prepare_slide
from sge2hist.generation.slide.source import source_from_adata, source_from_paired
from sge2hist.generation.slide.table import read_table, writing_table
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.image.samplers import SamplerConfig

REGION_UM = (100.0, 200.0, 120.0, 100.0)


def _in_memory(job, source, edits) -> anndata.AnnData:
    """The same table made at once, from whole arrays."""
    parts = list(job.cells.in_source_order())
    xy_um, position, z = (
        np.concatenate([getattr(p, name) for p in parts]) for name in ("xy_um_M2", "source_M", "z_MZ")
    )
    x, y, width, height = job.spec.region_px
    xy_px = xy_um / job.bundle.config.um_per_px - (x, y)
    inside = np.flatnonzero(((xy_px >= 0) & (xy_px < (width, height))).all(1))
    at, own = position[inside], position[inside] >= 0
    if source.type_N is None:
        gene, known = job.bundle.model.gene, job.bundle.types
        posterior = gene.mixture.component_posterior(np.ascontiguousarray(z[inside, : gene.config.n_type]))
        types = np.array(known.names, object)[known.predicted_types(posterior)[0]]
    else:
        types = np.array([source.type_N[i] if i >= 0 else "" for i in at], object)
    edited = ~own
    for edit in edits:
        covered = edit.covers(xy_um[inside])
        if edit.set_type is not None:
            types[covered & own] = edit.set_type
        elif edit.add_type is not None:
            types[covered & ~own] = edit.add_type
        edited |= covered & (edit.set_type is not None or edit.gene is not None)
    added = iter(range(len(at)))
    ids = [source.id_N[i] if i >= 0 else f"added_{next(added)}" for i in at]
    obs = pd.DataFrame({"cell_type": pd.Categorical(types), "edited": edited, "seed": job.spec.seeds[0]}, index=ids)
    table = anndata.AnnData(X=csr_matrix(np.zeros((len(at), 0), np.float32)), obs=obs)
    table.obsm["spatial"], table.obsm["spatial_um"] = xy_px[inside], xy_um[inside]
    return table


@pytest.mark.parametrize("has_types", [True, False])
def test_the_table_is_that_made_in_memory(tiny_model, tiny_paired, tmp_path, monkeypatch, has_types):
    import shapely

    bundle = ModelBundle.load(tiny_model)
    source = source_from_paired(tiny_paired)
    if not has_types:
        cells = tiny_paired.adata()
        cells.obsm["spatial"] = tiny_paired.centre_xy_px * tiny_paired.um_per_px
        del cells.obs["cell_type"]
        source = source_from_adata(cells)
    spot = shapely.box(110, 210, 160, 260)
    edits = (
        Edit(area=spot, set_type="gamma"),
        Edit(area=spot, add_type="beta", spacing_um=6.0),
        Edit(area=shapely.box(170, 210, 190, 260), remove=True),
    )
    options = {"region_um": REGION_UM, "sampler": SamplerConfig(n_steps=1), "edits": edits, "seed": 3}
    job = prepare_slide(bundle, source, tmp_path / "a.generated", SlideConfig(**options))
    expected = _in_memory(job, source, edits)
    assert expected.obs["edited"].any()
    assert not expected.obs["edited"].all()
    monkeypatch.setattr(slide_cells, "GROUP", 1024)
    monkeypatch.setattr(cell_table, "CHUNK", 7)
    generate_slide(bundle, source, tmp_path / "b.generated", **options)
    found = anndata.read_h5ad(tmp_path / "b.generated" / "cells.h5ad")
    expected.write_h5ad(tmp_path / "whole.h5ad")
    expected = anndata.read_h5ad(tmp_path / "whole.h5ad")
    pd.testing.assert_frame_equal(found.obs, expected.obs)
    pd.testing.assert_frame_equal(found.var, expected.var)
    assert list(found.obsm) == list(expected.obsm)
    for name in expected.obsm:
        assert np.array_equal(found.obsm[name], expected.obsm[name])
    assert type(found.X) is type(expected.X)
    assert (found.X.shape, found.X.dtype, found.X.nnz) == (expected.X.shape, expected.X.dtype, 0)
    assert found.uns == expected.uns == {}


def test_a_table_without_cells(tmp_path):
    with writing_table(tmp_path / "cells.h5ad"):
        pass
    table = anndata.read_h5ad(tmp_path / "cells.h5ad")
    assert table.shape == (0, 0)
    assert list(table.obs) == ["cell_type", "edited", "seed"]
    assert list(read_table(tmp_path / "cells.h5ad")) == []
    assert [path.name for path in tmp_path.iterdir()] == ["cells.h5ad"]


def test_a_table_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), writing_table(tmp_path / "cells.h5ad"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
