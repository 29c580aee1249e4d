"""The cells of a slide after edits: which are kept, where they lie, what their counts are, and which are added.

Polygons, ids and types of the edits refer to the cells of the data, before any edit: the order of the edits matters only where
two set the same thing, and then the later one holds (factors of one gene multiply).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.generation.encode import row_of_cell
from sge2hist.generation.footprints import donors_of_type, lent_outlines
from sge2hist.generation.slide.edits import (
    Edit,
    check_gene,
    lattice_positions,
    scaled_counts,
    set_counts,
)
from sge2hist.generation.slide.source import SlideSource
from sge2hist.models.bundle import ModelBundle

if TYPE_CHECKING:
    from scipy.sparse import csr_array


class EditedSource:
    """The N cells of a source with edits, which keep their numbers, and the cells that edits add.

    Attributes
    ----------
    source, edits
        What it is made of.
    rows
        Of each edit, the numbers of the cells of the data that it covers, int64, rising; of an edit that only adds cells none.
    xy_um_N2
        Positions after moves.
    kept_N
        bool, false where removed.
    added
        Number of each edit that adds cells, and their positions [n, 2] in um.

    Raises
    ------
    InputError
        If an edit names an unknown cell, or a type where the source has none.
    """

    def __init__(self, source: SlideSource, edits: Sequence[Edit] = ()) -> None:
        self.source, self.edits = source, tuple(edits)
        self.rows = [covered_cells(source, edit, number) for number, edit in enumerate(self.edits)]
        self.xy_um_N2, self.kept_N = source.xy_um_N2, np.ones(len(source.xy_um_N2), bool)
        for edit, rows in zip(self.edits, self.rows, strict=True):
            if edit.remove:
                self.kept_N[rows] = False
            if edit.move_um is not None:
                if self.xy_um_N2 is source.xy_um_N2:
                    self.xy_um_N2 = source.xy_um_N2.copy()
                self.xy_um_N2[rows] = source.xy_um_N2[rows] + edit.move_um
        self.added = [(n, lattice_positions(edit)) for n, edit in enumerate(self.edits) if edit.add_type is not None]

    @cached_property
    def _gene_edits(self) -> list[tuple[Edit, list[int], np.ndarray]]:
        """Edits of genes, with the columns of the gene and the cells."""
        genes = self.source.genes
        return [
            (edit, genes.columns_called(edit.gene), rows)
            for edit, rows in zip(self.edits, self.rows, strict=True)
            if edit.gene is not None
        ]

    def read_counts(self, numbers: np.ndarray) -> csr_array:
        """Counts of rising cell numbers, CSR [n, G], float32 where genes are edited."""
        counts = self.source.read_counts(numbers)
        for edit, columns, rows in self._gene_edits:
            inside = np.isin(numbers, rows)
            counts = counts.astype(np.float32)
            if edit.counts is not None:
                counts = set_counts(counts, columns, edit.counts, inside)
            else:
                counts = scaled_counts(counts, columns, edit.factor, inside)
        return counts

    def set_types(self, bundle: ModelBundle, numbers: np.ndarray, z_NZ: np.ndarray) -> None:
        """Set z1 of the cells whose type is edited to the mean of the type, in place; z2, the microenvironment, stays.

        Likewise z1 of the cells of a layout, whose type is given.
        """
        if self.source.z1_NT is not None:
            z_NZ[:, : bundle.config.gene.n_type] = self.source.z1_NT[numbers]
        for edit, rows in zip(self.edits, self.rows, strict=True):
            if edit.set_type is not None:
                z_NZ[np.isin(numbers, rows), : bundle.config.gene.n_type] = type_mean(bundle, edit.set_type)

    def set_type_names(self, bundle: ModelBundle, numbers: np.ndarray, name_N: np.ndarray) -> None:
        """Replace the names of types that are edited, in place."""
        for edit, rows in zip(self.edits, self.rows, strict=True):
            if edit.set_type is not None:
                name_N[np.isin(numbers, rows)] = bundle.canonical_type_name(edit.set_type)

    def added_outlines(self, number: int, xy_um_M2: np.ndarray) -> np.ndarray:
        """Outlines [M, V, 2] from the centres of cells that edit `number` adds at these positions, of a source with outlines."""
        outlines = self.source.outline_um_NV2
        assert outlines is not None
        return lent_outlines(outlines, self._donors[number], xy_um_M2)

    @cached_property
    def _donors(self) -> dict[int, np.ndarray]:
        """Of each edit that adds cells, the cells of the data whose outlines they may have."""
        outlines, types = self.source.outline_um_NV2, self.source.type_N
        assert outlines is not None
        return {n: donors_of_type(outlines, types, str(self.edits[n].add_type)) for n, _ in self.added}

    def is_edited(self, numbers: np.ndarray) -> np.ndarray:
        """bool [n]: cells that an edit changes."""
        rows = [r for e, r in zip(self.edits, self.rows, strict=True) if e.set_type or e.gene or e.move_um or e.remove]
        return np.isin(numbers, np.concatenate(rows)) if rows else np.zeros(len(numbers), bool)

    def check(self, bundle: ModelBundle) -> None:
        """Raise `InputError` for an edit without effect: an unknown type, a gene that the model or the cells lack, a scope
        without cells, or a polygon too small for added cells.
        """
        added, xy = dict(self.added), self.source.xy_um_N2
        for number, (edit, rows) in enumerate(zip(self.edits, self.rows, strict=True)):
            if edit.add_type is not None and len(added[number]) == 0:
                raise InputError(
                    found=f"edit {number}: no room in the polygon for cells {edit.spacing_um:g} um apart",
                    expected="a larger polygon, or a smaller spacing_um",
                )
            for name in (edit.set_type, edit.add_type):
                if name is not None:
                    bundle.components_of(name)
            if edit.gene is not None:
                check_gene(edit.gene, bundle, self.source.genes)
            if len(rows) == 0 and not _only_adds(edit):
                of_type = "" if edit.of_type is None else f" of type {edit.of_type!r}"
                area = "" if edit.area is None else f" in a polygon ({_bounds(*edit.area.bounds)})"
                raise InputError(
                    found=f"edit {number}: no cell lies in it: none{of_type}{area}",
                    expected=f"one that meets the cells ({_bounds(*xy.min(0), *xy.max(0))})",
                    repair="coordinates are px of the paired dataset's slide.ome.tif, or um for an .h5ad",
                )


def covered_cells(source: SlideSource, edit: Edit, number: int = 0) -> np.ndarray:
    """Numbers of the cells of the data that an edit covers, int64, rising."""
    if _only_adds(edit):
        return np.zeros(0, np.int64)
    if edit.cells is not None:
        rows = np.unique([row_of_cell(source.ids, name, source.slide) for name in edit.cells])
    else:
        rows = np.flatnonzero(edit.covers(source.xy_um_N2))
    if edit.of_type is not None:
        if source.type_N is None:
            raise InputError(
                found=f"edit {number}: of_type {edit.of_type!r}, and cells without types",
                where=source.slide,
                expected="a column cell_type of obs",
            )
        wanted = edit.of_type.casefold()
        known = {str(name).casefold() for name in np.unique(source.type_N)}
        if wanted not in known:
            names = ", ".join(sorted(str(name) for name in np.unique(source.type_N)))
            raise InputError(found=f"edit {number}: no cells of type {edit.of_type!r}", expected=f"one of: {names}")
        rows = rows[[str(name).casefold() == wanted for name in source.type_N[rows]]]
    return rows.astype(np.int64)


def _only_adds(edit: Edit) -> bool:
    """Whether an edit changes no cell of the data."""
    return edit.add_type is not None and not edit.remove and edit.gene is None and edit.move_um is None


def _bounds(left: float, top: float, right: float, bottom: float) -> str:
    return f"x {left:.0f} to {right:.0f}, y {top:.0f} to {bottom:.0f} um"


def type_mean(bundle: ModelBundle, name: str) -> np.ndarray:
    """z1 float32 [n_type] at the mean of the component with most cells of a type."""
    components, weights = bundle.components_of(name)
    means_KT = bundle.model.gene.mixture.means_KT.detach().cpu().numpy()
    return means_KT[components[np.argmax(weights)]].astype(np.float32)
