"""Neighbours of cells, against the distances of all pairs."""

import numpy as np
from scipy.spatial.distance import cdist

from sge2hist.data.spatial_index import CellIndex


def test_neighbours_are_those_within_the_radius_on_the_same_slide() -> None:
    rng = np.random.default_rng(0)
    centre, slide = rng.uniform(0, 100, (60, 2)), rng.integers(2, size=60)
    near = (cdist(centre, centre) <= 25) & (slide[:, None] == slide) & ~np.eye(60, dtype=bool)
    expected = near / near.sum(1, keepdims=True).clip(1)
    index = CellIndex(centre, slide)
    np.testing.assert_allclose(
        index.neighbour_weights(np.arange(60), 25.0, max_neighbours=60).toarray(), expected, atol=1e-6
    )
    some = np.array([7, 3, 50])
    np.testing.assert_allclose(
        index.neighbour_weights(some, 25.0, max_neighbours=60).toarray(), expected[some], atol=1e-6
    )


def test_only_the_nearest_are_kept_when_there_are_many() -> None:
    centre = np.stack([np.arange(10.0), np.zeros(10)], 1)
    found = CellIndex(centre, np.zeros(10, int)).neighbour_weights(np.arange(10), 50.0, max_neighbours=2).toarray()
    assert set(np.flatnonzero(found[0])) == {1, 2}
    assert set(np.flatnonzero(found[5])) == {4, 6}


def test_on_a_lattice_equally_far_cells_are_all_neighbours_in_any_order() -> None:
    """Bins of 8 um: the thirty-second nearest is one of a ring of eight."""
    y, x = np.meshgrid(np.arange(17) * 8.0, np.arange(17) * 8.0)
    rng = np.random.default_rng(0)
    turned = np.array(
        [[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]
    )  # equal distances differ in their last digits
    centre = (np.stack([x.ravel(), y.ravel()], 1) @ turned + 12345.6)[rng.permutation(17 * 17)].astype(np.float32)
    middle = np.argmin(((centre - centre.mean(0)) ** 2).sum(1))
    found = CellIndex(centre, np.zeros(len(centre), int)).neighbour_weights(np.array([middle]), 50.0).toarray()[0]
    distance = np.round(cdist(centre[[middle]], centre)[0], 2)
    ring = np.sort(distance)[32]  # the cell itself is the nearest
    assert set(np.flatnonzero(found)) == set(np.flatnonzero((distance <= ring) & (distance > 0)))
    assert np.count_nonzero(found) == 36
    np.testing.assert_allclose(found.sum(), 1, atol=1e-6)


def test_a_ring_that_is_too_large_is_cut_and_no_cell_is_its_own_neighbour() -> None:
    places = np.array([[0.0, 0.0], [40.0, 0.0], [-40.0, 0.0], [0.0, 40.0]])
    centre = np.repeat(places, [20, 40, 40, 40], axis=0)
    slide = np.zeros(len(centre), int)
    found = CellIndex(centre, slide).neighbour_weights(np.arange(20), 50.0).toarray()
    assert (np.count_nonzero(found, axis=1) == 64).all()
    assert (found.diagonal() == 0).all()
    assert (np.count_nonzero(found[:, :20], axis=1) == 19).all()  # all that are nearer
    assert set(np.flatnonzero(found[0])) == {*range(1, 20), *range(20, 65)}
    crowd = CellIndex(np.zeros((100, 2)), np.zeros(100, int)).neighbour_weights(np.arange(100), 50.0).toarray()
    assert (np.count_nonzero(crowd, axis=1) == 64).all()
    assert (crowd.diagonal() == 0).all()


def test_a_lone_cell_has_no_neighbours() -> None:
    found = CellIndex(np.zeros((1, 2)), np.zeros(1, int)).neighbour_weights(np.array([0]), 50.0)
    assert found.shape == (1, 1)
    assert found.nnz == 0


def test_the_spacing_is_the_distance_of_nearest_neighbours_on_a_slide() -> None:
    lattice = np.stack(np.meshgrid(np.arange(6) * 100.0, np.arange(6) * 100.0), -1).reshape(-1, 2)
    both = np.concatenate([lattice, lattice + 1])  # a second slide whose cells would be close by if slides were mixed
    assert CellIndex(both, np.repeat([0, 1], 36)).spacing_um() == 100.0
    assert CellIndex(np.zeros((1, 2)), np.zeros(1, int)).spacing_um() == 0.0
