"""A slide from the command line: generated in parts, merged, shown."""

from __future__ import annotations

from pathlib import Path

import pytest
import tifffile
from typer.testing import CliRunner

from sge2hist.cli.main import app
from sge2hist.data.errors import InputError


def _run(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_parts_merge_view(tiny_model, tiny_paired, tmp_path: Path):
    slide = ("generate-slide", tiny_model, "--data", tiny_paired.path, "--steps", 1, "--region", "300,400,40,200")
    for i in (1, 2):
        _run(*slide, "--part", f"{i}/2", "-o", tmp_path / "s.generated")
    parts = sorted(tmp_path.glob("s.part*of2.generated"))
    assert [part.name for part in parts] == ["s.part1of2.generated", "s.part2of2.generated"]
    _run("merge", *parts, "-o", tmp_path / "s.generated")
    assert tifffile.imread(tmp_path / "s.generated" / "slide.ome.tif").shape == (100, 20, 3)
    shown = _run("view", tmp_path / "s.generated")
    assert "real, generated, cell types" in shown
    assert (tmp_path / "s.generated" / "view" / "slide.html").is_file()


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (("--region", "1,2,3"), "four numbers"),
        (("--part", "3/2"), "i from 1 to n"),
        (("--gene", "UMOD"), "GENE=FACTOR"),
        (("--edit", "nowhere.geojson"), "cannot be read"),
    ],
)
def test_options_that_do_not_work_are_named(tiny_model, tiny_paired, tmp_path, words, match):
    with pytest.raises(InputError, match=match):
        _run("generate-slide", tiny_model, "--data", tiny_paired.path, "-o", tmp_path / "s.generated", *words)
    assert list(tmp_path.iterdir()) == []
