"""Annotations of a slide (outlines made by a person), in GeoJSON as QuPath exports it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sge2hist.data.errors import InputError


def read_annotations(path: str | Path) -> list[Any]:
    """Features of a FeatureCollection, of a list of features, or of one feature; what they hold is not checked.

    Raises
    ------
    InputError
        If the file cannot be read, is no JSON or holds no feature.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise InputError(found=f"a file that cannot be read ({error})", where=str(path), expected="GeoJSON") from error
    features = content.get("features", [content]) if isinstance(content, dict) else content
    if not isinstance(features, list) or not features:
        raise InputError(found="no feature", where=str(path), expected="a GeoJSON FeatureCollection of polygons")
    return features
