"""Where the instances (bins, cells, spots) of one element of a SpatialData store lie, and which of them the rows of a table mean.

Shape letters: N instances of one element, R rows of the table.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sge2hist.data.errors import InputError
from sge2hist.readers.spatialdata.elements import Elements, raster_levels, raster_maps, transform, vector_maps
from sge2hist.readers.tables import as_text, damaged

LABEL_ROWS = 2048  # rows of a label image decoded at a time
LABELS_SUFFIX = "_labels"  # spatialdata-io: bins `x_square_008um` are rasterised as labels `x_square_008um_labels`
OFFSETS_PX = (
    0.0,
    0.5,
)  # of the centre of a pixel: spatialdata's `rasterize_bins` puts bins on corners, labels lie between them
NEAR_BINS = 0.1  # positions of the table, in sides of a bin: nearer is the same


@dataclass(frozen=True, kw_only=True)
class Positions:
    """Centres of the N instances of one element, in its own coordinates."""

    ids: np.ndarray  # object array of str [N]
    centre_xy: np.ndarray  # float64 [N, 2]
    area: np.ndarray  # float64 [N], in squared units of the element
    are_circles: bool  # spatialdata-io can write square bins as circles: the side is then the diameter
    maps: dict[str, np.ndarray]  # 3x3 to each coordinate system
    are_pixels: bool = False  # labels of one pixel each: rasterised bins

    def side(self) -> float:
        """Median side of square bins, in units of the element; NaN when they have no area."""
        side = float(np.sqrt(np.median(self.area))) if len(self.area) else 0.0
        return (side * 2 / np.sqrt(np.pi) if self.are_circles else side) or float("nan")


@dataclass(frozen=True, kw_only=True)
class Matched:
    """The rows of a table found in an element."""

    positions: Positions
    index: np.ndarray  # int64 [R]: instance of each row
    element: str
    note: str = ""

    @property
    def centre_xy(self) -> np.ndarray:
        """Centres of the rows in coordinates of the element, float64 [R, 2]."""
        return self.positions.centre_xy[self.index]


def match_rows(
    elements: Elements, region: str, keys: Sequence[np.ndarray], spatial_xy: np.ndarray | None, where: str
) -> Matched:
    """Shape or label of every row of a table.

    Where the region itself was not stored, other shapes with the same ids serve. Bins that were rasterised (one pixel each)
    are placed by the shapes they were made of, where the store has them.

    Parameters
    ----------
    keys
        Candidates for the ids of the rows, each [R]; the first that is found completely is taken.
    spatial_xy
        ``obsm["spatial"]`` float64 [R, 2], which decides how rasterised bins lie on their pixels; None: unknown.

    Raises
    ------
    InputError
        If no element has the ids.
    """
    shapes = elements.names("shapes")
    known = [*shapes, *elements.labels]
    for element in [region] if region in known else shapes:
        positions = positions_of(elements, element)
        index = _rows_in(positions, keys)
        if positions.are_pixels:
            squares = element.removesuffix(LABELS_SUFFIX)
            if squares in shapes:
                exact = positions_of(elements, squares)
                at = _rows_in(exact, keys)
                if at is not None:
                    return Matched(positions=exact, index=at, element=squares)
            if index is not None:
                return _on_pixels(positions, index, element, spatial_xy)
        elif index is not None:
            return Matched(positions=positions, index=index, element=element)
    raise InputError(
        found=f"no element whose ids are those of region {region!r}",
        where=where,
        expected=f"shapes or labels {region!r}; there are {', '.join(known) or 'none'}",
        repair="write the store again with the element that the table annotates",
    )


def _rows_in(positions: Positions, keys: Sequence[np.ndarray]) -> np.ndarray | None:
    """Instance of every row by the first key whose values are all ids, int64 [R]."""
    ids = pd.Index(positions.ids)
    for key in keys if ids.is_unique else ():
        found = ids.get_indexer(pd.Index([_text(value) for value in key]))
        if (found >= 0).all():
            return found
    return None


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _on_pixels(positions: Positions, index: np.ndarray, element: str, spatial_xy: np.ndarray | None) -> Matched:
    """Rasterised bins without their shapes: the offset of a bin in its pixel by the positions that the table states."""
    distance: dict[float, float] = {}
    if spatial_xy is not None and len(spatial_xy) == len(index):
        for offset in OFFSETS_PX:
            for matrix in positions.maps.values():
                at = transform(matrix, positions.centre_xy[index] - 0.5 + offset)
                side = float(np.sqrt(abs(np.linalg.det(matrix[:2, :2]))))
                off = float(np.median(np.linalg.norm(at - spatial_xy, axis=1))) / side
                distance[offset] = min(off, distance.get(offset, np.inf))
    best = min(distance, key=lambda offset: distance[offset]) if distance else OFFSETS_PX[0]
    note = ""
    if not distance or distance[best] > NEAR_BINS:
        best = OFFSETS_PX[0]
        note = "bins taken as the corners of their pixels, as spatialdata rasterises them; no shapes or positions confirm it"
    centre_xy = positions.centre_xy - 0.5 + best
    return Matched(
        positions=dataclasses.replace(positions, centre_xy=centre_xy), index=index, element=element, note=note
    )


def positions_of(elements: Elements, name: str) -> Positions:
    """Where the instances of a shapes or labels element lie.

    Raises
    ------
    InputError
        If there is no such element, or it is damaged.
    """
    if name in elements.names("shapes"):
        return _shape_positions(elements.root[f"shapes/{name}"], elements.path / "shapes" / name)
    if name in elements.labels:
        return _label_positions(elements.labels[name], f"{elements.path}: labels/{name}")
    known = ", ".join([*elements.names("shapes"), *elements.labels])
    raise InputError(found=f"no element {name!r}", where=str(elements.path), expected=f"one of {known or '(none)'}")


def _shape_positions(group: Any, folder: Path) -> Positions:
    import geopandas

    path = folder / "shapes.parquet"
    if not path.is_file():
        raise InputError(
            found="shapes without shapes.parquet",
            where=str(folder),
            expected="a store of spatialdata >= 0.1",
            repair="read and write it again with a current spatialdata",
        )
    try:
        table = geopandas.read_parquet(path)
        centroid, area = table.geometry.centroid, table.geometry.area.to_numpy()
        if "radius" in table:
            area = np.pi * table["radius"].to_numpy(np.float64) ** 2
        centre_xy = np.stack([centroid.x, centroid.y], axis=1)
    except Exception as error:  # geopandas, pyarrow and shapely each raise their own types
        raise damaged(path, "table of shapes", error) from error
    return Positions(
        ids=as_text(table.index.to_numpy()),
        centre_xy=centre_xy,
        area=area,
        are_circles="radius" in table,
        maps=vector_maps(group, str(folder)),
    )


def _label_positions(element: Any, where: str) -> Positions:
    """Centres of mass of the labels, summed over bands of rows so that memory does not grow with the image."""
    array = raster_levels(element)[0]
    if len(array.shape) != 2 or np.dtype(array.dtype).kind not in "iu":
        raise InputError(found=f"labels {array.dtype} {array.shape}", where=where, expected="integers [y, x]")
    found, moments = [], []
    for top in range(0, array.shape[0], LABEL_ROWS):
        band = np.asarray(array[top : top + LABEL_ROWS])
        y, x = np.nonzero(band)
        labels, inverse = np.unique(band[y, x], return_inverse=True)
        sums = [np.bincount(inverse, weight, len(labels)) for weight in (np.ones(len(x)), x + 0.5, y + (top + 0.5))]
        found.append(labels)
        moments.append(np.stack(sums, axis=1))
    ids, inverse = np.unique(np.concatenate(found), return_inverse=True)
    if not len(ids):
        raise InputError(found="an empty label image", where=where, expected="one number per cell")
    every = np.concatenate(moments)
    total = np.stack([np.bincount(inverse, every[:, k], len(ids)) for k in range(3)], axis=1)
    return Positions(
        ids=as_text(ids),
        centre_xy=total[:, 1:] / total[:, :1],
        area=total[:, 0],
        are_circles=False,
        maps=raster_maps(element, where),
        are_pixels=bool((total[:, 0] == 1).all()),
    )
