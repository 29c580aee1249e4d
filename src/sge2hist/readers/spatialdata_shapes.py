"""Where the observations of a SpatialData table lie: centres of shapes (points, circles, polygons) or of labels."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.readers.ngff import maps_by_system
from sge2hist.readers.tables import as_text, damaged
from sge2hist.readers.zarr_image import multiscale

LABEL_ROWS = 2048  # rows of a label image decoded at a time


@dataclass(frozen=True, kw_only=True)
class Places:
    """Centres of the P instances of one element, in its own coordinates."""

    ids: np.ndarray  # object array of str [P]
    centre_xy: np.ndarray  # float64 [P, 2]
    area: np.ndarray  # float64 [P], in squared units of the element
    are_circles: bool  # spatialdata-io can write square bins as circles: the side is then the diameter
    maps: dict[str, np.ndarray]  # 3x3 to each coordinate system

    def side(self) -> float:
        """Median side of square bins, in units of the element; NaN when they have no area."""
        side = float(np.sqrt(np.median(self.area))) if len(self.area) else 0.0
        return (side * 2 / np.sqrt(np.pi) if self.are_circles else side) or float("nan")


def read_places(root: Any, folder: Path, name: str) -> Places:
    """Read element `name` of `shapes` or `labels`.

    Raises
    ------
    InputError
        If there is no such element, it is damaged, or it is of a version that is not read.
    """
    if f"shapes/{name}" in root:
        return _shapes(root[f"shapes/{name}"], folder / "shapes" / name)
    if f"labels/{name}" in root:
        return _labels(root[f"labels/{name}"], f"{folder}: labels/{name}")
    known = element_names(folder, "shapes") + element_names(folder, "labels")
    raise InputError(found=f"no element {name!r}", where=str(folder), expected=f"one of {', '.join(known) or '(none)'}")


def element_names(folder: Path, kind: str) -> list[str]:
    """Names of the elements of a kind ("images", "shapes", "labels", "tables"), sorted; stray files are passed over."""
    place = folder / kind
    return sorted(child.name for child in place.iterdir() if child.is_dir()) if place.is_dir() else []


def _shapes(group: Any, folder: Path) -> Places:
    import pyarrow as pa
    import pyarrow.parquet as pq
    import shapely

    path = folder / "shapes.parquet"
    if not path.is_file():
        raise InputError(
            found="shapes without shapes.parquet",
            where=str(folder),
            expected="a store of spatialdata >= 0.1",
            repair="read and write it again with a current spatialdata",
        )
    try:
        table = pq.read_table(path, use_threads=False)
        geometry = shapely.from_wkb(table.column("geometry").to_numpy(zero_copy_only=False))
        centroid = shapely.centroid(geometry)
        centre_xy = np.stack([shapely.get_x(centroid), shapely.get_y(centroid)], axis=1)
        area = shapely.area(geometry)
        are_circles = "radius" in table.column_names
        if are_circles:
            area = np.pi * table.column("radius").to_numpy().astype(np.float64) ** 2
        ids = as_text(_index_column(table))
    except (pa.ArrowException, shapely.errors.ShapelyError, OSError, KeyError, ValueError, TypeError) as error:
        raise damaged(path, "table of shapes", error) from error
    maps = maps_by_system(group.attrs.get("coordinateTransformations", []), str(folder))
    return Places(ids=ids, centre_xy=centre_xy, area=area, are_circles=are_circles, maps=maps)


def _index_column(table: Any) -> np.ndarray:
    """The index of the data frame that was written, as pandas notes it in the schema."""
    pandas = json.loads((table.schema.metadata or {}).get(b"pandas", b"{}"))
    for entry in pandas.get("index_columns", []):
        if isinstance(entry, str) and entry in table.column_names:
            return np.asarray(table.column(entry).to_numpy(zero_copy_only=False))
        if isinstance(entry, dict) and entry.get("kind") == "range":
            return np.arange(entry["start"], entry["stop"], entry["step"])
    for name in ("__index_level_0__", "cell_id", "location_id", "spot_id"):
        if name in table.column_names:
            return np.asarray(table.column(name).to_numpy(zero_copy_only=False))
    return np.arange(table.num_rows)


def _labels(group: Any, where: str) -> Places:
    """Centres of mass of the labels, summed over bands of rows so that memory does not grow with the image."""
    entry = multiscale(group, where)
    array = group[str(entry["datasets"][0]["path"])]
    if len(array.shape) != 2 or np.dtype(array.dtype).kind not in "iu":
        raise InputError(found=f"labels {array.dtype} {array.shape}", where=where, expected="integers [y, x]")
    sums: dict[int, np.ndarray] = {}
    for top in range(0, array.shape[0], LABEL_ROWS):
        band = np.asarray(array[top : top + LABEL_ROWS])
        labels, inverse = np.unique(band, return_inverse=True)
        inverse = inverse.ravel()
        y, x = (index.ravel() for index in np.indices(band.shape, dtype=np.float32))
        count = np.bincount(inverse)
        moment = np.stack([count, np.bincount(inverse, x + 0.5), np.bincount(inverse, y + (top + 0.5))], axis=1)
        for label, row in zip(labels.tolist(), moment, strict=True):
            if label:
                sums[label] = sums.get(label, 0) + row
    if not sums:
        raise InputError(found="an empty label image", where=where, expected="one number per cell")
    total = np.stack(list(sums.values()))
    maps = maps_by_system(entry.get("coordinateTransformations", []), where)
    ids = as_text(np.array(list(sums)))
    centre_xy = total[:, 1:] / total[:, :1]
    return Places(ids=ids, centre_xy=centre_xy, area=total[:, 0], are_circles=False, maps=maps)
