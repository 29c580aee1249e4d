"""CosMx (NanoString, Bruker): cells of one slide from the flat files that AtoMx exports, on the pictures of the run.

Tables: `cosmx_tables`; where the fields of view lie: `cosmx_fovs`; pictures: `cosmx_images`. Without `Morphology2D` any image
of the same section can be given, and a map that puts the cells on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from sge2hist.data.errors import InputError
from sge2hist.data.section import Section
from sge2hist.data.slides.channels import Channels
from sge2hist.data.slides.slide_image import SlideImage
from sge2hist.readers.dense_counts import DenseCounts
from sge2hist.readers.nanostring.cosmx_fovs import FovFrame, MosaicFrame, fit_frame, mosaic_frame
from sge2hist.readers.nanostring.cosmx_images import choose_frame, find_folder, open_fovs
from sge2hist.readers.nanostring.cosmx_tables import (
    CosmxCells,
    FovPositions,
    is_control,
    keys_of,
    read_cells,
    read_fov_positions,
    read_polygons,
)
from sge2hist.readers.nanostring.flat_files import CELLS, COUNTS, FOV_POSITIONS, POLYGONS, flat_files

UM_PER_PX, LEGACY_UM_PER_PX = 0.120280945, 0.18  # of the instrument, and of the prototype of the first public data
LEGACY_WIDTH_PX = 4400  # FOVs of the prototype are wider (5,472 px), those of the instrument narrower (4,256 px)


def read(
    folder: str | Path,
    *,
    image: str | Path | None = None,
    um_per_px: float | None = None,
    channels: Channels | None = None,
    section: str | None = None,
) -> Section:
    """Read one slide with its pictures, or with an image that was made apart from the run.

    Parameters
    ----------
    image
        An H&E (or, with `channels`, fluorescence) of the same section: positions stay in px of the slide until a map puts them
        on it (`Section.needs_map`). None: the pictures of the run, which are fluorescence, put together.
    um_per_px
        Overrides the scale of the instrument's pictures.
    channels
        Stains of those pictures, or `channels.ALL`; required for them.
    section
        Which of several slides in the folder.

    Raises
    ------
    InputError
        If a file is missing or damaged, several slides are there and none is chosen, or positions contradict each other.
    """
    files = _choose_slide(Path(folder), section)
    cells = read_cells(files.cells)
    counts = DenseCounts.open(
        files.counts,
        id_columns=("fov", "cell_ID", "cellID", "cell", "cell_id"),
        is_control=is_control,
        n_ids=1,
    )
    positions = read_fov_positions(files.positions) if files.positions is not None else None
    scale, sources = _scale(cells, positions, um_per_px)
    placed = _place(Path(folder), files, cells, positions, image, channels)
    if placed.slide.um_per_px is not None:
        sources["image metadata"] = placed.slide.um_per_px
    outline_px = None
    if files.polygons is not None and placed.frame is not None:
        vertices = read_polygons(files.polygons, cells)
        n_vertices = vertices.shape[1]
        moved = placed.frame.place(np.repeat(cells.fov, n_vertices), vertices.reshape(-1, 2)).reshape(vertices.shape)
        outline_px = (moved - placed.centre_xy_px[:, None]).astype(np.float32)
    return Section(
        name=files.slide,
        technology="CosMx",
        software="",
        observation="cell",
        observation_um=None,
        obs=cells.obs,
        centre_xy_px=placed.centre_xy_px,
        outline_px=outline_px,
        genes=counts.genes,
        image=placed.slide,
        um_per_px=scale,
        um_per_px_sources=sources,
        read_counts=counts.reader(
            lambda ids: cells.key.get_indexer(pd.Index(keys_of(ids, files.counts))), len(cells.obs)
        ),
        notes=[*placed.notes, *counts.notes, *placed.slide.notes],
        needs_map=None if image is None else "px of the slide",
    )


@dataclass(frozen=True, kw_only=True)
class SlideFiles:
    """The flat files of one slide."""

    slide: str
    counts: Path
    cells: Path
    positions: Path | None
    polygons: Path | None


def _choose_slide(folder: Path, section: str | None) -> SlideFiles:
    by_ending = {ending: flat_files(folder, ending) for ending in (COUNTS, CELLS, FOV_POSITIONS, POLYGONS)}
    slides = sorted(by_ending[COUNTS])
    if section is None and len(slides) > 1:
        raise InputError(
            found=f"{len(slides)} slides ({', '.join(slides[:8])})",
            where=str(folder),
            expected="one",
            repair=f"--section {slides[0]}",
        )
    if not slides or (section is not None and section not in slides):
        raise InputError(
            found=f"--section {section}" if slides else f"no *{COUNTS}",
            where=str(folder),
            expected=f"one of {', '.join(slides)}" if slides else "the flat files that AtoMx exports",
        )
    slide = section or slides[0]
    if slide not in by_ending[CELLS]:
        raise InputError(
            found=f"no {slide}{CELLS}", where=str(by_ending[COUNTS][slide].parent), expected="the table of its cells"
        )
    return SlideFiles(
        slide=slide,
        counts=by_ending[COUNTS][slide],
        cells=by_ending[CELLS][slide],
        positions=by_ending[FOV_POSITIONS].get(slide),
        polygons=by_ending[POLYGONS].get(slide),
    )


def _scale(
    cells: CosmxCells, positions: FovPositions | None, um_per_px: float | None
) -> tuple[float, dict[str, float]]:
    """Um per px to use, and every source of it."""
    sources = {} if um_per_px is None else {"--image-um-per-px": um_per_px}
    if positions is not None and positions.um_per_px is not None:
        sources["FOV positions in mm and px"] = positions.um_per_px
    if cells.um_per_px is not None:
        sources["Area.um2 and Area"] = cells.um_per_px
    if not sources:
        width = 0.0 if cells.local_xy_px is None or not len(cells.fov) else float(cells.local_xy_px.max())
        legacy = width > LEGACY_WIDTH_PX
        sources["the prototype's pictures" if legacy else "the instrument's pictures"] = (
            LEGACY_UM_PER_PX if legacy else UM_PER_PX
        )
    return next(iter(sources.values())), sources


@dataclass(frozen=True, kw_only=True)
class Placed:
    """The image, and the cells in their frame."""

    slide: SlideImage
    centre_xy_px: np.ndarray
    frame: MosaicFrame | None
    notes: list[str]


def _place(
    root: Path,
    files: SlideFiles,
    cells: CosmxCells,
    positions: FovPositions | None,
    image: str | Path | None,
    channels: Channels | None,
) -> Placed:
    frame = fit_frame(cells, positions, str(files.cells)) if cells.local_xy_px is not None else None
    if image is not None:
        return _beside(SlideImage.open(image, channels=channels), cells, frame)
    pictures = find_folder(root)
    if pictures is None or frame is None or cells.local_xy_px is None:
        what = "no folder Morphology2D" if frame is not None else "cells without CenterX_local_px, CenterY_local_px"
        raise InputError(
            found=what,
            where=str(root),
            expected="the pictures of the FOVs and the cells in them, or an image of the same section",
            repair="--image FILE with --alignment auto or FILE",
        )
    if channels is None:
        raise InputError(
            found="no H&E; the pictures of the run are fluorescence",
            where=str(pictures),
            expected="which stains to take, or an H&E",
            repair="--channels all, --image virtual-he, or --image HE.tif with --alignment auto or FILE",
        )
    images = open_fovs(pictures, channels)
    chosen, note = choose_frame(images, frame, cells.fov, cells.local_xy_px)
    unplaced = int((~np.isin(images.fov, chosen.fov)).sum())
    notes = [f"{len(images.fov)} FOVs put together by the positions of their cells", note, *frame.notes]
    if unplaced:
        notes.append(f"{unplaced} pictures of FOVs without cells or position are not used")
    return Placed(
        slide=images.mosaic(chosen),
        centre_xy_px=chosen.place(cells.fov, cells.local_xy_px),
        frame=chosen,
        notes=notes,
    )


def _beside(slide: SlideImage, cells: CosmxCells, frame: FovFrame | None) -> Placed:
    """Cells on the slide, y downwards, for a map to an image that is no picture of the run."""
    notes = ["positions are in px of the slide until a map is applied"]
    if frame is not None and cells.local_xy_px is not None and len(cells.fov):
        height = int(np.ceil(cells.local_xy_px[:, 1].max()))
        own = mosaic_frame(frame, height, rows_go_down=frame.rows_go_down)
        return Placed(slide=slide, centre_xy_px=own.place(cells.fov, cells.local_xy_px), frame=own, notes=notes)
    y_down = cells.global_xy_px * [1, -1]
    return Placed(slide=slide, centre_xy_px=y_down - y_down.min(axis=0), frame=None, notes=notes)
