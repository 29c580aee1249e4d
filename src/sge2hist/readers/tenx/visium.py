"""Visium v1/v2 (Space Ranger 1 to 4): spots of 55 um on a hexagonal grid of 100 um.

```
outs/                                   (other places and names of these files: `visium_folder`)
 {filtered,raw}_feature_bc_matrix.h5
 spatial/tissue_positions_list.csv      Space Ranger < 2: no header
 spatial/tissue_positions.csv           Space Ranger >= 2: header
 spatial/scalefactors_json.json, tissue_{hires,lowres}_image.png
 analysis/clustering/gene_expression_graphclust/clusters.csv
```
Both position files have the columns barcode, in_tissue, array_row, array_col, pxl_row (= y), pxl_col (= x). um per px
comes from the pitch of the spots: the spot diameter in the scale factors is not that of a printed spot.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from sge2hist.data.errors import InputError
from sge2hist.data.section import Section
from sge2hist.data.slides.channels import Channels
from sge2hist.readers.count_rows import regrouped
from sge2hist.readers.tables import as_float, read_delimited
from sge2hist.readers.tenx import space_ranger
from sge2hist.readers.tenx.barcode_join import join_barcodes
from sge2hist.readers.tenx.mtx_matrix import MtxMatrix
from sge2hist.readers.tenx.proteins import proteins_of
from sge2hist.readers.tenx.tenx_matrix import TenxMatrix
from sge2hist.readers.tenx.visium_folder import VisiumFiles, find_visium
from sge2hist.readers.tenx.visium_hd import open_image, section_name

SPOT_PITCH_UM = 100.0
SPOT_DIAMETER_UM = 55.0
MAX_MISFIT_PITCHES = 0.5  # a file with rows mixed up misses by whole pitches; printed spots by a few percent
COLUMNS = ("barcode", "in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres")


def read(
    path: str | Path,
    *,
    image: str | Path | None,
    um_per_px: float | None = None,
    name: str | None = None,
    channels: Channels | None = None,
    section: str | None = None,
) -> Section:
    """Read one section.

    Parameters
    ----------
    path
        `outs/` or its parent, or a folder with the same files in one place; see `visium_folder`.
    image
        The full-resolution H&E given to Space Ranger.
    um_per_px
        Overrides the scale found from the spot pitch.
    channels
        See `open_sections`.
    section
        Which one of several samples in the folder, by its prefix.

    Raises
    ------
    InputError
        If a file is missing or damaged, files disagree, or no image is given.
    """
    files = find_visium(path, section)
    factors = space_ranger.scale_factors_in(files.scale_factors) if files.scale_factors else {}
    slide = open_image(image, path, channels)
    matrix = open_counts(files)
    spots, notes = _spots_of(matrix, read_positions(files.positions), files.positions)
    if files.scale_factors is None:
        notes.append("no scalefactors_json.json: the size of the image cannot be checked, look at alignment.png")
    kept = np.ones(len(spots), bool) if files.filtered else spots["in_tissue"].to_numpy() > 0
    if not kept.any():
        raise InputError(found="no spot in tissue", where=str(files.positions))
    n_off = int((spots["in_tissue"] == 0).sum())
    if files.filtered and n_off:
        notes.append(
            f"{n_off:,} of {len(spots):,} spots of the filtered matrix lie off the tissue: positions of another run?"
        )
    observation_of_row = np.where(kept, np.cumsum(kept) - 1, -1)
    spots = spots[kept]
    centre_xy_px = spots[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy(np.float64)
    sources, grid_notes = grid_scale(spots, centre_xy_px, files.positions)
    if slide.um_per_px is not None:
        sources["image metadata"] = slide.um_per_px
    if um_per_px is not None:
        sources["--image-um-per-px"] = um_per_px
    if not kept.all():
        notes.append(f"{(~kept).sum():,} spots outside the tissue excluded by in_tissue")
    obs = spots[["array_row", "array_col"]].copy()
    if (clusters := space_ranger.clusters_of(files.folder, obs.index, notes)) is not None:
        obs["cluster"] = clusters
    return Section(
        name=name or files.sample or section_name(path),
        technology="Visium",
        software=matrix.software,
        observation="spot",
        observation_um=SPOT_DIAMETER_UM,
        obs=obs,
        centre_xy_px=centre_xy_px,
        genes=matrix.genes,
        image=slide,
        um_per_px=um_per_px if um_per_px is not None else next(iter(sources.values())),
        um_per_px_sources=sources,
        read_counts=regrouped(matrix.read_counts, observation_of_row, len(spots)),
        proteins=proteins_of(matrix, lambda one: regrouped(one.read_counts, observation_of_row, len(spots))),
        notes=[*files.notes, *notes, *grid_notes, *matrix.notes, *slide.notes],
        reference=space_ranger.reference_of(files.pictures, factors),
    )


def open_counts(files: VisiumFiles) -> TenxMatrix | MtxMatrix:
    """The matrix of a run, from its .h5 or its three text files."""
    return TenxMatrix.open(files.counts[0]) if len(files.counts) == 1 else MtxMatrix.open(*files.counts)


def read_positions(path: Path) -> pd.DataFrame:
    """The six columns by name, with or without a header in the file; index: barcode."""
    first = read_delimited(path, separator=",", header=None, nrows=1, dtype=str)
    has_header = "in_tissue" in {str(value) for value in first.iloc[0]}
    table = read_delimited(path, separator=",", header=0 if has_header else None)
    if has_header:
        missing = [name for name in COLUMNS if name not in table.columns]
        if missing:
            raise InputError(found=f"no column {', '.join(missing)}", where=str(path), expected=", ".join(COLUMNS))
    elif table.shape[1] != len(COLUMNS):
        raise InputError(found=f"{table.shape[1]} columns", where=str(path), expected=", ".join(COLUMNS))
    else:
        table.columns = pd.Index(COLUMNS)
    numbers = {name: as_float(table[name].to_numpy(), name, path) for name in COLUMNS[1:]}
    if not all(np.isfinite(values).all() for values in numbers.values()):
        raise InputError(found="an empty or infinite entry", where=str(path), expected="numbers in every row")
    positions = pd.DataFrame(numbers, index=pd.Index(table["barcode"].astype(str), name="cell_id"))
    if not positions.index.is_unique:
        raise InputError(found=f"barcode {positions.index[positions.index.duplicated()][0]} twice", where=str(path))
    return positions.astype({"in_tissue": np.int64, "array_row": np.int64, "array_col": np.int64})


def _spots_of(matrix: TenxMatrix | MtxMatrix, positions: pd.DataFrame, path: Path) -> tuple[pd.DataFrame, list[str]]:
    """Positions in the order of the matrix (see `join_barcodes`), and notes."""
    barcodes = [barcode.decode("ascii", "replace") for barcode in matrix.barcodes]
    joined = join_barcodes(barcodes, positions.index.tolist())
    missing = np.flatnonzero(joined.row < 0)
    if len(missing):
        raise InputError(
            found=f"{len(missing)} of {len(barcodes)} barcodes without a position (e.g. {barcodes[missing[0]]}; "
            f"the positions have {positions.index[0]})",
            where=str(path),
            expected=f"the barcodes of {matrix.path.name}",
            repair="use matrix and positions of one run",
        )
    spots = positions.iloc[joined.row]
    return spots.set_axis(pd.Index(joined.names, name="cell_id")), [joined.note] if joined.note else []


def grid_scale(spots: pd.DataFrame, centre_xy_px: np.ndarray, path: Path) -> tuple[dict[str, float], list[str]]:
    """um/px from the hexagonal grid (columns half a pitch apart, rows sqrt(3)/2 of it) with its source, and notes."""
    array_xy_um = spots[["array_col", "array_row"]].to_numpy(np.float64) * SPOT_PITCH_UM / 2 * [1, np.sqrt(3)]
    fit = fit_array(array_xy_um, centre_xy_px, pitch_um=SPOT_PITCH_UM, where=str(path))
    notes = []
    if fit.mirrored:
        notes.append("the array is mirrored in the image: either the image was flipped, or x and y are swapped")
    return {f"spot pitch of {SPOT_PITCH_UM:g} um": fit.um_per_px}, notes


@dataclass(frozen=True, kw_only=True)
class ArrayFit:
    """The least-squares affine map from um on the array to px of the image."""

    um_per_px: float
    rms_um: float  # root mean square distance of the spots from the fitted array
    turn_degrees: float  # direction of the array's x axis in the image
    mirrored: bool
    anisotropy: float  # larger over smaller scale of the map; 1 for square pixels and an unstretched image


def fit_array(array_xy_um: np.ndarray, centre_xy_px: np.ndarray, *, pitch_um: float, where: str) -> ArrayFit:
    """Fit px = A (x, y) + b and take the scale from the determinant of A, which a turn or a mirror leaves alone.

    Parameters
    ----------
    array_xy_um, centre_xy_px
        float64 [N, 2].
    pitch_um
        Distance of neighbouring spots, for the check of the misfit.

    Raises
    ------
    InputError
        If fewer than three spots, all on one line, or positions that do not follow the array.
    """
    design = np.column_stack([array_xy_um, np.ones(len(array_xy_um))])
    if len(array_xy_um) < 3 or np.linalg.matrix_rank(design - design.mean(axis=0) * [1, 1, 0]) < 3:
        raise InputError(
            found=f"{len(array_xy_um)} spots, all on one line",
            where=where,
            expected="at least three spots off one line, to find um per px from their pitch",
            repair="give --image-um-per-px",
        )
    solution = np.linalg.lstsq(design, centre_xy_px, rcond=None)[0]
    linear = solution[:2].T
    scale = np.linalg.svd(linear, compute_uv=False)
    determinant = np.linalg.det(linear)
    if not np.isfinite(scale).all() or scale[1] <= 0 or determinant == 0:
        raise InputError(found="spot positions that do not spread over the image", where=where)
    um_per_px = float(1 / np.sqrt(abs(determinant)))
    rms_um = float(np.sqrt(((centre_xy_px - design @ solution) ** 2).sum(axis=1).mean()) * um_per_px)
    if rms_um > MAX_MISFIT_PITCHES * pitch_um:
        raise InputError(
            found=f"spot positions {rms_um:.0f} um away from their array on average",
            where=where,
            expected=f"px positions that follow the array indices (pitch {pitch_um:g} um)",
            repair="check that the positions and the array indices belong to the same rows",
        )
    return ArrayFit(
        um_per_px=um_per_px,
        rms_um=rms_um,
        turn_degrees=float(np.degrees(np.arctan2(linear[1, 0], linear[0, 0]))),
        mirrored=bool(determinant < 0),
        anisotropy=float(scale[0] / scale[1]),
    )
