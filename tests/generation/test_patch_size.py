"""Patches of another side than the model was trained on: one canvas of the same weights."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from sge2hist.cli.main import app
from sge2hist.data.errors import InputError
from sge2hist.data.generated import GeneratedSet
from sge2hist.generation.patches import image_batches
from sge2hist.generation.requests import request_from_paired
from sge2hist.generation.type_requests import request_from_types
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.image.samplers import SamplerConfig


@pytest.fixture(scope="module")
def bundle(tiny_model):
    return ModelBundle.load(tiny_model)


def test_larger_patch_has_the_weights_and_its_own_cells(bundle, tiny_paired):
    px = bundle.config.patch_px
    larger = bundle.with_patch_px(2 * px)
    assert larger.model.image is bundle.model.image
    assert (larger.config.patch_um, bundle.config.patch_px) == (2 * bundle.config.patch_um, px)
    rows = tiny_paired.rows("test")[:3]
    small, large = (request_from_paired(one, tiny_paired, rows) for one in (bundle, larger))
    assert len(large.placed_cells(slice(0, 3)).z_MZ) > 2 * len(small.placed_cells(slice(0, 3)).z_MZ)
    (images,) = image_batches(larger, large, SamplerConfig(n_steps=1))
    assert images.shape == (3, 2 * px, 2 * px, 3)


def test_middle_of_a_larger_patch_shows_the_same_cells(bundle, tiny_paired):
    """The condition of the middle is that of the smaller patch: the same cells, moved by half the difference."""
    rows = tiny_paired.rows("test")[:2]
    larger = bundle.with_patch_px(2 * bundle.config.patch_px)
    small, large = (request_from_paired(one, tiny_paired, rows).placed_cells(slice(0, 2)) for one in (bundle, larger))
    shift_um = bundle.config.patch_um / 2
    found = {(int(i), *np.round(xy - shift_um, 3)): z for i, xy, z in _cells(large)}
    for image, xy, z in _cells(small):
        np.testing.assert_array_equal(found[(image, *np.round(xy, 3))], z)


def _cells(cells):
    return zip(cells.image_M.tolist(), cells.xy_um_M2.double().numpy(), cells.z_MZ.numpy(), strict=True)


@pytest.mark.parametrize("px", [3, 17, 33])
def test_sides_that_networks_cannot_make_are_refused(bundle, px):
    with pytest.raises(InputError, match=f"patches of {px} px"):
        bundle.with_patch_px(px)


def test_niche_that_examples_do_not_reach_is_refused(bundle):
    larger = bundle.with_patch_px(64 * bundle.config.patch_px)
    with pytest.raises(InputError, match="px at most in the context niche"):
        request_from_types(larger, bundle.types.names[:1], n=1, seed=0)


def test_command_line(tiny_model, tiny_paired, tmp_path):
    output = tmp_path / "large.generated"
    command = [
        "generate",
        str(tiny_model),
        "--data",
        str(tiny_paired.path),
        "-n",
        "2",
        "--patch-px",
        "48",
        "--steps",
        "1",
    ]
    done = CliRunner().invoke(app, [*command, "-o", str(output)])
    assert done.exit_code == 0, done.output
    manifest = json.loads((output / "manifest.json").read_text())
    own = ModelBundle.load(tiny_model).config
    assert manifest["patch_px"] == 48
    assert manifest["patch_um"] == pytest.approx(48 * own.um_per_px)
    assert GeneratedSet.open(output).image(0).shape[:2] == (48, 48)
