"""Stereo-seq (SAW 7 and later): cells or square bins of a ``.gef``, on an image registered to the chip.

Files: see `gef_files`, `gef_cells`, `gef_bins`. One px of a registered image is one DNB (0.5 um) of the matrix, counted from its
offset. Tables that the vendor writes as ``.h5ad`` are read as AnnData.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sge2hist.data.errors import InputError
from sge2hist.data.section import Section
from sge2hist.data.slides.channels import Channels
from sge2hist.data.slides.slide_image import SlideImage
from sge2hist.readers.stomics.gef_bins import GefBins
from sge2hist.readers.stomics.gef_cells import GefCells
from sge2hist.readers.stomics.gef_files import (
    ORDER_OF_BINS,
    ORDER_OF_CELLS,
    choose_gef,
    find_gefs,
    find_registered,
    is_registered,
)

DEFAULT_BIN_UM = 10  # bin20
SIZE_TOLERANCE = 0.01


def read(
    path: str | Path,
    *,
    image: str | Path | None = None,
    bin_um: int | None = None,
    um_per_px: float | None = None,
    channels: Channels | None = None,
) -> Section:
    """Read the cells of a run, or square bins.

    Parameters
    ----------
    path
        The folder of the run, or one .gef.
    image
        A registered image (`*regist.tif`), found in the folder when None. Any other image of the same section: positions stay
        in DNB until a map puts them on it (`Section.needs_map`), unless it has the size of the matrix.
    bin_um
        Side of square bins; None: cells where the run has them, else 10 um.
    um_per_px
        Overrides the resolution that the file states.
    channels
        Stains of registered fluorescence (ssDNA, DAPI, ...), or `channels.ALL`; None: the H&E.

    Raises
    ------
    InputError
        If a file is missing or damaged, or bins of this size cannot be made.
    """
    path = Path(path)
    files = [path] if path.is_file() else find_gefs(path)
    cells = choose_gef(files, ORDER_OF_CELLS)
    bins = choose_gef(files, ORDER_OF_BINS)
    observed: dict[str, Any]
    chosen: GefCells | GefBins
    if cells is not None and bin_um is None:
        observed, chosen = _of_cells(cells)
    elif bins is not None:
        observed, chosen = _of_bins(bins, bin_um or DEFAULT_BIN_UM)
    else:
        raise InputError(
            found=", ".join(file.name for file in files) or "no .gef",
            where=str(path),
            expected="<SN>.cellbin.gef for cells, or <SN>.tissue.gef for square bins",
            repair="omit --bin-um" if cells is not None else "",
        )
    folder = path.parent if path.is_file() else path
    slide, is_own = _open_image(folder, image, channels, chosen.size_dnb)
    sources = {f"resolution of {chosen.path.name}": chosen.um_per_dnb}
    if um_per_px is not None:
        sources = {"--image-um-per-px": um_per_px, **sources}
    if slide.um_per_px is not None:
        sources["image metadata"] = slide.um_per_px
    return Section(
        name=chosen.path.name.split(".")[0],
        technology="Stereo-seq",
        software="",
        genes=chosen.genes,
        image=slide,
        um_per_px=next(iter(sources.values())) if is_own else chosen.um_per_dnb,
        um_per_px_sources=sources,
        read_counts=chosen.read_counts,
        notes=[f"counts by {chosen.path.name}", *chosen.notes, *slide.notes],
        needs_map=None if is_own else "DNB of the chip",
        **observed,
    )


def _of_cells(path: Path) -> tuple[dict[str, Any], GefCells]:
    cells = GefCells.open(path)
    return {
        "observation": "cell",
        "observation_um": None,
        "obs": cells.obs,
        "centre_xy_px": cells.xy_dnb,
        "outline_px": cells.outline_dnb,
    }, cells


def _of_bins(path: Path, bin_um: int) -> tuple[dict[str, Any], GefBins]:
    bins = GefBins.open(path, bin_um)
    row, column = bins.row_and_column()
    names = [f"bin{bins.side_dnb}_{x}_{y}" for x, y in zip(column.tolist(), row.tolist(), strict=True)]
    return {
        "observation": "bin",
        "observation_um": bins.side_dnb * bins.um_per_dnb,
        "obs": pd.DataFrame({"array_row": row, "array_col": column}, index=pd.Index(names, name="bin", dtype=object)),
        "centre_xy_px": (np.stack([column, row], 1) + 0.5) * bins.side_dnb,
    }, bins


def _open_image(
    folder: Path, image: str | Path | None, channels: Channels | None, size_dnb: tuple[int, int] | None
) -> tuple[SlideImage, bool]:
    """The image, and whether it is in px of the chip."""
    if image is not None:
        slide = SlideImage.open(image, channels=channels)
        return slide, is_registered(Path(image)) or (size_dnb is not None and _same_size(slide, size_dnb))
    found = find_registered(folder)
    stains = {name: path for name, path in found.items() if name != "HE"}
    if channels is not None and stains:
        return SlideImage.open_stains(stains, channels), True
    if channels is None and "HE" in found:
        return SlideImage.open(found["HE"]), True
    raise InputError(
        found=f"no registered H&E ({', '.join(path.name for path in found.values()) or 'no *regist.tif'})",
        where=str(folder),
        expected="<SN>_HE_regist.tif, or fluorescence with --channels",
        repair="--channels all" if stains else "--image FILE; with --alignment auto or FILE if it is not registered",
    )


def _same_size(slide: SlideImage, size_dnb: tuple[int, int]) -> bool:
    ratios = slide.width_px / size_dnb[0], slide.height_px / size_dnb[1]
    return all(abs(ratio - 1) <= SIZE_TOLERANCE for ratio in ratios)
