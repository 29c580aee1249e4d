"""Layouts: cells by type and position become the slide that cells of these types give; what cannot be used is named."""

from __future__ import annotations

import gzip
import json

import anndata
import numpy as np
import pandas as pd
import pytest
import shapely
import tifffile
import torch

from sge2hist.data.errors import InputError
from sge2hist.data.generated import SLIDE_NAME
from sge2hist.generation.slide.edited_source import EditedSource
from sge2hist.generation.slide.layout import N_VERTICES, fill, is_layout, layout_of_table, read_layout
from sge2hist.generation.slide.layout_source import expected_counts, open_cells, source_from_layout
from sge2hist.generation.slide.nearby_cells import encode_nearby
from sge2hist.generation.slide.render import generate_slide
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.image.samplers import SamplerConfig
from sge2hist.models.niches import RADII_UM

FAST = SamplerConfig(n_steps=2)


@pytest.fixture(scope="module")
def bundle(tiny_model):
    return ModelBundle.load(tiny_model)


def _table(side: int = 12, types=("alpha", "gamma")) -> pd.DataFrame:
    row, column = np.divmod(np.arange(side * side), side)
    name = np.where(column < side // 2, types[0], types[1])
    return pd.DataFrame({"x_um": column * 16.0 + 8, "y_um": row * 16.0 + 8, "cell_type": name})


def _feature(geometry, name) -> dict:
    properties = {} if name is None else {"classification": {"name": name}}
    return {"type": "Feature", "geometry": shapely.geometry.mapping(geometry), "properties": properties}


def test_a_table_says_what_each_cell_is(tmp_path):
    table = _table().assign(cell_id=[f"c{i}" for i in range(144)], outline="")
    table.loc[3, "outline"] = "POLYGON ((50 2, 62 2, 62 14, 50 14, 50 2))"
    for path, separator in ((tmp_path / "x.csv", ","), (tmp_path / "x.tsv", "\t"), (tmp_path / "x.csv.gz", ",")):
        table.to_csv(path, sep=separator, index=False)
        layout = read_layout(path, um_per_unit=None, spacing_um=16.0)
        assert is_layout(path)
        assert layout.xy_um_N2 == pytest.approx(table[["x_um", "y_um"]].to_numpy())
        assert list(layout.type_N) == list(table["cell_type"])
        assert list(layout.id_N) == list(table["cell_id"])
        square = shapely.Polygon(layout.outline_um_NV2[3] + layout.xy_um_N2[3])
        assert square.area == pytest.approx(144, rel=0.01)
        assert np.isnan(np.delete(layout.outline_um_NV2, 3, 0)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="x_um"), "add x_um"),
        (lambda t: t.assign(y_um=["far"] + [1.0] * 143), "1 cells without a position"),
        (lambda t: t.assign(cell_type=[None] + ["alpha"] * 143), "1 cells without a type"),
        (lambda t: t.assign(outline="POLYGON (("), "a WKT polygon in um"),
        (lambda t: t.iloc[:0], "no cell"),
    ],
)
def test_tables_that_cannot_be_used_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        layout_of_table(change(_table()))


def test_annotations_hold_points_cells_and_regions(tmp_path):
    cell, region = shapely.Point(100, 60).buffer(8), shapely.box(200, 200, 400, 300)
    features = [_feature(shapely.Point(10, 20), "alpha"), _feature(cell, "beta"), _feature(region, "gamma")]
    path = tmp_path / "x.geojson.gz"
    path.write_bytes(gzip.compress(json.dumps({"type": "FeatureCollection", "features": features}).encode()))
    layout = read_layout(path, um_per_unit=0.5, spacing_um=4.0, seed=1)
    assert layout.xy_um_N2[:2] == pytest.approx(np.array([[5.0, 10.0], [50.0, 30.0]]))
    assert list(layout.type_N[:3]) == ["alpha", "beta", "gamma"]
    assert shapely.Polygon(layout.outline_um_NV2[1]).area == pytest.approx(np.pi * 16, rel=0.03)
    assert layout.outline_um_NV2.shape[1] == N_VERTICES
    filled = layout.xy_um_N2[2:]
    assert ((filled >= (100, 100)) & (filled <= (200, 150))).all()
    assert len(filled) == pytest.approx(5000 / (16 * 3**0.5 / 2), rel=0.05)  # a hexagonal lattice, 4 um
    again = read_layout(path, um_per_unit=0.5, spacing_um=4.0, seed=1)
    assert np.array_equal(again.xy_um_N2, layout.xy_um_N2)
    with pytest.raises(InputError, match="annotations without a scale"):
        read_layout(path, um_per_unit=None, spacing_um=4.0)


def test_features_that_are_no_cells_are_all_named(tmp_path):
    path = tmp_path / "x.json"
    line = shapely.LineString([(0, 0), (1, 1)])
    path.write_text(json.dumps([_feature(shapely.Point(1, 1), None), _feature(line, "alpha"), {"type": "Feature"}]))
    with pytest.raises(
        InputError, match=r"(?s)feature 0 without a class.*feature 1, a LineString.*feature 2 that cannot"
    ):
        read_layout(path, um_per_unit=1.0, spacing_um=4.0)


def test_filled_cells_stay_in_their_polygon():
    ring = shapely.Point(0, 0).buffer(100).difference(shapely.Point(0, 0).buffer(50))
    xy = fill(ring, 10.0, np.random.default_rng(0))
    radius = np.linalg.norm(xy, axis=1)
    assert (radius.min() >= 49.9) & (radius.max() <= 100)
    assert len(xy) == pytest.approx(ring.area / (100 * 3**0.5 / 2), rel=0.05)


def test_expected_counts_are_those_of_the_decoder(bundle):
    gene = bundle.model.gene
    component = np.array([1, 0])
    z1 = gene.mixture.means_KT.detach()[component]
    found = expected_counts(bundle, component, z1.numpy()).toarray()
    with torch.no_grad():
        expected = gene.decode(torch.cat([z1, gene.micro.means_KM[component]], 1)) * gene.encoder.scale
    assert np.allclose(found, expected.numpy(), rtol=1e-4)
    assert found.sum(1) == pytest.approx(float(gene.encoder.scale), rel=1e-4)


def test_cells_of_a_layout_are_of_the_types_asked(bundle):
    """z1 by the type exactly, z2 by the composition around: cells of one type differ with their place."""
    side = 20
    source = source_from_layout(bundle, layout_of_table(_table(side)), seed=2)
    cells = encode_nearby(bundle, EditedSource(source), np.array([160.0, 160.0]), (200.0, 200.0))
    n_type = bundle.config.gene.n_type
    assert np.array_equal(cells.z_MZ[:, :n_type], source.z1_NT[cells.source_M])
    type_of_component = np.array([row.name for row in sorted(bundle.types.rows, key=lambda row: row.component)])
    log_p = bundle.model.gene.mixture.component_posterior(source.z1_NT)
    assert (type_of_component[log_p.argmax(1)] == source.type_N).mean() > 0.7
    pure = source_from_layout(bundle, layout_of_table(_table(side, types=("alpha", "alpha"))), seed=2)
    among_own = encode_nearby(bundle, EditedSource(pure), np.array([160.0, 160.0]), (200.0, 200.0))
    differs = (cells.z_MZ != among_own.z_MZ).any(1)
    # z2 reads its neighbours, whose z1 reads the types around them
    reach_um = bundle.config.gene.neighbour_um + max(RADII_UM)
    far = cells.xy_um_M2[:, 0] < 152 - reach_um  # of the last column of alpha
    border = np.abs(cells.xy_um_M2[:, 0] - 152) < 1
    assert far.any()
    assert differs[border].all()
    assert not differs[far].any()
    other = source_from_layout(bundle, layout_of_table(_table(side)), seed=3)
    assert not np.array_equal(other.z1_NT, source.z1_NT)
    few = source.read_counts(np.array([5, 77])).toarray()
    assert np.allclose(few, source.read_counts(np.arange(144)).toarray()[[5, 77]], rtol=1e-5)


def test_unknown_types_are_all_named(bundle):
    layout = layout_of_table(_table(types=("alpha", "martian")))
    with pytest.raises(InputError, match=r"1 unknown cell types \(martian\).*alpha"):
        source_from_layout(bundle, layout)


def test_a_slide_from_types_alone(bundle, tmp_path):
    path = tmp_path / "x.csv"
    _table().to_csv(path, index=False)

    def pixels(data, name) -> np.ndarray:
        options = {"region_um": (0.0, 0.0, 192.0, 192.0), "seed": 4, "sampler": FAST, "stand_alone": True}
        slide = generate_slide(bundle, data, tmp_path / name, **options)
        assert slide.manifest["layout"] is True
        return tifffile.imread(slide.path / SLIDE_NAME)

    from_table = pixels(path, "table.generated")
    adata = anndata.AnnData(obs=_table().set_index(pd.Index([f"c{i}" for i in range(144)])))
    adata.write_h5ad(tmp_path / "x.h5ad")
    assert np.array_equal(pixels(tmp_path / "x.h5ad", "file.generated"), from_table)
    assert np.array_equal(pixels(adata, "memory.generated"), from_table)
    other = tmp_path / "y.csv"
    _table(types=("gamma", "alpha")).to_csv(other, index=False)
    assert not np.array_equal(pixels(other, "other.generated"), from_table)


def test_options_of_measured_cells_are_refused(bundle, tmp_path):
    path = tmp_path / "x.csv"
    _table().to_csv(path, index=False)
    with pytest.raises(InputError, match="--section a and --positions px with a layout"):
        open_cells(bundle, path, section="a", positions="px")
