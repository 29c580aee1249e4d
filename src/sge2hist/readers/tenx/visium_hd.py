"""Visium HD binned outputs (Space Ranger >= 3.0): bins, or k x k blocks of them, as observations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sge2hist.data.errors import InputError
from sge2hist.data.section import Section
from sge2hist.data.slides.channels import Channels
from sge2hist.data.slides.slide_image import SlideImage
from sge2hist.readers.count_rows import row_totals
from sge2hist.readers.tenx import space_ranger, visium_hd_grid
from sge2hist.readers.tenx.proteins import proteins_of
from sge2hist.readers.tenx.tenx_matrix import TenxMatrix
from sge2hist.readers.tenx.visium_hd_folder import choose_square, find_matrix, find_squares
from sge2hist.readers.tenx.visium_hd_positions import BinPositions, read_bin_positions

if TYPE_CHECKING:
    from scipy.sparse import csr_array

MANY_BARCODES = 1_000_000


def read(
    path: str | Path,
    *,
    image: str | Path | None,
    bin_um: int | None = None,
    name: str | None = None,
    channels: Channels | None = None,
) -> Section:
    """Read one section.

    Parameters
    ----------
    path
        ``outs/``, its parent, ``binned_outputs/`` or one ``square_*um/``.
    image
        The microscope H&E given to Space Ranger (it is never copied into outs/).
    bin_um
        Side of a bin in um: any multiple of a bin size that is there; 16 when not given.
    name
        Slide id; the name of the run folder when not given.
    channels
        See `open_sections`.

    Raises
    ------
    InputError
        If a file is missing or damaged, files disagree, or no image is given.
    """
    side_um, k, square = choose_square(find_squares(path), bin_um)
    native_um = side_um // k
    matrix_path, filtered = find_matrix(square)
    factors, _ = space_ranger.read_scale_factors(square / "spatial")
    positions = read_bin_positions(square, native_um, filtered=filtered)
    slide = open_image(image, path, channels)
    matrix = TenxMatrix.open(matrix_path)
    obs, centre_xy_px, group = _observations(matrix, positions.grid, native_um, side_um, filtered=filtered)
    notes = [*matrix.notes, *slide.notes, *positions.notes, *positions.differences()]
    if not filtered:
        notes.append("raw matrix read: bins outside the tissue excluded by in_tissue")
    if k > 1:
        notes.append(f"{side_um} um bins summed from {k} x {k} bins of {native_um} um")
    elif (clusters := space_ranger.clusters_of(square, obs.index, notes)) is not None:
        obs["cluster"] = clusters
    sources = _um_per_px_sources(factors, positions, slide)
    reader = _Reader(matrix.without_names(), group, len(obs))
    return Section(
        name=name or section_name(path),
        technology="Visium HD",
        software=matrix.software,
        observation="bin",
        observation_um=float(side_um),
        obs=obs,
        centre_xy_px=centre_xy_px,
        genes=matrix.genes,
        image=slide,
        um_per_px=next(iter(sources.values())),
        um_per_px_sources=sources,
        read_counts=reader,
        read_totals=reader.totals,
        proteins=proteins_of(matrix.without_names(), lambda one: _Reader(one, group, len(obs))),
        notes=notes,
        reference=space_ranger.read_reference(square / "spatial", factors),
    )


def open_image(image: str | Path | None, path: str | Path, channels: Channels | None = None) -> SlideImage:
    """Open the microscope image; `InputError` when none is given."""
    if image is None:
        raise InputError(
            found="no microscope image",
            where=str(path),
            expected="the H&E that was given to Space Ranger (it is never copied into outs/)",
            repair="--image he.tif",
        )
    return SlideImage.open(image, channels=channels)


def section_name(path: str | Path) -> str:
    """Name of the run: the first folder name upwards that is not one of Space Ranger's own."""
    path = Path(path).resolve()
    own = ("outs", "binned_outputs")
    while path.name and (path.name in own or path.name.startswith("square_")):
        path = path.parent
    return path.name or "section"


def _um_per_px_sources(factors: dict[str, float], positions: BinPositions, slide: SlideImage) -> dict[str, float]:
    """Every statement of um/px, the instrument's first: that one is used."""
    sources = {}
    if "microns_per_pixel" in factors:
        sources["scale factors: microns_per_pixel"] = factors["microns_per_pixel"]
    if "bin_size_um" in factors and "spot_diameter_fullres" in factors:
        sources["scale factors: bin_size_um / spot_diameter_fullres"] = (
            factors["bin_size_um"] / factors["spot_diameter_fullres"]
        )
    sources |= positions.um_per_px_sources()
    if slide.um_per_px is not None:
        sources["image metadata"] = slide.um_per_px
    return sources


def _observations(
    matrix: TenxMatrix, grid: visium_hd_grid.GridPositions, native_um: int, side_um: int, *, filtered: bool
) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Table, positions and, for each barcode of the matrix, its observation (-1 = dropped)."""
    row, column = visium_hd_grid.parse_barcodes(matrix.barcodes, str(matrix.path), native_um)
    position = visium_hd_grid.position_of_bins(grid, row, column, matrix.path.name)
    kept = np.ones(len(position), bool) if filtered else grid.in_tissue[position]
    if not kept.any():
        raise InputError(found="no bin in tissue", where=str(grid.path))
    k = side_um // native_um
    group = np.full(matrix.n_obs, -1, np.int64)
    if k == 1:
        group[kept] = np.arange(int(kept.sum()))
        table = {"array_row": row[kept], "array_col": column[kept]}
        names, centre_xy_px = _text_index(matrix.barcodes[kept]), grid.centre_xy_px[position[kept]]
    else:
        blocks = visium_hd_grid.blocks_of(grid, row[kept], column[kept], k)
        group[kept] = blocks.block_of_bin
        table = {"array_row": blocks.row, "array_col": blocks.column, "n_native_bins": blocks.n_bins}
        pairs = zip(blocks.row.tolist(), blocks.column.tolist(), strict=True)
        names = pd.Index([f"s_{side_um:03d}um_{r:05d}_{c:05d}-1" for r, c in pairs])
        centre_xy_px = blocks.centre_xy_px
    return pd.DataFrame(table, index=names.rename("cell_id")), centre_xy_px, group


def _text_index(barcodes: np.ndarray) -> pd.Index:
    """Barcodes (bytes [N]) as an index of text; millions of them in one Arrow buffer, an eighth of Python's strings."""
    if len(barcodes) < MANY_BARCODES:
        return pd.Index(barcodes.astype(str))
    import pyarrow as pa

    side = barcodes.dtype.itemsize
    offsets = np.arange(len(barcodes) + 1, dtype=np.int64) * side
    text = pa.LargeStringArray.from_buffers(len(barcodes), pa.py_buffer(offsets), pa.py_buffer(barcodes.tobytes()))
    return pd.Index(pd.array(text, dtype="string[pyarrow]"))


class _Reader:
    """`Section.read_counts`: composes the grouping of bins into observations with the caller's grouping."""

    def __init__(self, matrix: TenxMatrix, observation_of_bin: np.ndarray, n_obs: int) -> None:
        self._matrix = matrix
        self._observation_of_bin = observation_of_bin
        self._n_obs = n_obs
        one_to_one = n_obs == matrix.n_obs and bool((observation_of_bin == np.arange(n_obs)).all())
        self._is_identity = one_to_one

    def totals(self) -> np.ndarray:
        """UMI of each observation: int64 [N]."""
        of_bin, total = self._observation_of_bin, row_totals(self._matrix)
        if self._is_identity:
            return total
        kept = of_bin >= 0
        return np.bincount(of_bin[kept], total[kept], self._n_obs).astype(np.int64)

    def __call__(self, group_of_obs: np.ndarray | None = None, n_groups: int | None = None) -> csr_array:
        if group_of_obs is None:
            if self._is_identity:
                return self._matrix.read_counts()
            return self._matrix.read_counts(self._observation_of_bin, self._n_obs)
        group_of_obs = np.asarray(group_of_obs, np.int64)
        if self._is_identity:
            return self._matrix.read_counts(group_of_obs, n_groups)
        padded = np.append(group_of_obs, -1)  # index -1 stays -1
        n_groups = int(group_of_obs.max(initial=-1)) + 1 if n_groups is None else n_groups
        return self._matrix.read_counts(padded[self._observation_of_bin], n_groups)
