"""Every imaging and sequencing platform from its own files to a report, by the commands that its users type."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fixtures.cosmx import write_cosmx
from fixtures.merscope import write_merscope
from fixtures.stereoseq import write_stereoseq
from fixtures.tissue import make_tissue
from sge2hist.cli.main import app

TISSUE = make_tissue(width_px=480, height_px=400, n_cells=320)

Options = tuple[Path, list[str]]
PLATFORMS: dict[str, Callable[[Path], Options]] = {
    "cosmx": lambda f: (write_cosmx(TISSUE, f / "run").folder, ["--channels", "all"]),
    "merscope": lambda f: (write_merscope(TISSUE, f / "run").folder, ["--image", "virtual-he"]),
    "stereoseq cells": lambda f: (write_stereoseq(TISSUE, f / "run").folder, []),
    "stereoseq bins": lambda f: (
        write_stereoseq(TISSUE, f / "run", n_dots=60_000).folder,
        ["--bin-um", "10", "--min-counts", "1", "--min-genes", "1"],
    ),
}


def _run(*words: str | Path) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("platform", PLATFORMS)
def test_from_files_to_a_report(tmp_path: Path, platform: str) -> None:
    folder, options = PLATFORMS[platform](tmp_path)
    assert platform.split()[0] in _run("inspect", folder).casefold().replace("-", "")
    paired, model, generated, report = (tmp_path / name for name in ("x.paired", "x.model", "x.generated", "report"))
    small = ["--patch-um", "16", "--patch-px", "24", "--split-block-um", "60", "--min-tissue", "0", "--types", "none"]
    _run("prepare", folder, *options, *small, "--no-check-alignment", "-o", paired)
    _run("train", paired, "-o", model, "--preset", "tiny", "--mixed-precision", "no", "--steps", "2")
    _run("generate", model, "--data", paired, "--split", "all", "-n", "32", "--steps", "2", "-o", generated)
    _run(
        *("evaluate", generated, "--data", paired, "--split", "all", "-o", report, "--extractor", "texture-v1"),
        *("--bootstrap", "5", "--no-umap"),
    )
    found = json.loads((report / "report.json").read_text())
    n_images = json.loads((generated / "manifest.json").read_text())
    assert found["sets"][0]["name"] == "x"
    assert n_images["synthetic"]
    assert any(metric["sets"]["x"] is not None for metric in found["metrics"])
