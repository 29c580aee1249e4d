"""Annotations of a slide (outlines made by a person), in GeoJSON as QuPath exports it; plain, gzipped or zipped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sge2hist.data.errors import InputError
from sge2hist.data.packed_text import open_text

SUFFIXES = (".geojson", ".json")
EXPECTED = "a GeoJSON FeatureCollection of polygons"


def read_annotations(path: str | Path) -> list[Any]:
    """Features of a FeatureCollection, of a list of features, or of one feature; what they hold is not checked.

    Raises
    ------
    InputError
        If the file cannot be read, is no JSON or holds no feature.
    """
    path = Path(path)
    with open_text(path, suffixes=SUFFIXES, expected="GeoJSON") as file:
        try:
            content = json.load(file)
        except (json.JSONDecodeError, RecursionError) as error:
            raise InputError(
                found=f"a file that cannot be read ({error})", where=str(path), expected="GeoJSON"
            ) from error
    features = content.get("features", [content]) if isinstance(content, dict) else content
    if not isinstance(features, list) or not features:
        raise InputError(found="no feature", where=str(path), expected=EXPECTED)
    return features


def class_name(properties: dict[str, Any]) -> str | None:
    """Name of a feature's classification, or None.

    QuPath writes `{"name": "Tumor", "color": ...}`, from version 0.5 on `{"names": ["Tumor", "Positive"], ...}` for a
    class derived from another, which its own display shows as "Tumor: Positive"; other programs write the name alone.
    """
    classification = properties.get("classification")
    if isinstance(classification, dict):
        names = classification.get("names")
        name = classification.get("name") or (": ".join(map(str, names)) if isinstance(names, list) else None)
        return str(name) if name else None
    return classification if isinstance(classification, str) and classification else None
