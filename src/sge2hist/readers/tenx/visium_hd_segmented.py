"""Visium HD, Space Ranger >= 4: the cells that Space Ranger itself segmented, as observations.

```
outs/segmented_outputs/                                    (or <ID>_segmented_outputs)
 {filtered,raw}_feature_cell_matrix.h5                     barcodes cellid_000000001-1
 {cell,nucleus}_segmentations.geojson                      properties.cell_id 1-based; px of the microscope image
 graphclust_annotated_{cell,nucleus}_segmentations.geojson
 analysis/clustering/gene_expression_graphclust/clusters.csv
 spatial/scalefactors_json.json                            without spot_diameter_fullres and bin_size_um
 spatial/tissue_{hires,lowres}_image.png                   no tissue_positions
```
There may be more polygons than cells in the filtered matrix. Counts of a cell are those of its 2 um bins.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd

from sge2hist.data.errors import InputError
from sge2hist.data.section import Section
from sge2hist.data.slides.channels import Channels
from sge2hist.data.slides.slide_image import SlideImage
from sge2hist.readers.geojson import Polygons, read_geojson
from sge2hist.readers.tenx import space_ranger
from sge2hist.readers.tenx.proteins import proteins_of
from sge2hist.readers.tenx.tenx_matrix import TenxMatrix
from sge2hist.readers.tenx.visium_hd import open_image, section_name
from sge2hist.readers.tenx.visium_hd_folder import one_file

FOLDER = "segmented_outputs"
_BARCODE = re.compile(r"^cellid_(\d+)(-\d+)?$")


def find_segmented(path: str | Path) -> Path | None:
    """The `segmented_outputs` folder at, in, or beside the binned outputs of `path`; None when there is none."""
    path = Path(path)
    candidates = [path, *sorted(path.glob(f"*{FOLDER}")), *sorted(path.glob(f"outs/*{FOLDER}"))]
    found = [folder for folder in candidates if folder.is_dir() and find_cell_matrix(folder) is not None]
    return found[0] if found else None


def find_cell_matrix(folder: Path) -> Path | None:
    """The filtered matrix of cells, else the raw one, else None."""
    return one_file(folder, "filtered_feature_cell_matrix.h5") or one_file(folder, "raw_feature_cell_matrix.h5")


def read(
    path: str | Path,
    *,
    image: str | Path | None,
    um_per_px: float | None = None,
    name: str | None = None,
    channels: Channels | None = None,
) -> Section:
    """Read one section with Space Ranger's cells as observations, centred on their polygons.

    Parameters
    ----------
    path
        `outs/`, its parent, or `segmented_outputs/`.
    image
        The microscope H&E given to Space Ranger.
    um_per_px
        Overrides `microns_per_pixel` of the scale factors.
    channels
        See `open_sections`.

    Raises
    ------
    InputError
        If a file is missing or damaged, or a cell has no polygon.
    """
    folder = find_segmented(path)
    if folder is None:
        raise InputError(
            found=f"no {FOLDER} with a matrix of cells",
            where=str(path),
            expected="outs/ of Space Ranger 4 or later",
            repair="use --cells nuclei to find nuclei in the H&E, or --cells bins",
        )
    matrix_path = find_cell_matrix(folder)
    assert matrix_path is not None
    matrix = TenxMatrix.open(matrix_path)
    barcodes = [barcode.decode("ascii", "replace") for barcode in matrix.barcodes]
    polygons = read_geojson(_geojson(folder, "cell"))
    polygon = _polygon_of_cell(barcodes, polygons, matrix_path)
    slide = open_image(image, path, channels)
    factors, factors_path = space_ranger.read_scale_factors(folder / "spatial")
    sources = _scales(factors, factors_path, slide, um_per_px)
    scale = next(iter(sources.values()))
    area_px2, centroid_xy_px = polygons.area_px2_and_centroid()
    notes = [f"cells of Space Ranger; {len(polygons) - len(barcodes)} polygons are not in {matrix_path.name}"]
    notes += polygons.notes
    return Section(
        name=name or section_name(folder.parent),
        technology="Visium HD",
        software=matrix.software,
        observation="cell",
        observation_um=None,
        obs=_observations(folder, barcodes, polygons, polygon, area_px2[polygon] * scale**2, scale, notes),
        centre_xy_px=centroid_xy_px[polygon],
        genes=matrix.genes,
        image=slide,
        um_per_px=scale,
        um_per_px_sources=sources,
        read_counts=matrix.read_counts,
        proteins=proteins_of(matrix),
        notes=[*notes, *matrix.notes, *slide.notes],
        reference=space_ranger.read_reference(folder / "spatial", factors),
    )


def _observations(
    folder: Path,
    barcodes: list[str],
    polygons: Polygons,
    polygon: np.ndarray,
    area_um2: np.ndarray,
    um_per_px: float,
    notes: list[str],
) -> pd.DataFrame:
    obs = pd.DataFrame({"area_um2": area_um2}, index=pd.Index(barcodes, name="cell_id"))
    nucleus_um2 = _nucleus_area_px2(folder, polygons, polygon) * um_per_px**2
    if np.isfinite(nucleus_um2).any():
        obs["nucleus_area_um2"] = nucleus_um2
    clusters = _clusters(folder, barcodes, polygons, polygon, notes)
    if clusters is not None:
        obs["cluster"] = clusters
    return obs


def _geojson(folder: Path, outline: str) -> Path:
    for name in (f"{outline}_segmentations.geojson", f"graphclust_annotated_{outline}_segmentations.geojson"):
        if (folder / name).is_file():
            return folder / name
    prefixed = sorted(folder.glob(f"*_{outline}_segmentations.geojson"))
    if prefixed:
        return prefixed[0]
    raise InputError(found=f"no {outline}_segmentations.geojson", where=str(folder), expected="Space Ranger's polygons")


def _number(text: str) -> int | None:
    """12 of "12", "cellid_000000012" and "cellid_000000012-1"."""
    match = _BARCODE.match(text)
    digits = match.group(1) if match else text
    return int(digits) if digits.isdigit() else None


def _polygon_of_cell(barcodes: list[str], polygons: Polygons, matrix_path: Path) -> np.ndarray:
    index = {_number(name): number for number, name in enumerate(polygons.ids)}
    numbers = [_number(barcode) for barcode in barcodes]
    missing = [code for code, number in zip(barcodes, numbers, strict=True) if number is None or number not in index]
    if missing:
        raise InputError(
            found=f"{len(missing)} of {len(barcodes)} cells without a polygon (e.g. {missing[0]})",
            where=str(matrix_path),
            expected="a polygon with cell_id 1 for cellid_000000001-1, and so on",
            repair="use matrix and GeoJSON of one run",
        )
    return np.array([index[number] for number in numbers], np.int64)


def _scales(factors: dict[str, float], path: Path, slide: SlideImage, um_per_px: float | None) -> dict[str, float]:
    """Every um/px found, the one to use first."""
    sources = {} if um_per_px is None else {"--image-um-per-px": um_per_px}
    if "microns_per_pixel" in factors:
        sources["scale factors: microns_per_pixel"] = factors["microns_per_pixel"]
    if slide.um_per_px is not None:
        sources["image metadata"] = slide.um_per_px
    if not sources:
        raise InputError(found="no microns_per_pixel", where=str(path), repair="give --image-um-per-px")
    return sources


def _nucleus_area_px2(folder: Path, cells: Polygons, polygon: np.ndarray) -> np.ndarray:
    """Area of each cell's nucleus, NaN for a cell without one or a folder without nuclei."""
    try:
        nuclei = read_geojson(_geojson(folder, "nucleus"))
    except InputError as error:
        if "no nucleus_segmentations" not in error.found:
            raise
        return np.full(len(polygon), np.nan)
    area = dict(zip(map(_number, nuclei.ids), nuclei.area_px2_and_centroid()[0], strict=True))
    return np.array([area.get(_number(cells.ids[index]), np.nan) for index in polygon])


def _clusters(
    folder: Path, barcodes: list[str], polygons: Polygons, polygon: np.ndarray, notes: list[str]
) -> list[str | None] | None:
    """Graph clusters from the table, else from the annotated polygons, else None."""
    clusters = space_ranger.clusters_of(folder, barcodes, notes)
    if clusters is not None:
        return clusters
    if not any(polygons.classes):
        annotated = folder / "graphclust_annotated_cell_segmentations.geojson"
        if not annotated.is_file():
            return None
        polygons = read_geojson(annotated)
        by_number = dict(zip(map(_number, polygons.ids), polygons.classes, strict=True))
        names = [by_number.get(_number(barcode)) for barcode in barcodes]
    else:
        names = [polygons.classes[index] for index in polygon]
    return [name.replace("-", " ") if name else None for name in names]
