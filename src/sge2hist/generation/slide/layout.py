"""A layout: cells by type and position, without counts. From a table, annotations (GeoJSON) or an AnnData without genes.

| file | cells |
| --- | --- |
| `.csv`, `.tsv` (also `.gz`) | columns x_um, y_um, cell_type; optional cell_id, and outline (WKT polygon in um) |
| `.geojson`, `.json` (also `.gz`, `.zip`) | one per cell: a point, or a polygon (its outline); its class is the type |
| `.h5ad` | obs with x_um, y_um, cell_type |

A polygon of the area of `REGION_CELLS` cells or more is a region of tissue: it is filled with cells of its class.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sge2hist.data.annotations import class_name, read_annotations
from sge2hist.data.errors import InputError, Problems

COLUMNS = ("x_um", "y_um", "cell_type")
TABLES = (".csv", ".tsv", ".txt")
ANNOTATIONS = (".geojson", ".json")
REGION_CELLS = 4
MAX_FILLED = 1_000_000  # cells of all regions
JITTER = 0.1  # standard deviation of the places of filled cells, in spacings
N_VERTICES = 24  # of the outlines of annotated cells
FILL_STREAM = 91


@dataclass(frozen=True, kw_only=True)
class Layout:
    """N cells; `outline_um_NV2` float32 from each cell's centre, NaN where unknown, or None."""

    xy_um_N2: np.ndarray
    type_N: np.ndarray
    id_N: np.ndarray
    outline_um_NV2: np.ndarray | None


def is_layout(path: str | Path) -> bool:
    """Whether a file is a layout by its name: a table or annotations."""
    return _suffix(Path(path)) in (*TABLES, *ANNOTATIONS)


def read_layout(path: str | Path, *, um_per_unit: float | None, spacing_um: float, seed: int = 0) -> Layout:
    """Read a layout.

    Parameters
    ----------
    um_per_unit
        Of annotations: um per unit of their coordinates (um per px of the image that they were made on).
    spacing_um
        Distance between the cells that fill a region.
    seed
        Of the places of these cells.

    Raises
    ------
    InputError
        If the file cannot be read, a column is missing, a position is no number, a cell has no type, or um per unit of
        annotations is not given.
    """
    path = Path(path)
    if _suffix(path) in ANNOTATIONS:
        if um_per_unit is None:
            raise InputError(
                found="annotations without a scale",
                where=str(path),
                expected="um per px of the image that they were made on",
                repair="--image-um-per-px 0.5, or 1 for coordinates in um",
            )
        return _from_annotations(path, um_per_unit, spacing_um, seed)
    return layout_of_table(_read_table(path), str(path))


def layout_of_table(table: Any, where: str = "") -> Layout:
    """The layout of a pandas table with the columns x_um, y_um, cell_type; see the top of this file."""
    import pandas as pd

    missing = [name for name in COLUMNS if name not in table]
    if missing:
        raise InputError(
            found=f"columns {', '.join(map(str, list(table)[:8]))}",
            where=where,
            expected=f"columns {', '.join(COLUMNS)}",
            repair=f"add {', '.join(missing)}; positions are um from the corner of the tissue",
        )
    if len(table) == 0:
        raise InputError(found="no cell", where=where, expected="one row per cell")
    xy = np.stack([pd.to_numeric(table[name], errors="coerce").to_numpy(np.float64) for name in COLUMNS[:2]], 1)
    bad = np.flatnonzero(~np.isfinite(xy).all(1))
    if len(bad):
        raise InputError(
            found=f"{len(bad)} cells without a position (first: row {bad[0] + 1})",
            where=where,
            expected="numbers in um",
        )
    types = table["cell_type"].astype(object).where(table["cell_type"].notna(), "").astype(str).str.strip().to_numpy()
    bad = np.flatnonzero(types == "")
    if len(bad):
        raise InputError(
            found=f"{len(bad)} cells without a type (first: row {bad[0] + 1})", where=where, expected="a cell_type each"
        )
    outlines = None
    if "outline" in table:
        outlines = np.stack([_outline(text, xy[i], where, i + 1) for i, text in enumerate(table["outline"])])
    ids = table["cell_id"].astype(str).to_numpy(object) if "cell_id" in table else _numbered(len(table))
    return Layout(xy_um_N2=xy, type_N=types.astype(object), id_N=ids, outline_um_NV2=outlines)


def read_layout_table(path: Path) -> Any:
    """The obs of an .h5ad without genes, as a table for :func:`layout_of_table`; None if it has genes or is no .h5ad."""
    import h5py
    from anndata.io import read_elem

    try:
        with h5py.File(path, "r") as file:
            if len(read_elem(file["var"])):
                return None
            return read_elem(file["obs"])
    except (OSError, KeyError):  # whoever reads its counts says what is wrong with it
        return None


def _suffix(path: Path) -> str:
    name = path.name.lower().removesuffix(".gz").removesuffix(".zip")
    return "." + name.rsplit(".", 1)[-1] if "." in name else ""


def _read_table(path: Path) -> Any:
    import pandas as pd

    try:
        return pd.read_csv(path, sep="\t" if _suffix(path) == ".tsv" else None, engine="python")
    except Exception as error:  # pandas raises whatever its parser, gzip or the codec does
        raise InputError(found=f"a file that cannot be read ({error})", where=str(path), expected="a table") from error


def _numbered(n: int) -> np.ndarray:
    return np.array([f"cell_{i + 1}" for i in range(n)], object)


def _outline(text: Any, centre_um: np.ndarray, where: str, row: int) -> np.ndarray:
    """Vertices of a WKT polygon from the centre, float32 [N_VERTICES, 2]; NaN for an empty cell."""
    import shapely

    if not isinstance(text, str) or not text.strip():
        return np.full((N_VERTICES, 2), np.nan, np.float32)
    try:
        polygon = shapely.from_wkt(text)
    except shapely.errors.ShapelyError as error:
        raise InputError(
            found=f"outline {text[:40]!r} in row {row}", where=where, expected="a WKT polygon in um"
        ) from error
    return _vertices(polygon, centre_um)


def _vertices(polygon: Any, centre_um: np.ndarray) -> np.ndarray:
    ring = polygon.exterior if polygon.geom_type == "Polygon" else polygon.convex_hull.exterior
    points = [ring.interpolate(share, normalized=True) for share in np.arange(N_VERTICES) / N_VERTICES]
    return np.array([[point.x - centre_um[0], point.y - centre_um[1]] for point in points], np.float32)


def _from_annotations(path: Path, um_per_unit: float, spacing_um: float, seed: int) -> Layout:
    from shapely.affinity import scale
    from shapely.errors import ShapelyError
    from shapely.geometry import shape

    problems = Problems()
    xy: list[np.ndarray] = []
    types: list[str] = []
    outlines: list[np.ndarray] = []
    unknown = np.full((N_VERTICES, 2), np.nan, np.float32)
    rng = np.random.default_rng([seed, FILL_STREAM])
    n_filled = 0
    for number, feature in enumerate(read_annotations(path)):
        try:
            geometry = shape(feature["geometry"])
            name = class_name(feature.get("properties") or {})
        except (KeyError, TypeError, AttributeError, ValueError, ShapelyError) as error:
            problems.add(
                found=f"feature {number} that cannot be used ({error})", where=str(path), expected="a point or polygon"
            )
            continue
        if name is None:
            problems.add(
                found=f"feature {number} without a class", where=str(path), expected="a cell type as its class"
            )
            continue
        geometry = scale(geometry, um_per_unit, um_per_unit, origin=(0, 0))
        for part in getattr(geometry, "geoms", [geometry]):
            if part.geom_type == "Polygon" and part.area >= REGION_CELLS * spacing_um**2:
                n_filled += int(part.area / spacing_um**2)
                if n_filled > MAX_FILLED:
                    raise InputError(
                        found=f"regions for more than {MAX_FILLED:,} cells",
                        where=str(path),
                        expected="smaller ones",
                        repair="check --image-um-per-px, um per unit of the annotations",
                    )
                places = fill(part, spacing_um, rng)
                xy += list(places)
                outlines += [unknown] * len(places)
                types += [name] * len(places)
            elif part.geom_type in ("Polygon", "Point"):
                centre = np.array(part.centroid.coords[0])
                xy.append(centre)
                types.append(name)
                outlines.append(unknown if part.geom_type == "Point" else _vertices(part, centre))
            else:
                problems.add(
                    found=f"feature {number}, a {part.geom_type}", where=str(path), expected="points and polygons"
                )
    problems.raise_if_any()
    if not xy:
        raise InputError(found="no cell", where=str(path), expected="points, polygons of cells, or of regions")
    known = np.stack(outlines)
    return Layout(
        xy_um_N2=np.stack(xy),
        type_N=np.array(types, object),
        id_N=_numbered(len(xy)),
        outline_um_NV2=known if np.isfinite(known).any() else None,
    )


def fill(area: Any, spacing_um: float, rng: np.random.Generator) -> np.ndarray:
    """Places of cells inside a polygon: a hexagonal lattice with some disorder, float64 [n, 2]."""
    import shapely

    left, top, right, bottom = area.bounds
    dx, dy = spacing_um, spacing_um * 3**0.5 / 2
    y, x = np.meshgrid(np.arange(top, bottom + dy, dy), np.arange(left - dx, right + dx, dx), indexing="ij")
    x = x + 0.5 * dx * (np.arange(len(x)) % 2)[:, None]
    xy = np.stack([x.ravel(), y.ravel()], 1) + rng.normal(0, JITTER * spacing_um, (x.size, 2))
    return xy[shapely.contains_xy(area, xy[:, 0], xy[:, 1])]
