"""Errors that a user can act on: what was found, where, what was expected, and what repairs it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import fields
from functools import cache, wraps
from inspect import signature
from pathlib import Path
from types import SimpleNamespace, UnionType
from typing import Any, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

P = ParamSpec("P")
R = TypeVar("R")


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
    """Wrap the ``__post_init__`` of a frozen settings class: `check` then looks at values of the annotated types alone.

    Every field whose value does not fit its annotation is named in one `InputError`. Numbers of NumPy and PyTorch become
    Python's, lists become tuples where a tuple is annotated, and paths text.
    """

    @wraps(check)
    def checked(config: Any) -> None:
        hints = get_type_hints(type(config))
        problems = Problems()
        for one in fields(config):
            value = getattr(config, one.name)
            try:
                object.__setattr__(config, one.name, fitted(value, hints[one.name]))
            except TypeError:
                problems.add(
                    found=_shown(one.name, value),
                    where=type(config).__name__,
                    expected=str(one.type),
                    repair=f"help({type(config).__name__}) lists the settings",
                )
        problems.raise_if_any()
        check(config)

    return checked


def refuse_wrong_arguments(*names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a public function: an argument of these names whose value does not fit its annotation is an `InputError`."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        parameters = signature(function)
        annotations = {name: parameters.parameters[name].annotation for name in names}

        @cache
        def hints() -> dict[str, Any]:
            namespace = vars(sys.modules[function.__module__])
            return get_type_hints(SimpleNamespace(__annotations__=annotations), namespace)

        @wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            given = parameters.bind(*args, **kwargs)
            problems = Problems()
            for name in given.arguments.keys() & hints().keys():
                try:
                    given.arguments[name] = fitted(given.arguments[name], hints()[name])
                except TypeError:
                    problems.add(
                        found=_shown(name, given.arguments[name]),
                        where=function.__qualname__,
                        expected=annotations[name],
                        repair=f"help({function.__qualname__}) lists the arguments",
                    )
            problems.raise_if_any()
            return function(*given.args, **given.kwargs)

        return checked

    return decorate


def _shown(name: str, value: object) -> str:
    text = " ".join(repr(value).split())
    return f"{name} = {text[:80]}{'...' * (len(text) > 80)} of type {type(value).__name__}"


def fitted(value: Any, annotation: Any) -> Any:
    """Return a value as its annotation asks for it, or raise TypeError; nan is no number, and True no integer.

    >>> fitted([1, 2.5], tuple[float, ...])
    (1, 2.5)
    """
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):  # a number of NumPy or PyTorch
        value = value.item()
    origin, parts = get_origin(annotation), get_args(annotation)
    if annotation is str and isinstance(value, Path):
        return str(value)
    if origin in (Union, UnionType):
        if Path in parts and isinstance(value, Path):
            return value
        for part in parts:
            with suppress(TypeError):
                return fitted(value, part)
        raise TypeError
    if origin is tuple and isinstance(value, list | tuple):
        of_each = [parts[0]] * len(value) if parts[1:] == (...,) else parts
        if len(of_each) != len(value):
            raise TypeError
        return tuple(fitted(item, part) for item, part in zip(value, of_each, strict=True))
    if origin is dict and isinstance(value, dict):
        return {fitted(key, parts[0]): fitted(item, parts[1]) for key, item in value.items()}
    if origin in (tuple, dict):
        raise TypeError
    if origin is Sequence and isinstance(value, Sequence):
        for item in value:
            fitted(item, parts[0])
    if annotation in (int, float):
        is_number = isinstance(value, int if annotation is int else int | float) and not isinstance(value, bool)
        if not is_number or value != value:  # nan differs from itself
            raise TypeError
    elif not isinstance(value, origin or annotation):
        raise TypeError
    return value
