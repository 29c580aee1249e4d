"""Export of a paired dataset as a SpatialData store, with the `spatialdata` package (an optional dependency).

```
X.zarr/
 images/<slide>_full_image/ multiscale, uint8, axes c, y, x: the levels of the slide
 shapes/<slide>_cells/      one circle per cell, px of the slide, indexed by cell_id
 tables/table/              AnnData: raw counts, obs with region and cell_id
```
Each slide has its own coordinate system, named after it. The format has no field for the physical size of a pixel: um
per px and the provenance are in the attribute "sge2hist" of the store.

Shape letters: N cells.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import sge2hist
from sge2hist.data.artifacts import atomic_directory, check_output, require_disk_space
from sge2hist.data.errors import InputError
from sge2hist.data.output_lock import locks_output
from sge2hist.data.paired import PairedDataset
from sge2hist.data.slides.channels import is_rgb
from sge2hist.data.slides.pixel_source import PixelSource
from sge2hist.data.slides.slide_image import SlideImage
from sge2hist.data.virtual_he import MANIFEST_KEY, MARK
from sge2hist.readers.spatialdata.elements import spatialdata_package

CHUNK_PX = 1024
CELL_RADIUS_UM = 5.0  # where neither an area nor the size of a bin or spot is known
TABLE_NAME = "table"


@locks_output("path")
def export_spatialdata(dataset: PairedDataset, path: str | Path) -> Path:
    """Write `dataset` to the store `path`; it appears there only when it is complete.

    Raises
    ------
    InputError
        If `path` exists (an export is never replaced: others may have added to it), the disk is too small, or the package
        `spatialdata` is not installed.
    """
    path = Path(path)
    if path.suffix != ".zarr":
        raise InputError(found=f"{path.name}", expected="a name that ends in .zarr", repair=f"-o {path.name}.zarr")
    check_output(path)
    n_pixels = sum(slide.width_px * slide.height_px for slide in dataset.slides)
    require_disk_space(path, n_pixels * 3 // 2 + (dataset.path / "cells.h5ad").stat().st_size)
    with spatialdata_package() as spatialdata, atomic_directory(path) as partial:
        import dask

        slides = list(zip(dataset.slide_ids, dataset.slides, strict=True))
        store = spatialdata.SpatialData(
            images={f"{slide_id}_full_image": _image(slide_id, slide) for slide_id, slide in slides},
            shapes={_region(slide_id): _circles(dataset, number) for number, slide_id in enumerate(dataset.slide_ids)},
            tables={TABLE_NAME: _table(dataset)},
            attrs={"sge2hist": _provenance(dataset)},
        )
        with dask.config.set(scheduler="synchronous"):  # the decoders of a slide are not safe between threads
            store.write(partial / path.name)
        for child in (partial / path.name).iterdir():  # `write` refuses a folder that exists
            child.rename(partial / child.name)
        (partial / path.name).rmdir()
    return path


def _region(slide_id: str) -> str:
    return f"{slide_id}_cells"


def _provenance(dataset: PairedDataset) -> dict[str, Any]:
    return {
        "version": sge2hist.__version__,
        "um_per_px": dataset.um_per_px,
        "data": dataset.fingerprint,
        "toy": dataset.is_toy,
        **({MANIFEST_KEY: MARK} if dataset.is_virtual_he else {}),
        **(
            {} if is_rgb(dataset.channels) else {"stain_transform": dataset.stain_transform, "ranges": _ranges(dataset)}
        ),
    }


def _ranges(dataset: PairedDataset) -> dict[str, Any]:
    """For each slide, the values of the file that became levels 0 and 255 of each channel."""
    return {str(slide["id"]): slide.get("ranges", {}) for slide in dataset.manifest["slides"]}


def _image(slide_id: str, slide: SlideImage) -> Any:
    """All levels of the slide as lazy arrays; px are those of the coordinate system named after the slide."""
    from spatialdata.transformations import Identity, set_transformation
    from xarray import DataArray, Dataset, DataTree

    names = list("rgb") if is_rgb(slide.channels) else list(slide.channels)
    levels = {
        f"scale{number}": Dataset(
            {"image": DataArray(_lazy_pixels(level, len(names)), dims=("c", "y", "x"), coords={"c": names})}
        )
        for number, level in enumerate(slide.levels)
    }
    tree = DataTree.from_dict(levels)
    set_transformation(tree, {slide_id: Identity()}, set_all=True)
    return tree


def _lazy_pixels(level: PixelSource, n_channels: int) -> Any:
    """A dask array [C, H, W] that reads a level chunk by chunk."""
    import dask.array

    def read(block_info: Any = None) -> np.ndarray:
        _, (top, bottom), (left, right) = block_info[None]["array-location"]
        return np.moveaxis(level.region(top, left, bottom, right), 2, 0)

    chunks = dask.array.core.normalize_chunks(
        (n_channels, CHUNK_PX, CHUNK_PX), (n_channels, level.height_px, level.width_px)
    )
    return dask.array.map_blocks(read, chunks=chunks, dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8))


def _circles(dataset: PairedDataset, slide_number: int) -> Any:
    """One circle per cell of a slide, in px of it."""
    import pandas as pd
    from spatialdata.models import ShapesModel
    from spatialdata.transformations import Identity

    cells = np.flatnonzero(dataset.slide_of_cell == slide_number)
    return ShapesModel.parse(
        dataset.centre_xy_px[cells],
        geometry=0,  # points
        radius=_radius_um(dataset)[cells] / dataset.um_per_px,
        index=pd.Index([str(name) for name in dataset.obs.index[cells]], name="cell_id"),
        transformations={dataset.slide_ids[slide_number]: Identity()},
    )


def _radius_um(dataset: PairedDataset) -> np.ndarray:
    """Radius of each cell's circle, from its area, else from the size of a bin or spot: float64 [N]."""
    size_um = dataset.manifest.get("observation_um")
    radius = np.full(len(dataset), size_um / 2 if size_um else CELL_RADIUS_UM)
    if "area_um2" in dataset.obs:
        area = dataset.obs["area_um2"].to_numpy(np.float64)
        radius = np.where(area > 0, np.sqrt(np.where(area > 0, area, 0) / np.pi), radius)
    return radius


def _table(dataset: PairedDataset) -> Any:
    import pandas as pd
    from spatialdata.models import TableModel

    adata = dataset.adata()
    regions = [_region(slide_id) for slide_id in dataset.slide_ids]
    adata.obs["region"] = pd.Categorical([regions[number] for number in dataset.slide_of_cell], categories=regions)
    adata.obs["cell_id"] = adata.obs.index.to_numpy().astype(str)
    return TableModel.parse(adata, region=regions, region_key="region", instance_key="cell_id")
