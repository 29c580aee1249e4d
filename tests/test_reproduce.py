"""`benchmarks/reproduce.py`: steps resume, tables come between their marks, and what is absent is said before any work."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sge2hist.data.errors import InputError

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "benchmarks" / "reproduce.py"


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import reproduce
    import reproduce_studies
    import reproduce_tables

    return SimpleNamespace(main=reproduce, studies=reproduce_studies, tables=reproduce_tables)


@pytest.fixture
def places(modules: SimpleNamespace, tmp_path: Path) -> Any:
    pages = tmp_path / "pages"
    pages.mkdir()
    (pages / "page.md").write_text(
        "Before.\n<!-- table first -->\nold\n<!-- end -->\nAfter.\n<!-- table other -->\nx\n<!-- end -->\n"
    )
    return modules.main.Places(work=tmp_path / "work", data=None, pages=pages)


def study(
    modules: SimpleNamespace, tmp_path: Path, code: str = "print('| a |\\n|---|\\n| 1 |')", arguments: str = ""
) -> Any:
    """One step that appends to a log and prints a table."""
    script = tmp_path / "script.py"
    script.write_text(f"open({str(tmp_path / 'log')!r}, 'a').write('run ')\nprint('chatter')\n{code}\n")
    step = modules.studies.prints("first", f"python {script} {arguments}".strip(), 0.1, "page.md")
    return modules.studies.Study(name="small", steps=(step,))


def runs(tmp_path: Path) -> int:
    log = tmp_path / "log"
    return log.read_text().count("run") if log.exists() else 0


def test_a_table_comes_between_its_marks(modules, places, tmp_path) -> None:
    modules.main.reproduce(study(modules, tmp_path), places)
    text = (places.pages / "page.md").read_text()
    head, rest = text.split("<!-- table first -->\n")
    assert head == "Before.\n"
    assert rest.startswith("| a |\n|---|\n| 1 |\n\n*`python ")
    assert "version " in rest
    assert rest.endswith("<!-- end -->\nAfter.\n<!-- table other -->\nx\n<!-- end -->\n")
    assert "old" not in text
    assert "chatter" not in text


def test_finished_steps_are_skipped_unless_the_command_changed(modules, places, tmp_path) -> None:
    one = study(modules, tmp_path)
    modules.main.reproduce(one, places)
    modules.main.reproduce(one, places)
    assert runs(tmp_path) == 1
    modules.main.reproduce(one, places, overwrite=True)
    assert runs(tmp_path) == 2
    changed = modules.studies.Study(
        name="small", steps=(modules.studies.prints("first", one.steps[0].command + " -x", 1, "page.md"),)
    )
    modules.main.reproduce(changed, places)
    assert runs(tmp_path) == 3
    (places.work / "first.md").unlink()
    modules.main.reproduce(changed, places)
    assert runs(tmp_path) == 4


def test_what_was_made_from_an_older_output_is_made_again(modules, places, tmp_path) -> None:
    first, second = study(modules, tmp_path).steps[0], tmp_path / "second.py"
    second.write_text(f"open({str(tmp_path / 'log')!r}, 'a').write('second ')\nprint('| b |')")
    reads = modules.studies.Step(
        name="second", command=f"python {second} {{work}}/first.md", makes="second.md", minutes=1
    )
    both = modules.studies.Study(name="small", steps=(first, reads))
    modules.main.reproduce(both, places)
    modules.main.reproduce(both, places, only=["first"], overwrite=True)
    modules.main.reproduce(both, places)
    assert (tmp_path / "log").read_text() == "run second run second "


def test_a_failed_step_leaves_nothing_and_says_why(modules, places, tmp_path) -> None:
    with pytest.raises(InputError, match=r"(?s)step first.*exit code 1.*ZeroDivisionError"):
        modules.main.reproduce(study(modules, tmp_path, "1 / 0"), places)
    assert not (places.work / "first.md").exists()
    assert "old" in (places.pages / "page.md").read_text()
    modules.main.reproduce(study(modules, tmp_path), places)
    assert runs(tmp_path) == 2


def test_what_is_absent_is_said_before_any_work(modules, places, tmp_path) -> None:
    with pytest.raises(InputError, match="SGE2HIST_DATA"):
        modules.main.reproduce(study(modules, tmp_path, arguments="{data}/kidney_visium_hd"), places)
    elsewhere = modules.main.Places(work=places.work, data=None, pages=tmp_path)
    with pytest.raises(InputError, match="no marks of table first"):
        modules.main.reproduce(study(modules, tmp_path), elsewhere)
    absent = modules.studies.Study(name="small", model="pretrained:brain", steps=study(modules, tmp_path).steps)
    with pytest.raises(InputError, match=r"no model 'brain' in the package"):
        modules.main.reproduce(absent, places)
    with pytest.raises(InputError, match="one of first"):
        modules.main.reproduce(study(modules, tmp_path), places, only=["second"])
    assert runs(tmp_path) == 0
    assert not places.work.exists()


def test_a_benchmark_that_prints_no_table_is_an_error(modules, places, tmp_path) -> None:
    with pytest.raises(InputError, match="no table"):
        modules.main.reproduce(study(modules, tmp_path, "pass"), places)
    modules.main.reproduce(study(modules, tmp_path), places)  # it is mended, and runs again
    assert runs(tmp_path) == 2


def test_the_list_shows_steps_commands_and_minutes(modules, places) -> None:
    text = modules.main.listing(modules.studies.STUDIES["kidney"], places)
    assert "sge2hist generate pretrained:kidney --data kidney.paired --split test -n 1500" in text
    assert "10 min" in text
    assert "kidney.md: kidney-scores" in text
    assert "needs pretrained:kidney" in text


@pytest.mark.slow
def test_the_toy_study_runs_whole(tmp_path: Path) -> None:
    """In less than three minutes on two free cores; its pages are written elsewhere, then nothing is left to do."""
    page = (ROOT / "docs" / "results" / "toy.md").read_text(encoding="utf-8")
    (tmp_path / "toy.md").write_text(page, encoding="utf-8")
    command = [sys.executable, str(SCRIPT), "toy", "--work", str(tmp_path / "work"), "--pages", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    written = (tmp_path / "toy.md").read_text(encoding="utf-8")
    assert "Not measured yet" not in written
    assert written.count("version ") >= 4
    listed = subprocess.run([*command, "--list"], check=True, capture_output=True, text=True).stdout
    assert "0 min to go" in listed
