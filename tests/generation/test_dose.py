"""Dose response: one image per factor, with the noise and the cells of the plain image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sge2hist.data.errors import InputError
from sge2hist.data.generated import GeneratedSet
from sge2hist.generation.dose import dose_request
from sge2hist.generation.patches import generate, image_batches
from sge2hist.generation.requests import request_from_adata, request_from_paired
from sge2hist.models.bundle import ModelBundle


@pytest.fixture(scope="module")
def bundle(tiny_model):
    return ModelBundle.load(tiny_model)


@pytest.fixture(scope="module")
def row(tiny_paired):
    """A test cell that expresses the first two genes."""
    rows = tiny_paired.rows("test")
    expressed = (tiny_paired.counts(rows)[:, :2].toarray() > 0).all(1)
    return int(rows[np.flatnonzero(expressed)[0]])


def _images(bundle, request):
    sampler = replace(bundle.config.sampler, n_steps=2)
    return np.concatenate(list(image_batches(bundle, request, sampler, batch=1)))


@pytest.mark.parametrize("context", ["neighbours", "homotypic", "single_cell"])
def test_factor_1_is_the_plain_image_bit_for_bit(bundle, tiny_paired, row, context):
    cell, gene = tiny_paired.obs.index[row], tiny_paired.genes.symbols[0]
    dose = dose_request(bundle, tiny_paired, cell, gene, [0, 1, 8], seed=3, context=context)
    plain = request_from_paired(bundle, tiny_paired, np.array([row]), seed=3, context=context)
    images = _images(bundle, dose)
    assert images.shape == (3, 32, 32, 3)
    assert np.array_equal(images[1], _images(bundle, plain)[0])
    z1 = dose.latents["X_sge2hist_z1"]
    assert not np.array_equal(z1[0], z1[2])
    if context == "neighbours":  # a model of 20 steps hardly looks at a single cell
        assert not np.array_equal(images[0], images[2])
    assert dose.obs["factor"].tolist() == [0, 1, 8]
    assert dose.obs["seed"].nunique() == 1


def test_cells_without_neighbours_as_well(bundle, tiny_paired, row):
    cells = tiny_paired.adata()[[row, row + 1]].copy()
    dose = dose_request(bundle, cells, cells.obs_names[0], cells.var_names[0], [1.0, 4.0])
    assert np.array_equal(_images(bundle, dose)[:1], _images(bundle, request_from_adata(bundle, cells[:1])))


def test_order_of_factors_and_of_genes_does_not_matter(bundle, tiny_paired, row):
    cell, genes = tiny_paired.obs.index[row], tiny_paired.genes.symbols[:2]
    rising = _images(bundle, dose_request(bundle, tiny_paired, cell, genes, [0, 0.5, 2]))
    falling = _images(bundle, dose_request(bundle, tiny_paired, cell, genes[::-1], [2, 0.5, 0]))
    assert np.array_equal(rising, falling[::-1])


def test_only_the_cell_is_scaled_and_its_neighbours_notice(bundle, tiny_paired, row):
    cell, gene = tiny_paired.obs.index[row], tiny_paired.genes.symbols[0]
    cells = dose_request(bundle, tiny_paired, cell, gene, [1, 50]).placed_cells(slice(0, 2))
    before, after = (cells.z_MZ[cells.image_M == i] for i in (0, 1))
    n_type = bundle.config.gene.n_type
    changed = (before[:, :n_type] != after[:, :n_type]).any(1)
    assert changed.sum() == 1
    position = cells.xy_um_M2[cells.image_M == 0][changed]
    assert torch.allclose(position, torch.full((1, 2), 32.0), atol=1e-3)
    assert (before[:, n_type:] != after[:, n_type:]).any(1).sum() > 1


def test_it_is_written_as_patches(bundle, tiny_paired, row, tmp_path):
    cell, gene = tiny_paired.obs.index[row], tiny_paired.genes.symbols[0]
    request = dose_request(bundle, tiny_paired, cell, gene, [0, 2])
    generate(bundle, request, tmp_path / "a.generated", sampler=replace(bundle.config.sampler, n_steps=1))
    found = GeneratedSet.open(tmp_path / "a.generated")
    assert (found.manifest["mode"], found.manifest["cell_id"], found.manifest["genes"]) == ("dose", cell, [gene])
    assert found.obs["factor"].tolist() == [0, 2]


def test_wrong_input_is_named_with_close_matches(bundle, tiny_paired, row):
    cell, gene = tiny_paired.obs.index[row], tiny_paired.genes.symbols[0]
    silent = int(np.flatnonzero(tiny_paired.counts(np.arange(200))[:, [0]].toarray()[:, 0] == 0)[0])
    for given, match in (
        (("cel_7", gene, [1]), "such as cell_7"),
        ((cell, "GENNE1", [1]), "such as .*GENE1"),
        ((cell, [], [1]), "no gene"),
        ((cell, gene, []), "at least one number"),
        ((cell, gene, [-1]), "from 0 to 1000"),
        ((cell, gene, ["x"]), "numbers, such as"),
        ((tiny_paired.obs.index[silent], gene, [1]), "no counts of"),
    ):
        with pytest.raises(InputError, match=match):
            dose_request(bundle, tiny_paired, *given)
