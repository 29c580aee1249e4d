"""AnnData (h5ad) beside an H&E image: `obsm["spatial"]` holds x, y, in a frame that pairing finds out. Counts are streamed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from scipy.sparse import csr_array, hstack

from sge2hist.data.errors import InputError
from sge2hist.data.position_frame import FrameFacts, read_facts
from sge2hist.data.section import Section
from sge2hist.data.slides.channels import Channels
from sge2hist.data.slides.slide_image import SlideImage
from sge2hist.data.table.cell_table import Convert, converter, open_h5ad, whole_matrix
from sge2hist.data.table.counts import ExpressionTable, find_counts, read_element, read_table
from sge2hist.data.table.positions import POSITION_KEYS, position_key, read_positions
from sge2hist.data.table.stored_matrix import StoredMatrix
from sge2hist.data.table_sections import choose_section
from sge2hist.readers.count_rows import CountReader, regrouped, sum_pieces, sum_rows

REPAIR_SCALE = "give --image-um-per-px (side of one pixel of the H&E in um)"


def read(
    path: str | Path,
    *,
    image: str | Path | None = None,
    um_per_px: float | None = None,
    layer: str | None = None,
    name: str | None = None,
    observation: str = "cell",
    observation_um: float | None = None,
    channels: Channels | None = None,
    section: str | None = None,
    positions: str = "auto",
    rounding_seed: int | None = None,
) -> Section:
    """Read one section from an h5ad file and its H&E.

    Parameters
    ----------
    image
        The H&E; required. `obsm["spatial"]` holds x, y in its px, or in another frame (`pairing.alignment.frame`).
    um_per_px
        Scale of that image; needed when neither the file (`uns["spatial"]`, `uns["um_per_px"]`) nor the image does.
    layer
        Name of the layer with raw counts, "X" or "raw/X"; None: found (:func:`sge2hist.data.table.counts.find_counts`).
    channels
        See `open_sections`.
    section
        Name of one of several sections, in a column such as sample or library_id, or the ending of its barcodes.
    positions
        The frame that the user states: px means `obsm["spatial_fullres"]`, where there is one, another means `obsm["spatial"]`.
    rounding_seed
        Round counts with fractions at random by this seed; None: they are refused.

    Raises
    ------
    InputError
        If the image, positions, scale or raw counts are missing, the file holds several sections and none is chosen, or it is
        damaged.
    """
    path = Path(path)
    slide = _open_image(image, path, channels)
    with open_h5ad(path) as file:
        obs = read_table(file, "obs", str(path))
        table = ExpressionTable.of_group(file, len(obs), str(path))
        found = find_counts(table, layer, round_counts=rounding_seed is not None)
        genes, gene_notes = table.genes(found.location)
        key = position_key(file.get("obsm", ()), positions, str(path))
        positions_N2 = read_positions(read_element(file["obsm"], key, str(path)), key, str(path))
        facts, libraries = _stated_frames(file, section, obs.index)
        rows = choose_section(obs, positions_N2, libraries, section, str(path))
        sources = _scales(file, slide, um_per_px)
        convert = converter(table, found, obs.index, genes, rounding_seed)
    if not sources:
        raise InputError(
            found="no um per px, neither in the file nor in the image", where=str(path), repair=REPAIR_SCALE
        )
    read_counts = _reopening_reader(path, found.location, convert)
    notes = [f"raw counts taken from {found.location} ({found.contents.text})", *found.notes, *gene_notes, *slide.notes]
    if rounding_seed is not None:
        notes.insert(1, f"counts with fractions rounded at random, seed {rounding_seed}")
    if key not in POSITION_KEYS:
        notes.append(f"positions taken from obsm[{key!r}], in px of the full-resolution image by its name")
    if rows is not None:
        observation_of_row = np.full(len(obs), -1, np.int64)
        observation_of_row[rows] = np.arange(len(rows))
        read_counts = regrouped(read_counts, observation_of_row, len(rows))
        notes.append(f"section {section}: {len(rows):,} of {len(obs):,} rows")
        obs, positions_N2 = obs.iloc[rows].copy(), positions_N2[rows]
    obs = obs.drop(columns="cell_id", errors="ignore")  # the name of the index from here on
    obs.index = pd.Index([str(name) for name in obs.index], name="cell_id")
    return Section(
        name=name or (path.stem if rows is None else f"{path.stem}_{section}"),
        technology="AnnData",
        software="",
        observation=observation,
        observation_um=observation_um,
        obs=obs,
        centre_xy_px=positions_N2,
        genes=genes,
        image=slide,
        um_per_px=next(iter(sources.values())),
        um_per_px_sources=sources,
        read_counts=read_counts,
        notes=notes,
        frame_facts=facts,
    )


def _open_image(image: str | Path | None, path: Path, channels: Channels | None) -> SlideImage:
    if image is None:
        raise InputError(
            found="no H&E image",
            where=str(path),
            expected="the image that obsm['spatial'] is in px of",
            repair="give --image",
        )
    return SlideImage.open(image, channels=channels)


def _stated_frames(file: Any, section: str | None, names: pd.Index) -> tuple[FrameFacts, list[str]]:
    """What `uns` states about the frames of the positions, and its libraries; of one library if `section` names it."""
    uns = file.get("uns", {})
    spatial: Any = uns.get("spatial") if "spatial" in uns else None
    libraries = [str(name) for name in spatial] if hasattr(spatial, "keys") else []
    if section in libraries:
        return read_facts({"spatial": {section: spatial[section]}}, names), libraries
    return read_facts(uns, names), libraries


def _scales(file: Any, slide: SlideImage, um_per_px: float | None) -> dict[str, float]:
    """Every um/px found, the one to use first: the user's, the file's, the image's."""
    sources = {} if um_per_px is None else {"--image-um-per-px": um_per_px}
    uns = file.get("uns", {})
    stated = {"uns['um_per_px']": uns["um_per_px"]} if "um_per_px" in uns else {}
    if "spatial" in uns and hasattr(uns["spatial"], "keys"):
        for library in uns["spatial"]:
            factors = uns["spatial"][library].get("scalefactors") if hasattr(uns["spatial"][library], "get") else None
            if factors is not None and "microns_per_pixel" in factors:
                stated[f"uns['spatial'][{library!r}] microns_per_pixel"] = factors["microns_per_pixel"]
    sources |= {name: float(np.asarray(value[()])) for name, value in stated.items()}
    if slide.um_per_px is not None:
        sources["image metadata"] = slide.um_per_px
    return {name: value for name, value in sources.items() if np.isfinite(value) and value > 0}


def _reopening_reader(path: Path, location: str, convert: Convert) -> CountReader:
    """The file is opened for each reading, so that a section can be copied and sent to other processes."""

    def read_counts(group_of_obs: np.ndarray | None = None, n_groups: int | None = None) -> Any:
        with open_h5ad(path) as file:
            matrix = StoredMatrix(file[location], f"{path}: {location}")
            return count_reader(matrix, convert)(group_of_obs, n_groups)

    return read_counts


def count_reader(matrix: StoredMatrix, convert: Convert) -> CountReader:
    """Reader of int32 counts as `Section.read_counts` defines it; beside the result one piece of the matrix is in memory."""

    def read_counts(group_of_obs: np.ndarray | None = None, n_groups: int | None = None) -> csr_array:
        if group_of_obs is None:
            return whole_matrix(matrix, convert)
        n_groups = int(group_of_obs.max(initial=-1)) + 1 if n_groups is None else n_groups
        if matrix.layout == "csc":
            return _summed_columns(matrix, convert, group_of_obs, n_groups)
        converted = ((start, convert(piece, start, 0)) for start, piece in matrix.pieces())
        pieces = ((group_of_obs[start : start + counts.shape[0]], counts) for start, counts in converted)
        return sum_pieces(pieces, n_groups, matrix.shape[1])

    return read_counts


def _summed_columns(matrix: StoredMatrix, convert: Convert, group_of_obs: np.ndarray, n_groups: int) -> csr_array:
    parts = [sum_rows(convert(piece, 0, start), group_of_obs, n_groups) for start, piece in matrix.pieces()]
    if not parts:
        return cast("csr_array", csr_array((n_groups, 0), dtype=np.int32))
    return cast("csr_array", hstack(parts, format="csr"))
