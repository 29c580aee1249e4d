"""Neighbours and their targets against a brute-force computation."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from sge2hist.training.neighbourhood import expression_embedding, neighbour_matrix, neighbourhood_targets
from tests.training.gene_fixtures import make_cells


def test_neighbours_are_those_within_the_radius_on_the_same_slide() -> None:
    rng = np.random.default_rng(0)
    centre, slide = rng.uniform(0, 100, (60, 2)), rng.integers(2, size=60)
    near = (cdist(centre, centre) <= 25) & (slide[:, None] == slide) & ~np.eye(60, dtype=bool)
    expected = near / near.sum(1, keepdims=True).clip(1)
    found = neighbour_matrix(centre, slide, radius_um=25.0, max_neighbours=60)
    np.testing.assert_allclose(found.toarray(), expected, atol=1e-6)


def test_only_the_nearest_are_kept_when_there_are_many() -> None:
    centre = np.stack([np.arange(10.0), np.zeros(10)], 1)
    found = neighbour_matrix(centre, None, radius_um=50.0, max_neighbours=2).toarray()
    assert set(np.flatnonzero(found[0])) == {1, 2}
    assert set(np.flatnonzero(found[5])) == {4, 6}


def test_composition_is_the_share_of_each_type_around() -> None:
    data = make_cells()
    targets = neighbourhood_targets(data, n_composition=3, n_embedding=2, radius_um=40.0)
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
    targets = neighbourhood_targets(data, n_composition=3, n_embedding=2, radius_um=30.0)
    assert targets is not None
    lonely = (cdist(data.centre_um_N2, data.centre_um_N2) <= 30).sum(1) == 1
    np.testing.assert_array_equal(targets.weight_N == 0, lonely)
    assert neighbourhood_targets(make_cells(20, positions=False), n_composition=3, n_embedding=2) is None
    assert neighbourhood_targets(data, n_composition=3, n_embedding=2, radius_um=1e-6) is None


@pytest.mark.parametrize("n_composition", [4, 2])
def test_unlabelled_cells_get_clusters_and_rare_types_share_a_class(n_composition: int) -> None:
    clusters = neighbourhood_targets(make_cells(labels=False), n_composition=n_composition, n_embedding=2)
    labelled = neighbourhood_targets(make_cells(), n_composition=n_composition, n_embedding=2)
    for targets in (clusters, labelled):
        assert targets is not None
        assert targets.composition_NP.shape[1] == n_composition
        known = targets.weight_N > 0
        np.testing.assert_allclose(targets.composition_NP[known].sum(1), 1, atol=1e-5)


def test_embedding_separates_types_and_does_not_depend_on_global_random_state() -> None:
    data = make_cells()
    np.random.seed(1)  # noqa: NPY002
    first = expression_embedding(data, 4, seed=3)
    np.random.seed(2)  # noqa: NPY002
    np.testing.assert_array_equal(first, expression_embedding(data, 4, seed=3))
    centres = np.stack([first[data.type_N == kind].mean(0) for kind in range(3)])
    spread = np.mean([first[data.type_N == kind].std(0).mean() for kind in range(3)])
    assert cdist(centres, centres)[~np.eye(3, dtype=bool)].min() > 2 * spread
