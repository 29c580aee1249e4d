"""Latents of cells for generation: z2 stays within the range of the training cells."""

import json
import shutil

import numpy as np
import pytest

from sge2hist.data.errors import InputError
from sge2hist.data.spatial_index import CellIndex
from sge2hist.generation.encode import encode_cells, neighbour_reader
from sge2hist.models.bundle import ModelBundle, z2_range_of


def test_a_trained_model_clips_z2_to_its_range(tiny_model, tiny_paired):
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


def test_the_range_clips_few_cells():
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


def test_z2_depends_on_the_neighbours(tiny_model, tiny_paired):
    bundle, rows = ModelBundle.load(tiny_model), tiny_paired.rows("all")
    index = CellIndex(tiny_paired.centre_xy_px * tiny_paired.um_per_px, tiny_paired.slide_of_cell)
    neighbours = neighbour_reader(bundle, tiny_paired.counts, tiny_paired.genes, index)
    among = encode_cells(bundle, tiny_paired.counts, tiny_paired.genes, rows, neighbours=neighbours)
    alone = encode_cells(bundle, tiny_paired.counts, tiny_paired.genes, rows).mean_NZ
    assert np.abs(alone - among.mean_NZ).max() > 0.05
    few = encode_cells(bundle, tiny_paired.counts, tiny_paired.genes, rows[::7], neighbours=neighbours)
    assert np.allclose(few.mean_NZ, among.mean_NZ[among.find(few.row_N)], atol=2e-3)
