"""The time of a training run: what earlier runs used, what the work beside the steps will take, what is left for a stage.

A budget is wall time over everything that a run does. Steps fill what is left of it after the work outside of the stages
(fits, encoding, previews, writing), whose estimates follow what was measured so far: a machine that has become slower
leaves less time for steps, not a later end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

MEMORY = 0.5
"""How much earlier measurements count, after each new one, in the ratio of measured to estimated time."""
MIN_RATIO, MAX_RATIO = 0.25, 8.0


class Clock:
    """Seconds since it was made."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._start = now()

    def __call__(self) -> float:
        """Return the seconds."""
        return self._now() - self._start


@dataclass(kw_only=True)
class TimeBudget:
    """Wall time of a run, over all its attempts.

    Parameters
    ----------
    total_s
        Seconds for everything; None: no limit, steps are counted instead.
    shares
        Stages that are not finished, in order, and their relative shares of the time for steps.
    clock
        Seconds since this attempt began.
    used_before_s
        Seconds that earlier attempts used, up to their last checkpoint.
    """

    total_s: float | None = None
    shares: dict[str, float] = field(default_factory=dict)
    clock: Clock = field(default_factory=Clock)
    used_before_s: float = 0.0
    _ahead: dict[str, float] = field(default_factory=dict)  # work that is not done yet -> estimate, seconds
    _measured_s: float = 0.0  # of finished work that had an estimate, later work counting more
    _estimated_s: float = 0.0

    def used_s(self) -> float:
        """Seconds used by all attempts."""
        return self.used_before_s + self.clock()

    def expect(self, work: dict[str, float]) -> None:
        """Set the work beside the steps that lies ahead: its names ("STAGE/WHAT") and estimates in seconds."""
        self._ahead = dict(work)

    @contextmanager
    def work(self, name: str) -> Iterator[None]:
        """Work beside the steps; its time corrects the estimates of what lies ahead."""
        started = self.clock()
        yield
        estimated_s = self._ahead.pop(name, None)
        if estimated_s:
            self._measured_s = MEMORY * self._measured_s + self.clock() - started
            self._estimated_s = MEMORY * self._estimated_s + estimated_s

    def ahead_s(self) -> float:
        """Seconds that the work beside the steps will still take."""
        ratio = self._measured_s / self._estimated_s if self._estimated_s else 1.0
        return min(max(ratio, MIN_RATIO), MAX_RATIO) * sum(self._ahead.values())

    def for_steps_s(self) -> float:
        """Seconds left for the steps of all stages that are not finished; negative when the budget is overdrawn."""
        if self.total_s is None:
            return float("inf")
        return self.total_s - self.used_s() - self.ahead_s()

    def left_s(self, stage: str, share: float = 0.0) -> float:
        """Seconds left for the steps of a stage of which `share` (0 to 1) is done."""
        own = self.shares.get(stage, 1.0) * (1 - share)
        others = sum(value for name, value in self.shares.items() if name != stage)
        return self.for_steps_s() * own / (own + others) if own else 0.0

    def finish(self, stage: str) -> None:
        """A stage and the work that belongs to it are done."""
        self.shares.pop(stage, None)
        self._ahead = {name: value for name, value in self._ahead.items() if name.split("/")[0] != stage}


def clock_text(seconds: float) -> str:
    """Return hours, minutes and seconds.

    >>> clock_text(3725.4)
    '1:02:05'
    """
    minutes, seconds = divmod(int(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
