"""Values of requests, read with their limits: whatever a client sends, a handler sees checked values or nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

MAX_TEXT = 200


class RequestError(Exception):
    """A request that cannot be answered: an HTTP status, a code of the protocol, and one line for people."""

    def __init__(self, status: int, code: str, message: str) -> None:
        self.status, self.code, self.message = status, code, message
        super().__init__(message)


def malformed(message: str) -> RequestError:
    """A request that is not as the protocol says."""
    return RequestError(400, "malformed", message)


def too_large(message: str) -> RequestError:
    """A request above a limit."""
    return RequestError(413, "too_large", message)


def not_found(message: str) -> RequestError:
    """A thing that does not exist."""
    return RequestError(404, "not_found", message)


def number(
    values: Mapping[str, Any], name: str, low: float, high: float, default: float | None = None, *, whole: bool = False
) -> float:
    """A finite number from `low` to `high`; of text too, as in a query."""
    value = values.get(name)
    if value is None and default is not None:
        return default
    return as_number(value, name, low, high, whole=whole)


def as_number(value: object, name: str, low: float, high: float, *, whole: bool = False) -> float:
    """Check one number."""
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError
        found = float(value)
    except (ValueError, OverflowError) as error:
        raise malformed(f"{name} is no number") from error
    if not math.isfinite(found) or not low <= found <= high or (whole and found != int(found)):
        kind_of = "a whole number" if whole else "a number"
        raise malformed(f"{name} is {found:g}; expected {kind_of} from {low:g} to {high:g}")
    return int(found) if whole else found


def text(values: Mapping[str, Any], name: str, default: str | None = None, *, longest: int = MAX_TEXT) -> str:
    """Text of at most `longest` characters, none of them a control character."""
    value = values.get(name)
    if value is None and default is not None:
        return default
    if (
        not isinstance(value, str)
        or len(value) > longest
        or any(ord(c) < 32 or 0xD800 <= ord(c) < 0xE000 for c in value)
    ):
        raise malformed(f"{name} is no text of at most {longest} characters")
    return value


def flag(values: Mapping[str, Any], name: str, default: bool) -> bool:
    """A truth value of JSON, or 0 or 1 of a query."""
    value = values.get(name, default)
    if value in ("0", "1"):
        return value == "1"
    if not isinstance(value, bool):
        raise malformed(f"{name} is neither true nor false")
    return value


def items(values: Mapping[str, Any], name: str, most: int, *, at_least: int = 1) -> list[Any]:
    """A list of `at_least` to `most` items."""
    value = values.get(name)
    if not isinstance(value, list) or len(value) < at_least:
        raise malformed(f"{name} is no list of at least {at_least}")
    if len(value) > most:
        raise too_large(f"{name} holds {len(value)}; at most {most}")
    return value


def points(values: Mapping[str, Any], name: str, most: int, *, at_least: int, far: float) -> list[list[float]]:
    """Pairs of numbers from -`far` to `far`."""
    out = []
    for pair in items(values, name, most, at_least=at_least):
        if not isinstance(pair, list) or len(pair) != 2:
            raise malformed(f"{name} holds something that is no [x, y]")
        out.append([float(as_number(value, name, -far, far)) for value in pair])
    return out


def fields_of(value: object, name: str) -> dict[str, Any]:
    """An object of JSON."""
    if not isinstance(value, dict):
        raise malformed(f"{name} is no object")
    return value
