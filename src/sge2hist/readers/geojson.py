"""Polygons of a GeoJSON FeatureCollection as flat arrays: no geometry objects, no data frame.

Space Ranger 4 writes one Polygon per cell, `properties.cell_id` an integer from 1, corners in px of the H&E given to it
(staircase outlines of 2 um bins). Annotated files add `properties.classification {"name": "Cluster-3", "color": ...}`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.readers.tables import damaged

EXPECTED = "a GeoJSON FeatureCollection of polygons"
_PIECE = 1 << 22  # characters read at a time
_MAX_TOKEN = 1 << 16  # characters: a token cut by the end of a piece starts this close to it
_FEATURES = re.compile(r'"features"\s*:\s*\[')
_BETWEEN = re.compile(r"[\s,]*")
ID_KEYS = ("cell_id", "id", "cell", "label", "name")


@dataclass(frozen=True, kw_only=True)
class Polygons:
    """P polygons of R rings in all; exterior rings count positive, holes negative."""

    ids: list[str]  # [P] as written
    classes: list[str | None]  # [P] name of the classification
    polygon_of_ring: np.ndarray  # int64 [R]
    is_hole: np.ndarray  # bool [R]
    ring_start: np.ndarray  # int64 [R + 1] into `corner_xy_px`
    corner_xy_px: np.ndarray  # float64 [V, 2]; a ring's last corner repeats its first

    def __len__(self) -> int:
        return len(self.ids)

    def area_px2_and_centroid(self) -> tuple[np.ndarray, np.ndarray]:
        """Area [P] and centroid [P, 2] by the shoelace formula; a polygon without area gets the mean of its corners."""
        start = self.ring_start[:-1]
        # Relative to its first corner, a small ring far from the origin loses no digits.
        origin = np.repeat(self.corner_xy_px[start], np.diff(self.ring_start), axis=0)
        x, y = (self.corner_xy_px - origin).T
        cross = np.zeros(len(x))
        cross[:-1] = x[:-1] * y[1:] - x[1:] * y[:-1]
        cross[self.ring_start[1:] - 1] = 0  # no edge between rings
        double = np.add.reduceat(cross, start)
        moments = []
        for value in (x, y):
            pair = np.zeros(len(value))
            pair[:-1] = (value[:-1] + value[1:]) * cross[:-1]
            moments.append(np.add.reduceat(pair, start) / 6)
        orientation = np.where(double < 0, -1.0, 1.0) * np.where(self.is_hole, -1.0, 1.0)
        ring_area = double / 2 * orientation
        ring_moment = np.stack(moments, axis=1) * orientation[:, None] + ring_area[:, None] * self.corner_xy_px[start]
        area = np.bincount(self.polygon_of_ring, ring_area, len(self))
        moment = np.stack(
            [np.bincount(self.polygon_of_ring, ring_moment[:, axis], len(self)) for axis in (0, 1)], axis=1
        )
        mean = np.stack([self._mean_corner(axis) for axis in (0, 1)], axis=1)
        flat = area <= 1e-9
        centroid = np.where(flat[:, None], mean, moment / np.where(flat, 1, area)[:, None])
        return np.where(flat, 0.0, area), centroid

    def _mean_corner(self, axis: int) -> np.ndarray:
        polygon = np.repeat(self.polygon_of_ring, np.diff(self.ring_start))
        count = np.bincount(polygon, minlength=len(self))
        return np.bincount(polygon, self.corner_xy_px[:, axis], len(self)) / np.maximum(count, 1)


def read_geojson(path: str | Path) -> Polygons:
    """Read all Polygons and MultiPolygons of a FeatureCollection.

    Raises
    ------
    InputError
        If the file is damaged, is no FeatureCollection of polygons, has none, or repeats an id.
    """
    path = Path(path)
    try:
        return _flatten(features_of(path), path)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise damaged(path, "GeoJSON file", error) from error


def _flatten(features: Iterable[Any], path: Path) -> Polygons:
    ids, classes, polygon_of_ring, is_hole, rings = [], [], [], [], []
    for number, feature in enumerate(features):
        geometry = feature["geometry"]
        shape, coordinates = geometry["type"], geometry["coordinates"]
        if shape not in ("Polygon", "MultiPolygon"):
            raise InputError(found=f"a {shape}", where=f"{path}: feature {number}", expected="Polygon or MultiPolygon")
        properties = feature.get("properties") or {}
        ids.append(_id(feature, properties, number))
        classes.append(_class(properties))
        for part in [coordinates] if shape == "Polygon" else coordinates:
            for index, corners in enumerate(part):
                polygon_of_ring.append(number)
                is_hole.append(index > 0)
                rings.append(_ring(corners, f"{path}: feature {number}"))
    if not ids:
        raise InputError(found="no features", where=str(path), expected=EXPECTED)
    if len(set(ids)) != len(ids):
        raise InputError(found="repeated cell ids", where=str(path), expected="one polygon per cell id")
    present = np.zeros(len(ids), bool)
    present[polygon_of_ring] = True
    if not present.all():
        raise InputError(found=f"feature {int(np.argmin(present))} without a ring", where=str(path))
    return Polygons(
        ids=ids,
        classes=classes,
        polygon_of_ring=np.array(polygon_of_ring, np.int64),
        is_hole=np.array(is_hole),
        ring_start=np.concatenate([[0], np.cumsum([len(ring) for ring in rings])]),
        corner_xy_px=np.concatenate(rings),
    )


def _ring(corners: Any, where: str) -> np.ndarray:
    ring = np.array(corners, np.float64)
    if ring.ndim != 2 or ring.shape[1] < 2 or len(ring) < 3 or not np.isfinite(ring).all():
        raise InputError(found=f"a ring of shape {ring.shape}, or not finite", where=where, expected="x, y corners")
    ring = ring[:, :2]
    return ring if (ring[0] == ring[-1]).all() else np.vstack([ring, ring[:1]])


def _id(feature: dict[str, Any], properties: dict[str, Any], number: int) -> str:
    for key in ID_KEYS:
        if key in properties:
            return str(properties[key])
    return str(feature.get("id", number + 1))


def _class(properties: dict[str, Any]) -> str | None:
    classification = properties.get("classification")
    if isinstance(classification, dict) and "name" in classification:
        return str(classification["name"])
    return classification if isinstance(classification, str) else None


def features_of(path: str | Path) -> Iterator[Any]:
    """Decode the features of a FeatureCollection, or of a plain list of features, one after the other.

    The text is read in pieces, so memory is that of one piece and of what the caller keeps. With few Python objects alive the
    garbage collector has little to walk: 60,000 polygons decode three times as fast as with `json.load`.

    Raises
    ------
    InputError
        If the file cannot be read, is cut off or damaged, or has no list of features.
    """
    path = Path(path)
    try:
        with open(path, encoding="utf-8-sig") as file:
            yield from _decode(file, _start(file, path), path)
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(found=f"a file that cannot be read ({error})", where=str(path), expected=EXPECTED) from error


def _start(file: TextIO, path: Path) -> str:
    """Read up to the list of features and return what was read after its opening bracket."""
    text = file.read(_PIECE)
    if text.lstrip().startswith("["):
        return text[text.index("[") + 1 :]
    while not (match := _FEATURES.search(text)):
        piece = file.read(_PIECE)
        if not piece:
            raise InputError(found='no list "features"', where=str(path), expected=EXPECTED)
        text += piece
    return text[match.end() :]


def _decode(file: TextIO, text: str, path: Path) -> Iterator[Any]:
    decoder, position = json.JSONDecoder(), 0
    while True:
        position = _skip(text, position)
        if text[position : position + 1] == "]":
            return
        try:
            feature, position = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            # a feature that the end of the piece cuts fails close to that end; a damaged one fails anywhere
            piece = "" if error.pos < len(text) - _MAX_TOKEN else file.read(_PIECE)
            if not piece:
                found = f"JSON that is damaged or cut off ({error.msg})"
                raise InputError(
                    found=found, where=str(path), expected=EXPECTED, repair="copy the file again"
                ) from None
            text, position = text[position:] + piece, 0
            continue
        yield feature


def _skip(text: str, position: int) -> int:
    """First character at or after `position` that is neither white space nor a comma."""
    match = _BETWEEN.match(text, position)
    return match.end() if match else position
