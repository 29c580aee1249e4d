"""Images, shapes and labels of a SpatialData store, opened with the `spatialdata` package (an optional dependency).

Images and labels stay on disk and are decoded in pieces. Of the shapes only the requested element is read: a Visium HD store
holds 11 million squares of 2 um, and `spatialdata.read_zarr` would load them all.

Shape letters: N instances (bins, cells, spots) of one element.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.data.slides.pixel_source import PixelSource, TiledPixels
from sge2hist.readers.tables import as_text, damaged

LABEL_ROWS = 2048  # rows of a label image decoded at a time
STORE = "SpatialData store"


@contextmanager
def spatialdata_package() -> Iterator[Any]:
    """Yield the module `spatialdata` (imported here, which takes seconds) with its warnings silenced.

    Raises
    ------
    InputError
        If it is not installed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # announcements of spatialdata, zarr and dask about their next versions
        try:
            import spatialdata
        except ImportError as error:
            raise InputError(
                found="the package spatialdata is not installed",
                expected="spatialdata >= 0.7.3, to read or write a SpatialData store",
                repair='pip install "sge2hist[spatialdata]"',
            ) from error
        yield spatialdata


@dataclass(frozen=True, kw_only=True)
class Elements:
    """The elements of a store: rasters opened lazily, shapes by name."""

    path: Path
    root: Any  # zarr.Group
    images: dict[str, Any]  # DataArray or DataTree
    labels: dict[str, Any]

    @classmethod
    def open(cls, path: Path) -> Elements:
        """Open a store; neither its tables nor its shapes are read.

        Raises
        ------
        InputError
            If there is no store with images and tables, or it is damaged.
        """
        if not path.is_dir():
            raise InputError(found="no such folder", where=str(path), expected=f"a {STORE} (X.zarr)")
        with spatialdata_package() as spatialdata, store_errors(path):
            import zarr

            root = zarr.open_group(path, mode="r", use_consolidated=False)
            if not (path / "tables").is_dir() or not (path / "images").is_dir():
                inside = ", ".join(sorted(child.name for child in path.iterdir())[:8]) or "nothing"
                raise InputError(found=f"a zarr store with {inside}", where=str(path), expected="images and tables")
            rasters = spatialdata.read_zarr(path, selection=("images", "labels"))
            return cls(path=path, root=root, images=dict(rasters.images), labels=dict(rasters.labels))

    def names(self, group: str) -> list[str]:
        """Names of the elements of "shapes" or "tables", sorted; stray files are ignored."""
        folder = self.path / group
        return sorted(child.name for child in folder.iterdir() if child.is_dir()) if folder.is_dir() else []

    def positions(self, name: str) -> Positions:
        """Where the instances of a shapes or labels element lie.

        Raises
        ------
        InputError
            If there is no such element, or it is damaged.
        """
        if name in self.names("shapes"):
            return _shape_positions(self.root[f"shapes/{name}"], self.path / "shapes" / name)
        if name in self.labels:
            return _label_positions(self.labels[name], f"{self.path}: labels/{name}")
        known = ", ".join([*self.names("shapes"), *self.labels])
        raise InputError(found=f"no element {name!r}", where=str(self.path), expected=f"one of {known or '(none)'}")


@contextmanager
def store_errors(path: Path) -> Iterator[None]:
    """Turn whatever spatialdata, zarr, dask and anndata raise on a damaged store into one `InputError`."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise damaged(path, STORE, error) from error


@dataclass(frozen=True, kw_only=True)
class Positions:
    """Centres of the N instances of one element, in its own coordinates."""

    ids: np.ndarray  # object array of str [N]
    centre_xy: np.ndarray  # float64 [N, 2]
    area: np.ndarray  # float64 [N], in squared units of the element
    are_circles: bool  # spatialdata-io can write square bins as circles: the side is then the diameter
    maps: dict[str, np.ndarray]  # 3x3 to each coordinate system

    def side(self) -> float:
        """Median side of square bins, in units of the element; NaN when they have no area."""
        side = float(np.sqrt(np.median(self.area))) if len(self.area) else 0.0
        return (side * 2 / np.sqrt(np.pi) if self.are_circles else side) or float("nan")


def _shape_positions(group: Any, folder: Path) -> Positions:
    import geopandas
    from spatialdata.transformations import BaseTransformation
    from spatialdata.transformations.ngff.ngff_transformations import NgffBaseTransformation

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
    stored = [NgffBaseTransformation.from_dict(entry) for entry in group.attrs["coordinateTransformations"]]
    maps = {entry.output_coordinate_system.name: BaseTransformation.from_ngff(entry) for entry in stored}
    ids = as_text(table.index.to_numpy())
    return Positions(
        ids=ids, centre_xy=centre_xy, area=area, are_circles="radius" in table, maps=_matrices(maps, str(folder))
    )


def _label_positions(element: Any, where: str) -> Positions:
    """Centres of mass of the labels, summed over bands of rows so that memory does not grow with the image."""
    array = _levels(element)[0]
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
    centre_xy = total[:, 1:] / total[:, :1]
    ids = as_text(np.array(list(sums)))
    return Positions(
        ids=ids, centre_xy=centre_xy, area=total[:, 0], are_circles=False, maps=raster_maps(element, where)
    )


def raster_maps(element: Any, where: str) -> dict[str, np.ndarray]:
    """3x3 matrix (x, y, 1) -> (x, y, 1) from an image or labels to each of its coordinate systems."""
    from spatialdata.transformations import get_transformation

    return _matrices(get_transformation(element, get_all=True), where)


def _matrices(maps: dict[str, Any], where: str) -> dict[str, np.ndarray]:
    axes = ("x", "y")
    matrices = {name: np.asarray(one.to_affine_matrix(axes, axes), np.float64) for name, one in maps.items()}
    for name, matrix in matrices.items():
        if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-18:
            raise InputError(
                found=f"a transformation to {name!r} that has no inverse in x and y",
                where=where,
                expected="an invertible transformation",
            )
    return matrices


def transform(matrix: np.ndarray, xy_N2: np.ndarray) -> np.ndarray:
    """Map float64 [N, 2] by a 3x3 affine matrix."""
    return xy_N2 @ matrix[:2, :2].T + matrix[:2, 2]


def length_scale(matrix: np.ndarray) -> float:
    """Length of the mapped unit, the same in all directions for a rotation or reflection: sqrt(|det|)."""
    return float(np.sqrt(abs(np.linalg.det(matrix[:2, :2]))))


def colour_levels(element: Any) -> list[PixelSource]:
    """Levels of an image, largest first; empty when it is not 8-bit RGB or RGBA with axes c, y, x."""
    levels = _levels(element)
    if any(level.dtype != np.uint8 or level.ndim != 3 or level.shape[0] not in (3, 4) for level in levels):
        return []
    return [DaskPixels(level) for level in levels]


def _levels(element: Any) -> list[Any]:
    """Dask arrays of the resolution levels of an image or labels, axes (c,) y, x, largest first."""
    from spatialdata import get_pyramid_levels

    return (
        [element.data]
        if hasattr(element, "dims") and hasattr(element, "data")
        else [*get_pyramid_levels(element, "data")]
    )


class DaskPixels(TiledPixels):
    """One resolution level: the first three planes of a dask array [C, H, W], decoded by its chunks."""

    def __init__(self, array_CHW: Any) -> None:
        _, height, width = array_CHW.shape
        super().__init__((height, width, 3), array_CHW.chunksize[1:], np.dtype(np.uint8))
        self._array = array_CHW

    def _decode_tile(self, row: int, column: int) -> np.ndarray:
        top, left = row * self._tile_h, column * self._tile_w
        planes = self._array[:3, top : top + self._tile_h, left : left + self._tile_w]
        return np.ascontiguousarray(np.moveaxis(np.asarray(planes), 0, 2))
