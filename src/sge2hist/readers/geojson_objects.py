"""What the features of a GeoJSON file are: which of them are cells, in how many pieces, and what their ids are.

====================  ==================================================================================================
Space Ranger 4        one Polygon per cell, `properties.cell_id` an integer from 1
QuPath                `properties.objectType` cell, detection, annotation, tile, ...; a cell has `nucleusGeometry` beside
                      `geometry`; `id` of the feature is a UUID, `properties.name` need not be unique. Before version 0.3
                      `object_type`, before 0.2 `id` "PathCellObject", "PathDetectionObject", ...
CellViT and others    one MultiPolygon per class, objectType annotation, with all nuclei of the class
geopandas (sopa)      Polygons and MultiPolygons, a table's columns as properties
====================  ==================================================================================================

A **MultiPolygon** is one cell where it has a cell's id (`cell_id`, or a number in `cell` or `label`) or is a QuPath cell or
detection of at most `MAX_PIECES` parts; it is one cell per part where it is an annotation or has a class; with none of these
it is one cell where its parts lie together (see `_together`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from sge2hist.data.annotations import class_name

CELL_KEYS = ("cell_id", "cell", "label")
MAX_PIECES = 20  # of a QuPath cell or detection
MAX_SPREAD = 3.0  # widths of its largest part over which the parts of one cell spread
_OLD_TYPES = {
    "PathCellObject": "cell",
    "PathDetectionObject": "detection",
    "PathAnnotationObject": "annotation",
    "PathTileObject": "tile",
    "TMACoreObject": "tma_core",
    "PathRootObject": "root",
}
_NO_CELLS = ("tile", "tma_core", "root")
_RANKS = ("cell", "detection")  # before annotations and objects without a type


class Objects:
    """Features with polygons, as parallel lists; a part is a polygon with its holes.

    Attributes
    ----------
    object_type, class_of, is_one_cell, id_of
        By feature: QuPath's type or None; class or None; whether all its parts are one cell; ids by key, None if absent.
    feature_of_part
        By part.
    part_of_ring, is_hole, corners
        By ring; corners float64 [n, 2], the last one equal to the first.
    nuclei
        Parts and rings of `nucleusGeometry`, as another `Objects` with lists by part and ring alone.
    ignored
        What has no polygon, by its name.
    """

    def __init__(self) -> None:
        self.object_type: list[str | None] = []
        self.class_of: list[str | None] = []
        self.is_one_cell: list[bool] = []
        self.id_of: dict[str, list[str | None]] = {key: [] for key in (*CELL_KEYS, "feature id", "id", "name")}
        self.feature_of_part: list[int] = []
        self.part_of_ring: list[int] = []
        self.is_hole: list[bool] = []
        self.corners: list[np.ndarray] = []
        self.ignored: Counter[str] = Counter()
        self.nuclei: Objects | None = None

    def add_parts(self, parts: list[list[np.ndarray]], feature: int) -> None:
        """Append the polygons of one feature."""
        for rings in parts:
            self.part_of_ring += [len(self.feature_of_part)] * len(rings)
            self.is_hole += [index > 0 for index in range(len(rings))]
            self.corners += rings
            self.feature_of_part.append(feature)

    def __len__(self) -> int:
        return len(self.object_type)


def objects_of(features: Iterable[Any]) -> Objects:
    """Collect the features; ValueError, TypeError, KeyError or AttributeError where one is no feature or has no numbers."""
    objects = Objects()
    for feature in features:
        polygons, others = _polygons_in(feature.get("geometry"))
        parts = [rings for part in polygons if (rings := _rings(part))]
        if not parts:
            objects.ignored[
                others or ("outline of fewer than three corners" if any(polygons) else "empty outline")
            ] += 1
            continue
        _add(objects, feature, parts)
    return objects


def _add(objects: Objects, feature: dict[str, Any], parts: list[list[np.ndarray]]) -> None:
    properties = feature.get("properties") or {}
    number, kind, class_of = len(objects), _object_type(feature, properties), class_name(properties)
    objects.object_type.append(kind)
    objects.class_of.append(class_of)
    for key in (*CELL_KEYS, "id", "name"):
        objects.id_of[key].append(_text(properties.get(key)))
    objects.id_of["feature id"].append(_text(feature.get("id")))
    objects.is_one_cell.append(len(parts) == 1 or _is_one_cell(properties, kind, class_of, parts))
    objects.add_parts(parts, number)
    nucleus, _ = _polygons_in(feature.get("nucleusGeometry"))
    nuclear_parts = [rings for part in nucleus if (rings := _rings(part))]
    if nuclear_parts:
        if objects.nuclei is None:
            objects.nuclei = Objects()
        objects.nuclei.add_parts(nuclear_parts, number)


def _polygons_in(geometry: Any) -> tuple[list[Any], str]:
    """Coordinates of the polygons of a geometry, and what else it is."""
    if not geometry:
        return [], "feature without geometry"
    shape = geometry["type"]
    if shape == "Polygon":
        return [geometry["coordinates"]], ""
    if shape == "MultiPolygon":
        return list(geometry["coordinates"]), ""
    if shape == "GeometryCollection":
        found = [_polygons_in(member) for member in geometry["geometries"]]
        return [part for parts, _ in found for part in parts], shape
    return [], str(shape)


def _rings(part: Any) -> list[np.ndarray]:
    """Rings of a polygon that enclose something, the outer one first; none where the outer one does not."""
    rings: list[np.ndarray] = []
    for index, corners in enumerate(part):
        ring = np.array(corners, np.float64)
        if ring.ndim != 2 or ring.shape[1] < 2 or not np.isfinite(ring).all():
            raise ValueError(f"a ring of shape {ring.shape}, or not finite; expected x, y corners")
        ring = ring[:, :2]
        closed = len(ring) > 1 and bool((ring[0] == ring[-1]).all())
        if len(ring) - closed < 3:
            if index == 0:
                return []
            continue
        rings.append(ring if closed else np.vstack([ring, ring[:1]]))
    return rings


def _object_type(feature: dict[str, Any], properties: dict[str, Any]) -> str | None:
    stated = properties.get("objectType") or properties.get("object_type")
    if isinstance(stated, str):
        return stated.lower()
    return _OLD_TYPES.get(str(feature.get("id")))


def _text(value: Any) -> str | None:
    return None if value is None or value == "" else str(value)


def has_cell_id(properties: dict[str, Any]) -> bool:
    """Whether properties name one cell: `label` and `cell` may be the name of a class, so they must be numbers."""
    if _text(properties.get("cell_id")) is not None:
        return True
    return any(str(properties.get(key)).isdecimal() for key in ("cell", "label"))


def _is_one_cell(
    properties: dict[str, Any], object_type: str | None, class_of: str | None, parts: list[list[np.ndarray]]
) -> bool:
    if has_cell_id(properties):
        return True
    if object_type in _RANKS:
        return len(parts) <= MAX_PIECES
    return object_type is None and class_of is None and _together(parts)


def _together(parts: list[list[np.ndarray]]) -> bool:
    """Whether the box of all parts is at most `MAX_SPREAD` times as large as the largest part's, in width and height."""
    low = np.array([rings[0].min(0) for rings in parts])
    high = np.array([rings[0].max(0) for rings in parts])
    return bool((high.max(0) - low.min(0)).max() <= MAX_SPREAD * (high - low).max())


def choose_objects(objects: Objects) -> tuple[np.ndarray, list[str]]:
    """Which features are cells: bool [features], and what was ignored, in words.

    QuPath's cells; without any its detections; without any its annotations and whatever has no type. Detections beside cells
    are parts of cells; annotations beside cells or detections are the regions in which they were found.
    """
    present = Counter(objects.object_type)
    chosen = next((name for name in _RANKS if present[name]), None)
    keep = np.array([kind == chosen if chosen else kind not in _NO_CELLS for kind in objects.object_type], dtype=bool)
    notes = []
    others = Counter(
        kind or "feature without a type" for kind, kept in zip(objects.object_type, keep, strict=True) if not kept
    )
    if others:
        cells = f": the {present[chosen]:,} {chosen}s are the cells" if chosen else ": they are no cells"
        notes.append(f"{counted(others)} ignored{cells}")
    return keep, notes


def choose_ids(objects: Objects, keep: np.ndarray) -> tuple[list[str], str | None]:
    """An id for each feature, and the key that they are from.

    The first of cell_id, cell, label, the feature's own id, `properties.id` and `properties.name` that all kept features have
    and none repeats; else the number of the feature in the file, from 1, and None.
    """
    kept = np.flatnonzero(keep)
    for key, values in objects.id_of.items():
        own = [values[index] for index in kept]
        if None not in own and len(set(own)) == len(own):
            return [value or "" for value in values], key
    return [str(number + 1) for number in range(len(objects))], None


def counted(names: Counter[str]) -> str:
    """ "2 LineStrings, 1 Point"."""
    ordered = sorted(names.items(), key=lambda item: -item[1])
    return ", ".join(f"{number:,} {name}{'s' if number > 1 else ''}" for name, number in ordered)
