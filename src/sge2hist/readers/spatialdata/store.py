"""SpatialData stores (zarr 2 or 3) as spatialdata-io and others write them; counts are streamed, never read whole.

```
X.zarr/
 images/<id>_full_image/        OME-NGFF multiscale, axes c, y, x
 shapes/<id>_square_008um/      shapes.parquet (GeoParquet): bins; <id>_cell_segmentations: cells; also Xenium's cells
 labels/cell_labels/            OME-NGFF label image
 tables/square_008um/           AnnData; attributes region, region_key, instance_key (location_id | cell_id | ...)
```
Positions are brought to px of the image through the coordinate systems (`systems`). Bins that were rasterised lie in labels.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
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
from sge2hist.readers.spatialdata.elements import (
    Elements,
    length_scale,
    spatialdata_package,
    store_errors,
    transform,
)
from sge2hist.readers.spatialdata.images import RegionImage, image_of
from sge2hist.readers.spatialdata.positions import Matched, match_rows, positions_of
from sge2hist.readers.spatialdata.systems import Systems
from sge2hist.readers.spatialdata.tables import Annotation, bin_side_um, choose_tables

OWN_ATTRIBUTES = "sge2hist"  # written by our own export: {"um_per_px": ...}


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
    """Read every region that the chosen tables annotate, each as a section.

    Parameters
    ----------
    table
        Name of the table; cells before bins, coarse bins before fine ones when None (`tables.choose_tables`).
    image
        NAME of the image element, or NAME@SYSTEM with the coordinate system that joins it to the cells; the full-resolution
        colour image in the same coordinate system when None.
    bin_um
        Choose the tables of these bins ("square_016um").
    um_per_px
        Scale of the image; needed where the store does not state it (see `_scales`).
    layer
        Layer of the table that holds raw counts.
    rounding_seed
        Round counts with fractions at random by this seed; None: they are refused.

    Raises
    ------
    InputError
        If an element is missing or damaged, the scale is not known, or tables or coordinate systems contradict each other.
    """
    path = Path(path)
    elements = Elements.open(path)
    with spatialdata_package(), store_errors(path):
        chosen, ignored = choose_tables(elements, table, bin_um)
        notes = [f"not read: table {', '.join(ignored)} (--table reads one)"] if ignored else []
        store = _Store(elements=elements, systems=Systems(elements))
        n_regions = sum(len(one.regions) for one in chosen)
        sections: list[Section] = []
        tables_of_image: dict[Path, str] = {}
        for annotation in chosen:
            read = _read_table(store, annotation, image, um_per_px, layer, rounding_seed, n_regions > 1)
            for section in read:
                other = tables_of_image.setdefault(section.image.path, annotation.table)
                if other != annotation.table:
                    raise InputError(
                        found=f"tables {other} and {annotation.table} of one image, {section.image.path.name}",
                        where=str(path),
                        expected="one table of each image",
                        repair=f"name one: --table {other}",
                    )
            sections += read
        return [dataclasses.replace(section, notes=[*section.notes, *notes]) for section in sections]


@dataclass(frozen=True, kw_only=True)
class _Store:
    """A store that is open."""

    elements: Elements
    systems: Systems


def _read_table(
    store: _Store,
    annotation: Annotation,
    image: str | None,
    um_per_px: float | None,
    layer: str | None,
    rounding_seed: int | None,
    one_of_several: bool,
) -> list[Section]:
    """Every region that a table annotates."""
    name, path = annotation.table, store.elements.path
    group, where = store.elements.root[f"tables/{name}"], f"{path}: tables/{name}"
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
    key, sections = annotation.region_key, []
    for region in annotation.regions:
        rows = np.flatnonzero(obs[key].astype(str) == region) if key in obs else np.arange(len(obs))
        part = _Region(store, annotation, region, rows, obs, one_of_several)
        sections.append(_section(part, genes, read_rows, image, um_per_px, notes))
    return sections


def _with_clear_errors(read_rows: CountReader, path: Path) -> CountReader:
    """Chunks are decoded only when counts are read: errors of damaged ones become one `InputError` then."""

    def read_counts(group_of_obs: np.ndarray | None = None, n_groups: int | None = None) -> Any:
        with store_errors(path):
            return read_rows(group_of_obs, n_groups)

    return read_counts


class _Region:
    """One annotated region of a table and what is needed to read it."""

    def __init__(
        self,
        store: _Store,
        annotation: Annotation,
        name: str,
        rows: np.ndarray,
        obs: pd.DataFrame,
        one_of_several: bool,
    ) -> None:
        self.elements, self.systems, self.path = store.elements, store.systems, store.elements.path
        self.table, self.instance_key = annotation.table, annotation.instance_key
        self.name, self.rows, self.one_of_several = name, rows, one_of_several
        self.bin_um = bin_side_um(name) or bin_side_um(annotation.table)
        self.obs, self.n_rows = obs.iloc[rows].copy(), len(obs)
        self.attributes = dict(store.elements.root.attrs)

    @property
    def vendor(self) -> str:
        """The reader of spatialdata-io that made the store, "" if unknown."""
        return str(self.attributes.get("spatialdata_io_reader", ""))

    def spatial_xy(self) -> np.ndarray | None:
        """``obsm["spatial"]`` of its rows, float64 [R, 2]; None where there is no such array."""
        name = f"tables/{self.table}/obsm/spatial"
        stored = self.elements.root.get(name, None)
        if getattr(stored, "shape", ())[1:] != (2,):
            return None
        return np.asarray(stored[:], np.float64)[self.rows]


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
    matched = _match(part)
    chosen = image_of(part.elements, part.systems, matched, part.name, image, one_of_several=part.one_of_several)
    slide = chosen.slide(part.elements)
    centre_xy_px = transform(chosen.to_image, matched.centre_xy)
    area_px2 = matched.positions.area[matched.index] * length_scale(chosen.to_image) ** 2
    sources = _scales(part, matched, chosen, slide, um_per_px)
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
        notes=[
            *notes,
            f"positions from {matched.element}, image {chosen.name}",
            *([matched.note] if matched.note else []),
        ],
    )


def _match(part: _Region) -> Matched:
    """Shape or label of every row of the region."""
    obs = part.obs
    names = dict.fromkeys((part.instance_key, "cell_id", "location_id"))
    keys = [*(obs[name].to_numpy() for name in names if name in obs), obs.index.to_numpy()]
    return match_rows(
        part.elements, part.name, keys, part.spatial_xy(), f"{part.path}: tables/{part.table} ({part.instance_key})"
    )


def _scales(
    part: _Region, matched: Matched, image: RegionImage, slide: SlideImage, um_per_px: float | None
) -> dict[str, float]:
    """Every um/px found, the one to use first.

    The format states no physical unit. Known are: our own export's attribute; the side of Visium HD bins; the um of elements
    that readers of spatialdata-io write, and of coordinate systems named so (`Systems.um_maps`).
    """
    sources = {} if um_per_px is None else {"--image-um-per-px": um_per_px}
    own = part.attributes.get(OWN_ATTRIBUTES, {})
    if isinstance(own, dict) and isinstance(own.get("um_per_px"), int | float):
        sources["attribute of the store"] = float(own["um_per_px"])
    where = f"{part.path}: images/{image.name}"
    for element, bin_um in _bins(part, matched):
        bins = matched.positions if element == matched.element else positions_of(part.elements, element)
        to_image = part.systems.between(
            bins.maps, image.maps, image.size_px, where, image.system if image.system in bins.maps else None
        )
        if to_image is not None:
            sources[f"size of {element}"] = bin_um / (bins.side() * length_scale(to_image))
    sources |= part.systems.um_per_px(image.maps, image.size_px, part.vendor, where, image.system)
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


def _bins(part: _Region, matched: Matched) -> list[tuple[str, int]]:
    """The element of Visium HD bins, whose name states their side in um: the region's own, else the coarsest (fewest)."""
    own, shapes = bin_side_um(matched.element), part.elements.names("shapes")
    if own and (matched.positions.are_pixels or matched.element in shapes):
        return [(matched.element, own)]
    return [(name, side) for name in reversed(shapes) if (side := bin_side_um(name))][:1]
