"""Components are grouped by Ward's method: against a slow one written out; rare kinds stay, close calls wait."""

import numpy as np
import pytest

from sge2hist.models.gene.cell_types import group_components, ward


def slow_ward(means: np.ndarray, weights: np.ndarray, n: int) -> list[set[int]]:
    """Merge the pair that raises the weighted sum of squares least, until n are left."""
    groups = [({k}, means[k], weights[k]) for k in range(len(means))]
    while len(groups) > n:
        pairs = [(i, j) for i in range(len(groups)) for j in range(i)]
        rise = [
            groups[i][2] * groups[j][2] / (groups[i][2] + groups[j][2]) * ((groups[i][1] - groups[j][1]) ** 2).sum()
            for i, j in pairs
        ]
        i, j = pairs[int(np.argmin(rise))]
        (a, x, v), (b, y, w) = groups[i], groups[j]
        groups = [group for k, group in enumerate(groups) if k not in (i, j)] + [
            (a | b, (v * x + w * y) / (v + w), v + w)
        ]
    return [members for members, _, _ in groups]


@pytest.mark.parametrize("n_kinds", [1, 3, 7, 12])
def test_as_ward_with_the_root_of_the_cells_for_weights(n_kinds: int) -> None:
    rng = np.random.default_rng(n_kinds)
    means, n_cells = rng.normal(size=(12, 5)), rng.integers(1, 21, 12) ** 2
    n_cells[0] = 400  # twenty copies of the largest: the roots are whole numbers of copies
    kind = ward(means, n_cells, n_kinds)
    found = [set(np.flatnonzero(kind == k).tolist()) for k in range(n_kinds)]
    assert sorted(map(sorted, found)) == sorted(map(sorted, slow_ward(means, np.sqrt(n_cells), n_kinds)))


def test_a_rare_kind_far_from_all_others_stays_one() -> None:
    means = np.array([[0.0, 0], [1.5, 0], [0, 1.5], [6, 6]])
    kind = group_components(means, np.ones((4, 2)), np.array([10_000, 9_000, 8_000, 60]), 2)
    assert kind[3] not in kind[:3]


def test_components_without_cells_go_with_the_nearest() -> None:
    kind = group_components(np.array([[0.0], [9.0], [8.0]]), np.ones((3, 1)), np.array([5, 5, 0]), 2)
    assert kind[2] == kind[1] != kind[0]
    assert group_components(np.zeros((3, 2)), np.ones((3, 2)), np.array([0, 4, 0]), 1).tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="2 components with cells"):
        group_components(np.zeros((3, 2)), np.ones((3, 2)), np.array([5, 5, 0]), 3)


def test_without_doubt_of_their_places_kinds_are_those_of_ward() -> None:
    rng = np.random.default_rng(3)
    means, n_cells = rng.normal(size=(14, 4)), np.full(14, 10**8)
    alike = [
        kind[:, None] == kind
        for kind in (group_components(means, np.full((14, 4), 1e-9), n_cells, 5), ward(means, n_cells, 5))
    ]
    np.testing.assert_array_equal(*alike)


def test_a_pair_that_other_cells_would_seldom_put_together_waits() -> None:
    means, var = np.zeros((4, 8)), np.full((4, 8), 1e-6)
    means[:, 0], var[2:] = (0.0, 1.0, 10.0, 10.97), 30.0
    n_cells = np.full(4, 100)
    assert len(set(ward(means, n_cells, 3)[2:])) == 1  # as they lie, the last two are nearest
    kind = group_components(means, var, n_cells, 3)  # but nobody knows where: their expected squared distance is 5.7
    assert kind[0] == kind[1]
    assert len(set(kind)) == 3


def test_the_same_seed_gives_the_same_kinds() -> None:
    rng = np.random.default_rng(5)
    parts = rng.normal(size=(9, 3)), rng.random((9, 3)) + 0.5, rng.integers(5, 50, 9)
    np.testing.assert_array_equal(group_components(*parts, 4), group_components(*parts, 4))
