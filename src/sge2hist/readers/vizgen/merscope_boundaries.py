"""Outlines of the cells of a MERSCOPE run in one focal plane: Parquet (since software 232) or HDF5 (before).

```
cell_boundaries.parquet, cellpose_micron_space.parquet, ...      EntityID, ZIndex (or ZLevel), Geometry (WKB), in um
cell_boundaries/feature_data_<fov>.hdf5      /featuredata/<cell>/zIndex_<z>/p_<part>/coordinates, float [1, V, 2] in um
```
Sources: "Geometry File Format" of the vendor's post-processing tool for the first; public readers for the second.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from sge2hist.data.errors import InputError
from sge2hist.readers.outlines import outlines_of_rows
from sge2hist.readers.tables import as_text, damaged

PARQUET_NAMES = ("cell_boundaries.parquet", "cellpose_micron_space.parquet", "watershed_micron_space.parquet")
Z_COLUMNS = ("ZIndex", "ZLevel")


def read_boundaries(folder: Path, cells: pd.Index, plane: int) -> tuple[np.ndarray, str] | None:
    """Vertices of the outlines of `cells`, float64 [N, V, 2] in um (see `outlines_of_rows`), and the name of their file.

    Parameters
    ----------
    plane
        Focal plane of the image; of files without it, the plane with most cells. Of several parts of a cell the longest outline.

    Raises
    ------
    InputError
        If a file is damaged or holds none of the cells.
    """
    for name in PARQUET_NAMES:
        found = sorted(folder.glob(f"*{name}"))
        if found:
            rows, xy = _parquet_rows(found[0], cells, plane)
            where = found[0]
            break
    else:
        where = folder / "cell_boundaries"
        files = sorted(where.glob("*.hdf5"))
        if not files:
            return None
        rows, xy = _hdf5_rows(files, cells, plane)
    if len(cells) and not len(rows):
        raise InputError(
            found="outlines of other cells", where=str(where), expected="those of the same run and segmentation"
        )
    return outlines_of_rows(rows, xy, len(cells)), where.name


def _parquet_rows(path: Path, cells: pd.Index, plane: int) -> tuple[np.ndarray, np.ndarray]:
    import pyarrow as pa
    import pyarrow.parquet as pq
    import shapely

    parts: list[tuple[np.ndarray, np.ndarray]] = []
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            z_column = next((name for name in Z_COLUMNS if name in names), None)
            geometry = next((name for name in ("Geometry", "geometry") if name in names), None)
            if "EntityID" not in names or geometry is None:
                raise InputError(
                    found=f"a table with columns {', '.join(names[:10])}",
                    where=str(path),
                    expected="EntityID, ZIndex and Geometry (WKB)",
                )
            chosen = _plane_of_file(file, z_column, plane)
            columns = ["EntityID", geometry, *([z_column] if z_column else [])]
            for batch in file.iter_batches(batch_size=20_000, columns=columns):
                rows = cells.get_indexer(pd.Index(as_text(batch.column("EntityID").to_numpy(zero_copy_only=False))))
                keep = rows >= 0
                if z_column and chosen is not None:
                    keep &= batch.column(z_column).to_numpy(zero_copy_only=False) == chosen
                shapes = shapely.from_wkb(batch.column(geometry).to_numpy(zero_copy_only=False)[keep])
                parts.append(_longest_rings(rows[keep], shapes))
    except (pa.ArrowException, OSError, ValueError, KeyError, MemoryError, shapely.errors.ShapelyError) as error:
        raise damaged(path, "Parquet table of outlines", error) from error
    return _joined(parts)


def _plane_of_file(file: object, z_column: str | None, plane: int) -> float | None:
    """`plane` where the file has it, else its plane with most outlines."""
    if z_column is None:
        return None
    planes = file.read(columns=[z_column]).column(0).to_numpy(zero_copy_only=False)  # type: ignore[attr-defined]
    values, counts = np.unique(planes, return_counts=True)
    if not len(values):
        return None
    return float(plane) if z_column == "ZIndex" and plane in values else float(values[np.argmax(counts)])


def _longest_rings(rows: np.ndarray, shapes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The exterior ring of the part with most area of each shape: cell of each vertex, vertices."""
    import shapely

    parts, owner = shapely.get_parts(shapes, return_index=True)
    polygonal = shapely.get_type_id(parts) == 3
    parts, owner = parts[polygonal], owner[polygonal]
    order = np.lexsort((-shapely.area(parts), owner))
    first = order[np.unique(owner[order], return_index=True)[1]]
    xy, index = shapely.get_coordinates(shapely.get_exterior_ring(parts[first]), return_index=True)
    return rows[owner[first]][index], xy


def _hdf5_rows(files: list[Path], cells: pd.Index, plane: int) -> tuple[np.ndarray, np.ndarray]:
    import h5py

    parts: list[tuple[np.ndarray, np.ndarray]] = []
    for path in files:
        try:
            with h5py.File(path, "r") as file:
                entities = file["featuredata"]
                for name in entities:
                    row = cells.get_indexer(pd.Index([name]))[0]
                    if row >= 0 and (ring := _longest_of_hdf5(entities[name], plane)) is not None:
                        parts.append((np.full(len(ring), row), ring))
        except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
            raise damaged(path, "file of outlines", error) from error
    return _joined(parts)


def _longest_of_hdf5(entity: object, plane: int) -> np.ndarray | None:
    planes = [name for name in entity if name.startswith("zIndex_")]  # type: ignore[attr-defined]
    order = sorted(planes, key=lambda name: abs(int(name.removeprefix("zIndex_")) - plane))
    for name in order:
        parts = entity[name]  # type: ignore[index]
        rings = [np.asarray(parts[part]["coordinates"]).reshape(-1, 2) for part in parts if part.startswith("p_")]
        if rings:
            return max(rings, key=len).astype(np.float64)
    return None


def _joined(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    if not parts:
        return np.empty(0, np.int64), np.empty((0, 2))
    return np.concatenate([rows for rows, _ in parts]), np.concatenate([xy for _, xy in parts])
