"""The time that a run with a budget has used, on disk: a run that is killed counts all of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sge2hist.data.artifacts import atomic_path
from sge2hist.training.budget import TimeBudget

USED_NAME = "used_s.json"
EVERY_S = 10.0


def read_used_s(directory: Path) -> float:
    """Seconds that earlier attempts used; 0 where none is recorded or the file is damaged."""
    try:
        return max(0.0, float(json.loads((directory / USED_NAME).read_text(encoding="utf-8"))))
    except (OSError, ValueError, TypeError):
        return 0.0


@contextmanager
def recording_used_s(directory: Path, budget: TimeBudget, every_s: float = EVERY_S) -> Iterator[None]:
    """Write the used time into a run's folder at intervals, from a thread of its own; nothing without a budget."""
    if budget.total_s is None:
        yield
        return
    stop = threading.Event()

    def record() -> None:
        while not stop.wait(every_s):
            write_used_s(directory, budget)

    thread = threading.Thread(target=record, daemon=True, name="used time")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def write_used_s(directory: Path, budget: TimeBudget) -> None:
    """Write the used time; a folder that was removed meanwhile is left alone."""
    if directory.is_dir():
        with atomic_path(directory / USED_NAME) as partial:
            partial.write_text(json.dumps(round(budget.used_s(), 1)), encoding="utf-8")
