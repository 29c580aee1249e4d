"""Types are renamed and grouped; each name can be generated."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from sge2hist.cli.types import table_lines, table_renamed, types
from sge2hist.data.errors import InputError
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.gene.cell_types import TypeTable, name_by_markers
from sge2hist.models.types_csv import read_types, write_types


@pytest.fixture
def table(tiny_model) -> TypeTable:
    return ModelBundle.load(tiny_model).types


def test_a_new_name(table):
    assert "Alveolar, type 2" in table_renamed(table, ["alpha=Alveolar, type 2"]).names


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["alpha"], "old name=new name"),
        (["alpha= "], "old name=new name"),
        (["alpha=a\nb"], "on one line"),
        (["alpha=A", "alpha=B"], "renamed twice"),
        (["alpha=Beta"], "differ by case alone: Beta, beta"),
        (["nothing=A"], "known: "),
    ],
)
def test_ambiguous_names_are_refused(table, pairs, message):
    with pytest.raises(InputError, match=message):
        table_renamed(table, pairs)


def test_a_table_of_too_few_components_is_refused(tiny_model, tmp_path):
    copy = tmp_path / "m.model"
    shutil.copytree(tiny_model, copy)
    header = (copy / "types.csv").read_text().splitlines()[0]
    (copy / "types.csv").write_text(header + "\n")
    with pytest.raises(InputError, match="0 components"):
        ModelBundle.load(copy)


@pytest.fixture
def unlabelled(tiny_model, tmp_path) -> Path:
    copy = tmp_path / "unlabelled.model"
    shutil.copytree(tiny_model, copy)
    rows = [
        replace(row, n_labelled=0, n_cells=10 + row.component, name=name_by_markers(row.component, row.markers))
        for row in read_types(copy).rows
    ]
    write_types(copy, TypeTable(rows))
    return copy


def test_components_are_grouped_into_types_named_after_the_largest_and_grouped_again(unlabelled):
    n_components = len(read_types(unlabelled))
    for n_groups in (2, 1, n_components):  # a grouping does not stand in the way of a finer one
        types(unlabelled, groups=n_groups)
        table = read_types(unlabelled)
        assert len(table.names) == n_groups
        for name in table.names:
            members = [row for row in table.rows if row.name == name]
            largest = max(members, key=lambda row: row.n_cells)
            assert name.startswith(f"type {largest.component}")
    assert ModelBundle.load(unlabelled).components_of(table.names[0])[0].size == 1


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"groups": 0}, "--groups 0"),
        ({"groups": 99}, "--groups 99"),
        ({"groups": 2, "rename": ["a=b"]}, "one after the other"),
    ],
)
def test_groups_that_cannot_be_made_are_refused_and_nothing_is_changed(unlabelled, asked, message):
    before = (unlabelled / "types.csv").read_bytes()
    with pytest.raises(InputError, match=message):
        types(unlabelled, **asked)
    assert (unlabelled / "types.csv").read_bytes() == before


def test_grouping_never_discards_a_given_name(unlabelled):
    types(unlabelled, groups=2)
    first = read_types(unlabelled).names[0]
    types(unlabelled, rename=[f"{first}=Tubule"])
    with pytest.raises(InputError, match="renamed, 'Tubule'"):
        types(unlabelled, groups=1)
    assert "Tubule" in read_types(unlabelled).names


def test_types_that_labels_named_are_not_grouped(tiny_model):
    with pytest.raises(InputError, match="named by labels"):
        types(tiny_model, groups=2)
    with pytest.raises(InputError, match="of your own"):
        types(Path("pretrained:kidney"), groups=2)


def test_each_type_is_one_line(table):
    rows = [
        replace(table.rows[0], component=0, name="Podocyte", n_cells=10, n_labelled=10, purity=1.0, weight=0.25),
        replace(table.rows[0], component=1, name="Tubule", n_cells=20, n_labelled=0, purity=float("nan"), weight=0.25),
        replace(table.rows[0], component=2, name="Podocyte", n_cells=30, n_labelled=30, purity=0.6, weight=0.5),
    ]
    podocyte, tubule = table_lines(TypeTable(rows))
    assert podocyte[:5] == ("Podocyte", "40", "0.70", "0.750", "2 0")
    assert tubule[:5] == ("Tubule", "20", "", "0.250", "1")
