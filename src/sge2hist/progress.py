"""Progress bars on standard error: those of the command line, and of Python sessions that a person watches."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

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
    with _bars(show) as bars:
        if bars is None:
            yield lambda n: None
        else:
            task = bars.add_task(title, total=total)
            yield lambda n: bars.update(task, advance=n)


@contextmanager
def stages(*, show: bool | None = True) -> Iterator[Callable[[str, int, int], None]]:
    """Yield ``progress(stage, done, total)``, which shows one bar for each stage. `show` as of :func:`bar`."""
    with _bars(show) as bars:
        if bars is None:
            yield lambda stage, done, total: None
            return
        tasks = {}

        def progress(stage: str, done: int, total: int) -> None:
            total = max(total, 1)  # a stage without work is a full bar
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield progress


@contextmanager
def _bars(show: bool | None) -> Iterator[Progress | None]:
    if is_quiet() or not (is_interactive() if show is None else show):
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    text, times = TextColumn("{task.description}"), (TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(text, BarColumn(), MofNCompleteColumn(), *times, console=Console(stderr=True)) as bars:
        yield bars
