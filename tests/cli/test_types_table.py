"""Types are renamed to names that can be asked for."""

from __future__ import annotations

import pytest

from sge2hist.cli.types import table_renamed
from sge2hist.data.errors import InputError
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.gene_types import TypeTable


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
def test_names_that_nobody_could_ask_for_are_refused(table, pairs, message):
    with pytest.raises(InputError, match=message):
        table_renamed(table, pairs)


def test_a_table_of_too_few_components_is_refused(tiny_model, tmp_path):
    import shutil

    copy = tmp_path / "m.model"
    shutil.copytree(tiny_model, copy)
    header = (copy / "types.csv").read_text().splitlines()[0]
    (copy / "types.csv").write_text(header + "\n")
    with pytest.raises(InputError, match="0 components"):
        ModelBundle.load(copy)
