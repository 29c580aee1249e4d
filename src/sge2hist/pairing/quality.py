"""Which cells are centre cells and which genes are kept, and how many each filter removed.

A cell that fails a filter stays *placed*: its nucleus is in the picture whatever its counts are. Only cells off the image are
gone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.data.section import Section
from sge2hist.pairing.alignment.tissue import TissueMap
from sge2hist.pairing.config import CentreFilters, PrepareConfig

if TYPE_CHECKING:
    from scipy.sparse import csr_array


NUCLEUS_AREA = "nucleus_area_um2"  # column of `Section.obs`, where outlines of nuclei are known
PASSES_QC = "passes_qc"  # column of `Section.obs`, bool: the vendor's own verdict on a cell, where there is one


class Removal(TypedDict):
    """One line of the table of filters."""

    filter: str
    removed: int
    left: int


@dataclass
class Filters:
    """A mask that filters narrow one after the other, each with its count."""

    what: str  # what is filtered: "cells", "genes"
    keep: np.ndarray  # bool [N]
    placed: np.ndarray = field(
        default_factory=lambda: np.zeros(0, bool)
    )  # bool [N]: cells that are on the image, whatever else they fail
    removals: list[Removal] = field(default_factory=list)

    def apply(self, name: str, passes: np.ndarray) -> None:
        """Keep what also passes this filter; `passes` is bool [N]."""
        before = int(self.keep.sum())
        self.keep = self.keep & passes
        left = int(self.keep.sum())
        self.removals.append({"filter": name, "removed": before - left, "left": left})

    def require_some(self, where: str) -> None:
        """Raise `InputError` with the whole table when nothing is left."""
        if not self.keep.any():
            table = "; ".join(f"{line['filter']}: {line['removed']:,} removed" for line in self.removals)
            raise InputError(
                found=f"no {self.what} left after the filters ({table})",
                where=where,
                expected="some that pass",
                repair="relax the filter that removes most (--min-counts, --min-genes, --min-tissue, ...)",
            )


def filter_by_position(section: Section, tissue: TissueMap, config: PrepareConfig) -> tuple[Filters, np.ndarray]:
    """Filters that need no counts: centre and patch inside the image, tissue in the patch, nucleus, the vendor's quality control.

    Returns
    -------
    The filters, and the tissue share of each patch (float [N]).
    """
    size = np.array([section.image.width_px, section.image.height_px])
    centre = section.centre_xy_px
    half_px = config.patch_um / section.um_per_px / 2
    filters = Filters("cells", np.ones(section.n_obs, bool))
    filters.apply("centre inside the image", np.all((centre >= 0) & (centre < size), axis=1))
    filters.placed = filters.keep
    if not config.keep_border:
        inside = np.all((centre - half_px >= -0.5) & (centre + half_px <= size + 0.5), axis=1)
        filters.apply(f"patch of {config.patch_um:g} um inside the image", inside)
    fraction = tissue.fraction(centre, config.patch_um)
    least = config.filters_of(section.observation).min_tissue_fraction
    filters.apply(f"tissue in at least {least:.0%} of the patch", fraction >= least)
    if NUCLEUS_AREA in section.obs.columns:
        low, high = config.nucleus_um2
        area_um2 = section.obs[NUCLEUS_AREA].to_numpy(np.float64)
        filters.apply(
            f"nucleus of {low:g} to {high:g} um2", ~((area_um2 < low) | (area_um2 > high))
        )  # an unknown area passes
    if PASSES_QC in section.obs.columns:
        filters.apply("quality control of the vendor", _passes_qc(section))
    filters.require_some(section.name)
    return filters, fraction


def _passes_qc(section: Section) -> np.ndarray:
    """The vendor's verdict, bool [N]; text is refused, since "False" would count as true."""
    column = section.obs[PASSES_QC]
    if column.dtype != bool:
        raise InputError(
            found=f"a column {PASSES_QC} of {column.dtype}",
            where=section.name,
            expected="true or false for every cell",
            repair="convert it to bool, or give it another name",
        )
    return column.to_numpy()


def filter_by_counts(
    n_counts: np.ndarray, n_genes: np.ndarray, filters: Filters, limits: CentreFilters, where: str
) -> None:
    """Filters on UMI and genes, given for the cells that `filters` still keeps."""
    rows = np.flatnonzero(filters.keep)
    for name, values, minimum in (("UMI", n_counts, limits.min_counts), ("genes", n_genes, limits.min_genes)):
        passes = np.zeros(len(filters.keep), bool)
        passes[rows] = values >= minimum
        filters.apply(f"at least {minimum} {name}", passes)
    filters.require_some(where)


def filter_genes(counts_NG: csr_array, config: PrepareConfig, is_centre_N: np.ndarray | None = None) -> Filters:
    """Genes with counts in enough of the centre cells (None: of all cells)."""
    counted = counts_NG.data > 0
    if is_centre_N is not None and not is_centre_N.all():
        counted &= np.repeat(is_centre_N, np.diff(counts_NG.indptr))
    n_cells = np.bincount(counts_NG.indices[counted], minlength=counts_NG.shape[1])
    filters = Filters("genes", np.ones(counts_NG.shape[1], bool))
    filters.apply(f"seen in at least {config.min_cells_per_gene} cells", n_cells >= config.min_cells_per_gene)
    filters.require_some("all sections")
    return filters


def counts_per_cell(counts_NG: csr_array) -> np.ndarray:
    """UMI of each cell, int64 [N]."""
    total = np.concatenate([[0], np.cumsum(counts_NG.data, dtype=np.int64)])
    return np.diff(total[counts_NG.indptr])
