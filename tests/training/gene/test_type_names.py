"""Components to type names: by labels with purity, else by markers."""

import dataclasses

import numpy as np
import pytest
import torch

from sge2hist.training.gene.data import GeneData
from sge2hist.training.gene.type_names import name_components
from tests.training.gene.fixtures import make_cells, train_gene_model


@pytest.fixture(scope="module")
def cells() -> GeneData:
    return make_cells(500)


def test_labelled_components_carry_the_majority_type(cells: GeneData) -> None:
    model = train_gene_model(cells, n_steps=120, use_labels=True)
    table = name_components(model, cells)
    assert {"alpha", "beta", "gamma"} <= set(table.names)
    assert sum(row.n_cells for row in table.rows) == 500
    used = [row for row in table.rows if row.n_labelled >= 5]
    assert np.average([row.purity for row in used], weights=[row.n_cells for row in used]) > 0.9
    first = {"alpha": 0, "beta": 10, "gamma": 20}
    for row in used:
        own = {f"GENE{g}" for g in range(first[row.name], first[row.name] + 10)}
        assert row.n_cells < 20 or len(own & set(row.markers)) >= 3


def test_without_labels_the_markers_name_it() -> None:
    data = make_cells(500, labels=False)
    table = name_components(train_gene_model(data, n_steps=120), data)
    for row in table.rows:
        assert row.name.startswith(f"type {row.component}")
        assert np.isnan(row.purity)
        assert row.n_labelled == 0
        assert not row.markers or row.markers[0] in row.name


def test_a_type_hidden_among_others_keeps_its_name(cells: GeneData) -> None:
    model = train_gene_model(cells, n_steps=120, use_labels=True)
    own = int(torch.nonzero(model.mixture.type_of_component_K == 0)[0, 0])
    with torch.no_grad():  # nothing but labels gives alpha its cells any more
        model.mixture.type_of_component_K[model.mixture.type_of_component_K == 0] = -1
        model.mixture.type_of_component_K[own] = 0
        model.mixture.logits_K[own] = -60.0
    row = name_components(model, cells).rows[own]
    n_alpha = int((cells.type_N == 0).sum())
    assert (row.name, row.n_cells, row.n_labelled) == ("alpha", n_alpha, n_alpha)
    assert np.isnan(row.purity)


def test_a_type_that_is_the_majority_nowhere_keeps_its_name(cells: GeneData) -> None:
    """Gamma's labels on one cell in ten of alpha, at random: no component of gamma's is found without them."""
    rng = np.random.default_rng(3)
    type_N = np.where((cells.type_N == 0) & (rng.random(cells.n_cells) < 0.1), 2, np.minimum(cells.type_N, 1))
    mixed = dataclasses.replace(cells, type_N=type_N)
    model = train_gene_model(mixed, n_steps=120, use_labels=True)
    rows = [row for row in name_components(model, mixed).rows if row.name == "gamma"]
    assert rows
    assert sum(row.n_labelled for row in rows) > 0.9 * (type_N == 2).sum()
