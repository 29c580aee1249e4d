"""A type in its niche: examples are what lies around training cells, and a patch is one of them, turned."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from sge2hist.data.errors import InputError
from sge2hist.data.spatial_index import CellIndex
from sge2hist.generation.niche import niche_patch
from sge2hist.generation.patches import image_batches
from sge2hist.generation.type_requests import request_from_types
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.image.samplers import SamplerConfig
from sge2hist.models.niches import NICHES_NAME, POSITION_UM, RADII_UM, neighbour_shares, outline_steps, read_niches
from sge2hist.training.niches import find_niches, fit_z1, own_component
from tests.fixtures.paired import write_tiny_paired

HALF_UM = 40.0
RECIPE = Path(__file__).parents[2] / "recipes" / "add_niches.py"


@pytest.fixture(scope="module")
def bundle(tiny_model):
    return ModelBundle.load(tiny_model)


def _niches(dataset, **changes):
    rng = np.random.default_rng(0)
    depth_N = rng.normal(size=len(dataset)).astype(np.float32)
    options = {"n_components": 4, "half_um": HALF_UM, "seed": 0, **changes}
    return find_niches(dataset, dataset.type_of_cell, depth_N, **options), depth_N


def test_examples_are_neighbourhoods_of_training_cells(tiny_paired):
    """Against a slow search: positions, components and order of every example, far from held-out tissue."""
    niches, depth_N = _niches(tiny_paired)
    xy_um = tiny_paired.centre_xy_px * tiny_paired.um_per_px
    split = tiny_paired.obs["split"].astype(str).to_numpy()
    held_out = np.isin(split, ["val", "test"])
    assert len(niches) > 100
    key = {tuple(np.round(xy, 3)): row for row, xy in enumerate(xy_um)}
    for number in range(0, len(niches), 10):
        offset_um, component_M, outlines = niches.example(number)
        assert outlines is None
        assert np.abs(offset_um[0]).max() == 0
        candidates = [
            row
            for row in tiny_paired.rows("train")
            if component_M[0] == tiny_paired.type_of_cell[row]
            and all(tuple(np.round(xy_um[row] + o, 3)) in key for o in offset_um)
        ]
        found = False
        for row in candidates:
            around = np.flatnonzero((np.abs(xy_um - xy_um[row]).max(1) <= HALF_UM) & ~held_out)
            same = {tuple(np.round(xy_um[r] - xy_um[row], 1)): tiny_paired.type_of_cell[r] for r in around}
            found |= same == dict(zip(map(tuple, np.round(offset_um, 1)), component_M, strict=True))
        assert found
    train = tiny_paired.rows("train")
    row_min = xy_um[held_out, 1].min()
    assert len(train)
    assert row_min > 0
    own = train[tiny_paired.type_of_cell[train] == 1]
    far = own[row_min - xy_um[own, 1] > HALF_UM * np.sqrt(2)]
    assert niches.depth_K2[1] == pytest.approx([depth_N[far].mean(), depth_N[far].std()], rel=1e-4)
    assert niches.depth_K2[3].tolist() == [0, 0]  # a component without cells


def test_shares_of_neighbours_are_those_of_a_slow_search():
    rng = np.random.default_rng(0)
    xy_um, component_N = rng.uniform(0, 200, (120, 2)), rng.integers(3, size=120)
    shares = neighbour_shares(CellIndex(xy_um, np.zeros(120, np.int64)), np.array([5, 60]), component_N, 3)
    for row, cell in enumerate((5, 60)):
        for part, radius in enumerate(RADII_UM):
            near = np.flatnonzero(np.linalg.norm(xy_um - xy_um[cell], axis=1) <= radius)
            near = near[near != cell]
            expected = [(component_N[near] == k).mean() for k in range(3)] if len(near) else [0, 0, 0]
            assert shares[row, 3 * part : 3 * part + 3] == pytest.approx(expected, abs=1e-6)


def test_z1_follows_the_neighbours(tiny_paired):
    """Truth: z1 that depends on the share of one type nearby, in one component alone."""
    component_N = tiny_paired.type_of_cell
    xy_um = tiny_paired.centre_xy_px * tiny_paired.um_per_px
    index = CellIndex(xy_um, tiny_paired.slide_of_cell)
    shares_NC = neighbour_shares(index, np.arange(len(xy_um)), component_N, 4)
    z1_NT = np.stack([component_N + 3.0 * (component_N == 1) * shares_NC[:, 0], -2.0 * component_N], axis=1)
    fitted = fit_z1(tiny_paired, component_N, z1_NT, 4, seed=0)
    niches = dataclasses.replace(_niches(tiny_paired)[0], **fitted)
    known = np.flatnonzero(~tiny_paired.obs["split"].astype(str).isin(["val", "test"]).to_numpy())
    inside = neighbour_shares(
        CellIndex(xy_um[known], tiny_paired.slide_of_cell[known]), np.arange(len(known)), component_N[known], 4
    )
    found = niches.sample_z1(component_N[known], inside, np.random.default_rng(0))
    truth = np.stack(
        [component_N[known] + 3.0 * (component_N[known] == 1) * inside[:, 0], -2.0 * component_N[known]], 1
    )
    far = np.abs(inside - shares_NC[known]).max(1) < 1e-6  # cells that see no held-out ones
    assert far.sum() > 100
    assert np.quantile(np.abs(found - truth)[far], 0.99) < 0.4
    assert np.abs(found - truth)[far].mean() < 0.05
    flat = niches.sample_z1(component_N[known], niches.z1_shares_KC[component_N[known]], np.random.default_rng(0))
    assert np.abs(flat - truth)[far].mean() > np.abs(found - truth)[far].mean() * 2
    assert not fitted["z1_mean_KT"][3].any()  # a component without cells


def test_examples_of_a_type_surround_cells_of_that_label(tiny_paired):
    posterior_NK = np.array([[0.7, 0.1, 0.1, 0.1], [0.2, 0.1, 0.3, 0.4], [0.9, 0.0, 0.1, 0.0], [0.1, 0.6, 0.2, 0.1]])
    type_of_component_K = np.array([0, 1, 1, 2])
    assert own_component(posterior_NK, np.array([1, 1, 0, -1]), type_of_component_K).tolist() == [1, 2, 0, -1]
    assert own_component(posterior_NK, np.array([1, 1, 0, -1]), np.full(4, -1)).tolist() == [0, 3, 0, 1]
    rng = np.random.default_rng(3)
    component_N = rng.integers(4, size=len(tiny_paired))
    own_N = np.where(rng.random(len(tiny_paired)) < 0.5, tiny_paired.type_of_cell, -1)
    niches = find_niches(
        tiny_paired,
        component_N,
        np.zeros(len(tiny_paired), np.float32),
        n_components=4,
        half_um=HALF_UM,
        seed=0,
        centre_component_N=own_N,
    )
    xy_um = tiny_paired.centre_xy_px * tiny_paired.um_per_px
    key = {tuple(np.round(xy, 1)): row for row, xy in enumerate(xy_um)}
    for number in range(0, len(niches), 7):
        offset_um, found_M, _ = niches.example(number)
        places = [
            [key.get(tuple(np.round(xy_um[row] + offset, 1))) for offset in offset_um]
            for row in tiny_paired.rows("train")
            if own_N[row] == found_M[0]
        ]
        whole = [rows for rows in places if None not in rows]
        assert any(component_N[rows[1:]].tolist() == found_M[1:].tolist() for rows in whole)


def test_what_neighbours_do_not_explain_is_sampled(tiny_paired):
    """Truth: noise of a known covariance beside a constant."""
    factor = np.array([[0.5, 0.0], [0.3, 0.2]])
    z1_NT = np.random.default_rng(1).standard_normal((len(tiny_paired), 2)) @ factor.T + [2.0, -1.0]
    fitted = fit_z1(tiny_paired, tiny_paired.type_of_cell, z1_NT, 4, seed=0)
    niches = dataclasses.replace(_niches(tiny_paired)[0], **fitted)
    component_N = np.ones(20_000, np.int64)
    found = niches.sample_z1(component_N, fitted["z1_shares_KC"][component_N], np.random.default_rng(0))
    assert found.mean(0) == pytest.approx([2.0, -1.0], abs=0.1)
    assert np.cov(found.T) == pytest.approx(factor @ factor.T, abs=0.05)


def test_a_model_of_an_earlier_version_samples_the_component(bundle):
    none = dict.fromkeys(("z1_mean_KT", "z1_shares_KC", "z1_slope_KCT", "z1_residual_KTT"))
    niches = dataclasses.replace(bundle.niches, **none)
    assert niches.sample_z1(np.zeros(2, np.int64), np.zeros((2, 8)), np.random.default_rng(0)) is None
    older = dataclasses.replace(bundle, niches=niches)
    placed, z = niche_patch(older, "alpha", 0)
    now, z_now = niche_patch(bundle, "alpha", 0)
    assert np.array_equal(placed.xy_um_M2.numpy(), now.xy_um_M2.numpy())
    assert not np.array_equal(z, z_now)


def test_outlines_come_with_the_cells(tmp_path):
    dataset = write_tiny_paired(tmp_path / "x.paired", outlines=True)
    niches, _ = _niches(dataset)
    offset_um, _, outlines = niches.example(3)
    assert outlines.shape == (len(offset_um), 12, 2)
    radius = np.linalg.norm(outlines, axis=2)
    assert 4.7 < np.nanmin(radius) < np.nanmax(radius) < 9.3
    assert np.isnan(_restored(np.full((1, 3, 2), np.nan))).all()
    assert _restored(np.array([[[1.1, -31.0], [0.0, 50.0]]])) == pytest.approx(np.array([[[1.0, -31.0], [0.0, 31.75]]]))


def _restored(outline_um: np.ndarray) -> np.ndarray:
    steps = outline_steps(outline_um)
    return np.where(steps == -128, np.nan, steps * 0.25)


def test_a_model_folder_keeps_its_examples(bundle, tiny_model, tmp_path):
    assert bundle.niches is not None
    assert bundle.niches.half_um == pytest.approx(bundle.config.patch_um / 2 + bundle.config.receptive_radius_um)
    bundle.save(tmp_path / "copy.model")
    again = ModelBundle.load(tmp_path / "copy.model").niches
    for name, value in vars(bundle.niches).items():
        assert np.array_equal(getattr(again, name), value), name
    n = bundle.model.gene.mixture.n_components
    with pytest.raises(InputError, match="neighbourhoods that do not fit"):
        read_niches(tiny_model, n + 1)
    (tmp_path / "copy.model" / NICHES_NAME).write_bytes(b"PK broken")
    with pytest.raises(InputError, match="neighbourhoods that do not fit"):
        read_niches(tmp_path / "copy.model", n)
    (tmp_path / "copy.model" / NICHES_NAME).unlink()
    without = ModelBundle.load(tmp_path / "copy.model")
    with pytest.raises(InputError, match="a model without neighbourhoods"):
        niche_patch(without, "alpha", 0)


def test_a_patch_is_an_example_turned(bundle):
    components, _ = bundle.components_of("alpha")
    half_um = bundle.config.patch_um / 2
    examples = [
        {tuple(sorted(np.abs(np.round(xy / POSITION_UM)))) for xy in bundle.niches.example(number)[0]}
        for component in components
        for number in bundle.niches.around(component)
    ]
    orientations = set()
    for seed in range(12):
        placed, z_centre = niche_patch(bundle, "alpha", seed)
        offset = placed.xy_um_M2.numpy().astype(float) - half_um
        assert {tuple(sorted(np.abs(np.round(xy / POSITION_UM)))) for xy in offset} in examples
        at = int(np.abs(offset).max(1).argmin())
        assert np.array_equal(placed.z_MZ[at].numpy(), z_centre)
        orientations.add(tuple(np.sign(np.round(offset.sum(0), 1))))
    assert len(orientations) > 1
    again, _ = niche_patch(bundle, "alpha", 11)
    for name, value in vars(again).items():
        assert value is None or np.array_equal(value, getattr(placed, name)), name


def test_images_of_types_in_niches(bundle):
    request = request_from_types(bundle, ["alpha", "gamma"], n=3, seed=5, context="niche")
    assert request.manifest["context"] == "niche"
    assert list(request.obs["cell_type"]) == ["alpha"] * 3 + ["gamma"] * 3
    fast = SamplerConfig(n_steps=2)
    together = np.concatenate(list(image_batches(bundle, request, fast))).astype(int)
    one = np.concatenate(list(image_batches(bundle, request, fast, batch=1))).astype(int)
    assert np.abs(together - one).max() <= 1
    assert len(np.unique(together.reshape(6, -1), axis=0)) == 6
    with pytest.raises(InputError, match="in a niche"):
        request_from_types(bundle, ["alpha"], z2="prior", context="niche")


def test_recipe_knows_placed_cells(tiny_model, tmp_path):
    """Cells that are only placed lie in the examples: as many places as a dataset of centre cells alone has."""
    data = write_tiny_paired(tmp_path / "tiny.paired")
    table = anndata.read_h5ad(data.path / "cells.h5ad")
    is_placed = (np.arange(table.n_obs) % 5 == 0) & (table.obs["split"] == "dropped").to_numpy()
    table.obs["role"] = pd.Categorical(np.where(is_placed, "placed", "centre"))
    table.write_h5ad(data.path / "cells.h5ad")
    command = [sys.executable, RECIPE, tiny_model, "--data", data.path, "-o", tmp_path / "niches.model"]
    subprocess.run(command, check=True)
    found, before = (ModelBundle.load(path).niches for path in (tmp_path / "niches.model", tiny_model))
    assert len(found) == len(before)
    np.testing.assert_array_equal(np.diff(found.start_S1), np.diff(before.start_S1))
