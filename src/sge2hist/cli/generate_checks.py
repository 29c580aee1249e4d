"""What options of `sge2hist generate` may be given together, and in which range: checked before anything is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

PATCHES_ONLY = {
    "types": None,
    "split": "test",
    "n": None,
    "samples": 1,
    "like": None,
    "z2": "type",
    "context": None,
    "shuffle_cells": False,
    "upsampler": None,
}
SLIDE_ONLY = {"region": None, "seeds": 1, "edit": None, "gene": None, "part": None, "workers": 1}
CELLS_ONLY = {"split": "test", "samples": 1, "shuffle_cells": False}
DATASET_ONLY = {"split": "test", "shuffle_cells": False}
TYPES_ONLY = {"like": None, "z2": "type"}
LEAST = {"n": 1, "samples": 1, "seeds": 1, "workers": 1, "batch": 1, "seed": 0}
INSTEAD = {
    "context": "a slide has all cells at their places",
    "upsampler": "whole slides are drawn as the model draws",
    "n": "--region draws a part of a slide",
    "samples": "--seeds draws a slide several times",
    "split": "--region draws a part of a slide",
    "shuffle_cells": "`evaluate` has the shuffled baseline of slides",
}


def check_options(given: Mapping[str, Any]) -> None:
    """Raise `InputError` for options (by parameter name, with their defaults) that would have no effect or make no sense."""
    from sge2hist.data.errors import InputError

    for name, least in LEAST.items():
        if given[name] is not None and given[name] < least:
            raise InputError(found=f"{_option(name)} {given[name]}", expected=f"{least} or more")
    source, types = given["source"], given["types"]
    if given["slide"]:
        _refuse(given, PATCHES_ONLY, "--slide")
        if source is None:
            raise InputError(found="--slide without cells", repair="give a paired dataset or an .h5ad as --from")
        return
    _refuse(given, SLIDE_ONLY, None)
    if types is None:
        _refuse(given, TYPES_ONLY, "cells of --from", expected="it with --types only")
    if (types is None) == (source is None) and given["like"] is None:
        raise InputError(
            found="both --from and --types" if types else "neither --from nor --types",
            expected="one of them (or --types with --from and --like CELL)",
        )
    if given["like"] is not None and source is None:
        raise InputError(found="--like without --from", repair="name the paired dataset that holds the cell")
    if types is not None:
        if not type_names(types):
            raise InputError(found=f"--types {types!r}", expected='names of cell types, e.g. "Podocyte,Immune"')
        _refuse(given, CELLS_ONLY, "--types")
    elif Path(source).suffix == ".h5ad":
        _refuse(given, DATASET_ONLY, "an .h5ad", expected="a paired dataset for that")


def type_names(text: str) -> list[str]:
    """Names between commas; one that holds a comma is quoted.

    >>> type_names('Podocyte, "Cell, injured",')
    ['Podocyte', 'Cell, injured']
    """
    import csv

    return [
        name.strip()
        for row in csv.reader([text.replace("\n", " ")], skipinitialspace=True)
        for name in row
        if name.strip()
    ]


def _refuse(given: Mapping[str, Any], defaults: Mapping[str, Any], beside: str | None, expected: str = "") -> None:
    """Raise `InputError` for the first option that was changed from its default."""
    from sge2hist.data.errors import InputError

    for name, default in defaults.items():
        if given[name] not in (default, []):  # typer gives [] for an option of several values
            found = f"{_option(name)} without --slide" if beside is None else f"{_option(name)} with {beside}"
            why = f": {INSTEAD[name]}" if beside == "--slide" and name in INSTEAD else ""
            raise InputError(found=found, expected=expected or ("--slide" if beside is None else f"one of them{why}"))


def _option(name: str) -> str:
    return "-n" if name == "n" else "--" + name.replace("_", "-")
