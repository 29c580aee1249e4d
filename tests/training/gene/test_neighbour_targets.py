"""Targets of the z2 heads against a brute-force computation."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from sge2hist.models.gene.networks import GeneEncoder
from sge2hist.models.gene.vae import GeneModelConfig
from sge2hist.training.gene.data import GeneData
from sge2hist.training.gene.neighbour_targets import NeighbourhoodTargets, neighbourhood_targets
from sge2hist.training.gene.stages import build_gene_model
from tests.training.gene.fixtures import make_cells


def encoder_of(data: GeneData, n_axes: int = 4) -> GeneEncoder:
    return build_gene_model(GeneModelConfig(n_genes=data.n_genes, hidden=(8,), n_axes=n_axes), data).encoder


def targets_of(data: GeneData, **changes: float) -> NeighbourhoodTargets | None:
    shape = {"n_composition": 3, "n_embedding": 2, "radius_um": 40.0} | changes
    return neighbourhood_targets(data, encoder_of(data), **shape)  # type: ignore[arg-type]


def test_composition_is_the_share_of_each_type_among_neighbours() -> None:
    data = make_cells()
    targets = targets_of(data)
    assert targets is not None
    near = (cdist(data.centre_um_N2, data.centre_um_N2) <= 40) & ~np.eye(400, dtype=bool)
    order = [data.type_names.index(name) for name in targets.class_names]
    one_hot = np.eye(3)[data.type_N][:, order]
    for cell in (0, 17, 200):
        if near[cell].sum() <= 32:
            np.testing.assert_allclose(targets.composition_NP[cell], one_hot[near[cell]].mean(0), atol=1e-5)
    np.testing.assert_allclose(targets.embedding_NE.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(targets.embedding_NE.std(0), 1, atol=1e-3)


def test_cells_alone_have_no_weight_and_no_positions_mean_no_targets() -> None:
    data = make_cells(20)
    targets = targets_of(data, radius_um=30.0)
    assert targets is not None
    lonely = (cdist(data.centre_um_N2, data.centre_um_N2) <= 30).sum(1) == 1
    np.testing.assert_array_equal(targets.weight_N == 0, lonely)
    assert targets_of(make_cells(20, positions=False)) is None
    assert targets_of(data, radius_um=1e-6) is None


@pytest.mark.parametrize("n_composition", [4, 2])
def test_unlabelled_cells_get_clusters_and_rare_types_share_a_class(n_composition: int) -> None:
    clusters = targets_of(make_cells(labels=False), n_composition=n_composition)
    labelled = targets_of(make_cells(), n_composition=n_composition)
    for targets in (clusters, labelled):
        assert targets is not None
        assert targets.composition_NP.shape[1] == n_composition
        known = targets.weight_N > 0
        np.testing.assert_allclose(targets.composition_NP[known].sum(1), 1, atol=1e-5)


def test_mean_expression_of_neighbours_is_that_of_the_axes_and_missing_ones_are_zero() -> None:
    data = make_cells()
    targets = targets_of(data, n_embedding=6)
    assert targets is not None
    coordinate = encoder_of(data).coordinates(data.read(np.arange(400)))
    near = (cdist(data.centre_um_N2, data.centre_um_N2) <= 40) & ~np.eye(400, dtype=bool)
    few = (near.sum(1) > 0) & (near.sum(1) <= 32)
    mean = (near / near.sum(1, keepdims=True).clip(1)) @ coordinate
    mean = (mean - mean[near.any(1)].mean(0)) / mean[near.any(1)].std(0)
    np.testing.assert_allclose(targets.embedding_NE[few, :4], mean[few], atol=0.05)
    assert (targets.embedding_NE[:, 4:] == 0).all()
