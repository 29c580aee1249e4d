"""``types.csv`` of a model folder: one row for each component of the mixture."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sge2hist.data.artifacts import atomic_path
from sge2hist.data.errors import InputError
from sge2hist.models.gene.cell_types import TypeRow, TypeTable

TYPES_NAME = "types.csv"
TYPE_COLUMNS: dict[str, Callable[[str], Any]] = {
    "component": int,
    "name": str,
    "n_cells": int,
    "n_labelled": int,
    "purity": float,
    "weight": float,
    "markers": lambda text: tuple(text.split()),
}


def write_types(path: Path, types: TypeTable) -> None:
    """Write types.csv into a model folder: one row per component, markers separated by spaces."""
    with atomic_path(path / TYPES_NAME) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(TYPE_COLUMNS), lineterminator="\n")
        writer.writeheader()
        for row in types.rows:
            values = asdict(row) | {"markers": " ".join(row.markers)}
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in values.items()})


def read_types(path: Path) -> TypeTable:
    """Read types.csv of a model folder.

    Raises
    ------
    InputError
        If it is missing or a row does not parse.
    """
    try:
        with open(path / TYPES_NAME, newline="", encoding="utf-8") as file:
            rows = [{k: parse(row[k]) for k, parse in TYPE_COLUMNS.items()} for row in csv.DictReader(file)]
        return TypeTable([TypeRow(**row) for row in rows])
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise InputError(found=f"a damaged type table ({error!r})", where=str(path / TYPES_NAME)) from error
