"""Visium HD binned outputs (Space Ranger >= 3.0): bins, or k x k blocks of them, as observations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sge2hist.data.errors import InputError
from sge2hist.data.section import Section
from sge2hist.data.slide_image import SlideImage
from sge2hist.readers import space_ranger, visium_hd_grid
from sge2hist.readers.tenx_matrix import TenxMatrix
from sge2hist.readers.visium_hd_folder import choose_square, find_matrix, find_squares, one_file

if TYPE_CHECKING:
    from scipy.sparse import csr_array

MANY_BARCODES = 1_000_000


def read(path: str | Path, *, image: str | Path | None, bin_um: int | None = None, name: str | None = None) -> Section:
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

    Raises
    ------
    InputError
        If a file is missing or damaged, files disagree, or no image is given.
    """
    side_um, k, square = choose_square(find_squares(path), bin_um)
    native_um = side_um // k
    matrix_path, filtered = find_matrix(square)
    factors, _ = space_ranger.read_scale_factors(square / "spatial")
    positions_path = one_file(square / "spatial", "tissue_positions.parquet")
    if positions_path is None:
        raise InputError(
            found="no tissue_positions.parquet", where=str(square / "spatial"), repair="copy it from the same outs/"
        )
    slide = open_image(image, path)
    matrix = TenxMatrix.open(matrix_path)
    grid = visium_hd_grid.read_positions(positions_path)
    row, column = visium_hd_grid.parse_barcodes(matrix.barcodes, str(matrix_path), native_um)
    position = visium_hd_grid.position_of_bins(grid, row, column, matrix_path.name)
    kept = np.ones(len(position), bool) if filtered else grid.in_tissue[position]
    if not kept.any():
        raise InputError(found="no bin in tissue", where=str(positions_path))
    notes = [*matrix.notes, *slide.notes]
    if not filtered:
        notes.append("raw matrix read: bins outside the tissue left out by in_tissue")
    sources = _um_per_px_sources(factors, grid, native_um, slide)
    obs, centre_xy_px, group = _observations(matrix, grid, row, column, position, kept, k, side_um)
    if k == 1:
        clusters = space_ranger.read_clusters(square)
        if clusters:
            obs["cluster"] = [clusters.get(barcode) for barcode in obs.index]
    else:
        notes.append(f"{side_um} um bins summed from {k} x {k} bins of {native_um} um")
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
        read_counts=_Reader(matrix.without_names(), group, len(obs)),
        notes=notes,
        reference=space_ranger.read_reference(square / "spatial", factors),
    )


def open_image(image: str | Path | None, path: str | Path) -> SlideImage:
    """Open the microscope image, or say that it has to be given."""
    if image is None:
        raise InputError(
            found="no microscope image",
            where=str(path),
            expected="the H&E that was given to Space Ranger (it is never copied into outs/)",
            repair="--image he.tif",
        )
    return SlideImage.open(image)


def section_name(path: str | Path) -> str:
    """Name of the run: the first folder name upwards that is not one of Space Ranger's own."""
    path = Path(path).resolve()
    own = ("outs", "binned_outputs")
    while path.name and (path.name in own or path.name.startswith("square_")):
        path = path.parent
    return path.name or "section"


def _um_per_px_sources(
    factors: dict[str, float], grid: visium_hd_grid.GridPositions, native_um: int, slide: SlideImage
) -> dict[str, float]:
    """Every statement of um/px, the instrument's first: that one is used."""
    sources = {}
    if "microns_per_pixel" in factors:
        sources["scale factors: microns_per_pixel"] = factors["microns_per_pixel"]
    if "bin_size_um" in factors and "spot_diameter_fullres" in factors:
        sources["scale factors: bin_size_um / spot_diameter_fullres"] = (
            factors["bin_size_um"] / factors["spot_diameter_fullres"]
        )
    sources["positions: bin pitch"] = grid.um_per_px(native_um)
    if slide.um_per_px is not None:
        sources["image metadata"] = slide.um_per_px
    return sources


def _observations(
    matrix: TenxMatrix,
    grid: visium_hd_grid.GridPositions,
    row: np.ndarray,
    column: np.ndarray,
    position: np.ndarray,
    kept: np.ndarray,
    k: int,
    side_um: int,
) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Table, positions and, for each barcode of the matrix, its observation (-1 = dropped)."""
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
