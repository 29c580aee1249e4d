"""Progress of a training run: lines for people, and the history of the loss terms in a csv file."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from pathlib import Path

from sge2hist.data.artifacts import atomic_path
from sge2hist.training.budget import clock_text

LogFields = dict[str, float]


class History:
    """Appends rows ``stage,step,elapsed_s,name,value`` to a csv file; rows after a resumed step are removed first."""

    HEADER = ("stage", "step", "elapsed_s", "name", "value")

    def __init__(self, path: Path) -> None:
        self.path = path

    def rewind(self, stages_done: set[str], stage: str, step: int) -> None:
        """Drop the rows that a killed run wrote after its last checkpoint, at step `step`: no step is recorded twice."""
        if not self.path.is_file():
            return
        with open(self.path, newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row.get("value") not in (None, "")]
        kept = [r for r in rows if r["stage"] in stages_done or (r["stage"] == stage and int(r["step"]) <= step)]
        with atomic_path(self.path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.HEADER, lineterminator="\n")
            writer.writeheader()
            writer.writerows(kept)

    def write(self, stage: str, step: int, elapsed_s: float, fields: LogFields) -> None:
        """Append one row per field."""
        new = not self.path.is_file()
        with open(self.path, "a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            if new:
                writer.writerow(self.HEADER)
            writer.writerows([stage, step, f"{elapsed_s:.1f}", name, f"{value:.6g}"] for name, value in fields.items())


class Meter:
    """Averages loss terms between two reports and turns them into one line for people."""

    def __init__(self, log: Callable[[str], None], *, every_s: float = 10.0) -> None:
        self.log, self.every_s = log, every_s
        self.last = time.monotonic()
        self.n_steps = self.n_items = 0
        self.sums: LogFields = {}

    def add(self, fields: LogFields, n_items: int) -> None:
        """Add the terms of one step that saw `n_items` cells or patches."""
        self.n_steps += 1
        self.n_items += n_items
        for name, value in fields.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def report(
        self, stage: str, step: int, share_done: float, remaining_s: float, *, now: bool = False
    ) -> LogFields | None:
        """Log and return the averages when it is time (or `now`), else return None."""
        spent = time.monotonic() - self.last
        if not self.n_steps or (spent < self.every_s and not now):
            return None
        fields = {name: value / self.n_steps for name, value in self.sums.items()}
        fields["items_per_s"] = self.n_items / max(spent, 1e-9)
        terms = "  ".join(f"{name} {value:.4g}" for name, value in fields.items() if name != "items_per_s")
        self.log(
            f"{stage:<11} {share_done:4.0%}  step {step:<7,d} {terms}  "
            f"{fields['items_per_s']:,.0f}/s  {clock_text(remaining_s)} left"
        )
        self.last, self.n_steps, self.n_items, self.sums = time.monotonic(), 0, 0, {}
        return fields
