"""Edits of a section under the same noise: other cell types, a gene up or down, cells removed, moved or added.

An edit file is GeoJSON: polygons as QuPath exports them. The class of an annotation names the cell type that its cells become;
the class "remove" removes them. Properties give other actions: ``set_type``, ``remove``, ``gene`` with ``factor`` or ``counts``,
``move_um``, ``add_type`` with ``spacing_um`` (a lattice in the polygon) or with a Point or MultiPoint. Instead of a polygon,
``cells`` names cells by id; ``of_type`` restricts an edit to cells of a type. Polygons, ids and types refer to the cells of the
data, before any edit; edits act in the order of the file.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sge2hist.data.annotations import class_name, read_annotations
from sge2hist.data.errors import InputError, Problems
from sge2hist.data.gene_panel import GenePanel

if TYPE_CHECKING:
    from scipy.sparse import csr_array
    from shapely.geometry.base import BaseGeometry

    from sge2hist.models.bundle import ModelBundle

REMOVE = "remove"
ACTIONS = ("set_type", "remove", "gene", "move_um", "add_type")
DETAILS = {"factor": "gene", "counts": "gene", "spacing_um": "add_type"}  # option -> the action that it belongs to
SCOPES = ("cells", "of_type")
KNOWN = (*ACTIONS, *DETAILS, *SCOPES)
QUPATH = ("objectType", "classification", "name", "color", "isLocked", "measurements", "metadata", "objectName")
EXPECTED = f"a polygon with a class that names a cell type, or properties {', '.join(KNOWN)}"
DEFAULT_SPACING_UM = 12.0
MAX_FACTOR = 1000.0  # that a gene's counts may be multiplied by
MAX_COUNTS = 1e6  # of a gene in a cell
MAX_ADDED = 1_000_000  # cells that one edit adds


@dataclass(frozen=True, kw_only=True)
class Edit:
    """One change of the cells in a polygon (um), of some ids or of a type; none of these: everywhere."""

    area: BaseGeometry | None = None
    cells: tuple[str, ...] | None = None  # ids
    of_type: str | None = None  # cells of this type in the data
    set_type: str | None = None
    remove: bool = False
    gene: str | None = None  # symbol or id
    factor: float = 0.0  # its counts are multiplied by this; 0 knocks it out
    counts: float | None = None  # its counts are set to this number
    move_um: tuple[float, float] | None = None  # x, y
    add_type: str | None = None
    spacing_um: float = DEFAULT_SPACING_UM  # of the lattice of added cells
    at_um: tuple[tuple[float, float], ...] | None = None  # positions of added cells; None: a lattice in the polygon

    def covers(self, xy_um_N2: np.ndarray) -> np.ndarray:
        """bool [N]: which positions lie in its polygon."""
        import shapely

        if self.area is None:
            return np.ones(len(xy_um_N2), bool)
        left, top, right, bottom = self.area.bounds
        out = np.asarray(((xy_um_N2 >= (left, top)) & (xy_um_N2 <= (right, bottom))).all(1))
        out[out] = shapely.contains_xy(self.area, xy_um_N2[out, 0], xy_um_N2[out, 1])
        return out

    def fingerprint(self) -> str:
        """A hash of all fields."""
        parts: list[Any] = [self.set_type, self.remove, self.gene, self.factor, self.add_type, self.spacing_um]
        parts += [self.cells, self.of_type, self.counts, self.move_um, self.at_um]
        wkb = b"" if self.area is None else self.area.wkb
        return hashlib.blake2b(json.dumps(parts).encode() + wkb, digest_size=8).hexdigest()


def edit_fields(edit: Edit) -> dict[str, Any]:
    """An edit in types that JSON knows, for a manifest; its polygon as text."""
    fields = {name: value for name, value in asdict(replace(edit, area=None)).items() if name != "area"}
    return {**fields, "polygon_um": None if edit.area is None else edit.area.wkt}


def read_edits(path: str | Path, um_per_unit: float) -> list[Edit]:
    """Read an edit file; its coordinates times `um_per_unit` are um (px of the slide as QuPath exports them, or um).

    Raises
    ------
    InputError
        If the file is no GeoJSON or a feature names no action; all problems at once.
    """

    return edits_of(read_annotations(path), um_per_unit, str(path))


def edits_of(features: list[Any], um_per_unit: float, where: str = "") -> list[Edit]:
    """The edits of GeoJSON features, as :func:`read_edits` reads them from a file."""
    from shapely.errors import ShapelyError

    problems, edits = Problems(), []
    for number, feature in enumerate(features):
        try:
            edits.append(_edit_of(feature, um_per_unit))
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, ShapelyError) as error:
            problems.add(found=f"feature {number} that cannot be used ({error})", where=where, expected=EXPECTED)
    problems.raise_if_any()
    return edits


def _edit_of(feature: Any, um_per_unit: float) -> Edit:
    from shapely import affinity, get_coordinates, make_valid
    from shapely.geometry import shape

    fields = _fields(dict(feature.get("properties") or {}))
    geometry = None
    if feature.get("geometry"):
        with np.errstate(invalid="ignore"):  # coordinates that are no numbers: no area
            geometry = affinity.scale(shape(feature["geometry"]), um_per_unit, um_per_unit, origin=(0, 0))
    if geometry is not None and geometry.geom_type in ("Point", "MultiPoint") and "add_type" in fields:
        at_um = tuple((float(x), float(y)) for x, y in get_coordinates(geometry))
        if not at_um or not np.isfinite(at_um).all():
            raise ValueError("it has no position")
        edit = Edit(**fields, at_um=at_um)
    elif geometry is not None:
        with np.errstate(invalid="ignore"):
            area = make_valid(geometry)
        if not area.area > 0:
            raise ValueError("it has no area")
        edit = Edit(area=area, **fields)
    else:
        edit = Edit(**fields)
    _check_fields(edit)
    return edit


def _check_fields(edit: Edit) -> None:
    """ValueError for numbers out of range and for scopes that do not go together."""
    if not 0 <= edit.factor <= MAX_FACTOR or not 0 < edit.spacing_um < np.inf:
        raise ValueError(f"factor is 0 to {MAX_FACTOR:g} and spacing_um above 0")
    if edit.counts is not None and not 0 <= edit.counts <= MAX_COUNTS:
        raise ValueError(f"counts is 0 to {MAX_COUNTS:g}")
    if edit.move_um is not None and not np.isfinite(edit.move_um).all():
        raise ValueError("move_um is no two numbers")
    if edit.cells is not None and (edit.area is not None or edit.at_um is not None):
        raise ValueError("cells and a geometry together: choose one")
    if edit.add_type is not None and edit.area is None and edit.at_um is None:
        raise ValueError("without a polygon or points no cell can be added")
    if edit.add_type is not None and edit.of_type is not None:
        raise ValueError("of_type with add_type: make two features")
    if edit.area is None and edit.cells is None and edit.of_type is None and edit.at_um is None and edit.gene is None:
        raise ValueError("without a polygon, cells or a type only a gene can be changed, everywhere")


def _fields(properties: dict[str, Any]) -> dict[str, Any]:
    """The fields of an edit that the properties of a feature name; ValueError where they name no action."""
    chosen = {name: properties[name] for name in KNOWN if name in properties}
    unknown = [name for name in properties if name not in (*KNOWN, *QUPATH)]
    if chosen and unknown:
        raise ValueError(f"it has unknown properties: {', '.join(map(str, unknown))}")
    for detail, action in DETAILS.items():
        if detail in chosen and action not in chosen:
            raise ValueError(f"{detail} without {action}")
    types: dict[str, Any] = {"set_type": str, "gene": str, "add_type": str, "remove": bool, "of_type": str}
    types |= {"cells": list, "move_um": list}
    for name, expected in types.items():
        if name in chosen and not isinstance(chosen[name], expected):
            raise ValueError(f"{name} is {chosen[name]!r}"[:200])
    if "set_type" in chosen and "add_type" in chosen:
        raise ValueError("set_type and add_type together: make two features")
    if "factor" in chosen and "counts" in chosen:
        raise ValueError("factor and counts together: choose one")
    if chosen.get("remove") is False:
        raise ValueError("remove is false: omit it")
    if "cells" in chosen:
        if not chosen["cells"] or not all(isinstance(name, str) for name in chosen["cells"]):
            raise ValueError("cells is no list of ids")
        chosen["cells"] = tuple(chosen["cells"])
    if "move_um" in chosen:
        x, y = chosen["move_um"]
        chosen["move_um"] = (float(x), float(y))
    for name in ("factor", "counts", "spacing_um"):
        if isinstance(chosen.get(name), bool):
            raise ValueError(f"{name} is {chosen[name]!r}")
    if any(name in chosen for name in ACTIONS):
        return chosen
    name_of_class = class_name(properties)
    if name_of_class is None:
        raise ValueError("it has neither a class nor a property that names an action")
    return chosen | ({"remove": True} if name_of_class.casefold() == REMOVE else {"set_type": name_of_class})


def gene_edit(text: str) -> Edit:
    """An edit of a gene everywhere, from "GENE=FACTOR"; raises `InputError` for anything else."""
    gene, _, factor = text.partition("=")
    try:
        edit = Edit(gene=gene.strip(), factor=float(factor))
    except ValueError:
        edit = Edit(gene="")
    if not edit.gene or not 0 <= edit.factor <= MAX_FACTOR:
        raise InputError(
            found=f"--gene {text}", expected="GENE=FACTOR, e.g. UMOD=0 to knock it out, UMOD=2 to double it"
        )
    return edit


def check_gene(name: str, bundle: ModelBundle, genes: GenePanel) -> None:
    """Raise `InputError` unless both the model and the cells (their `genes`) have a gene of this symbol or id."""
    if not genes.columns_called(name):
        raise InputError(
            found=f"gene {name!r}",
            expected="a symbol or id that the cells have counts of" + _similar(name, genes),
        )
    if not bundle.genes.columns_called(name):
        raise InputError(
            found=f"gene {name!r}, which is not in the model's panel",
            expected="a gene of the model's genes.csv" + _similar(name, bundle.genes),
        )


def _similar(name: str, panel: GenePanel) -> str:
    symbols = {symbol.casefold(): symbol for symbol in (*panel.ids, *panel.symbols)}
    close = difflib.get_close_matches(name.casefold(), symbols, n=3, cutoff=0.6)
    return f", such as {', '.join(symbols[match] for match in close)}" if close else ""


def scaled_counts(counts: csr_array, columns: np.ndarray | list[int], factor: float, inside_N: np.ndarray) -> csr_array:
    """Counts with some genes (columns) times a factor in the cells (rows) that `inside_N`, bool, marks; factor 1: unchanged."""
    if factor == 1:
        return counts
    out = counts.astype(np.float32)
    row_of_value = np.repeat(np.arange(out.shape[0]), np.diff(out.indptr))
    out.data[inside_N[row_of_value] & np.isin(out.indices, columns)] *= factor
    return out


def set_counts(counts: csr_array, columns: np.ndarray | list[int], value: float, inside_N: np.ndarray) -> csr_array:
    """Counts with a gene set to a value in the cells that `inside_N` marks; if several columns carry its name, in the first."""
    from scipy.sparse import csr_array

    out = scaled_counts(counts, columns, 0.0, inside_N)
    out.eliminate_zeros()
    rows = np.flatnonzero(inside_N)
    if value == 0 or len(rows) == 0:
        return out
    new = (np.full(len(rows), value, np.float32), (rows, np.full(len(rows), min(columns))))
    return csr_array(out + csr_array(new, shape=out.shape))


def lattice_positions(edit: Edit) -> np.ndarray:
    """Positions [n, 2] in um of the cells that an edit adds: those it names, or a hexagonal lattice in its polygon."""
    if edit.at_um is not None:
        return np.array(edit.at_um, np.float64)
    if edit.add_type is None or edit.area is None:
        return np.zeros((0, 2))
    left, top, right, bottom = edit.area.bounds
    dx, dy = edit.spacing_um, edit.spacing_um * 3**0.5 / 2
    if (right - left) / dx * (bottom - top) / dy > MAX_ADDED:
        raise InputError(
            found=f"a polygon of {right - left:.0f} x {bottom - top:.0f} um full of cells {dx:g} um apart",
            expected=f"at most {MAX_ADDED:,} cells",
            repair="a smaller polygon, or a larger spacing_um",
        )
    rows = np.arange(np.floor(top / dy), np.ceil(bottom / dy) + 1)
    columns = np.arange(np.floor(left / dx) - 1, np.ceil(right / dx) + 1)
    y, x = np.meshgrid(rows, columns, indexing="ij")
    xy = np.stack([(x + 0.5 * (y % 2)) * dx, y * dy], -1).reshape(-1, 2)
    return xy[edit.covers(xy)]
