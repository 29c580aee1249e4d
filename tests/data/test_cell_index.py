"""Who is around a cell, against distances of all pairs."""

import numpy as np
from scipy.spatial.distance import cdist

from sge2hist.data.cell_index import CellIndex


def test_neighbours_are_those_within_the_radius_on_the_same_slide() -> None:
    rng = np.random.default_rng(0)
    centre, slide = rng.uniform(0, 100, (60, 2)), rng.integers(2, size=60)
    near = (cdist(centre, centre) <= 25) & (slide[:, None] == slide) & ~np.eye(60, dtype=bool)
    expected = near / near.sum(1, keepdims=True).clip(1)
    index = CellIndex(centre, slide)
    np.testing.assert_allclose(index.around(np.arange(60), 25.0, most=60).toarray(), expected, atol=1e-6)
    some = np.array([7, 3, 50])
    np.testing.assert_allclose(index.around(some, 25.0, most=60).toarray(), expected[some], atol=1e-6)


def test_only_the_nearest_are_kept_when_there_are_many() -> None:
    centre = np.stack([np.arange(10.0), np.zeros(10)], 1)
    found = CellIndex(centre, np.zeros(10, int)).around(np.arange(10), 50.0, most=2).toarray()
    assert set(np.flatnonzero(found[0])) == {1, 2}
    assert set(np.flatnonzero(found[5])) == {4, 6}


def test_a_lone_cell_has_no_neighbours() -> None:
    found = CellIndex(np.zeros((1, 2)), np.zeros(1, int)).around(np.array([0]), 50.0)
    assert found.shape == (1, 1)
    assert found.nnz == 0


def test_the_spacing_is_the_distance_of_nearest_neighbours_on_a_slide() -> None:
    lattice = np.stack(np.meshgrid(np.arange(6) * 100.0, np.arange(6) * 100.0), -1).reshape(-1, 2)
    both = np.concatenate([lattice, lattice + 1])  # a second slide whose cells would be close by if slides were mixed
    assert CellIndex(both, np.repeat([0, 1], 36)).spacing_um() == 100.0
    assert CellIndex(np.zeros((1, 2)), np.zeros(1, int)).spacing_um() == 0.0
