"""`sge2hist inspect`: the facts of every input and artifact, without loading counts."""

from pathlib import Path

import pytest

from fixtures.paired import write_tiny_paired
from fixtures.tissue import make_tissue
from fixtures.visium import write_visium
from fixtures.visium_hd import write_visium_hd
from fixtures.xenium import write_xenium
from sge2hist.cli.inspect import inspect
from sge2hist.data.artifacts import write_json, write_manifest
from sge2hist.data.errors import InputError


def test_visium_hd_without_its_image_says_which_one_to_give(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = write_visium_hd(make_tissue(), tmp_path, version="4.0.1")
    inspect(tmp_path)
    shown = capsys.readouterr().out
    assert "visium_hd: Visium HD" in shown
    assert "bins of 2 um" in shown
    assert "3,200 x 8 genes" in shown
    assert "spaceranger-4.0.1" in shown
    assert "cells segmented by Space Ranger  23 x 8 genes" in shown
    assert "0.5 (microns_per_pixel of scalefactors_json.json)" in shown
    assert "about 260 x 200 px (from tissue_hires_image.png); give it as --image" in shown
    inspect(tmp_path, image=truth.image)
    shown = capsys.readouterr().out
    assert "260 x 200 px" in shown
    assert "positions: bin pitch" in shown


def test_a_folder_with_its_image_is_described_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inspect(write_xenium(make_tissue(), tmp_path / "x").folder)
    shown = capsys.readouterr().out
    for expected in ("Xenium Onboard Analysis 3.0.0.15", "24 cells", "by alignment", "x = column, y = row", "he_image"):
        assert expected in shown


def test_what_is_still_missing_is_said_not_raised(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_xenium(make_tissue(), tmp_path / "x", alignment="none").folder
    inspect(folder)
    assert "before it can be prepared" in capsys.readouterr().out


def test_visium(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_visium(tmp_path)
    inspect(tmp_path)
    shown = capsys.readouterr().out
    assert "spots of 55 um, 100 um apart  47 x 8 genes" in shown
    assert "2 (spot pitch of 100 um, tissue_positions.csv)" in shown  # the H&E is not needed to know it


def test_artifacts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tiny_paired(tmp_path / "tiny.paired", side=8)
    inspect(tmp_path / "tiny.paired")
    shown = capsys.readouterr().out
    assert "paired dataset of toy tissue" in shown
    assert "64 (each a 16 um bin) x 30 genes" in shown
    (tmp_path / "a.generated").mkdir()
    write_manifest(tmp_path / "a.generated", "generated", n_images=5, mode="genes", um_per_px=0.5)
    inspect(tmp_path / "a.generated")
    assert "generated set (synthetic images)" in capsys.readouterr().out
    (tmp_path / "a.model" / "training").mkdir(parents=True)
    write_json(tmp_path / "a.model" / "training" / "run.json", {})
    inspect(tmp_path / "a.model")
    assert "training that has not finished" in capsys.readouterr().out
    content = {"kind": "model", "model": {"patch_px": 64, "um_per_px": 0.5, "gene": {"n_genes": 99}}, "provenance": {}}
    write_json(tmp_path / "a.model" / "config.json", content)
    inspect(tmp_path / "a.model")
    assert "99" in capsys.readouterr().out


def test_a_model_that_comes_with_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    inspect(Path("pretrained:kidney"))
    shown = capsys.readouterr().out
    assert "kind" in shown
    assert "model" in shown
    assert "weights sha256" in shown


def test_other_things_are_errors(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    write_manifest(tmp_path / "x", "strange")
    with pytest.raises(InputError, match="kind 'strange'"):
        inspect(tmp_path / "x")
    (tmp_path / "x" / "manifest.json").write_text('{"kind": "paired"}')
    with pytest.raises(InputError, match="an incomplete manifest"):
        inspect(tmp_path / "x")
    (tmp_path / "y").mkdir()
    with pytest.raises(InputError, match="no format that is known"):
        inspect(tmp_path / "y")
