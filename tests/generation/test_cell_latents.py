"""Latents of cells as they are drawn: z2 stays within what the image model has seen."""

import json
import shutil

import numpy as np
import pytest

from sge2hist.data.cell_index import CellIndex
from sge2hist.data.errors import InputError
from sge2hist.generation.cell_latents import AxesOfCells, encode_cells
from sge2hist.models.bundle import ModelBundle, z2_range_of


def test_a_trained_model_knows_the_range_of_z2_and_keeps_to_it(tiny_model, tiny_paired):
    bundle = ModelBundle.load(tiny_model)
    n_type, rows = bundle.config.gene.n_type, tiny_paired.rows("all")
    assert bundle.z2_range is not None

    def encode(bundle):
        return encode_cells(bundle, tiny_paired.counts, tiny_paired.genes, rows).mean_NZ

    bundle.z2_range = None
    free = encode(bundle)
    middle = np.quantile(free[:, n_type:], (0.25, 0.75), axis=0).astype(np.float32)
    bundle.z2_range = middle
    kept = encode(bundle)
    assert np.array_equal(kept[:, :n_type], free[:, :n_type])
    assert np.array_equal(kept[:, n_type:], free[:, n_type:].clip(*middle))
    assert (kept != free).any()


def test_the_range_leaves_all_but_a_few_cells_alone():
    z2 = np.random.default_rng(0).standard_normal((5000, 3))
    low, high = z2_range_of(z2)
    outside = (z2 < low) | (z2 > high)
    assert 0 < outside.mean() <= 0.0021


def test_a_range_that_does_not_fit_is_refused(tiny_model, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "a.model")
    path = tmp_path / "a.model" / "config.json"
    content = json.loads(path.read_text())
    assert np.shape(content["z2_range"])[0] == 2
    for wrong in ([[0.0], [1.0]], content["z2_range"][::-1], "wide"):
        path.write_text(json.dumps(content | {"z2_range": wrong}))
        with pytest.raises(InputError, match="z2_range"):
            ModelBundle.load(tmp_path / "a.model")
    path.write_text(json.dumps({k: v for k, v in content.items() if k != "z2_range"}))
    assert ModelBundle.load(tmp_path / "a.model").z2_range is None  # models written before it


def test_cells_around_are_read_once_whatever_their_order(tiny_model, tiny_paired):
    """Groups of cells that lie all over the section share neighbours; time must not grow with the square of the cells."""
    bundle = ModelBundle.load(tiny_model)
    rows = np.random.default_rng(0).permutation(tiny_paired.rows("all"))
    where = tiny_paired.centre_xy_px * tiny_paired.um_per_px
    places = CellIndex(where, np.zeros(len(where), int))
    n_read = []

    def read(cells):
        n_read.append(len(cells))
        return tiny_paired.counts(cells)

    axes = AxesOfCells(bundle, read, tiny_paired.genes, len(where))
    together = encode_cells(bundle, tiny_paired.counts, tiny_paired.genes, rows, places=places)
    for part in np.array_split(rows, 8):
        found = encode_cells(bundle, tiny_paired.counts, tiny_paired.genes, part, places=places, axes=axes)
        at = together.find(found.row_N)
        assert np.allclose(found.mean_NZ, together.mean_NZ[at], atol=2e-3)
    assert sum(n_read) == len(where)
    alone = encode_cells(bundle, tiny_paired.counts, tiny_paired.genes, rows).mean_NZ
    assert np.abs(alone - together.mean_NZ).max() > 0.05  # the cells around are told
