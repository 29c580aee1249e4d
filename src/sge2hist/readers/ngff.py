"""Coordinate transformations as OME-NGFF and SpatialData write them, reduced to x and y.

A transformation is a dict `{"type": ..., "input": {"axes": [...]}, "output": {"name": ..., "axes": [...]}}` of type
identity, scale, translation, rotation, affine, mapAxis or sequence (OME-NGFF draft of coordinate transformations, as
written by spatialdata 0.1 to 0.7).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sge2hist.data.errors import InputError


def maps_by_system(transformations: list[Any], where: str) -> dict[str, np.ndarray]:
    """3x3 matrix (x, y, 1) -> (x, y, 1) for each coordinate system that an element is placed in.

    Raises
    ------
    InputError
        If a transformation is malformed or of an unknown type.
    """
    maps = {}
    for entry in transformations:
        try:
            axes = [axis["name"] for axis in entry["input"]["axes"]]
            matrix, out_axes = _matrix(entry, axes)
            maps[str(entry["output"]["name"])] = _reduced(matrix, axes, out_axes)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise InputError(
                found=f"a coordinate transformation that cannot be read ({error!r})", where=where, expected="OME-NGFF"
            ) from error
    return maps


def _matrix(entry: dict[str, Any], axes: list[str]) -> tuple[np.ndarray, list[str]]:
    """Homogeneous matrix [len(out axes) + 1, len(axes) + 1] and the output axes."""
    kind = entry["type"]
    n_axes = len(axes)
    matrix = np.eye(n_axes + 1)
    if kind == "identity":
        return matrix, axes
    if kind == "scale":
        matrix[:n_axes, :n_axes] = np.diag(np.asarray(entry["scale"], np.float64))
        return matrix, axes
    if kind == "translation":
        matrix[:n_axes, n_axes] = np.asarray(entry["translation"], np.float64)
        return matrix, axes
    if kind == "rotation":
        matrix[:n_axes, :n_axes] = np.asarray(entry["rotation"], np.float64).reshape(n_axes, n_axes)
        return matrix, axes
    if kind == "affine":
        rows = np.asarray(entry["affine"], np.float64)
        out_axes = [axis["name"] for axis in (entry.get("output") or {}).get("axes", [])] or axes
        if rows.shape != (len(out_axes), n_axes + 1):
            raise ValueError(f"affine of shape {rows.shape} from {axes} to {out_axes}")
        return np.vstack([rows, np.eye(n_axes + 1)[-1:]]), out_axes
    if kind == "mapAxis":
        out_axes = list(entry["mapAxis"])
        matrix = np.zeros((len(out_axes) + 1, n_axes + 1))
        for row, name in enumerate(out_axes):
            matrix[row, axes.index(entry["mapAxis"][name])] = 1
        matrix[-1, -1] = 1
        return matrix, out_axes
    if kind == "sequence":
        current = axes
        for step in entry["transformations"]:
            following, current = _matrix(step, current)
            matrix = following @ matrix
        return matrix, current
    raise ValueError(f"type {kind!r}")


def _reduced(matrix: np.ndarray, axes: list[str], out_axes: list[str]) -> np.ndarray:
    rows = [out_axes.index("x"), out_axes.index("y"), len(out_axes)]
    columns = [axes.index("x"), axes.index("y"), len(axes)]
    reduced = matrix[np.ix_(rows, columns)]
    if not np.isfinite(reduced).all() or abs(np.linalg.det(reduced)) < 1e-18:
        raise ValueError("it has no inverse in x and y")
    return reduced


def apply(matrix: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Map float64 [N, 2] by a 3x3 affine matrix."""
    return xy @ matrix[:2, :2].T + matrix[:2, 2]


def length_scale(matrix: np.ndarray) -> float:
    """Length of the mapped unit, the same in all directions for a turn or mirror: sqrt(|det|)."""
    return float(np.sqrt(abs(np.linalg.det(matrix[:2, :2]))))
