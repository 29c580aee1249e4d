"""Images, shapes and labels of a SpatialData store, opened with the `spatialdata` package (an optional dependency).

Images and labels stay on disk and are decoded in pieces. Of the shapes only the requested element is read: a Visium HD store
holds 11 million squares of 2 um, and `spatialdata.read_zarr` would load them all.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.data.slides.channels import is_nuclear
from sge2hist.data.slides.pixel_source import PixelSource, TiledPixels
from sge2hist.readers.tables import damaged

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
        with _quiet(logging.getLogger("ome_zarr.reader")):
            yield spatialdata


@contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    """Silence a logger: ome-zarr warns of every labels element, which it expects below an image."""
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


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

    def maps(self, group: str, name: str) -> dict[str, np.ndarray]:
        """3x3 matrices from the element `name` of "images", "labels", "shapes" or "points" to each of its coordinate systems."""
        where = f"{self.path}: {group}/{name}"
        if group == "images":
            return raster_maps(self.images[name], where)
        if group == "labels":
            return raster_maps(self.labels[name], where)
        return vector_maps(self.root[f"{group}/{name}"], where)


@contextmanager
def store_errors(path: Path) -> Iterator[None]:
    """Turn whatever spatialdata, zarr, dask and anndata raise on a damaged store into one `InputError`."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise damaged(path, STORE, error) from error


def raster_maps(element: Any, where: str) -> dict[str, np.ndarray]:
    """3x3 matrix (x, y, 1) -> (x, y, 1) from an image or labels to each of its coordinate systems."""
    from spatialdata.transformations import get_transformation

    return _matrices(get_transformation(element, get_all=True), where)


def vector_maps(group: Any, where: str) -> dict[str, np.ndarray]:
    """The same from shapes or points, by the attributes of their zarr group: the coordinates themselves are not read."""
    from spatialdata.transformations import BaseTransformation
    from spatialdata.transformations.ngff.ngff_transformations import NgffBaseTransformation

    stored = [NgffBaseTransformation.from_dict(entry) for entry in group.attrs["coordinateTransformations"]]
    return _matrices({one.output_coordinate_system.name: BaseTransformation.from_ngff(one) for one in stored}, where)


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
    """Levels of an image, largest first; empty when it is not 8-bit RGB or RGBA with axes c, y, x, or names a nuclear stain."""
    levels = raster_levels(element)
    names = [str(name) for name in channel_names(element)]
    if any(is_nuclear(name) for name in names):
        return []
    if any(level.dtype != np.uint8 or level.ndim != 3 or level.shape[0] not in (3, 4) for level in levels):
        return []
    return [DaskPixels(level) for level in levels]


def raster_levels(element: Any) -> list[Any]:
    """Dask arrays of the resolution levels of an image or labels, axes (c,) y, x, largest first."""
    from spatialdata import get_pyramid_levels

    return (
        [element.data]
        if hasattr(element, "dims") and hasattr(element, "data")
        else [*get_pyramid_levels(element, "data")]
    )


def channel_names(element: Any) -> list[Any]:
    """Names of the channels of an image."""
    from spatialdata.models import get_channel_names

    return list(get_channel_names(element))


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
