"""Cell types: pooled posteriors against a linear Gaussian model, the table of types, and groups against a slow Ward's method."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csr_array

from sge2hist.models.gene.cell_types import TypeRow, TypeTable, group_components, pool_posteriors, ward

# --- pooled posteriors -----------------------------------------------------------------------------------------------


def pairs(rows: list[list[int]]) -> csr_array:
    dense = np.zeros((len(rows), len(rows)))
    for row, others in enumerate(rows):
        dense[row, others] = 1 / max(1, len(others))
    return csr_array(dense)


def test_as_the_exact_posterior_of_all_observations_of_one_z() -> None:
    """z ~ N(0, 1), x_i | z ~ N(z, s_i^2): the posterior of each x_i and that of all of them are known."""
    rng = np.random.default_rng(0)
    x_NT, noise_NT = rng.normal(size=(4, 3)), rng.uniform(0.2, 3.0, (4, 3))
    own_var = 1 / (1 + 1 / noise_NT)
    own_mean = own_var * x_NT / noise_NT
    mean, var = pool_posteriors(own_mean, own_var, pairs([[1, 2], [0], [], [0, 1, 2]]))
    for row, group in enumerate(([0, 1, 2], [1, 0], [2], [3, 0, 1, 2])):
        exact_var = 1 / (1 + (1 / noise_NT[group]).sum(0))
        np.testing.assert_allclose(var[row], exact_var, rtol=1e-5)
        np.testing.assert_allclose(mean[row], exact_var * (x_NT[group] / noise_NT[group]).sum(0), rtol=1e-4, atol=1e-6)


def test_a_posterior_as_wide_as_the_prior_changes_nothing() -> None:
    mean, var = np.array([[1.0, 0.5], [9.0, -9.0]]), np.array([[0.25, 0.5], [1.0, 4.0]])
    pooled, pooled_var = pool_posteriors(mean, var, pairs([[1], [0]]))
    np.testing.assert_allclose(pooled[0], mean[0])
    np.testing.assert_allclose(pooled_var[0], var[0])
    np.testing.assert_allclose(pooled[1], mean[0])


# --- table of types --------------------------------------------------------------------------------------------------


def make_table() -> TypeTable:
    rows = [("Podocyte", 10, 0.1), ("Tubule", 50, 0.6), ("Tubule", 30, 0.3)]
    return TypeTable(
        [
            TypeRow(component=k, name=name, n_cells=n, n_labelled=n, purity=0.9, weight=weight, markers=("A",))
            for k, (name, n, weight) in enumerate(rows)
        ]
    )


def test_a_type_is_the_mixture_of_its_components() -> None:
    components, weights = make_table().components(" tubule ")
    assert components.tolist() == [1, 2]
    np.testing.assert_allclose(weights, [0.625, 0.375])  # shares of cells


def test_names_and_probabilities_are_summed_over_components() -> None:
    table = make_table()
    assert table.names == ["Tubule", "Podocyte"]
    assert table.name_of_component == ["Podocyte", "Tubule", "Tubule"]
    np.testing.assert_allclose(table.type_probabilities(np.array([[0.2, 0.5, 0.3]])), [[0.8, 0.2]])


def test_the_predicted_type_is_that_of_summed_components_or_without_labels_of_the_likeliest() -> None:
    table, posterior = make_table(), np.array([[0.4, 0.35, 0.25], [0.4, 0.25, 0.35]])
    best, probability = table.predicted_types(posterior)
    assert [table.names[k] for k in best] == ["Tubule", "Tubule"]
    np.testing.assert_allclose(probability, [0.6, 0.6])
    unlabelled = TypeTable([replace(row, n_labelled=0) for row in table.rows])
    best, probability = unlabelled.predicted_types(posterior)
    assert [unlabelled.names[k] for k in best] == ["Podocyte", "Podocyte"]
    np.testing.assert_allclose(probability, [0.4, 0.4])


def test_a_component_without_cells_is_never_predicted() -> None:
    rows = [replace(row, n_labelled=0, n_cells=0 if row.name == "Podocyte" else 5) for row in make_table().rows]
    best, _ = TypeTable(rows).predicted_types(np.array([[0.9, 0.1, 0.0]]))
    assert TypeTable(rows).names[best[0]] == "Tubule"


def test_a_component_counts_for_its_type_by_the_cells_that_carry_it() -> None:
    def row(component: int, n_labelled: int, purity: float) -> TypeRow:
        return TypeRow(
            component=component, name="T", n_cells=100, n_labelled=n_labelled, purity=purity, weight=0.1, markers=()
        )

    table = TypeTable([row(0, 80, 0.9), row(1, 60, 0.2), row(2, 36, float("nan"))])  # the last: found by labels alone
    np.testing.assert_allclose(table.components("T")[1], np.array([72, 12, 36]) / 120)
    unlabelled = TypeTable([row(0, 0, float("nan")), row(1, 0, float("nan"))])
    np.testing.assert_allclose(unlabelled.components("T")[1], [0.5, 0.5])


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(KeyError, match="Tubule, Podocyte"):
        make_table().components("Neuron")
    with pytest.raises(KeyError, match="Neuron"):
        make_table().renamed({"Neuron": "x"})


def test_renaming_by_name_and_by_component() -> None:
    assert make_table().renamed({"Tubule": "PT"}).name_of_component == ["Podocyte", "PT", "PT"]
    assert make_table().renamed({"2": "TAL"}).name_of_component == ["Podocyte", "Tubule", "TAL"]


def test_components_must_be_complete() -> None:
    with pytest.raises(ValueError, match="once each"):
        TypeTable(make_table().rows[1:])


# --- groups of components --------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("n_groups", [1, 3, 7, 12])
def test_as_ward_with_the_root_of_the_cells_for_weights(n_groups: int) -> None:
    rng = np.random.default_rng(n_groups)
    means, n_cells = rng.normal(size=(12, 5)), rng.integers(1, 21, 12) ** 2
    n_cells[0] = 400  # twenty copies of the largest: the roots are whole numbers of copies
    group = ward(means, n_cells, n_groups)
    found = [set(np.flatnonzero(group == k).tolist()) for k in range(n_groups)]
    assert sorted(map(sorted, found)) == sorted(map(sorted, slow_ward(means, np.sqrt(n_cells), n_groups)))


def test_a_rare_group_far_from_all_others_stays_one() -> None:
    means = np.array([[0.0, 0], [1.5, 0], [0, 1.5], [6, 6]])
    group = group_components(means, np.ones((4, 2)), np.array([10_000, 9_000, 8_000, 60]), 2)
    assert group[3] not in group[:3]


def test_components_without_cells_go_with_the_nearest() -> None:
    group = group_components(np.array([[0.0], [9.0], [8.0]]), np.ones((3, 1)), np.array([5, 5, 0]), 2)
    assert group[2] == group[1] != group[0]
    assert group_components(np.zeros((3, 2)), np.ones((3, 2)), np.array([0, 4, 0]), 1).tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="2 components with cells"):
        group_components(np.zeros((3, 2)), np.ones((3, 2)), np.array([5, 5, 0]), 3)


def test_components_with_certain_means_are_grouped_as_by_ward() -> None:
    rng = np.random.default_rng(3)
    means, n_cells = rng.normal(size=(14, 4)), np.full(14, 10**8)
    alike = [
        group[:, None] == group
        for group in (group_components(means, np.full((14, 4), 1e-9), n_cells, 5), ward(means, n_cells, 5))
    ]
    np.testing.assert_array_equal(*alike)


def test_a_pair_that_is_seldom_together_when_resampled_is_merged_last() -> None:
    means, var = np.zeros((4, 8)), np.full((4, 8), 1e-6)
    means[:, 0], var[2:] = (0.0, 1.0, 10.0, 10.97), 30.0
    n_cells = np.full(4, 100)
    assert len(set(ward(means, n_cells, 3)[2:])) == 1  # by their means, the last two are nearest
    group = group_components(means, var, n_cells, 3)  # but these are uncertain: their expected squared distance is 5.7
    assert group[0] == group[1]
    assert len(set(group)) == 3


def test_the_same_seed_gives_the_same_groups() -> None:
    rng = np.random.default_rng(5)
    parts = rng.normal(size=(9, 3)), rng.random((9, 3)) + 0.5, rng.integers(5, 50, 9)
    np.testing.assert_array_equal(group_components(*parts, 4), group_components(*parts, 4))
