"""A figure of applicability: one comparison of cells with the training cells, and how far it lies beyond two thresholds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One comparison of the cells with the training cells."""

    name: str
    value: float | None  # of these cells; None: not measurable
    reference: float | None  # of the training cells
    warning: float  # first threshold
    refusal: float  # second threshold
    level: int  # 0, 1 (warning) or 2 (refusal)
    text: str  # a clause with the figure, for people


def level_of(warning: bool, refusal: bool) -> int:
    """2 beyond the refusal threshold, 1 beyond the warning threshold, else 0."""
    return 2 if refusal else int(warning)


def above(name: str, value: float | None, reference: float, limits: tuple[float, float], text: str) -> Figure:
    """Of a value that may be too high; None: not measurable, no level. `limits`: warning, refusal."""
    level = 0 if value is None else level_of(value >= limits[0], value >= limits[1])
    return _figure(name, value, reference, limits, level, text)


def below(name: str, value: float | None, reference: float, limits: tuple[float, float], text: str) -> Figure:
    """Of a value that may be too low; otherwise as :func:`above`."""
    level = 0 if value is None else level_of(value < limits[0], value < limits[1])
    return _figure(name, value, reference, limits, level, text)


def apart(name: str, ratio: float | None, limits: tuple[float, float], text: str) -> Figure:
    """Of a ratio to the training cells, which may be too high or too low."""
    factor = 0.0 if ratio is None else np.inf if ratio == 0 else max(ratio, 1 / ratio)
    return _figure(name, ratio, 1.0, limits, level_of(factor >= limits[0], factor >= limits[1]), text)


def _figure(
    name: str, value: float | None, reference: float, limits: tuple[float, float], level: int, text: str
) -> Figure:
    warning, refusal = limits
    return Figure(name=name, value=value, reference=reference, warning=warning, refusal=refusal, level=level, text=text)


def percent(share: float) -> str:
    """A share for people."""
    return f"{100 * share:.1f} %"
