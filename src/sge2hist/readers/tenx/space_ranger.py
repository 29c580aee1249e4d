"""Small files that Space Ranger writes beside the counts: scale factors, previews of the image, clusters."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sge2hist.data.artifacts import read_json
from sge2hist.data.errors import InputError
from sge2hist.data.section import ImageReference
from sge2hist.readers.tenx.visium_hd_folder import one_file

PREVIEWS = (("tissue_hires_image.png", "tissue_hires_scalef"), ("tissue_lowres_image.png", "tissue_lowres_scalef"))
CYTASSIST = "cytassist_image.tiff"
CLUSTERS = "analysis/clustering/gene_expression_graphclust/clusters.csv"


def is_before_shift_fix(software: str) -> bool:
    """Whether Visium HD was processed by Space Ranger before 3.1.2.

    Users report that with images of some CytAssist firmware it places counts 16 um from the image, which 3.1.2 corrects
    (discussion of nf-core/spatialvi, November 2024; the vendor's own note was not at hand).

    >>> [is_before_shift_fix(name) for name in ("spaceranger-3.0.1", "Space Ranger 3.1.1", "3.1.2", "4.0.1", "", "other 1.0")]
    [True, True, False, False, False, False]
    """
    found = re.match(r"\s*(?:space[ _-]?ranger[ _-]*)?v?(\d+)\.(\d+)(?:\.(\d+))?", software, re.IGNORECASE)
    return found is not None and tuple(int(part or 0) for part in found.groups()) < (3, 1, 2)


def read_scale_factors(spatial: Path) -> tuple[dict[str, float], Path]:
    """The numbers of ``scalefactors_json.json`` and where it is.

    Raises
    ------
    InputError
        If it is missing, no JSON object, or a value is no positive finite number (zero stands for "none" and is
        ignored).
    """
    path = _packed_or_not(spatial, "scalefactors_json.json")
    if path is None:
        raise InputError(
            found="no scalefactors_json.json",
            where=str(spatial),
            expected="Space Ranger's spatial/ folder",
            repair="copy it from the same outs/ folder",
        )
    return scale_factors_in(path), path


def scale_factors_in(path: Path) -> dict[str, float]:
    """The numbers of one file; see `read_scale_factors`."""
    factors = {}
    for name, value in read_json(path, expected="Space Ranger's scale factors").items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if not math.isfinite(value) or value < 0:
            raise InputError(found=f"{name} = {value}", where=str(path), expected="a positive number")
        if value > 0:
            factors[str(name)] = float(value)
    return factors


def _packed_or_not(folder: Path, name: str) -> Path | None:
    if not folder.is_dir():
        return None
    return one_file(folder, name) or one_file(folder, f"{name}.gz")


def read_reference(spatial: Path, factors: dict[str, float]) -> ImageReference | None:
    """Size of the image that the positions refer to, from the largest preview that is there, or None."""
    names = (*(name for name, _ in PREVIEWS), CYTASSIST)
    pictures = {name: path for name in names if (path := _packed_or_not(spatial, name)) is not None}
    return reference_of(pictures, factors)


def reference_of(pictures: dict[str, Path], factors: dict[str, float]) -> ImageReference | None:
    """The same, of pictures by the name that Space Ranger gives them."""
    previews, size_px, source = {}, None, ""
    for name, factor_name in PREVIEWS:
        if name not in pictures or factor_name not in factors:
            continue
        width, height = picture_size(pictures[name])
        previews[name] = (width, height)
        if size_px is None:
            size_px, source = (width / factors[factor_name], height / factors[factor_name]), name
    if size_px is None:
        return None
    return ImageReference(
        size_px=size_px,
        source=source,
        preview_sizes_px=previews,
        cytassist_size_px=picture_size(pictures[CYTASSIST]) if CYTASSIST in pictures else None,
    )


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height of a picture, from its header; a gzipped one is read without unpacking it on disk."""
    import gzip

    import tifffile
    from PIL import Image

    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
            stream: Any = file
            if path.name.lower().removesuffix(".gz").endswith((".tif", ".tiff")):
                with tifffile.TiffFile(stream) as tiff:
                    page: Any = tiff.pages[0]
                    return int(page.imagewidth), int(page.imagelength)
            with Image.open(stream) as picture:
                return picture.size
    except Exception as error:  # both libraries raise types of their own on damaged files
        raise InputError(
            found=f"a picture that cannot be read ({error})", where=str(path), repair="copy it again, or remove it"
        ) from error


def read_clusters(folder: Path) -> dict[str, str]:
    """Space Ranger's graph clusters, barcode -> "Cluster k"; empty when there are none.

    Raises
    ------
    InputError
        If the table is damaged: no rows, a row cut short, or a cluster that is no number.
    """
    path = folder / CLUSTERS
    if not path.is_file():
        return {}
    try:
        text = path.read_text(encoding="utf-8-sig")  # a spreadsheet saves a byte order mark
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
        if not rows:
            raise _damaged_clusters(path, "a table without rows")
        table = {row["Barcode"]: row["Cluster"] for row in rows}
    except (OSError, KeyError, UnicodeDecodeError, csv.Error) as error:
        raise _damaged_clusters(path, f"a table that cannot be read ({error!r})") from error
    wrong = [number for number in table.values() if number is None or not number.strip().isdecimal()]
    if wrong or len(table) != len(rows):
        what = f"cluster {wrong[0]!r}" if wrong else f"{len(rows) - len(table)} barcodes listed twice"
        raise _damaged_clusters(path, what)
    return {barcode: f"Cluster {number.strip()}" for barcode, number in table.items()}


def clusters_of(folder: Path, barcodes: Iterable[str], notes: list[str]) -> list[str | None] | None:
    """Cluster of each barcode (None = not in the table), or None without a table; `notes` gets the number without one.

    Raises
    ------
    InputError
        If the table is damaged or has no barcode in common with `barcodes`.
    """
    table = read_clusters(folder)
    if not table:
        return None
    barcodes = list(barcodes)
    clusters = [table.get(barcode) for barcode in barcodes]
    n_without = clusters.count(None)
    path = folder / CLUSTERS
    if n_without == len(clusters):
        raise _damaged_clusters(path, f"no barcode of the matrix, but {next(iter(table))!r}")
    if n_without and not path.read_bytes().endswith(b"\n"):
        raise _damaged_clusters(path, f"a table that ends within a line, and {n_without:,} barcodes not in it")
    if n_without:
        notes.append(f"{n_without:,} of {len(clusters):,} barcodes are in no cluster of Space Ranger")
    return clusters


def _damaged_clusters(path: Path, found: str) -> InputError:
    return InputError(
        found=found,
        where=str(path),
        expected="columns Barcode,Cluster with a row for each barcode",
        repair="copy it again from the same outs/, or remove it (its clusters are then not offered)",
    )
