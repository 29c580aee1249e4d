"""Errors that a user can act on: what was found, where, what was expected, and what repairs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, fields
from functools import wraps
from pathlib import Path
from typing import Any


class InputError(Exception):
    """The user's files or arguments cannot be used.

    Parameters
    ----------
    found
        What is there, e.g. ``"no *_matrix.h5"``.
    where
        The file, folder or option that it was found in.
    expected
        What should be there.
    repair
        The argument or command that repairs it.

    Example
    -------
    >>> str(InputError(found="--bin-um 3", expected="a multiple of 2, 8 or 16"))
    'found --bin-um 3; expected a multiple of 2, 8 or 16'
    """

    def __init__(self, *, found: str, where: str = "", expected: str = "", repair: str = "") -> None:
        self.found = found
        self.where = str(where)
        self.expected = expected
        self.repair = repair
        super().__init__(self._message())

    def _message(self) -> str:
        parts = [f"{self.where}: found {self.found}" if self.where else f"found {self.found}"]
        if self.expected:
            parts.append(f"expected {self.expected}")
        if self.repair:
            parts.append(f"to repair: {self.repair}")
        return "; ".join(parts)

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions are pickled by positional args; worker processes must be able to hand this one back.
        return (_rebuild, (self.found, self.where, self.expected, self.repair))


def _rebuild(found: str, where: str, expected: str, repair: str) -> InputError:
    return InputError(found=found, where=where, expected=expected, repair=repair)


class Problems:
    """Several problems, reported together.

    Example
    -------
    >>> problems = Problems()
    >>> problems.add(found="no image", repair="give --image he.tif")
    >>> len(problems)
    1
    """

    def __init__(self) -> None:
        self.errors: list[InputError] = []

    def __len__(self) -> int:
        return len(self.errors)

    def add(self, *, found: str, where: str = "", expected: str = "", repair: str = "") -> None:
        """Note one problem; nothing is raised yet."""
        self.errors.append(InputError(found=found, where=where, expected=expected, repair=repair))

    def raise_if_any(self) -> None:
        """Raise one `InputError` that lists every problem noted, or return."""
        if not self.errors:
            return
        if len(self.errors) == 1:
            raise self.errors[0]
        listing = "".join(f"\n  {number}. {error}" for number, error in enumerate(self.errors, start=1))
        raise InputError(found=f"{len(self.errors)} problems:{listing}")


def as_path(value: object, name: str) -> Path:
    """Return a path that a user gave as the argument `name`; raises `InputError` for what is none."""
    if not isinstance(value, str | Path) or not str(value):
        raise InputError(found=f"{name}={value!r}"[:200], expected="a path: text or pathlib.Path, not empty")
    return Path(value)


def refuse_wrong_types(check: Callable[[Any], None]) -> Callable[[Any], None]:
    """Wrap the ``__post_init__`` of a settings class: a value whose type cannot be checked raises `InputError`."""

    @wraps(check)
    def checked(config: Any) -> None:
        try:
            check(config)
        except (TypeError, AttributeError) as error:
            changed = [
                f"{one.name}={getattr(config, one.name)!r}"[:80]
                for one in fields(config)
                if one.default is MISSING or getattr(config, one.name) is not one.default
            ]
            raise InputError(
                found=f"{', '.join(changed)}: a setting of the wrong type ({error})"[:400],
                where=type(config).__name__,
                expected="the types that its documentation gives",
                repair=f"help(sge2hist.{type(config).__name__})",
            ) from error

    return checked
