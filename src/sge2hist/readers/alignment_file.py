"""Maps between an image and the cells that other programs export, all read as one matrix: px of the image -> frame of the cells.

| file | holds | direction and axes |
| --- | --- | --- |
| `alignment.json` | what `prepare --alignment auto` wrote | image -> cells, x, y |
| csv or text of 3 x 3 or 2 x 3 numbers | Xenium Explorer; QuPath; Fiji's `AffineTransform[[...]]` | image -> cells, x, y |
| csv `fixedX,fixedY,alignmentX,alignmentY` | Xenium Explorer's keypoints | alignment = image, fixed = cells |
| csv `"Pt-0","true",mx,my,tx,ty` | BigWarp's landmarks | moving = image, target = cells |
| xml with `AffineModel2D` or `transform="matrix(...)"` | Fiji's registration plugins and TrakEM2 | image -> cells |
| json with `m00` ... `m12` | QuPath (Java's AffineTransform) | image -> cells |
| json with `affine` (and `scale`, `translate`) | metadata of a napari layer | layer of the image -> world; rows before columns |
| two csv with `axis-0,axis-1` | napari's points, one file on the image, one on the cells | rows before columns |

The frame of the cells is px of the DAPI image for Xenium, and for other formats the numbers of the table itself.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.readers.tables import as_float, damaged

KIND = "alignment"
MATRIX_KEY = "image_to_cells"
KEYPOINT_COLUMNS = ("fixedX", "fixedY", "alignmentX", "alignmentY")
NAPARI_COLUMNS = ("axis-0", "axis-1")
MAX_MISFIT = 0.02  # of the extent of the landmarks: those set by hand are better than that
MAX_BYTES = 4_000_000
NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
EXPECTED = (
    "alignment.json; a csv of 3 x 3 numbers; keypoints fixedX,fixedY,alignmentX,alignmentY; landmarks of BigWarp; an affine "
    "transform of QuPath, TrakEM2 or napari"
)


@dataclass(frozen=True, kw_only=True)
class AlignmentFile:
    """What a file states."""

    image_to_cells: np.ndarray  # float64 [3, 3]: (x, y, 1) in px of the image -> (x, y, 1) in the frame of the cells
    description: str
    image_size_px: tuple[int, int] | None = None  # width and height of the image that it was made for, where stated


def read_alignment_file(path: str | Path) -> AlignmentFile:
    """Read a map in any of the forms above; two point files of napari are given as ``IMAGE.csv,CELLS.csv``.

    Raises
    ------
    InputError
        If the file is missing, none of these, has no inverse, or landmarks contradict each other.
    """
    first, comma, second = str(path).partition(",")
    if comma and not Path(path).exists():
        matrix, note = _fit(_napari_points(Path(second)), _napari_points(Path(first)), str(path))
        return _checked(matrix, f"{Path(first).name} and {Path(second).name} (napari points{note})", Path(path))
    path = Path(path)
    text = _text(path)
    for form in (_of_json, _of_xml, _of_keypoints, _of_bigwarp, _of_numbers):
        if (found := form(text, path)) is not None:
            return found
    raise InputError(found="a file of another form", where=str(path), expected=EXPECTED)


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(found="a file of many megabytes", where=str(path), expected=EXPECTED)
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(found="no such file", where=str(path), expected="an alignment file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise damaged(path, "alignment file", error) from error


def _checked(matrix: np.ndarray, description: str, path: Path, size: tuple[int, int] | None = None) -> AlignmentFile:
    if np.isfinite(matrix).all() and not np.allclose(matrix[2], [0, 0, 1]):
        raise InputError(found=f"a last row {matrix[2].tolist()}", where=str(path), expected="0,0,1 (an affine map)")
    if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix[:2, :2])) < 1e-12:
        raise InputError(found="a matrix without an inverse", where=str(path), expected="px of the image -> cells")
    return AlignmentFile(image_to_cells=matrix, description=description, image_size_px=size)


def _of_json(text: str, path: Path) -> AlignmentFile | None:
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        content = json.loads(text)
    except ValueError as error:
        raise damaged(path, "JSON file", error) from error
    if isinstance(content, dict) and content.get("kind") == KIND:
        image = content.get("image") or {}
        size = (int(image["width_px"]), int(image["height_px"])) if {"width_px", "height_px"} <= image.keys() else None
        return _checked(_square(content.get(MATRIX_KEY), path), f"{path.name}", path, size)
    for found in _objects(content):
        if {"m00", "m01", "m02", "m10", "m11", "m12"} <= found.keys():
            rows = [[found[f"m{i}{j}"] for j in range(3)] for i in range(2)]
            return _checked(_square([*rows, [0, 0, 1]], path), f"{path.name} (affine transform of QuPath)", path)
        if "affine" in found:
            return _checked(_of_napari(found, path), f"{path.name} (napari layer)", path)
    raise InputError(found="JSON without a map", where=str(path), expected=EXPECTED)


def _objects(content: Any) -> list[dict[str, Any]]:
    """All objects of a JSON document, outer ones first."""
    if isinstance(content, dict):
        return [content, *(o for value in content.values() for o in _objects(value))]
    return [o for value in content for o in _objects(value)] if isinstance(content, list) else []


def _of_napari(layer: dict[str, Any], path: Path) -> np.ndarray:
    """napari: world = affine (rotate shear scale data + translate), (row, column) -> (x, y)."""
    for name in ("rotate", "shear"):
        value = np.asarray(layer.get(name, 0.0), float)
        plain = np.eye(2) if name == "rotate" and value.ndim == 2 else np.zeros_like(value)
        if value.shape != plain.shape or not np.allclose(value, plain):
            raise InputError(
                found=f"a layer with {name}",
                where=str(path),
                expected="affine, scale and translate alone",
                repair="give the matrix of the whole transform as affine",
            )
    own = np.diag([*np.broadcast_to(np.asarray(layer.get("scale", 1.0), float), 2), 1.0])
    own[:2, 2] = np.broadcast_to(np.asarray(layer.get("translate", 0.0), float), 2)
    whole = _square(layer["affine"], path) @ own
    order = [1, 0, 2]
    return whole[np.ix_(order, order)]


def _square(value: Any, path: Path) -> np.ndarray:
    try:
        matrix = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        matrix = np.zeros(0)
    if matrix.shape == (2, 3):
        matrix = np.vstack([matrix, [0, 0, 1]])
    if matrix.shape != (3, 3):
        raise InputError(found=f"numbers of shape {matrix.shape}", where=str(path), expected="3 x 3 or 2 x 3 numbers")
    return matrix


def _of_xml(text: str, path: Path) -> AlignmentFile | None:
    """Fiji writes the six numbers by columns: m00 m10 m01 m11 m02 m12."""
    if not text.lstrip().startswith("<"):
        return None
    found = re.findall(rf'AffineModel2D"\s+data="((?:\s*{NUMBER}){{6}})\s*"', text)
    found = found or re.findall(rf"matrix\(((?:\s*{NUMBER}\s*,?){{6}})\)", text)
    distinct = {tuple(map(float, re.findall(NUMBER, numbers))) for numbers in found}
    distinct = distinct - {(1, 0, 0, 1, 0, 0)} or distinct
    if len(distinct) != 1:
        raise InputError(
            found=f"{len(distinct)} affine transforms",
            where=str(path),
            expected="one (AffineModel2D, or matrix(...))",
            repair="keep the transform of the image alone, or give a csv of its 3 x 3 numbers",
        )
    m00, m10, m01, m11, m02, m12 = distinct.pop()
    return _checked(np.array([[m00, m01, m02], [m10, m11, m12], [0, 0, 1]]), f"{path.name} (Fiji)", path)


def _of_keypoints(text: str, path: Path) -> AlignmentFile | None:
    lines = text.splitlines()
    if not lines or "fixedX" not in lines[0]:
        return None
    table = _columns(text, KEYPOINT_COLUMNS, path)
    matrix, note = _fit(table[:, :2], table[:, 2:], str(path))
    return _checked(matrix, f"{path.name} (keypoints{note})", path)


def _columns(text: str, names: tuple[str, ...], path: Path) -> np.ndarray:
    """Columns of a csv with a header as float [N, len(names)]."""
    rows = list(csv.DictReader(StringIO(text), skipinitialspace=True))
    header = list(rows[0]) if rows else text.splitlines()[0].split(",") if text.strip() else []
    missing = [name for name in names if name not in header]
    if missing:
        raise InputError(found=f"no column {', '.join(missing)}", where=str(path), expected=",".join(names))
    values = np.array([[row[name] or "nan" for name in names] for row in rows], dtype=object).reshape(-1, len(names))
    numbers = np.stack([as_float(values[:, k], name, path) for k, name in enumerate(names)], axis=1)
    if not np.isfinite(numbers).all():
        raise InputError(found="an empty keypoint", where=str(path), expected=f"{len(names)} numbers per line")
    return numbers


def _of_bigwarp(text: str, path: Path) -> AlignmentFile | None:
    rows = [row for row in csv.reader(StringIO(text), skipinitialspace=True) if row]
    if not rows or len(rows[0]) not in (6, 8) or rows[0][1].strip().lower() not in ("true", "false"):
        return None
    half = (len(rows[0]) - 2) // 2
    active = [row for row in rows if len(row) == len(rows[0]) and row[1].strip().lower() == "true"]
    values = np.array([row[2:] for row in active], dtype=object).reshape(-1, 2 * half)
    points = np.stack([as_float(values[:, k], "a coordinate", path) for k in range(2 * half)], axis=1)
    points = points[np.isfinite(points).all(axis=1)]  # a landmark set on one image only is infinite on the other
    matrix, note = _fit(points[:, half : half + 2], points[:, :2], str(path))
    return _checked(matrix, f"{path.name} (BigWarp landmarks{note})", path)


def _napari_points(path: Path) -> np.ndarray:
    """x, y of a points file: its last two axes are rows and columns."""
    return _columns(_text(path), NAPARI_COLUMNS, path)[:, ::-1]


def _of_numbers(text: str, path: Path) -> AlignmentFile | None:
    """2 or 3 rows of 3 numbers, whatever separates them, or Java's ``AffineTransform[[a, b, c], [d, e, f]]``."""
    lines = [line for line in text.splitlines() if line.strip()]
    java = re.fullmatch(r"AffineTransform\[\[(.*)\], *\[(.*)\]\]", " ".join(lines).strip())
    if java:
        lines = list(java.groups())
    if not lines or any(re.sub(NUMBER, "", line).strip(" \t,;[]()") for line in lines):
        return None
    rows = [[float(number) for number in re.findall(NUMBER, line)] for line in lines]
    if len(rows) not in (2, 3) or any(len(row) != 3 for row in rows):
        shape = " + ".join(str(len(row)) for row in rows[:5])
        raise InputError(found=f"rows of {shape} numbers", where=str(path), expected="3 x 3 or 2 x 3 numbers")
    return _checked(_square(rows, path), f"{path.name} ({len(rows)}x3)", path)


def _fit(cells_N2: np.ndarray, image_N2: np.ndarray, where: str) -> tuple[np.ndarray, str]:
    """The affine map image -> cells by least squares, and its misfit for a description."""
    if len(cells_N2) != len(image_N2):
        raise InputError(
            found=f"{len(image_N2)} points on the image and {len(cells_N2)} on the cells",
            where=where,
            expected="the same points in the same order",
        )
    moving = np.column_stack([image_N2, np.ones(len(image_N2))])
    if len(moving) < 3 or np.linalg.matrix_rank(moving - moving.mean(axis=0) * [1, 1, 0]) < 3:
        raise InputError(found=f"{len(moving)} keypoints on one line", where=where, expected="at least 3, off one line")
    solution = np.linalg.lstsq(moving, cells_N2, rcond=None)[0]
    misfit = float(np.linalg.norm(moving @ solution - cells_N2, axis=1).mean())
    extent = float(np.hypot(*np.ptp(cells_N2, axis=0)))
    if misfit > MAX_MISFIT * extent:
        raise InputError(
            found=f"keypoints that miss each other by {misfit:.3g} on average, in the unit of the cells",
            where=where,
            expected=f"less than {MAX_MISFIT:.0%} of their extent, {extent:.3g}",
            repair="set the landmarks again: the two of one pair must show the same spot",
        )
    return np.vstack([solution.T, [0, 0, 1]]), f", {misfit:.2g} off on average in the unit of the cells"


def refuse_other_reading(lands: Callable[[np.ndarray], float], matrix: np.ndarray, where: str) -> None:
    """Refuse a map by which the cells miss the image when another reading of its numbers hits it.

    Parameters
    ----------
    lands
        Share of the cells that lie inside the image under a map image -> cells.

    Raises
    ------
    InputError
        Naming the reading that hits: the inverse direction, or rows before columns.
    """
    order = [1, 0, 2]
    swapped = matrix[np.ix_(order, order)]
    if lands(matrix) >= 0.5:
        return
    readings = {
        "an alignment that maps the cells to the image": (np.linalg.inv(matrix), "give the inverse matrix"),
        "an alignment with rows before columns (y, x)": (swapped, "swap the first two rows and the first two columns"),
        "an alignment from cells to image, rows before columns": (np.linalg.inv(swapped), "give the inverse in x, y"),
    }
    for found, (reading, repair) in readings.items():
        if lands(reading) > 0.9:
            raise InputError(
                found=found,
                where=where,
                expected="px of the image (x, y) -> frame of the cells, as Xenium Explorer exports it",
                repair=repair,
            )
