"""Tables of slides: what they may hold, whole donors held out, donor and stain kept."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fixtures.legacy_st import write_legacy_st
from sge2hist.cli.main import app
from sge2hist.data.errors import InputError
from sge2hist.data.paired import PairedDataset
from sge2hist.pairing.config import PrepareConfig
from sge2hist.pairing.prepare import prepare
from sge2hist.pairing.slide_table import read_slide_table

from .sections import make_section

CONFIG = PrepareConfig(patch_um=40.0, patch_px=20, types="region", split_block_um=150.0, min_counts=5, min_genes=3)


def section(name: str, donor: str, seed: int):
    made = make_section(name=name, seed=seed, width_px=300, height_px=300)
    return dataclasses.replace(made, donor=donor, staining="H&E")


def test_a_donor_is_held_out_with_all_slides(tmp_path):
    sections = [section("a", "d1", 0), section("b", "d2", 1), section("c", "d1", 2)]
    config = dataclasses.replace(CONFIG, holdout_donors=("d1",), fractions=(0.6, 0.2, 0.2))
    data = prepare(sections, tmp_path / "x.paired", config=config)
    assert data.donors == ["d1", "d2", "d1"]
    assert set(data.obs["slide"].iloc[data.rows("test")]) == {"a", "c"}
    assert set(data.obs["donor"].iloc[data.rows("train")]) == {"d2"}
    assert set(data.obs["staining"]) == {"H&E"}
    assert data.manifest["split"]["holdout_donors"] == ["d1"]


@pytest.mark.parametrize(
    ("donors", "held", "message"),
    [
        (("d1", "d2"), "d3", "--holdout-donor d3.*d1, d2"),
        (("d1", ""), "d1", "no donor of b"),
        (("", ""), "d1", "--slides TABLE.csv"),
        (("d1", "d1"), "d1", "every slide held out"),
    ],
)
def test_donors_that_cannot_be_held_out(tmp_path, donors, held, message):
    sections = [section("a", donors[0], 0), section("b", donors[1], 1)]
    with pytest.raises(InputError, match=message):
        prepare(sections, tmp_path / "x.paired", config=dataclasses.replace(CONFIG, holdout_donors=(held,)))
    assert not (tmp_path / "x.paired").exists()


def test_command_with_a_table(tmp_path):
    for name, donor in (("A1", "one"), ("B1", "two")):
        write_legacy_st(tmp_path / donor, (name,))
    table = tmp_path / "slides.csv"
    table.write_text("path,donor,stain,name\none,P1,H&E,first\ntwo,P2,H&E,\n")
    words = [
        "prepare",
        "--slides",
        str(table),
        "-o",
        str(tmp_path / "x.paired"),
        "--holdout-donor",
        "P2",
        "--types",
        "none",
    ]
    words += ["--patch-um", "60", "--patch-px", "24", "--min-counts", "0", "--min-genes", "0", "--no-check-alignment"]
    words += ["--fractions", "0.8,0,0.2", "--keep-border", "--image-um-per-px", "2", "--min-tissue", "0"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.exception or result.output
    data = PairedDataset.open(tmp_path / "x.paired")
    assert data.slide_ids == ["first", "B1"]
    assert data.donors == ["P1", "P2"]
    assert set(data.obs["slide"].iloc[data.rows("test")]) == {"B1"}
    stored = json.loads((tmp_path / "x.paired" / "manifest.json").read_text())
    assert [slide["staining"] for slide in stored["slides"]] == ["H&E", "H&E"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,doner\na,1\n", "columns path, doner"),
        ("image\na\n", "columns image"),
        ("path\n", "no row"),
        ("path\nmissing\n", "line 2: found path 'missing'"),
        ("path,image\na,none.tif\n", "image 'none.tif'"),
        ("path,name\na,x\nb,x\n", "names x, x"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path: Path, text, message):
    for name in "ab":
        (tmp_path / name).mkdir()
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_slide_table(tmp_path / "t.csv")


def test_a_table_is_instead_of_inputs(tmp_path):
    (tmp_path / "t.csv").write_text("path\n.\n")
    for words in (["run", "--slides", str(tmp_path / "t.csv")], []):
        result = CliRunner().invoke(app, ["prepare", *words, "-o", str(tmp_path / "x.paired")])
        assert isinstance(result.exception, InputError)
