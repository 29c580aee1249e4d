"""Edits of a section under the same noise: other cell types in a polygon, a gene up or down, cells removed or added.

An edit file is GeoJSON: polygons as QuPath exports them. The class of an annotation names the cell type that its cells become;
the class "remove" removes them. Properties give other actions: ``set_type``, ``remove``, ``gene`` with
``factor``, ``add_type`` with ``spacing_um``.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sge2hist.data.annotations import read_annotations
from sge2hist.data.errors import InputError, Problems
from sge2hist.data.gene_panel import GenePanel

if TYPE_CHECKING:
    from scipy.sparse import csr_array
    from shapely.geometry.base import BaseGeometry

    from sge2hist.models.bundle import ModelBundle

REMOVE = "remove"
ACTIONS = ("set_type", "remove", "gene", "add_type")
DETAILS = {"factor": "gene", "spacing_um": "add_type"}  # option -> the action that it belongs to
KNOWN = (*ACTIONS, *DETAILS)
QUPATH = ("objectType", "classification", "name", "color", "isLocked", "measurements", "metadata", "objectName")
EXPECTED = f"a polygon with a class that names a cell type, or properties {', '.join(KNOWN)}"
DEFAULT_SPACING_UM = 12.0
MAX_FACTOR = 1000.0  # that a gene's counts may be multiplied by


@dataclass(frozen=True, kw_only=True)
class Edit:
    """One change of the cells in a polygon (um); no polygon: everywhere."""

    area: BaseGeometry | None = None
    set_type: str | None = None
    remove: bool = False
    gene: str | None = None  # symbol or id
    factor: float = 0.0  # its counts are multiplied by this; 0 knocks it out
    add_type: str | None = None
    spacing_um: float = DEFAULT_SPACING_UM  # of the lattice of added cells

    def covers(self, xy_um_N2: np.ndarray) -> np.ndarray:
        """bool [N]: which positions lie in its polygon."""
        import shapely

        if self.area is None:
            return np.ones(len(xy_um_N2), bool)
        return np.asarray(shapely.contains_xy(self.area, xy_um_N2[:, 0], xy_um_N2[:, 1]))

    def fingerprint(self) -> str:
        """A hash of all fields."""
        parts = [self.set_type, self.remove, self.gene, self.factor, self.add_type, self.spacing_um]
        wkb = b"" if self.area is None else self.area.wkb
        return hashlib.blake2b(json.dumps(parts).encode() + wkb, digest_size=8).hexdigest()


def read_edits(path: str | Path, um_per_unit: float) -> list[Edit]:
    """Read an edit file; its coordinates times `um_per_unit` are um (px of the slide as QuPath exports them, or um).

    Raises
    ------
    InputError
        If the file is no GeoJSON or a feature names no action; all problems at once.
    """
    from shapely.errors import ShapelyError

    problems, edits = Problems(), []
    for number, feature in enumerate(read_annotations(path)):
        try:
            edits.append(_edit_of(feature, um_per_unit))
        except (ValueError, TypeError, KeyError, AttributeError, ShapelyError) as error:
            problems.add(found=f"feature {number} that cannot be used ({error})", where=str(path), expected=EXPECTED)
    problems.raise_if_any()
    return edits


def _edit_of(feature: Any, um_per_unit: float) -> Edit:
    from shapely import affinity, make_valid
    from shapely.geometry import shape

    properties = dict(feature.get("properties") or {})
    area = None
    if feature.get("geometry"):
        with np.errstate(invalid="ignore"):  # coordinates that are no numbers: no area
            area = make_valid(affinity.scale(shape(feature["geometry"]), um_per_unit, um_per_unit, origin=(0, 0)))
        if not area.area > 0:
            raise ValueError("it has no area")
    edit = Edit(area=area, **_fields(properties))
    if not 0 <= edit.factor <= MAX_FACTOR or not 0 < edit.spacing_um < np.inf:
        raise ValueError(f"factor is 0 to {MAX_FACTOR:g} and spacing_um above 0")
    if area is None and edit.gene is None:
        raise ValueError("without a polygon only a gene can be changed, everywhere")
    return edit


def _fields(properties: dict[str, Any]) -> dict[str, Any]:
    """The fields of an edit that the properties of a feature name; ValueError where they name no action."""
    chosen = {name: properties[name] for name in KNOWN if name in properties}
    unknown = [name for name in properties if name not in (*KNOWN, *QUPATH)]
    if chosen and unknown:
        raise ValueError(f"it has unknown properties: {', '.join(map(str, unknown))}")
    for detail, action in DETAILS.items():
        if detail in chosen and action not in chosen:
            raise ValueError(f"{detail} without {action}")
    for name, expected in (("set_type", str), ("gene", str), ("add_type", str), ("remove", bool)):
        if name in chosen and not isinstance(chosen[name], expected):
            raise ValueError(f"{name} is {chosen[name]!r}")
    if "set_type" in chosen and "add_type" in chosen:
        raise ValueError("set_type and add_type together: make two features")
    if chosen.get("remove") is False:
        raise ValueError("remove is false: omit it")
    if chosen:
        return chosen
    annotation_class = properties.get("classification") or {}
    class_name = annotation_class.get("name") if isinstance(annotation_class, dict) else annotation_class
    if not class_name:
        raise ValueError("it has neither a class nor a property that names an action")
    return {"remove": True} if str(class_name).casefold() == REMOVE else {"set_type": str(class_name)}


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


def check_edits(edits: list[Edit], bundle: ModelBundle, genes: GenePanel, xy_um_N2: np.ndarray) -> None:
    """Raise `InputError` for an edit without effect: an unknown type, a gene that the model or the cells lack, a polygon without
    cells (which are at `xy_um_N2`), or one too small for added cells.
    """
    added = dict(added_cells(edits))
    for number, edit in enumerate(edits):
        if edit.add_type is not None and len(added[number]) == 0:
            raise InputError(
                found=f"edit {number}: no room in the polygon for cells {edit.spacing_um:g} um apart",
                expected="a larger polygon, or a smaller spacing_um",
            )
        alone = edit.add_type is not None and not edit.remove and edit.gene is None
        if edit.area is not None and not alone and not edit.covers(xy_um_N2).any():
            bounds = [
                f"x {a:.0f} to {c:.0f}, y {b:.0f} to {d:.0f} um"
                for a, b, c, d in (edit.area.bounds, (*xy_um_N2.min(0), *xy_um_N2.max(0)))
            ]
            raise InputError(
                found=f"edit {number}: a polygon that no cell lies in ({bounds[0]})",
                expected=f"one that meets the cells ({bounds[1]})",
                repair="coordinates are px of the paired dataset's slide.ome.tif, or um for an .h5ad",
            )
        for name in (edit.set_type, edit.add_type):
            if name is not None:
                bundle.components_of(name)
        if edit.gene is not None:
            check_gene(edit.gene, bundle, genes)


def check_gene(name: str, bundle: ModelBundle, genes: GenePanel) -> None:
    """Raise `InputError` unless both the model and the cells (their `genes`) have a gene of this symbol or id."""
    if not gene_columns(genes, name):
        raise InputError(
            found=f"gene {name!r}",
            expected="a symbol or id that the cells have counts of" + _similar(name, genes),
        )
    if not gene_columns(bundle.genes, name):
        raise InputError(
            found=f"gene {name!r}, which is not in the model's panel",
            expected="a gene of the model's genes.csv" + _similar(name, bundle.genes),
        )


def _similar(name: str, panel: GenePanel) -> str:
    symbols = {symbol.casefold(): symbol for symbol in (*panel.ids, *panel.symbols)}
    close = difflib.get_close_matches(name.casefold(), symbols, n=3, cutoff=0.6)
    return f", such as {', '.join(symbols[match] for match in close)}" if close else ""


def gene_columns(panel: GenePanel, name: str) -> list[int]:
    """Columns of a gene by id or symbol, letter case ignored."""
    wanted = name.casefold()
    return [
        column
        for column, names in enumerate(zip(panel.ids, panel.symbols, strict=True))
        if wanted in (names[0].casefold(), names[0].partition(".")[0].casefold(), names[1].casefold())
    ]


def edited_counts(
    read_counts: Callable[[np.ndarray], csr_array], edits: list[Edit], genes: GenePanel, xy_um_N2: np.ndarray
) -> Callable[[np.ndarray], csr_array]:
    """`read_counts` with the genes of the edits scaled in the cells that they cover."""
    scaled = [(edit, gene_columns(genes, edit.gene)) for edit in edits if edit.gene is not None]
    if not scaled:
        return read_counts

    def read(positions: np.ndarray) -> csr_array:
        counts = read_counts(positions).astype(np.float32)
        for edit, columns in scaled:
            counts = scaled_counts(counts, columns, edit.factor, edit.covers(xy_um_N2[positions]))
        return counts

    return read


def scaled_counts(counts: csr_array, columns: np.ndarray | list[int], factor: float, inside_N: np.ndarray) -> csr_array:
    """Counts with some genes (columns) times a factor in the cells (rows) that `inside_N`, bool, marks; factor 1: unchanged."""
    if factor == 1:
        return counts
    out = counts.astype(np.float32)
    row_of_value = np.repeat(np.arange(out.shape[0]), np.diff(out.indptr))
    out.data[inside_N[row_of_value] & np.isin(out.indices, columns)] *= factor
    return out


def kept_cells(edits: list[Edit], xy_um_N2: np.ndarray) -> np.ndarray:
    """bool [N]: cells that no edit removes."""
    keep = np.ones(len(xy_um_N2), bool)
    for edit in edits:
        if edit.remove:
            keep &= ~edit.covers(xy_um_N2)
    return keep


def added_cells(edits: list[Edit]) -> list[tuple[int, np.ndarray]]:
    """Number of each edit that adds cells, and their positions [n, 2] in um: a hexagonal lattice in its polygon."""
    out = []
    for number, edit in enumerate(edits):
        if edit.add_type is None or edit.area is None:
            continue
        left, top, right, bottom = edit.area.bounds
        dx, dy = edit.spacing_um, edit.spacing_um * 3**0.5 / 2
        rows = np.arange(np.floor(top / dy), np.ceil(bottom / dy) + 1)
        columns = np.arange(np.floor(left / dx) - 1, np.ceil(right / dx) + 1)
        y, x = np.meshgrid(rows, columns, indexing="ij")
        xy = np.stack([(x + 0.5 * (y % 2)) * dx, y * dy], -1).reshape(-1, 2)
        out.append((number, xy[edit.covers(xy)]))
    return out
