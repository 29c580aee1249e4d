"""The table of types: names, weights, drawing, renaming, unknown names."""

from dataclasses import replace

import numpy as np
import pytest

from sge2hist.models.gene.cell_types import TypeRow, TypeTable


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
    drawn = make_table().draw("Tubule", 6000, np.random.default_rng(0))
    assert np.bincount(drawn, minlength=3)[1] / 6000 == pytest.approx(0.625, abs=0.03)


def test_names_and_probabilities_are_summed_over_components() -> None:
    table = make_table()
    assert table.names == ["Tubule", "Podocyte"]
    assert table.name_of_component == ["Podocyte", "Tubule", "Tubule"]
    np.testing.assert_allclose(table.type_probabilities(np.array([[0.2, 0.5, 0.3]])), [[0.8, 0.2]])


def test_cells_are_told_a_type_by_the_sum_of_its_components_or_without_labels_by_the_likeliest() -> None:
    table, told = make_table(), np.array([[0.4, 0.35, 0.25], [0.4, 0.25, 0.35]])
    best, probability = table.predicted_types(told)
    assert [table.names[k] for k in best] == ["Tubule", "Tubule"]
    np.testing.assert_allclose(probability, [0.6, 0.6])
    unlabelled = TypeTable([replace(row, n_labelled=0) for row in table.rows])
    best, probability = unlabelled.predicted_types(told)
    assert [unlabelled.names[k] for k in best] == ["Podocyte", "Podocyte"]
    np.testing.assert_allclose(probability, [0.4, 0.4])


def test_a_component_without_cells_tells_nobody() -> None:
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
