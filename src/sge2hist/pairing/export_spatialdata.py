"""Export of a paired dataset as a SpatialData store, written without the spatialdata package.

```
X.zarr/                     SpatialData container 0.2 (zarr 3), as spatialdata 0.5 to 0.7 read and write it
 images/<slide>_full_image/ OME-NGFF 0.5 multiscale, uint8, axes c, y, x
 shapes/<slide>_cells/      shapes.parquet: one circle per cell, px of the slide, indexed by cell_id
 tables/table/              AnnData: raw counts, obs with region and cell_id
```
Each slide has its own coordinate system, named after it. The format has no field for the physical size of a pixel: um
per px and the provenance stand in the attribute "sge2hist" of the store.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np

import sge2hist
from sge2hist.data.artifacts import atomic_directory, check_output, require_disk_space
from sge2hist.data.errors import InputError
from sge2hist.data.paired import PairedDataset
from sge2hist.data.slides.channels import is_rgb
from sge2hist.data.slides.slide_image import SlideImage

CONTAINER = {"version": "0.2", "spatialdata_software_version": "0.7.3"}  # the layout that is written, for its readers
IMAGE_VERSION = SHAPES_VERSION = "0.3"
TABLE_VERSION = "0.2"
CHUNK_PX = 1024
CELL_RADIUS_UM = 5.0  # where neither an area nor the size of a bin or spot is known
TABLE_NAME = "table"


def export_spatialdata(dataset: PairedDataset, path: str | Path) -> Path:
    """Write `dataset` to the store `path`; it appears there only when it is complete.

    Raises
    ------
    InputError
        If `path` exists (an export is never replaced: others may have added to it), or the disk is too small.
    """
    import zarr

    path = Path(path)
    if path.suffix != ".zarr":
        raise InputError(found=f"{path.name}", expected="a name that ends in .zarr", repair=f"-o {path.name}.zarr")
    check_output(path)
    n_pixels = sum(slide.width_px * slide.height_px for slide in dataset.slides)
    require_disk_space(path, n_pixels * 3 // 2 + (dataset.path / "cells.h5ad").stat().st_size)
    with atomic_directory(path) as partial:
        root = zarr.create_group(partial, zarr_format=3, attributes=_root_attributes(dataset))
        images = root.create_group("images")
        shapes = root.create_group("shapes")
        for slide_id, slide in zip(dataset.slide_ids, dataset.slides, strict=True):
            _write_image(images.create_group(f"{slide_id}_full_image"), slide_id, slide)
            shapes.create_group(_region(slide_id), attributes=_shape_attributes(slide_id))
        _write_table(root.create_group("tables"), dataset)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
            zarr.consolidate_metadata(root.store)
        for number, slide_id in enumerate(dataset.slide_ids):  # last: Parquet files are strangers to zarr's listing
            cells = np.flatnonzero(dataset.slide_of_cell == number)
            _write_circles(partial / "shapes" / _region(slide_id) / "shapes.parquet", dataset, cells)
    return path


def _region(slide_id: str) -> str:
    return f"{slide_id}_cells"


def _root_attributes(dataset: PairedDataset) -> dict[str, Any]:
    own = {
        "version": sge2hist.__version__,
        "um_per_px": dataset.um_per_px,
        "data": dataset.fingerprint,
        "toy": dataset.is_toy,
    }
    return {"spatialdata_attrs": CONTAINER, "sge2hist": own}


def _axes(names: str) -> list[dict[str, str]]:
    return [
        {"name": name, "type": "channel"} if name == "c" else {"name": name, "type": "space", "unit": "unit"}
        for name in names
    ]


def _identity(names: str, slide_id: str) -> dict[str, Any]:
    """The element is in px of its slide: the coordinate system that is named after the slide."""
    return {
        "type": "identity",
        "input": {"name": names, "axes": _axes(names)},
        "output": {"name": slide_id, "axes": _axes(names)},
    }


def _write_image(group: Any, slide_id: str, slide: SlideImage) -> None:
    """All levels of the slide, chunk by chunk."""
    datasets = []
    for number, level in enumerate(slide.levels):
        shape = (len(slide.channels), level.height_px, level.width_px)
        chunks = (len(slide.channels), min(CHUNK_PX, level.height_px), min(CHUNK_PX, level.width_px))
        array = group.create_array(
            f"s{number}", shape=shape, chunks=chunks, dtype="uint8", dimension_names=("c", "y", "x")
        )
        for top in range(0, level.height_px, CHUNK_PX):
            for left in range(0, level.width_px, CHUNK_PX):
                bottom, right = min(top + CHUNK_PX, level.height_px), min(left + CHUNK_PX, level.width_px)
                array[:, top:bottom, left:right] = np.moveaxis(level.region(top, left, bottom, right), 2, 0)
        scale = [1.0, slide.height_px / level.height_px, slide.width_px / level.width_px]
        datasets.append({"path": f"s{number}", "coordinateTransformations": [{"type": "scale", "scale": scale}]})
    entry = {
        "datasets": datasets,
        "name": group.name,
        "axes": [{key: value for key, value in axis.items() if key != "unit"} for axis in _axes("cyx")],
        "coordinateTransformations": [_identity("cyx", slide_id)],
    }
    channels = [{"label": label} for label in ("rgb" if is_rgb(slide.channels) else slide.channels)]
    group.attrs["ome"] = {"version": "0.5-dev-spatialdata", "multiscales": [entry], "omero": {"channels": channels}}
    group.attrs["spatialdata_attrs"] = {"version": IMAGE_VERSION}


def _shape_attributes(slide_id: str) -> dict[str, Any]:
    return {
        "encoding-type": "ngff:shapes",
        "axes": ["x", "y"],
        "coordinateTransformations": [_identity("xy", slide_id)],
        "spatialdata_attrs": {"version": SHAPES_VERSION},
    }


def _write_circles(path: Path, dataset: PairedDataset, cells: np.ndarray) -> None:
    """GeoParquet 1.1 with points, their radius in px, and the cell ids as index."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import shapely

    points = shapely.points(dataset.centre_xy_px[cells])
    names = [str(name) for name in dataset.obs.index[cells]]
    table = pa.table(
        {
            "geometry": pa.array(shapely.to_wkb(points), pa.binary()),
            "radius": _radius_um(dataset)[cells] / dataset.um_per_px,
            "cell_id": pa.array(names, pa.string()),
        }
    )
    column = {"encoding": "WKB", "crs": None, "geometry_types": ["Point"]}
    geo = {"primary_column": "geometry", "columns": {"geometry": column}, "version": "1.1.0"}
    text = {"pandas_type": "unicode", "numpy_type": "object", "metadata": None}
    pandas = {
        "index_columns": ["cell_id"],
        "column_indexes": [{"name": None, "field_name": None, **text}],
        "columns": [
            {
                "name": "geometry",
                "field_name": "geometry",
                "pandas_type": "bytes",
                "numpy_type": "object",
                "metadata": None,
            },
            {
                "name": "radius",
                "field_name": "radius",
                "pandas_type": "float64",
                "numpy_type": "float64",
                "metadata": None,
            },
            {"name": "cell_id", "field_name": "cell_id", **text},
        ],
        "pandas_version": "2.2.0",
    }
    metadata = {b"geo": json.dumps(geo).encode(), b"pandas": json.dumps(pandas).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), path)


def _radius_um(dataset: PairedDataset) -> np.ndarray:
    """Radius of each cell's circle, from its area, else from the size of a bin or spot."""
    size_um = dataset.manifest.get("observation_um")
    radius = np.full(len(dataset), size_um / 2 if size_um else CELL_RADIUS_UM)
    if "area_um2" in dataset.obs:
        area = dataset.obs["area_um2"].to_numpy(np.float64)
        radius = np.where(area > 0, np.sqrt(np.where(area > 0, area, 0) / np.pi), radius)
    return radius


def _write_table(tables: Any, dataset: PairedDataset) -> None:
    import pandas as pd
    from anndata.io import write_elem

    adata = dataset.adata()
    regions = [_region(slide_id) for slide_id in dataset.slide_ids]
    adata.obs["region"] = pd.Categorical([regions[number] for number in dataset.slide_of_cell], categories=regions)
    adata.obs["cell_id"] = adata.obs.index.to_numpy().astype(str)
    annotation = {"region": regions, "region_key": "region", "instance_key": "cell_id"}
    adata.uns["spatialdata_attrs"] = annotation
    with warnings.catch_warnings():
        # Announcements of zarr and anndata about their next versions; the layout written here is fixed by its readers.
        warnings.filterwarnings("ignore", message=".*does not have a Zarr V3 specification.*")
        warnings.filterwarnings("ignore", message="zarr v3 autosharding will be the default.*")
        write_elem(tables, TABLE_NAME, adata)
    tables[TABLE_NAME].attrs.update(
        {"spatialdata-encoding-type": "ngff:regions_table", **annotation, "version": TABLE_VERSION}
    )
