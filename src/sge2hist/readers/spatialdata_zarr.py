"""SpatialData stores (zarr 2 or 3) as spatialdata-io and others write them, read without the spatialdata package.

```
X.zarr/
 images/<id>_full_image/        OME-NGFF multiscale, axes c, y, x
 shapes/<id>_square_008um/      shapes.parquet (GeoParquet): bins; <id>_cell_segmentations: cells; also Xenium's cells
 labels/cell_labels/            OME-NGFF label image
 tables/square_008um/           AnnData; attributes region, region_key, instance_key (location_id | cell_id | ...)
```
Shapes and image share a coordinate system; the positions are brought to px of the image through it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sge2hist.data.errors import InputError
from sge2hist.data.section import Section
from sge2hist.data.slides.slide_image import SlideImage
from sge2hist.readers.anndata_file import count_reader, find_counts, read_element, read_genes
from sge2hist.readers.count_rows import CountReader, regrouped
from sge2hist.readers.ngff import apply, length_scale, maps_by_system
from sge2hist.readers.spatialdata_shapes import Places, element_names, read_places
from sge2hist.readers.tables import damaged
from sge2hist.readers.zarr_image import colour_levels, multiscale

TABLE_ORDER = ("cell_segmentations", "square_016um", "square_008um", "square_002um", "table")
OWN_ATTRIBUTES = "sge2hist"  # written by our own export: {"um_per_px": ...}
_BIN = re.compile(r"square_(\d{3})um")


def read_all(
    path: str | Path,
    *,
    table: str | None = None,
    image: str | None = None,
    bin_um: int | None = None,
    um_per_px: float | None = None,
    layer: str | None = None,
) -> list[Section]:
    """Read every region that one table annotates, each as a section.

    Parameters
    ----------
    table
        Name of the table; cells before bins, coarse bins before fine ones when None.
    image
        Name of the image element; the full-resolution colour image in the same coordinate system when None.
    bin_um
        Choose the table of these bins ("square_016um").
    um_per_px
        Scale of the image; needed where the store does not tell (see `_scales`).
    layer
        Layer of the table that holds raw counts.

    Raises
    ------
    InputError
        If an element is missing or damaged, or the scale is not known.
    """
    path = Path(path)
    root = _open(path)
    try:
        name = _choose_table(path, table, bin_um)
        group = root[f"tables/{name}"]
        regions, region_key, instance_key = _annotation(group, f"{path}: tables/{name}")
        obs = read_element(group, "obs", str(path))
        var = read_element(group, "var", str(path))
        place = find_counts(group, layer, f"{path}: tables/{name}")
        shape = (len(obs), len(var))
        read_rows = _with_clear_errors(count_reader(group, place, shape, f"{path}: tables/{name}"), path)
        genes, notes = read_genes(var)
        notes = [f"table {name}, raw counts taken from {place}", *notes]
        sections = []
        for region in regions:
            rows = np.flatnonzero(obs[region_key].astype(str) == region) if region_key in obs else np.arange(len(obs))
            part = _Part(root=root, path=path, table=name, region=region, rows=rows, obs=obs, instance_key=instance_key)
            sections.append(_section(part, genes, read_rows, image, um_per_px, notes))
        return sections
    except InputError:
        raise
    except Exception as error:  # zarr, numcodecs and anndata each have their own errors for damaged stores
        raise damaged(path, "SpatialData store", error) from error


def _with_clear_errors(read_rows: CountReader, path: Path) -> CountReader:
    """Chunks are decoded only when counts are read: what zarr says of damaged ones becomes one `InputError` there."""

    def read_counts(group_of_obs: np.ndarray | None = None, n_groups: int | None = None) -> Any:
        try:
            return read_rows(group_of_obs, n_groups)
        except InputError:
            raise
        except Exception as error:  # see read_all
            raise damaged(path, "SpatialData store", error) from error

    return read_counts


class _Part:
    """One region of the table and what is needed to read it."""

    def __init__(
        self, *, root: Any, path: Path, table: str, region: str, rows: np.ndarray, obs: pd.DataFrame, instance_key: str
    ) -> None:
        self.root, self.path, self.table, self.region, self.rows = root, path, table, region, rows
        self.obs, self.n_rows, self.instance_key = obs.iloc[rows].copy(), len(obs), instance_key


def _section(
    part: _Part,
    genes: pd.DataFrame,
    read_rows: CountReader,
    image: str | None,
    um_per_px: float | None,
    notes: list[str],
) -> Section:
    if len(part.rows) == 0:
        raise InputError(found=f"no row of region {part.region!r}", where=f"{part.path}: tables/{part.table}")
    places, index, element = _locate(part)
    slide, image_name, to_image = _image(part, places, image)
    centre_xy_px = apply(to_image, places.centre_xy[index])
    area_px2 = places.area[index] * length_scale(to_image) ** 2
    sources = _scales(part, slide, places, to_image, um_per_px)
    bin_um = _bin_um(part)
    observation = "bin" if bin_um else ("spot" if _reader(part) == "visium" else "cell")
    part.obs = part.obs.drop(columns=["cell_id", "region", part.instance_key], errors="ignore")
    part.obs.index = pd.Index([str(name) for name in part.obs.index], name="cell_id")
    scale = next(iter(sources.values()))
    if observation == "cell" and "area_um2" not in part.obs and (area_px2 > 0).any():
        part.obs["area_um2"] = area_px2 * scale**2
    version = dict(part.root.attrs).get("spatialdata_attrs", {}).get("spatialdata_software_version", "")
    observation_of_row = np.full(part.n_rows, -1, np.int64)
    observation_of_row[part.rows] = np.arange(len(part.rows))
    return Section(
        name=part.region.removesuffix("_cells").replace("/", "_"),
        technology="SpatialData" + (f" ({_reader(part)})" if _reader(part) else ""),
        software=f"spatialdata {version}" if version else "",
        observation=observation,
        observation_um=float(bin_um) if bin_um else None,
        obs=part.obs,
        centre_xy_px=centre_xy_px,
        genes=genes,
        image=slide,
        um_per_px=scale,
        um_per_px_sources=sources,
        read_counts=regrouped(read_rows, observation_of_row, len(part.rows)),
        notes=[*notes, f"positions from {element}, image {image_name}"],
    )


def _open(path: Path) -> Any:
    import zarr

    if not path.is_dir():
        raise InputError(found="no such folder", where=str(path), expected="a SpatialData store (X.zarr)")
    try:
        root = zarr.open_group(path, mode="r", use_consolidated=False)
    except Exception as error:  # see read_all
        raise damaged(path, "SpatialData store", error) from error
    if not (path / "tables").is_dir() or not (path / "images").is_dir():
        inside = ", ".join(sorted(child.name for child in path.iterdir())[:8]) or "nothing"
        raise InputError(found=f"a zarr store with {inside}", where=str(path), expected="images and tables")
    return root


def _choose_table(path: Path, table: str | None, bin_um: int | None) -> str:
    names = element_names(path, "tables")
    wanted = table if table is not None else (f"square_{bin_um:03d}um" if bin_um is not None else None)
    if wanted is not None:
        if wanted not in names:
            raise InputError(found=f"no table {wanted!r}", where=str(path), expected=f"one of {', '.join(names)}")
        return wanted
    if not names:
        raise InputError(found="no table", where=str(path), expected="a table of counts")
    return next((name for name in TABLE_ORDER if name in names), names[0])


def _annotation(group: Any, where: str) -> tuple[list[str], str, str]:
    """Regions, region key and instance key of a table, from its attributes or (old stores) from uns."""
    stated = dict(group.attrs)
    if "region" not in stated and "uns/spatialdata_attrs" in group:
        stated = read_element(group["uns"], "spatialdata_attrs", where)
    region = stated.get("region")
    if region is None or not stated.get("instance_key"):
        raise InputError(
            found="a table that annotates no region",
            where=where,
            expected="attributes region, region_key, instance_key",
        )
    regions = [region] if isinstance(region, str) else [str(name) for name in np.atleast_1d(region)]
    return regions, str(stated.get("region_key", "region")), str(stated["instance_key"])


def _locate(part: _Part) -> tuple[Places, np.ndarray, str]:
    """Shape or label of every row. When the region itself was not stored, other shapes with the same ids serve."""
    obs = part.obs
    keys = [obs[name].to_numpy() for name in (part.instance_key, "cell_id") if name in obs] + [obs.index.to_numpy()]
    elements = [*element_names(part.path, "shapes"), *element_names(part.path, "labels")]
    candidates = [part.region] if part.region in elements else element_names(part.path, "shapes")
    for element in candidates:
        places = read_places(part.root, part.path, element)
        ids = pd.Index(places.ids)
        for key in keys:
            found = ids.get_indexer(pd.Index([_text(value) for value in key])) if ids.is_unique else np.array([-1])
            if (found >= 0).all():
                return places, found, element
    raise InputError(
        found=f"no element whose ids are those of table {part.table} ({part.instance_key} of region {part.region!r})",
        where=str(part.path),
        expected=f"shapes or labels {part.region!r}; there are {', '.join(elements) or 'none'}",
        repair="write the store again with the element that the table annotates",
    )


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _image(part: _Part, places: Places, name: str | None) -> tuple[SlideImage, str, np.ndarray]:
    """The slide, its name, and the 3x3 map from the element's coordinates to px of the image."""
    names = element_names(part.path, "images")
    if name is not None and name not in names:
        raise InputError(found=f"no image {name!r}", where=str(part.path), expected=f"one of {', '.join(names)}")
    found = []
    for candidate in names if name is None else [name]:
        group = part.root[f"images/{candidate}"]
        where = f"{part.path}: images/{candidate}"
        levels = colour_levels(group, where)
        maps = maps_by_system(multiscale(group, where).get("coordinateTransformations", []), where)
        shared = [system for system in places.maps if system in maps]
        if levels and shared:
            to_image = np.linalg.inv(maps[shared[0]]) @ places.maps[shared[0]]
            found.append((levels[0].height_px * levels[0].width_px, candidate, levels, to_image))
    if not found:
        raise InputError(
            found=f"no colour image in a coordinate system of {part.region!r} ({', '.join(places.maps)})",
            where=str(part.path),
            expected="an 8-bit RGB image (c, y, x) registered with the shapes",
            repair=f"name one of {', '.join(names) or 'the images'} with --image, or add the H&E to the store",
        )
    _, chosen, levels, to_image = max(found, key=lambda entry: entry[:2])
    return SlideImage(part.path / "images" / chosen, levels, None), chosen, to_image


def _reader(part: _Part) -> str:
    return str(dict(part.root.attrs).get("spatialdata_io_reader", ""))


def _bin_um(part: _Part) -> int | None:
    match = _BIN.search(part.region) or _BIN.search(part.table)
    return int(match.group(1)) if match else None


def _scales(
    part: _Part, slide: SlideImage, places: Places, to_image: np.ndarray, um_per_px: float | None
) -> dict[str, float]:
    """Every um/px found, the one to use first.

    The format states no physical unit. Known are: our own export's attribute; the side of Visium HD bins; Xenium stores
    of spatialdata-io, whose shapes are in um.
    """
    sources = {} if um_per_px is None else {"--image-um-per-px": um_per_px}
    own = dict(part.root.attrs).get(OWN_ATTRIBUTES, {})
    if isinstance(own, dict) and isinstance(own.get("um_per_px"), int | float):
        sources["attribute of the store"] = float(own["um_per_px"])
    element, bin_um = _bins(part)
    if bin_um:
        bins = places if element == part.region else read_places(part.root, part.path, element)
        shared = [system for system in bins.maps if system in places.maps]
        if shared:
            to_places = np.linalg.inv(places.maps[shared[0]]) @ bins.maps[shared[0]]
            sources[f"size of {element}"] = bin_um / (bins.side() * length_scale(to_image @ to_places))
    if _reader(part) == "xenium":
        sources["Xenium shapes in um"] = 1 / length_scale(to_image)
    if slide.um_per_px is not None:
        sources["image metadata"] = slide.um_per_px
    sources = {name: value for name, value in sources.items() if np.isfinite(value) and value > 0}
    if not sources:
        raise InputError(
            found="no um per px in the store",
            where=str(part.path),
            expected="the scale of its image",
            repair="give --image-um-per-px",
        )
    return sources


def _bins(part: _Part) -> tuple[str, int]:
    """Shapes of Visium HD bins, whose name tells their side in um: the region itself, else the coarsest (fewest)."""
    for name in [part.region, *reversed(element_names(part.path, "shapes"))]:
        match = _BIN.search(name)
        if match and f"shapes/{name}" in part.root:
            return name, int(match.group(1))
    return "", 0
