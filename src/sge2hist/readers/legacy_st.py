"""Legacy Spatial Transcriptomics: counts tsv, spot selection tsv, H&E.

```
folder/                     (all sections in it, or one folder per type of file; names repeat the section's id)
 A1.tsv[.gz]                counts: rows `XxY`, columns gene symbols or Ensembl ids
 A1_selection.tsv           x y new_x new_y pixel_x pixel_y selected   (joined on f"{x}x{y}")
 A1.jpg                     H&E
```
um per px comes from the pitch of the printed spots (200 um on the 1k array), never from the picture's dpi.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from sge2hist.data.errors import InputError, Problems
from sge2hist.data.section import Section
from sge2hist.data.slides.slide_image import SlideImage
from sge2hist.data.table.genes import unique_names
from sge2hist.readers.count_rows import grouped_rows
from sge2hist.readers.tables import as_float, read_delimited
from sge2hist.readers.tenx.visium import fit_array

SPOT_PITCH_UM = 200.0
SPOT_DIAMETER_UM = 100.0
SELECTION_SUFFIX = "_selection.tsv"
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".tif", ".tiff", ".png", ".btf", ".svs")


@dataclass(frozen=True, kw_only=True)
class LegacyFiles:
    """The files of one section."""

    name: str
    counts: Path
    selection: Path
    image: Path | None


def find_sections(folder: str | Path) -> list[LegacyFiles]:
    """Every section in a folder (searched with its sub-folders), sorted by name.

    Raises
    ------
    InputError
        If a spot selection has no counts of the same name, or there is none at all.
    """
    folder = Path(folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    by_name = {path.name: path for path in files}
    problems = Problems()
    sections = []
    for selection in (path for path in files if path.name.endswith(SELECTION_SUFFIX)):
        name = selection.name.removesuffix(SELECTION_SUFFIX)
        counts = by_name.get(f"{name}.tsv.gz") or by_name.get(f"{name}.tsv")
        if counts is None:
            problems.add(found=f"spots of section {name} without counts", where=str(folder), expected=f"{name}.tsv.gz")
            continue
        images = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES and _names_section(path, name)]
        sections.append(LegacyFiles(name=name, counts=counts, selection=selection, image=images[0] if images else None))
    if not sections:
        problems.add(found="no spot selection", where=str(folder), expected=f"files *{SELECTION_SUFFIX}")
    problems.raise_if_any()
    return sections


def _names_section(image: Path, name: str) -> bool:
    return image.stem == name or image.parent.name == name


def read_all(
    folder: str | Path,
    *,
    sections: Sequence[str] | None = None,
    image: str | Path | None = None,
    um_per_px: float | None = None,
    spot_pitch_um: float = SPOT_PITCH_UM,
) -> list[Section]:
    """Read the sections named (all of them when None).

    Parameters
    ----------
    image
        The H&E, where it does not lie beside the counts; only with a single section.
    um_per_px
        Overrides the scale found from the pitch.
    spot_pitch_um
        Distance of neighbouring spots of the array.
    """
    found = find_sections(folder)
    if sections is not None:
        unknown = sorted(set(sections) - {files.name for files in found})
        if unknown:
            raise InputError(
                found=f"no section {', '.join(unknown)}",
                where=str(folder),
                expected=f"one of {', '.join(files.name for files in found)}",
            )
        found = [files for files in found if files.name in set(sections)]
    if image is not None and len(found) > 1:
        raise InputError(
            found=f"one --image for {len(found)} sections ({', '.join(files.name for files in found)})",
            where=str(folder),
            expected="an image named after each section, or one section chosen",
            repair="name the images like the sections and omit --image",
        )
    return [read(files, image=image, um_per_px=um_per_px, spot_pitch_um=spot_pitch_um) for files in found]


def read(
    files: LegacyFiles,
    *,
    image: str | Path | None = None,
    um_per_px: float | None = None,
    spot_pitch_um: float = SPOT_PITCH_UM,
) -> Section:
    """Read one section; spots that lack counts or a position are excluded and reported in the notes."""
    image_path = Path(image) if image is not None else files.image
    if image_path is None:
        raise InputError(
            found="no H&E image",
            where=files.name,
            expected=f"{files.name}.jpg beside the counts",
            repair="give --image",
        )
    slide = SlideImage.open(image_path)
    counts = _read_counts(files.counts)
    spots = _read_selection(files.selection)
    shared = [spot for spot in counts.index if spot in spots.index]
    notes = []
    if len(shared) < max(len(counts), len(spots)):
        only_counts, only_spots = len(counts) - len(shared), len(spots) - len(shared)
        notes.append(f"excluded: {only_counts} spots with counts but no position, {only_spots} the other way round")
    if not shared:
        raise InputError(
            found=f"no spot in common: {', '.join(map(str, counts.index[:3]))} against {', '.join(spots.index[:3])}",
            where=str(files.counts),
            expected="rows named XxY as x and y of the spot selection",
        )
    spots = spots.loc[shared]
    array_xy = spots[["new_x", "new_y"] if "new_x" in spots else ["x", "y"]].to_numpy(np.float64)
    centre_xy_px = spots[["pixel_x", "pixel_y"]].to_numpy(np.float64)
    fit = fit_array(array_xy * spot_pitch_um, centre_xy_px, pitch_um=spot_pitch_um, where=str(files.selection))
    sources = {f"spot pitch of {spot_pitch_um:g} um": fit.um_per_px}
    if slide.um_per_px is not None:
        sources["image metadata"] = slide.um_per_px
    if um_per_px is not None:
        sources["--image-um-per-px"] = um_per_px
    notes.append(f"spots lie {fit.rms_um:.1f} um off their array (root mean square)")
    matrix = csr_array(counts.loc[shared].to_numpy())
    gene_ids = unique_names([str(gene) for gene in counts.columns])
    return Section(
        name=files.name,
        technology="Spatial Transcriptomics",
        software="",
        observation="spot",
        observation_um=SPOT_DIAMETER_UM,
        obs=pd.DataFrame(
            {"array_row": spots["y"].to_numpy(), "array_col": spots["x"].to_numpy()},
            index=pd.Index(shared, name="barcode"),
        ),
        centre_xy_px=centre_xy_px,
        genes=pd.DataFrame({"symbol": list(map(str, counts.columns))}, index=pd.Index(gene_ids, name="gene_id")),
        image=slide,
        um_per_px=um_per_px if um_per_px is not None else fit.um_per_px,
        um_per_px_sources=sources,
        read_counts=grouped_rows(matrix),
        notes=notes + slide.notes,
    )


def _read_counts(path: Path) -> pd.DataFrame:
    table = read_delimited(path, separator="\t", index_col=0)
    table.index = table.index.astype(str)
    if not table.index.is_unique:
        raise InputError(found=f"spot {table.index[table.index.duplicated()][0]} twice", where=str(path))
    named = [bool(re.fullmatch(r"\d+x\d+", spot)) for spot in table.index]
    if not len(named) or not all(named):
        wrong = table.index[named.index(False)] if named else "no row at all"
        raise InputError(found=f"row {wrong!r}", where=str(path), expected="spots named XxY, e.g. 10x21")
    values = table.to_numpy()
    if values.dtype.kind not in "iuf" or not np.isfinite(values).all() or (values < 0).any() or (values % 1).any():
        raise InputError(
            found="values that are not counts", where=str(path), expected="whole numbers >= 0, tab-separated"
        )
    return table.astype(np.int32)


def _read_selection(path: Path) -> pd.DataFrame:
    table = read_delimited(path, separator="\t")
    missing = [name for name in ("x", "y", "pixel_x", "pixel_y") if name not in table.columns]
    if missing:
        raise InputError(
            found=f"a table without {', '.join(missing)}", where=str(path), expected="x, y, pixel_x, pixel_y, selected"
        )
    for name in [column for column in ("x", "y", "pixel_x", "pixel_y", "new_x", "new_y") if column in table]:
        table[name] = as_float(table[name].to_numpy(), name, path)
        if not np.isfinite(table[name]).all():
            raise InputError(found=f"an empty or infinite {name}", where=str(path), expected="numbers")
    if "selected" in table.columns:
        table = table[table["selected"] == 1]
    table = table.assign(x=table["x"].round().astype(np.int64), y=table["y"].round().astype(np.int64))
    table.index = pd.Index([f"{x}x{y}" for x, y in zip(table["x"], table["y"], strict=True)])
    if not table.index.is_unique:
        raise InputError(found=f"spot {table.index[table.index.duplicated()][0]} twice", where=str(path))
    return table
