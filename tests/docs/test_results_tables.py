"""Every table of the results pages says what rebuilds it, and every table of a study has its place on a page."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sge2hist.models.bundle import shipped_models

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs" / "results").glob("*.md"))
WITHOUT_MEASUREMENTS = {"index.md", "refutation.md"}
MARK = re.compile(r"<!-- (table (?P<table>[a-z0-9_-]+)|run: (?P<run>.+)|record: (?P<record>.+)) -->")


@pytest.fixture
def studies(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import reproduce_studies

    sys.modules.pop("reproduce_studies")
    return reproduce_studies.STUDIES


def tables(page: Path) -> Iterator[tuple[int, str]]:
    """Yield the number of the first line of every table, and the mark above it: directly, or of the marked part that it is in."""
    lines = page.read_text(encoding="utf-8").splitlines()
    part = ""
    for i, line in enumerate(lines):
        if line.startswith("<!-- table "):
            part = line
        elif line == "<!-- end -->":
            part = ""
        elif line.startswith("|") and not lines[i - 1].startswith("|"):
            yield i + 1, part or lines[i - 1]


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name not in WITHOUT_MEASUREMENTS], ids=lambda p: p.name
)
def test_every_table_says_what_rebuilds_it(page: Path, studies: dict[str, Any]) -> None:
    known = {table.name for study in studies.values() for step in study.steps for table in step.tables}
    for line, mark in tables(page):
        found = MARK.fullmatch(mark)
        assert found, f"{page.name}:{line}: no mark (docs/results/index.md explains them)"
        if found["table"]:
            assert found["table"] in known, f"{page.name}:{line}: no study makes {found['table']}"
        if found["run"]:
            words = found["run"].split()
            script = ROOT / words[1].rstrip(",")
            assert words[0] == "sge2hist" or script.is_file(), f"{page.name}:{line}: no {script}"


def test_every_claim_names_a_command_that_exists() -> None:
    from typer.main import get_command

    from sge2hist.cli.main import app

    verbs = get_command(app).commands  # type: ignore[attr-defined]
    text = (ROOT / "docs" / "results" / "refutation.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| **")]
    assert len(rows) > 15
    for row in rows:
        claim, _, refuted, measured = (cell.strip() for cell in row.strip("|").split(" | "))
        assert claim.startswith("**"), claim
        assert refuted, claim
        commands = re.findall(r"`((?:python|sge2hist) [^`]+)`", measured)
        assert commands or "same" in measured, f"no command: {claim}"
        for command in commands:
            words = command.split()
            assert words[1] in verbs if words[0] == "sge2hist" else (ROOT / words[1]).is_file(), command


def test_every_table_of_a_study_has_its_place(studies: dict[str, Any]) -> None:
    """A page may be absent until the model of its study is shipped."""
    shipped = {f"pretrained:{name}" for name in shipped_models()}
    for study in studies.values():
        for table in (table for step in study.steps for table in step.tables):
            page = ROOT / "docs" / "results" / table.page
            if study.model and study.model not in shipped and not page.is_file():
                continue
            assert page.read_text(encoding="utf-8").count(f"<!-- table {table.name} -->") == 1, table.name


def test_commands_of_studies_exist(studies: dict[str, Any]) -> None:
    """Scripts and options by name; each study's names and outputs are unique."""
    from typer.main import get_command

    from sge2hist.cli.main import app

    verbs = get_command(app).commands  # type: ignore[attr-defined]
    for study in studies.values():
        assert len({step.name for step in study.steps}) == len({step.makes for step in study.steps}) == len(study.steps)
        for step in study.steps:
            words = step.command.split()
            options = {word for word in words if word.startswith("-")}
            if words[0] == "sge2hist":
                known = {
                    name
                    for parameter in verbs[words[1]].params
                    for name in (*parameter.opts, *parameter.secondary_opts)
                }
            else:
                path = Path(words[1].replace("{benchmarks}", str(ROOT / "benchmarks")))
                if study.name == "pancreas" and not path.is_file():
                    continue
                known = set(re.findall(r'"(-{1,2}[\w-]+)"', path.read_text(encoding="utf-8")))
            assert options <= known, f"{study.name}, {step.name}: {options - known}"
