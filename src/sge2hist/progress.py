"""Progress on standard error: that of the command line, and of Python sessions that a person watches.

On a terminal and in notebooks bars; elsewhere (a log file, a batch system) a line at least every 10 s, also while a stage
reports nothing.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, Task
    from rich.text import Text

LINE_SECONDS = 8.0  # between lines where no bar can move

_QUIET: ContextVar[bool] = ContextVar("sge2hist_quiet", default=False)


@contextmanager
def quietly() -> Iterator[None]:
    """Show no progress bar within the block."""
    token = _QUIET.set(True)
    try:
        yield
    finally:
        _QUIET.reset(token)


def is_quiet() -> bool:
    """Whether this is inside :func:`quietly`."""
    return _QUIET.get()


def is_interactive() -> bool:
    """Whether a person watches: an interactive interpreter, or a notebook that can show widgets."""
    ipython = sys.modules.get("IPython")
    if ipython is not None and ipython.get_ipython() is not None:
        from importlib.util import find_spec

        is_notebook = "ipykernel" in sys.modules
        return not is_notebook or find_spec("ipywidgets") is not None  # rich warns in a notebook without it
    return hasattr(sys, "ps1")


@contextmanager
def bar(title: str, total: int | None, *, show: bool | None = True) -> Iterator[Callable[[int], None]]:
    """Yield a function that advances one bar by n.

    Parameters
    ----------
    total
        Steps of the whole; None: unknown.
    show
        Whether a bar is shown; None: when :func:`is_interactive`.
    """
    with stages(show=show) as progress:
        done = 0

        def advance(n: int) -> None:
            nonlocal done
            done += n
            progress(title, done, total)

        progress(title, 0, total)
        yield advance


@contextmanager
def stages(*, show: bool | None = True) -> Iterator[Callable[[str, int, int | None], None]]:
    """Yield ``progress(stage, done, total)``, which shows one bar for each stage. `show` as of :func:`bar`."""
    if is_quiet() or not (is_interactive() if show is None else show):
        yield lambda stage, done, total: None
    elif sys.stderr.isatty() or is_interactive():
        with _bars() as bars:
            tasks = {}

            def progress(stage: str, done: int, total: int | None) -> None:
                total = total if total is None else max(total, 1)  # a stage without work is a full bar
                if stage not in tasks:
                    tasks[stage] = bars.add_task(stage, total=total)
                bars.update(tasks[stage], completed=done, total=total)

            yield progress
    else:
        with _Lines() as lines:
            yield lines.update


def count_text(done: float, total: float | None) -> str:
    """Return "done/total", or the count alone where the total is unknown.

    >>> count_text(3, 10), count_text(167694, None)
    ('3/10', '167,694')
    """
    return f"{int(done):,}" if total is None else f"{int(done)}/{int(total)}"


class _Lines:
    """Lines of progress: the start and the end of each stage, and every few seconds where it stands."""

    def __init__(self) -> None:
        self._lock, self._closed = threading.Lock(), threading.Event()
        self._stage, self._done = "", 0
        self._total: int | None = None
        self._started: dict[str, float] = {}
        self._finished: set[str] = set()
        self._printed = time.monotonic()
        self._thread = threading.Thread(target=self._beat, name="sge2hist-progress", daemon=True)

    def __enter__(self) -> _Lines:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._closed.set()
        self._thread.join()
        with self._lock:
            if self._stage and self._stage not in self._finished and error[0] is None:
                self._print()

    def update(self, stage: str, done: int, total: int | None) -> None:
        """Note where a stage stands; print its last line, or one when it is time."""
        with self._lock:
            self._started.setdefault(stage, time.monotonic())
            self._stage, self._done, self._total = stage, done, total
            if total is not None and done >= total:
                if stage not in self._finished:
                    self._finished.add(stage)
                    self._print()
            elif time.monotonic() - self._printed >= LINE_SECONDS:
                self._print()

    def _beat(self) -> None:
        while not self._closed.wait(LINE_SECONDS / 8):
            with self._lock:
                if self._stage and time.monotonic() - self._printed >= LINE_SECONDS:
                    self._print()

    def _print(self) -> None:
        self._printed = time.monotonic()
        seconds = self._printed - self._started[self._stage]
        print(f"{self._stage}: {count_text(self._done, self._total)}, {seconds:.0f} s", file=sys.stderr, flush=True)


@contextmanager
def _bars() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.text import Text

    class CountColumn(ProgressColumn):
        """How many are done, of how many where that is known."""

        def render(self, task: Task) -> Text:
            return Text(count_text(task.completed, task.total), style="progress.download")

    text, times = TextColumn("{task.description}"), (TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(text, BarColumn(), CountColumn(), *times, console=Console(stderr=True)) as bars:
        yield bars
