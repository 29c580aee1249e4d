import random

import numpy as np
import pytest

from sge2hist.data.leiden import (
    leiden_clusters,
    leiden_partition,
    nearest_majority,
    nearest_neighbour_graph,
    shared_neighbour_graph,
)


@pytest.fixture(scope="module")
def groups() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    label_N = np.repeat(np.arange(3), (40, 60, 80))
    return rng.normal(size=(180, 4)) + 20 * np.eye(4)[label_N], label_N


@pytest.mark.parametrize("make_graph", [nearest_neighbour_graph, shared_neighbour_graph])
def test_separate_groups_are_found_and_the_global_random_state_is_kept(groups, make_graph) -> None:
    points, label_N = groups
    graph = make_graph(points, 15)
    state = random.getstate()
    found = leiden_partition(graph, resolution=0.1, seed=0, n_iterations=-1)
    assert random.getstate() == state
    assert len({(a, b) for a, b in zip(found.tolist(), label_N.tolist(), strict=True)}) == 3 == found.max() + 1
    again = leiden_partition(graph, resolution=0.1, seed=0, n_iterations=-1)
    assert found.tolist() == again.tolist()


def test_the_largest_cluster_comes_first(groups) -> None:
    points, label_N = groups
    assert leiden_clusters(points, resolution=0.1, seed=0).tolist() == (2 - label_N).tolist()


def test_shared_neighbours_are_weighted_by_jaccard() -> None:
    graph = shared_neighbour_graph(np.array([[0.0], [1.0], [2.1], [10.0]]), 1)  # sets {0,1}, {0,1}, {1,2}, {2,3}
    assert graph.edges_E2.tolist() == [[0, 1], [1, 2], [2, 3]]
    np.testing.assert_allclose(graph.weights_E, [1, 1 / 3, 1 / 3])


def test_other_points_take_the_majority_of_their_neighbours(groups) -> None:
    points, label_N = groups
    assert nearest_majority(points[::2], label_N[::2], points[1::2]).tolist() == label_N[1::2].tolist()
