"""The recipe of the shipped models: its commands are commands, and clusters get their names."""

from __future__ import annotations

import csv
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from sge2hist.cli.main import app

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture
def shipped(monkeypatch):
    monkeypatch.syspath_prepend(RECIPES)
    import shipped

    return shipped


@pytest.mark.parametrize("name", ["kidney", "pancreas"])
def test_every_option_of_every_command_exists(name, tmp_path):
    done = subprocess.run(
        [sys.executable, RECIPES / "shipped.py", name, tmp_path, "-o", tmp_path / "out", "--hours", "2", "--list"],
        capture_output=True,
        text=True,
        check=True,
    )
    commands = [shlex.split(line) for line in done.stdout.splitlines()]
    assert len(commands) >= 2
    known = typer.main.get_command(app).commands
    for program, verb, *words in commands:
        if program == "sge2hist":
            options = {option for parameter in known[verb].params for option in parameter.opts}
            assert {word for word in words if word.startswith("-")} <= options
        else:
            assert Path(verb).is_file()
    assert not (tmp_path / "out").exists()


def test_hours_are_all_given_out(shipped):
    for recipe in shipped.RECIPES.values():
        assert sum(step.share for step in recipe.steps) == pytest.approx(1)


def test_clusters_get_their_names(shipped, tmp_path):
    (tmp_path / "clusters.csv").write_text("Barcode,Cluster\na-1,1\nb-1,10\nc-1,4\n")
    shipped.name_clusters(tmp_path / "clusters.csv", RECIPES / "pancreas_clusters.csv", tmp_path / "types.csv")
    rows = list(csv.DictReader((tmp_path / "types.csv").read_text().splitlines()))
    assert rows == [{"cell": "a-1", "type": "Fibroblast"}, {"cell": "c-1", "type": "T and NK cell"}]


def test_card_states_the_source(tiny_model, tmp_path):
    from sge2hist.api import SGE2Hist

    model = SGE2Hist.from_pretrained(tiny_model)
    model.bundle.provenance["source"] = "public data of a licence"
    model.save_pretrained(tmp_path / "copy.model", half=True)
    assert "source of the data: public data of a licence" in (tmp_path / "copy.model" / "README.md").read_text()
