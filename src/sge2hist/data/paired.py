"""The paired dataset on disk: cells with raw counts, their positions on one or more slides, types and split."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from sge2hist.data.artifacts import read_manifest
from sge2hist.data.counts_file import read_csr_rows
from sge2hist.data.errors import InputError, as_path, refuse_wrong_arguments
from sge2hist.data.gene_panel import GenePanel
from sge2hist.data.slides.channels import RGB, Channels, composite, describe_channels
from sge2hist.data.slides.slide_image import SlideImage
from sge2hist.data.slides.stain_scale import LINEAR
from sge2hist.data.table.proteins import PROTEIN_KEY, ProteinTable
from sge2hist.data.virtual_he import MANIFEST_KEY, MARK

if TYPE_CHECKING:
    import anndata
    import pandas as pd
    from scipy.sparse import csr_array

KIND = "paired"
CELLS_NAME = "cells.h5ad"
OUTLINES_KEY = "outline_um"  # of obsm: vertices of each cell, [N, 2 V], x and y in turn
UNKNOWN = "unknown"
THUMBNAIL_PX = 240
SPLITS = ("train", "val", "test")
CENTRE, PLACED = "centre", "placed"
"""Values of obs["role"]: cells that models learn from and are evaluated on; those that are only there, around them."""
DROPPED = "dropped"  # kept out of every split so that patches of two splits never overlap


class Item(TypedDict):
    """One cell as training code of the published method expects it."""

    image: np.ndarray  # uint8 [P, P, C]
    gene: np.ndarray  # float32 [G] raw counts
    type: int  # index into `PairedDataset.types`, -1 = unknown


class PairedDataset:
    """A folder ``X.paired/`` opened for reading.

    Attributes
    ----------
    path, manifest
        The folder and its manifest.
    obs
        DataFrame by cell id: cell_type, split, slide, n_counts, n_genes, ...
    is_centre
        bool [N]: cells that passed the filters. The others are placed: they condition the images around them, but no model
        learns their expression and no patch is centred on them. All True in datasets without the column role.
    genes
        The `GenePanel` of the columns of the counts.
    centre_xy_px
        float64 [N, 2], x and y in px of the cell's stored slide.
    outline_um
        float32 [N, V, 2], vertices (x, y) of each cell's outline in um from its centre, NaN where unknown; None: of no cell.
    channels
        Names of the C channels of the slides; red, green and blue of an H&E.
    donors
        Donor of each slide, "" where none was stated.
    slides, slide_ids, slide_of_cell
        The slides, their ids, and int64 [N] telling which one each cell lies on.
    types, type_of_cell
        Names, and int64 [N] index into them (-1 = unknown).

    Example
    -------
    .. code-block:: python

        data = PairedDataset.open("brain.paired")
        data[0]["image"].shape  # (64, 64, 3)
    """

    def __init__(
        self, path: Path, manifest: dict[str, Any], obs: pd.DataFrame, var: pd.DataFrame, obsm: dict[str, np.ndarray]
    ) -> None:
        self.path = path
        self.manifest = manifest
        self.obs = obs
        self.centre_xy_px = np.asarray(obsm["spatial"], np.float64)
        outlines = obsm.get(OUTLINES_KEY)
        self.outline_um = None if outlines is None else outlines.reshape(len(outlines), -1, 2).astype(np.float32)
        self.genes = GenePanel(list(var.index), list(var["symbol"]))
        self.um_per_px = float(manifest["um_per_px"])
        self.patch_um = float(manifest["patch_um"])
        self.patch_px = int(manifest["patch_px"])
        self.channels: Channels = tuple(manifest.get("channels") or RGB)
        self.fingerprint = str(manifest["fingerprint"])
        self.slide_ids = [str(slide["id"]) for slide in manifest["slides"]]
        self.donors = [str(slide.get("donor", "")) for slide in manifest["slides"]]
        position = {slide_id: number for number, slide_id in enumerate(self.slide_ids)}
        self.slide_of_cell = np.array([position[str(slide)] for slide in obs["slide"]], np.int64)
        self.types = [str(name) for name in obs["cell_type"].cat.categories if name != UNKNOWN]
        code = {name: number for number, name in enumerate(self.types)}
        per_category = np.array([code.get(str(name), -1) for name in obs["cell_type"].cat.categories], np.int64)
        self.type_of_cell = per_category[obs["cell_type"].cat.codes.to_numpy()]
        self._split = obs["split"].astype(str).to_numpy()
        role = obs["role"].astype(str).to_numpy() if "role" in obs else np.full(len(obs), CENTRE)
        self.is_centre = role != PLACED
        self._counts: csr_array | None = None

    @classmethod
    def open(cls, path: str | Path) -> PairedDataset:
        """Open a paired dataset; only the tables are read, counts and pixels are read on demand.

        Raises
        ------
        InputError
            If the folder is missing, of another kind or version, or one of its files is missing or damaged.
        """
        path = as_path(path, "path")
        manifest = read_manifest(path, KIND)
        for file in (CELLS_NAME, *(slide["file"] for slide in manifest.get("slides", []))):
            if not (path / file).is_file():
                raise InputError(found=f"no {file}", where=str(path), repair="prepare the dataset again")
        obs, var, obsm = _read_tables(path / CELLS_NAME)
        try:
            return cls(path, manifest, obs, var, obsm)
        except (KeyError, AttributeError, TypeError, ValueError) as error:
            raise InputError(
                found=f"an incomplete paired dataset ({error!r})", where=str(path), repair="prepare the dataset again"
            ) from error

    def __len__(self) -> int:
        return len(self.obs)

    def __repr__(self) -> str:
        toy = (", toy tissue" if self.is_toy else "") + self._look
        return (
            f"PairedDataset({str(self.path)!r}, {len(self):,} cells{self._placed_note} x {len(self.genes):,} genes, "
            f"{len(self.slide_ids)} slide(s), {len(self.types)} types{toy})"
        )

    @property
    def _placed_note(self) -> str:
        n_placed = int((~self.is_centre).sum())
        return f" ({n_placed:,} of them placed only)" if n_placed else ""

    def _split_sizes(self) -> dict[str, int]:
        """Number of centre cells of each split."""
        return {name: int(((self._split == name) & self.is_centre).sum()) for name in (*SPLITS, DROPPED)}

    @property
    def _look(self) -> str:
        return f", {MARK}" if self.is_virtual_he else ""

    def _repr_html_(self) -> str:
        """Facts and a thumbnail of the first slide, for notebooks."""
        from sge2hist.display import html_facts, png_bytes

        facts = [
            ("cells", f"{len(self):,}{self._placed_note}" + (" of toy tissue" if self.is_toy else "")),
            ("genes", f"{len(self.genes):,}"),
            ("slides", ", ".join(self.slide_ids)),
            ("patch", f"{self.patch_um:g} um, {self.patch_px} px"),
            ("resolution", f"{self.um_per_px:.4g} um/px, {describe_channels(self.channels)}{self._look}"),
            ("split", ", ".join(f"{name} {n:,}" for name, n in self._split_sizes().items())),
            ("types", ", ".join(self.types) or "none"),
        ]
        thumbnail, _ = self.slides[0].thumbnail(THUMBNAIL_PX)
        return html_facts(str(self.path), facts, png_bytes(composite(thumbnail, self.channels)))

    def __getitem__(self, i: int) -> Item:
        """One cell: its patch at the default size, its raw counts and its type."""
        if not -len(self) <= i < len(self):
            raise IndexError(i)
        i = int(i) % len(self)
        gene = self.counts(np.array([i])).toarray()[0].astype(np.float32)
        return {"image": self.patch(i), "gene": gene, "type": int(self.type_of_cell[i])}

    @cached_property
    def slides(self) -> list[SlideImage]:
        """The stored slides, opened lazily, in the order of `slide_ids`."""
        slides = [
            SlideImage.open(self.path / slide["file"], channels=self.channels) for slide in self.manifest["slides"]
        ]
        for slide in slides:
            slide.transform = self.stain_transform
        return slides

    @property
    def is_virtual_he(self) -> bool:
        """Whether its H&E is computed from fluorescence (`data.virtual_he`)."""
        return bool(self.manifest.get(MANIFEST_KEY))

    @property
    def stain_transform(self) -> str:
        """How levels of fluorescence relate to light: "sqrt" or "linear" (also of an H&E)."""
        return str(self.manifest["slides"][0].get("stain_transform", LINEAR))

    @property
    def is_toy(self) -> bool:
        """Whether the tissue was made by this program."""
        return bool(self.manifest.get("toy", False))

    @refuse_wrong_arguments("split")
    def rows(self, split: str = "all") -> np.ndarray:
        """int64 indices of the centre cells of a split ("train", "val", "test") or of "all" of them."""
        if split == "all":
            return np.flatnonzero(self.is_centre)
        if split not in SPLITS:
            raise InputError(found=f"split {split!r}", expected=f"one of {', '.join(SPLITS)}, all")
        rows = np.flatnonzero((self._split == split) & self.is_centre)
        if len(rows) == 0:
            counts = ", ".join(f"{name} {n}" for name, n in self._split_sizes().items())
            raise InputError(
                found=f"no cell in split {split!r} ({counts})",
                where=str(self.path),
                repair="use --split all, or prepare with other --fractions, a smaller --block-um or another --seed",
            )
        return rows

    @cached_property
    def protein(self) -> pd.DataFrame | None:
        """Proteins measured beside the genes, float32 [N, P] by cell id and name; None where none were.

        Counts (UMI) of antibodies, or mean intensities: ``manifest["protein"]["unit"]``. NaN where the slide lacks the protein.
        """
        import h5py
        from anndata.io import read_elem

        if PROTEIN_KEY not in self.manifest:
            return None
        with h5py.File(self.path / CELLS_NAME, "r") as file:
            return read_elem(file["obsm"][PROTEIN_KEY])

    @cached_property
    def proteins(self) -> ProteinTable | None:
        """`protein` as models read it; None where none were measured."""
        unit = str(self.manifest.get(PROTEIN_KEY, {}).get("unit", ""))
        return ProteinTable.of_obsm(self.protein, unit, str(self.path))

    def counts(self, rows: np.ndarray) -> csr_array:
        """Raw counts of some cells, CSR [len(rows), G]; read from the file unless they are in memory already."""
        rows = row_numbers(rows, len(self), may_be_empty=True)
        if self._counts is not None:
            return self._counts[rows]
        return read_csr_rows(self.path / CELLS_NAME, rows)

    def counts_in_memory(self) -> csr_array:
        """All raw counts, CSR [N, G]; kept, so that later `counts` calls are fast."""
        if self._counts is None:
            self._counts = read_csr_rows(self.path / CELLS_NAME)
        return self._counts

    @refuse_wrong_arguments("i", "side_um", "out_px")
    def patch(self, i: int, *, side_um: float | None = None, out_px: int | None = None) -> np.ndarray:
        """The patch centred on a cell: uint8 [P, P, C]; side and size default to those of the manifest."""
        if not -len(self) <= i < len(self):
            raise InputError(found=f"cell {i}", where=str(self.path), expected=f"0 to {len(self) - 1}")
        _check_sides(side_um, out_px)
        slide = self.slides[self.slide_of_cell[i]]
        side_um = self.patch_um if side_um is None else side_um
        return slide.read_patch(self.centre_xy_px[i], side_um, out_px or self.patch_px, self.um_per_px)

    @refuse_wrong_arguments("side_um", "out_px")
    def patches(self, rows: np.ndarray, *, side_um: float | None = None, out_px: int | None = None) -> np.ndarray:
        """Patches of several cells: uint8 [n, P, P, C]."""
        rows = row_numbers(rows, len(self), may_be_empty=True)
        _check_sides(side_um, out_px)
        size = self.patch_px if out_px is None else out_px
        out = np.empty((len(rows), size, size, len(self.channels)), np.uint8)
        for position, row in enumerate(rows):
            out[position] = self.patch(int(row), side_um=side_um, out_px=size)
        return out

    def adata(self) -> anndata.AnnData:
        """The cells as an AnnData in memory (raw counts in X, x and y px in ``obsm["spatial"]``)."""
        import anndata

        return anndata.read_h5ad(self.path / CELLS_NAME)


def _check_sides(side_um: float | None, out_px: int | None) -> None:
    for name, value in (("side_um", side_um), ("out_px", out_px)):
        if value is not None and not value > 0:
            raise InputError(found=f"{name} = {value}", expected="above 0")


def _read_tables(path: Path) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, np.ndarray]]:
    import h5py
    from anndata.io import read_elem

    try:
        with h5py.File(path, "r") as file:
            positions = {name: file["obsm"][name][:] for name in ("spatial", OUTLINES_KEY) if name in file["obsm"]}
            return read_elem(file["obs"]), read_elem(file["var"]), positions
    except Exception as error:  # anndata wraps whatever h5py met in its own error types
        raise InputError(
            found=f"a file that cannot be read ({type(error).__name__}: {error})",
            where=str(path),
            expected="the cells.h5ad of a paired dataset",
            repair="prepare the dataset again",
        ) from error


def row_numbers(rows: Sequence[int] | np.ndarray, n_cells: int, *, may_be_empty: bool = False) -> np.ndarray:
    """Row numbers, int64, from numbers or a mask; raises `InputError` for what is no row."""
    expected = f"a list of row numbers from 0 to {n_cells - 1}" + (", at least one" if not may_be_empty else "")
    try:
        given = np.asarray(rows)
    except ValueError as error:
        raise InputError(found=f"rows that are no list of numbers ({error})", expected=expected) from error
    if given.dtype == bool and given.shape == (n_cells,):
        given = np.flatnonzero(given)
    if given.ndim != 1 or (len(given) == 0 and not may_be_empty):
        raise InputError(found=f"rows of shape {given.shape}", expected=expected)
    if len(given) and (given.dtype.kind not in "iu" or given.min() < 0 or given.max() >= n_cells):
        raise InputError(found=f"rows of type {given.dtype}, or beyond the cells", expected=expected)
    return given.astype(np.int64)
