"""Cells by their outlines, from a paired dataset through training to patches and slides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tifffile

from sge2hist.data.artifacts import read_manifest
from sge2hist.data.errors import InputError
from sge2hist.data.generated import SLIDE_NAME
from sge2hist.explorer.cells import CellAnswers
from sge2hist.explorer.tissue import Tissue
from sge2hist.generation.footprints import outlines_to_use
from sge2hist.generation.patches import image_batches
from sge2hist.generation.requests import request_from_paired
from sge2hist.generation.slide.cells import CellRows, CellStore, write_cells
from sge2hist.generation.slide.edited_source import EditedSource
from sge2hist.generation.slide.edits import Edit
from sge2hist.generation.slide.job import lattice_of
from sge2hist.generation.slide.nearby_cells import encode_nearby
from sge2hist.generation.slide.render import generate_slide
from sge2hist.generation.slide.source import source_from_paired
from sge2hist.generation.slide.tiling import Area
from sge2hist.generation.slide.worker import cells_of_windows
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.image.samplers import SamplerConfig
from sge2hist.training.config import TrainConfig
from sge2hist.training.train import train
from tests.fixtures.paired import write_tiny_paired

FAST = SamplerConfig(n_steps=2)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_tiny_paired(tmp_path_factory.mktemp("outlines") / "x.paired", outlines=True)


@pytest.fixture(scope="module")
def bundle(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("outlines") / "x.model"
    train(dataset, folder, TrainConfig(preset="tiny", mixed_precision="no"), log=lambda _: None)
    return ModelBundle.load(folder)


def _images(bundle, dataset, rows, footprints) -> np.ndarray:
    request = request_from_paired(bundle, dataset, rows, footprints=footprints)
    return np.concatenate(list(image_batches(bundle, request, FAST)))


def test_the_model_knows_the_outlines_of_its_data(bundle, dataset):
    condition = bundle.config.image.condition
    assert (condition.outlines, condition.outline_um) == (True, 9.0)
    assert bundle.config.receptive_radius_um >= 9.0 + 2 * condition.grid_um
    rows = dataset.rows("test")[:3]
    auto = _images(bundle, dataset, rows, "auto")
    assert np.array_equal(auto, _images(bundle, dataset, rows, "outline"))
    assert not np.array_equal(auto, _images(bundle, dataset, rows, "point"))
    manifest = request_from_paired(bundle, dataset, rows).manifest
    assert manifest["footprints"] == "outline"
    assert request_from_paired(bundle, dataset, rows, footprints="point").manifest["footprints"] == "point"


def test_points_are_what_a_dataset_without_outlines_gives(bundle, dataset, tiny_paired):
    """The two datasets differ in outlines alone (made after everything else)."""
    rows = dataset.rows("test")[:3]
    assert np.array_equal(_images(bundle, tiny_paired, rows, "auto"), _images(bundle, dataset, rows, "point"))


def test_an_image_does_not_depend_on_its_batch(bundle, dataset):
    rows = dataset.rows("test")[:4]
    together = _images(bundle, dataset, rows, "auto").astype(int)
    alone = np.concatenate([_images(bundle, dataset, rows[i : i + 1], "auto") for i in range(4)]).astype(int)
    assert np.abs(together - alone).max() <= 1


def test_outlines_that_are_not_there_are_refused(bundle, dataset, tiny_model, tiny_paired):
    of_points = ModelBundle.load(tiny_model)
    with pytest.raises(InputError, match="a model that places cells as points"):
        outlines_to_use(of_points, dataset.outline_um, "outline")
    with pytest.raises(InputError, match="no outlines of cells"):
        outlines_to_use(bundle, tiny_paired.outline_um, "outline")
    with pytest.raises(InputError, match="footprints 'square'"):
        outlines_to_use(bundle, None, "square")
    assert outlines_to_use(of_points, dataset.outline_um) is None


def test_a_window_of_a_slide_has_the_condition_of_a_patch(bundle, dataset):
    row = dataset.rows("test")[200]
    lattice = lattice_of(bundle)
    centre_um = dataset.centre_xy_px[row] * dataset.um_per_px
    corner = np.round(centre_um / lattice.um_per_latent_px - lattice.window_side / 2).astype(int)[::-1]
    n = len(dataset)
    cells = CellRows(
        xy_um_M2=dataset.centre_xy_px * dataset.um_per_px,
        z_MZ=np.zeros((n, bundle.config.gene.n_latent), np.float32),
        depth_M=np.zeros(n, np.float32),
        outline_um_MV2=dataset.outline_um,
        source_M=np.arange(n),
    )
    placed, occupied = cells_of_windows(corner[None], cells, lattice, bundle.config.receptive_radius_um)
    assert occupied.all()
    near = np.abs(placed.xy_um_M2.numpy()).max(1) < 1e4
    source = np.round(placed.xy_um_M2.numpy()[near] + corner[::-1] * lattice.um_per_latent_px, 3)
    number = {tuple(xy): i for i, xy in enumerate(np.round(cells.xy_um_M2, 3).astype(np.float32).tolist())}
    rows = [number[tuple(xy)] for xy in source.astype(np.float32).tolist()]
    expected = dataset.outline_um[rows] + placed.xy_um_M2.numpy()[near][:, None]
    assert np.allclose(placed.outline_MV2.numpy()[near], expected, equal_nan=True)
    assert np.isnan(placed.outline_MV2.numpy()[~near]).all()


def test_slides_by_outlines_and_by_points(bundle, dataset, tmp_path):
    pixels = {}
    for footprints in ("outline", "point"):
        slide = generate_slide(
            bundle,
            dataset,
            tmp_path / f"{footprints}.generated",
            region_um=(200.0, 200.0, 100.0, 80.0),
            sampler=FAST,
            footprints=footprints,
        )
        assert read_manifest(slide.path, "generated")["footprints"] == footprints
        pixels[footprints] = tifffile.imread(slide.path / SLIDE_NAME)
    assert not np.array_equal(pixels["outline"], pixels["point"])


PLACES = ((201.0, 203.0), (214.5, 190.25), (230.0, 221.0), (190.0, 225.5))


def _added(bundle, source, edits):
    """Positions and outlines of the cells that edits add."""
    cells = encode_nearby(bundle, EditedSource(source, edits), np.array([210.0, 210.0]), (60.0, 60.0))
    new = cells.source_M < 0
    return cells.xy_um_M2[new], cells.outline_um_MV2[new]


def test_an_added_cell_has_the_outline_of_a_cell_of_its_type(bundle, dataset):
    source = source_from_paired(dataset, 0)
    xy, outlines = _added(bundle, source, [Edit(add_type="BETA", at_um=PLACES)])
    assert np.array_equal(xy, PLACES)
    of_type = dataset.outline_um[(dataset.obs["cell_type"] == "beta").to_numpy()]
    donors = [np.flatnonzero((of_type == outline).all((1, 2))) for outline in outlines]
    assert all(len(found) == 1 for found in donors)
    assert len({int(found[0]) for found in donors}) > 1  # not one shape for all
    # the same whatever else is edited, and of which of its places are asked for
    more = [Edit(add_type="alpha", at_um=((222.0, 222.0),)), Edit(add_type="beta", at_um=PLACES[::-1])]
    again = _added(bundle, source, more)
    assert np.array_equal(again[1][1:], outlines[::-1])
    # of all cells where none of the type has an outline
    bare = replace(
        source, outline_um_NV2=np.where((source.type_N == "beta")[:, None, None], np.nan, dataset.outline_um)
    )
    _, others = _added(bundle, bare, [Edit(add_type="beta", at_um=PLACES)])
    assert np.isfinite(others).all()
    unknown = replace(source, outline_um_NV2=np.full_like(dataset.outline_um, np.nan))
    assert np.isnan(_added(bundle, unknown, [Edit(add_type="beta", at_um=PLACES)])[1]).all()


def test_a_slide_and_the_explorer_have_the_outlines_of_added_cells_too(bundle, dataset, tmp_path):
    edits = [Edit(add_type="beta", at_um=PLACES)]
    source = source_from_paired(dataset, 0)
    _, outlines = _added(bundle, source, edits)
    lattice = lattice_of(bundle)
    write_cells(tmp_path, bundle, source, lattice, Area(top=0, left=0, height=64, width=64), edits)
    rows = list(CellStore(tmp_path, lattice).in_source_order())[-1]
    stored = {tuple(xy): outline for xy, outline in zip(rows.xy_um_M2, rows.outline_um_MV2, strict=True)}
    assert np.array_equal([stored[place] for place in PLACES], outlines)
    tissue = Tissue(bundle, dataset, model_name="x")
    shown = CellAnswers(tissue).within(
        EditedSource(tissue.source, edits), (180, 180, 60, 60), 100, "type", outlines=True
    )
    lent = [o for o, name in zip(shown["outline"], shown["id"], strict=True) if name.startswith("added_")]
    expected = (outlines + np.array(PLACES)[:, None]).round(2)
    assert np.allclose([np.reshape(o, (-1, 2)) for o in lent], expected, atol=0.011)
