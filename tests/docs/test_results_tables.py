"""Every table of the results pages has the command that rebuilds it, and every table of a study has one place on one page."""

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
MARK = re.compile(r"<!-- (table (?P<table>[a-z0-9_-]+)|run: (?P<run>.+)) -->")


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


def verbs() -> dict[str, Any]:
    """Return the commands of sge2hist."""
    from typer.main import get_command

    from sge2hist.cli.main import app

    return get_command(app).commands  # type: ignore[attr-defined, no-any-return]


def unknown_options(command: str) -> set[str]:
    """Return what a command gives that its verb or its script does not take; `{benchmarks}` is the folder of the scripts."""
    words = command.split()
    given = {word for word in words if re.match(r"--?[a-zA-Z]", word)}
    if words[0] == "sge2hist":
        parameters = verbs()[words[1]].params
        return given - {name for one in parameters for name in (*one.opts, *one.secondary_opts)}
    assert words[0] == "python", command
    script = Path(words[1].replace("{benchmarks}", "benchmarks"))
    return given - set(re.findall(r'"(-{1,2}[\w-]+)"', (ROOT / script).read_text(encoding="utf-8")))


def made_tables(studies: dict[str, Any]) -> list[Any]:
    """Return the tables of all steps of all studies."""
    return [table for study in studies.values() for step in study.steps for table in step.tables]


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name not in WITHOUT_MEASUREMENTS], ids=lambda p: p.name
)
def test_every_table_has_the_command_that_rebuilds_it(page: Path, studies: dict[str, Any]) -> None:
    """Either a step of a study makes it, or all commands stand in its mark, in order, with options that exist."""
    known = {table.name for table in made_tables(studies) if table.page == page.name}
    for line, mark in tables(page):
        found = MARK.fullmatch(mark)
        assert found, f"{page.name}:{line}: no mark (docs/results/index.md explains them)"
        if found["table"]:
            assert found["table"] in known, f"{page.name}:{line}: no study makes {found['table']} for this page"
        for command in (found["run"] or "").split(" && "):
            assert not command or not unknown_options(command), f"{page.name}:{line}: {unknown_options(command)}"


def test_no_part_of_a_page_is_left_without_a_study(studies: dict[str, Any]) -> None:
    """Marks around nothing, or around something that is no table, count too."""
    places = {(table.page, table.name) for table in made_tables(studies)}
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        marks = re.findall(r"^<!-- table (.+) -->$", text, re.MULTILINE)
        assert {(page.name, name) for name in marks} <= places
        assert len(marks) == text.count("<!-- end -->"), page.name


@pytest.mark.parametrize(
    "mark",
    [
        "<!-- record: made once -->",
        "<!-- table of-no-study -->",
        "<!-- run: sge2hist generate m -o x --no-such-option 1 -->",
        "<!-- run: python benchmarks/toys.py && python benchmarks/slide.py score --data x --no-such-option -->",
        "",
    ],
)
def test_a_table_that_no_command_rebuilds_fails(mark: str, tmp_path: Path, studies: dict[str, Any]) -> None:
    page = tmp_path / "toy.md"
    page.write_text(f"# Page\n\n{mark}\n| a |\n| --- |\n| 1 |\n", encoding="utf-8")
    with pytest.raises((AssertionError, OSError)):
        test_every_table_has_the_command_that_rebuilds_it(page, studies)


def test_every_claim_names_a_command_that_exists() -> None:
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
            assert words[1] in verbs() if words[0] == "sge2hist" else (ROOT / words[1]).is_file(), command


def test_every_table_of_a_study_has_its_place(studies: dict[str, Any]) -> None:
    """A page may be absent until the model of its study is shipped."""
    shipped = {f"pretrained:{name}" for name in shipped_models()}
    for study in studies.values():
        for table in made_tables({study.name: study}):
            page = ROOT / "docs" / "results" / table.page
            if study.model and study.model not in shipped and not page.is_file():
                continue
            assert page.read_text(encoding="utf-8").count(f"<!-- table {table.name} -->") == 1, table.name


def test_one_step_makes_a_table(studies: dict[str, Any]) -> None:
    names = [table.name for table in made_tables(studies)]
    assert len(names) == len(set(names))


def test_commands_of_studies_exist(studies: dict[str, Any]) -> None:
    """Scripts and options by name; each study's names and outputs are unique."""
    for study in studies.values():
        assert len({step.name for step in study.steps}) == len({step.makes for step in study.steps}) == len(study.steps)
        for step in study.steps:
            assert not unknown_options(step.command), f"{study.name}, {step.name}: {unknown_options(step.command)}"
