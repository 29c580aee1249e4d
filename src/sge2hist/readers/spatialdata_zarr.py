"""SpatialData stores (zarr 2 or 3) as spatialdata-io and others write them; counts are streamed, never read whole.

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
from sge2hist.data.table.cell_table import converter
from sge2hist.data.table.counts import ExpressionTable, find_counts, read_element
from sge2hist.readers.anndata_file import count_reader
from sge2hist.readers.count_rows import CountReader, regrouped
from sge2hist.readers.spatialdata_elements import (
    Elements,
    Positions,
    colour_levels,
    length_scale,
    raster_maps,
    spatialdata_package,
    store_errors,
    transform,
)

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
    rounding_seed: int | None = None,
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
        Scale of the image; needed where the store does not state it (see `_scales`).
    layer
        Layer of the table that holds raw counts.
    rounding_seed
        Round counts with fractions at random by this seed; None: they are refused.

    Raises
    ------
    InputError
        If an element is missing or damaged, or the scale is not known.
    """
    path = Path(path)
    elements = Elements.open(path)
    with spatialdata_package(), store_errors(path):
        name = _choose_table(elements, table, bin_um)
        group, where = elements.root[f"tables/{name}"], f"{path}: tables/{name}"
        regions, region_key, instance_key = _annotation(group, where)
        obs = read_element(group, "obs", str(path))
        counts = ExpressionTable.of_group(group, len(obs), where)
        found = find_counts(counts, layer, round_counts=rounding_seed is not None)
        genes, gene_notes = counts.genes(found.location)
        convert = converter(counts, found, obs.index, genes, rounding_seed)
        read_rows = _with_clear_errors(count_reader(counts.matrix(found.location), convert), path)
        notes = [
            f"table {name}, raw counts taken from {found.location} ({found.contents.text})",
            *found.notes,
            *gene_notes,
        ]
        if rounding_seed is not None:
            notes.insert(1, f"counts with fractions rounded at random, seed {rounding_seed}")
        sections = []
        for region in regions:
            rows = np.flatnonzero(obs[region_key].astype(str) == region) if region_key in obs else np.arange(len(obs))
            part = _Region(elements=elements, table=name, name=region, rows=rows, obs=obs, instance_key=instance_key)
            sections.append(_section(part, genes, read_rows, image, um_per_px, notes))
        return sections


def _with_clear_errors(read_rows: CountReader, path: Path) -> CountReader:
    """Chunks are decoded only when counts are read: errors of damaged ones become one `InputError` then."""

    def read_counts(group_of_obs: np.ndarray | None = None, n_groups: int | None = None) -> Any:
        with store_errors(path):
            return read_rows(group_of_obs, n_groups)

    return read_counts


class _Region:
    """One annotated region of the table and what is needed to read it."""

    def __init__(
        self, *, elements: Elements, table: str, name: str, rows: np.ndarray, obs: pd.DataFrame, instance_key: str
    ) -> None:
        self.elements, self.path, self.table, self.name, self.rows = elements, elements.path, table, name, rows
        self.obs, self.n_rows, self.instance_key = obs.iloc[rows].copy(), len(obs), instance_key
        self.attributes = dict(elements.root.attrs)

    @property
    def vendor(self) -> str:
        """The reader of spatialdata-io that made the store, "" if unknown."""
        return str(self.attributes.get("spatialdata_io_reader", ""))

    @property
    def bin_um(self) -> int | None:
        """Side of Visium HD bins, by the name of the region or table."""
        match = _BIN.search(self.name) or _BIN.search(self.table)
        return int(match.group(1)) if match else None


def _section(
    part: _Region,
    genes: pd.DataFrame,
    read_rows: CountReader,
    image: str | None,
    um_per_px: float | None,
    notes: list[str],
) -> Section:
    if len(part.rows) == 0:
        raise InputError(found=f"no row of region {part.name!r}", where=f"{part.path}: tables/{part.table}")
    positions, index, element = _match_positions(part)
    slide, image_name, to_image = _image(part, positions, image)
    centre_xy_px = transform(to_image, positions.centre_xy[index])
    area_px2 = positions.area[index] * length_scale(to_image) ** 2
    sources = _scales(part, slide, positions, to_image, um_per_px)
    bin_um = part.bin_um
    observation = "bin" if bin_um else ("spot" if part.vendor == "visium" else "cell")
    part.obs = part.obs.drop(columns=["cell_id", "region", part.instance_key], errors="ignore")
    part.obs.index = pd.Index([str(name) for name in part.obs.index], name="cell_id")
    scale = next(iter(sources.values()))
    if observation == "cell" and "area_um2" not in part.obs and (area_px2 > 0).any():
        part.obs["area_um2"] = area_px2 * scale**2
    version = part.attributes.get("spatialdata_attrs", {}).get("spatialdata_software_version", "")
    observation_of_row = np.full(part.n_rows, -1, np.int64)
    observation_of_row[part.rows] = np.arange(len(part.rows))
    return Section(
        name=part.name.removesuffix("_cells").replace("/", "_"),
        technology="SpatialData" + (f" ({part.vendor})" if part.vendor else ""),
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


def _choose_table(elements: Elements, table: str | None, bin_um: int | None) -> str:
    path, names = elements.path, elements.names("tables")
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


def _match_positions(part: _Region) -> tuple[Positions, np.ndarray, str]:
    """Shape or label of every row. When the region itself was not stored, other shapes with the same ids serve."""
    obs = part.obs
    keys = [obs[name].to_numpy() for name in (part.instance_key, "cell_id") if name in obs] + [obs.index.to_numpy()]
    shapes = part.elements.names("shapes")
    elements = [*shapes, *part.elements.labels]
    candidates = [part.name] if part.name in elements else shapes
    for element in candidates:
        positions = part.elements.positions(element)
        ids = pd.Index(positions.ids)
        for key in keys:
            found = ids.get_indexer(pd.Index([_text(value) for value in key])) if ids.is_unique else np.array([-1])
            if (found >= 0).all():
                return positions, found, element
    raise InputError(
        found=f"no element whose ids are those of table {part.table} ({part.instance_key} of region {part.name!r})",
        where=str(part.path),
        expected=f"shapes or labels {part.name!r}; there are {', '.join(elements) or 'none'}",
        repair="write the store again with the element that the table annotates",
    )


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _image(part: _Region, positions: Positions, name: str | None) -> tuple[SlideImage, str, np.ndarray]:
    """The slide, its name, and the 3x3 map from the element's coordinates to px of the image."""
    images = part.elements.images
    names = sorted(images)
    if name is not None and name not in names:
        raise InputError(found=f"no image {name!r}", where=str(part.path), expected=f"one of {', '.join(names)}")
    found = []
    for candidate in names if name is None else [name]:
        levels = colour_levels(images[candidate])
        maps = raster_maps(images[candidate], f"{part.path}: images/{candidate}")
        shared = [system for system in positions.maps if system in maps]
        if levels and shared:
            to_image = np.linalg.inv(maps[shared[0]]) @ positions.maps[shared[0]]
            found.append((levels[0].height_px * levels[0].width_px, candidate, levels, to_image))
    if not found:
        raise InputError(
            found=f"no colour image in a coordinate system of {part.name!r} ({', '.join(positions.maps)})",
            where=str(part.path),
            expected="an 8-bit RGB image (c, y, x) registered with the shapes",
            repair=f"name one of {', '.join(names) or 'the images'} with --image, or add the H&E to the store",
        )
    _, chosen, levels, to_image = max(found, key=lambda entry: entry[:2])
    return SlideImage(part.path / "images" / chosen, levels, None), chosen, to_image


def _scales(
    part: _Region, slide: SlideImage, positions: Positions, to_image: np.ndarray, um_per_px: float | None
) -> dict[str, float]:
    """Every um/px found, the one to use first.

    The format states no physical unit. Known are: our own export's attribute; the side of Visium HD bins; Xenium stores
    of spatialdata-io, whose shapes are in um.
    """
    sources = {} if um_per_px is None else {"--image-um-per-px": um_per_px}
    own = part.attributes.get(OWN_ATTRIBUTES, {})
    if isinstance(own, dict) and isinstance(own.get("um_per_px"), int | float):
        sources["attribute of the store"] = float(own["um_per_px"])
    element, bin_um = _bins(part)
    if bin_um:
        bins = positions if element == part.name else part.elements.positions(element)
        shared = [system for system in bins.maps if system in positions.maps]
        if shared:
            to_positions = np.linalg.inv(positions.maps[shared[0]]) @ bins.maps[shared[0]]
            sources[f"size of {element}"] = bin_um / (bins.side() * length_scale(to_image @ to_positions))
    if part.vendor == "xenium":
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


def _bins(part: _Region) -> tuple[str, int]:
    """Shapes of Visium HD bins, whose name states their side in um: the region itself, else the coarsest (fewest)."""
    for name in [part.name, *reversed(part.elements.names("shapes"))]:
        match = _BIN.search(name)
        if match and name in part.elements.names("shapes"):
            return name, int(match.group(1))
    return "", 0
