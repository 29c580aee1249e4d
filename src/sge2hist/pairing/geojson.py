"""Read outlines of cells from GeoJSON: Space Ranger 4, QuPath and everything else that writes polygons in px of the slide.

Features are decoded one by one from a text read in pieces, and become arrays at once: memory is that of the arrays, and Python's
garbage collector does not walk millions of small lists (three times as fast as `json.load` on 60,000 polygons).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.pairing.polygons import Outlines, outlines_from_rings

_PIECE = 1 << 22  # characters read at a time
_LONGEST_STRING = 1 << 16  # characters
_FEATURES = re.compile(r'"features"\s*:\s*\[')
_EXPECTED = "a GeoJSON FeatureCollection (or list) of Polygon and MultiPolygon features"


def read_geojson(path: Path) -> Outlines:
    """Read every polygon of a file.

    The name of a cell is ``cellid_000000001-1`` for Space Ranger's integer `properties.cell_id`, else the text of `cell_id`,
    `properties.id`, the feature's `id`, or its number. Features that are no polygons are skipped.

    Raises
    ------
    InputError
        A file that is missing, truncated or not GeoJSON; coordinates that are not numbers; no polygon; repeated names.
    """
    path = Path(path)
    rings: list[np.ndarray] = []
    cell_of_ring: list[int] = []
    cell_ids: list[str] = []
    classes: list[str] = []
    try:
        with open(path, encoding="utf-8") as file:
            for number, feature in enumerate(_features(file, path), start=1):
                own = _rings(feature, number, path)
                if not own:
                    continue
                rings += own
                cell_of_ring += [len(cell_ids)] * len(own)
                cell_ids.append(_name(feature, number))
                classes.append(_class(feature))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(found=f"a file that cannot be read ({error})", where=str(path), expected=_EXPECTED) from error
    if not rings:
        raise InputError(found="no polygon", where=str(path), expected=_EXPECTED)
    try:
        return outlines_from_rings(rings, cell_of_ring, cell_ids, classes if any(classes) else None)
    except InputError as error:
        where = f"{path}, {error.where}" if error.where else str(path)
        raise InputError(found=error.found, where=where, expected=error.expected, repair=error.repair) from error


def _features(file: TextIO, path: Path) -> Iterator[Any]:
    """Decode one feature after the other of a FeatureCollection or of a plain list."""
    decoder, text = json.JSONDecoder(), file.read(_PIECE)
    start = 1 if text.lstrip()[:1] == "[" else None
    while start is None:
        match = _FEATURES.search(text)
        if match:
            start = match.end()
            break
        piece = file.read(_PIECE)
        if not piece:
            raise InputError(found='no list "features"', where=str(path), expected=_EXPECTED)
        text += piece
    else:
        start = text.index("[") + 1
    text = text[start:]
    while True:
        text = text.lstrip(" \t\r\n,")
        if text[:1] == "]":
            return
        position = 0
        while True:
            try:
                feature, position = decoder.raw_decode(text, position)
            except json.JSONDecodeError as error:
                rest = error
                break
            yield feature
            while text[position : position + 1] in (" ", "\t", "\r", "\n", ","):
                position += 1
            if text[position : position + 1] == "]":
                return
        # a feature that was cut off by the end of the piece fails close to that end; a damaged one anywhere
        piece = file.read(_PIECE) if rest.pos > len(text) - _LONGEST_STRING else ""
        if not piece:
            found = f"JSON that is damaged or cut off ({rest.msg})"
            raise InputError(found=found, where=str(path), expected=_EXPECTED, repair="copy the file again")
        text = text[position:] + piece


def _rings(feature: Any, number: int, path: Path) -> list[np.ndarray]:
    geometry = feature.get("geometry") if isinstance(feature, dict) else None
    if not isinstance(geometry, dict) or geometry.get("type") not in ("Polygon", "MultiPolygon"):
        return []
    coordinates = geometry.get("coordinates")
    try:
        polygons = [coordinates] if geometry["type"] == "Polygon" else coordinates
        rings = [np.array(ring, np.float64) for polygon in polygons for ring in polygon]
        if all(ring.ndim == 2 and ring.shape[1] >= 2 for ring in rings):
            return [ring[:, :2] for ring in rings]
    except (TypeError, ValueError):
        pass  # reported below with the same words as a wrong shape
    raise InputError(found="coordinates that are not lists of x, y", where=f"{path}, feature {number}", expected=_EXPECTED)


def _name(feature: dict[str, Any], number: int) -> str:
    properties = feature.get("properties") or {}
    cell_id = properties.get("cell_id")
    if isinstance(cell_id, int):
        return f"cellid_{cell_id:09d}-1"
    for name in (cell_id, properties.get("id"), feature.get("id")):
        if name not in (None, ""):
            return str(name)
    return f"polygon_{number:09d}"


def _class(feature: dict[str, Any]) -> str:
    classification = (feature.get("properties") or {}).get("classification")
    name = classification.get("name") if isinstance(classification, dict) else classification
    return str(name) if name else ""
