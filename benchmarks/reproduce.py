"""Rebuild every table of the results pages that a command can rebuild, from the shipped weights and the folder of real data.

    python benchmarks/reproduce.py kidney --list
    python benchmarks/reproduce.py kidney --data DATA      # DATA holds kidney_visium_hd/; else the variable SGE2HIST_DATA
    python benchmarks/reproduce.py pancreas --data DATA    # DATA holds xenium_pancreas/ and kidney_visium_hd/he.tif
    python benchmarks/reproduce.py genes --data DATA       # the gene model beside other methods: two to three hours
    python benchmarks/reproduce.py speed                   # time and memory on made-up input
    python benchmarks/reproduce.py toy

Each step is one command with pinned arguments, run in its own process. A step is skipped when its output is there and was made
by the same command (`--overwrite` runs all again), so a run that was stopped goes on where it was. Tables are written into the
pages of docs/results between their marks, each with the command, the version and the time. Measured times depend on the machine
and on what else runs there; sampled images on the processor in the last digits.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from reproduce_steps import PRINTS, Step, Study
from reproduce_studies import STUDIES
from reproduce_tables import write_table

import sge2hist
from sge2hist.data.artifacts import atomic_path
from sge2hist.data.errors import InputError
from sge2hist.models.bundle import model_folder

ROOT = Path(__file__).resolve().parents[1]
LAST_LINES = 15


@dataclass(frozen=True, kw_only=True)
class Places:
    """Folders of a run: of outputs, of real data, of the pages."""

    work: Path
    data: Path | None
    pages: Path

    def filled(self, text: str) -> str:
        """Return a command with the folders in place of their names."""
        folders = {"{work}": self.work, "{data}": self.data, "{benchmarks}": ROOT / "benchmarks"}
        for name, folder in folders.items():
            text = text.replace(name, str(folder))
        return text


@dataclass(frozen=True, kw_only=True)
class Record:
    """How an output was made, kept beside it."""

    command: str
    version: str
    seconds: float
    cpu_seconds: float
    threads: str

    def caption(self) -> str:
        """Return the line below a table."""
        used = f"{self.seconds / 60:.1f} min, {self.cpu_seconds / 60:.1f} of the processor"
        threads = f", {self.threads} thread(s)" if self.threads else ""
        return f"*`{self.command}`, version {self.version}, {used}{threads}.*"


def shown(step: Step) -> str:
    """Return a step's command as a reader would type it, with the names of files alone."""
    return step.command.replace("{work}/", "").replace("{data}/", "").replace("{benchmarks}", "benchmarks")


def version() -> str:
    """Return the version of the package, and whether changes since then are not released."""
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    released = sge2hist.__version__
    return f"{released} with unreleased changes" if "## Unreleased" in changes else released


def record_path(places: Places, step: Step) -> Path:
    """Return where the record of a step is kept."""
    return places.work / "records" / f"{step.name}.json"


def inputs(study: Study, step: Step) -> list[Step]:
    """Return the steps whose outputs a step's command reads."""
    return [
        other
        for other in study.steps
        if other is not step and re.search(re.escape("{work}/" + other.makes) + r"(?![\w.-])", step.command)
    ]


def read_record(study: Study, places: Places, step: Step) -> Record | None:
    """Return the record of a step, when its output is there, was made by this command, and is no older than what it was made
    from.
    """
    path = record_path(places, step)
    if not path.is_file() or not (places.work / step.makes).exists():
        return None
    made = path.stat().st_mtime_ns
    others = [record_path(places, other) for other in inputs(study, step)]
    if any(other.is_file() and other.stat().st_mtime_ns > made for other in others):
        return None
    try:
        found = Record(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        return None
    return found if found.command == shown(step) else None


def run(step: Step, places: Places) -> Record:
    """Run a step; its output appears when it has ended well."""
    output = places.work / step.makes
    if output.is_dir():
        shutil.rmtree(output)
    output.unlink(missing_ok=True)
    words = places.filled(step.command).split()
    words = [sys.executable, "-m", "sge2hist", *words[1:]] if words[0] == "sge2hist" else [sys.executable, *words[1:]]
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-LAST_LINES:])
        raise InputError(
            found=f"the command failed (exit code {done.returncode}):\n{last}\n",
            where=f"step {step.name}: {shown(step)}",
            expected=f"{step.makes} in {places.work}",
            repair="run the same command again when that is mended: finished steps are skipped",
        )
    if step.makes == step.name + PRINTS:
        with atomic_path(output) as partial:
            partial.write_text(done.stdout, encoding="utf-8")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    record = Record(
        command=shown(step),
        version=version(),
        seconds=round(time.monotonic() - started, 1),
        cpu_seconds=round(cpu, 1),
        threads=os.environ.get("OMP_NUM_THREADS", ""),
    )
    path = record_path(places, step)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(asdict(record), indent=1), encoding="utf-8")
    return record


def check(study: Study, steps: list[Step], places: Places) -> None:
    """Raise `InputError` before any work when the model, the data or a page is absent."""
    if study.model:
        model_folder(study.model)
    for step in steps:
        for needed in step.needs:
            if places.data is None or not (places.data / needed).exists():
                raise InputError(
                    found="no --data and no variable SGE2HIST_DATA" if places.data is None else f"no {needed}",
                    where="" if places.data is None else str(places.data),
                    expected=f"the folder that holds {needed}",
                    repair=f"python benchmarks/reproduce.py {study.name} --data FOLDER",
                )
        for table in step.tables:
            page = places.pages / table.page
            if not page.is_file() or f"<!-- table {table.name} -->" not in page.read_text(encoding="utf-8"):
                raise InputError(
                    found=f"no marks of table {table.name}", where=str(page), expected=f"<!-- table {table.name} -->"
                )


def listing(study: Study, places: Places) -> str:
    """Return the steps with command, expected minutes, and whether each is done."""
    lines = []
    for step in study.steps:
        state = "done" if read_record(study, places, step) else f"{step.minutes:g} min"
        tables = f"  -> {', '.join(f'{table.page}: {table.name}' for table in step.tables)}" if step.tables else ""
        lines.append(f"{step.name:24} {state:>8}  {shown(step)}{tables}")
    total = sum(step.minutes for step in study.steps if not read_record(study, places, step))
    needs = f"; needs {study.model}" if study.model else ""
    return "\n".join([*lines, f"{total:g} min to go on two free cores (expected){needs}"])


def reproduce(study: Study, places: Places, *, overwrite: bool = False, only: list[str] | None = None) -> None:
    """Run the steps of a study that are not done, and write their tables."""
    names = [step.name for step in study.steps]
    unknown = sorted(set(only or []) - set(names))
    if unknown:
        raise InputError(found=f"step {', '.join(unknown)}", expected=f"one of {', '.join(names)}")
    steps = [step for step in study.steps if not only or step.name in only]
    check(study, [step for step in steps if overwrite or read_record(study, places, step) is None], places)
    places.work.mkdir(parents=True, exist_ok=True)
    for step in steps:
        record = None if overwrite else read_record(study, places, step)
        if record is None:
            print(f"{step.name}: {shown(step)} (about {step.minutes:g} min)", flush=True)
            record = run(step, places)
        else:
            print(f"{step.name}: done before", flush=True)
        for table in step.tables:
            try:
                content = table.make(places.work / step.makes)
            except InputError:
                record_path(places, step).unlink()  # what makes no table is not done
                raise
            write_table(places.pages / table.page, table.name, f"{content}\n{record.caption()}\n")
            print(f"  wrote {table.name} to {places.pages / table.page}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=sorted(STUDIES))
    parser.add_argument("--data", type=Path, help="folder of real data; default: the variable SGE2HIST_DATA")
    parser.add_argument("--work", type=Path, help="folder of outputs; default: build/reproduced/STUDY")
    parser.add_argument("--pages", type=Path, default=ROOT / "docs" / "results", help="folder of the pages")
    parser.add_argument("--only", nargs="*", metavar="STEP", help="these steps alone")
    parser.add_argument("--list", action="store_true", help="show the steps and run nothing")
    parser.add_argument("--overwrite", action="store_true", help="run finished steps again")
    given = parser.parse_args()
    data = given.data or (Path(os.environ["SGE2HIST_DATA"]) if os.environ.get("SGE2HIST_DATA") else None)
    work = (given.work or Path("build") / "reproduced" / given.study).resolve()
    places = Places(work=work, data=None if data is None else data.resolve(), pages=given.pages)
    study = STUDIES[given.study]
    if given.list:
        print(listing(study, places))
        return
    try:
        reproduce(study, places, overwrite=given.overwrite, only=given.only)
    except InputError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
