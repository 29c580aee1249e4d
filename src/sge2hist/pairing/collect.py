"""Several sections -> one table of placed cells with counts over one gene list, of which those that pass are centre cells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.data.gene_panel import GenePanel
from sge2hist.data.paired import CENTRE, PLACED
from sge2hist.data.section import Section
from sge2hist.pairing.alignment.registration import Shift, estimate_shift
from sge2hist.pairing.alignment.tissue import TissueMap
from sge2hist.pairing.config import PrepareConfig
from sge2hist.pairing.quality import Removal, counts_per_cell, filter_by_counts, filter_by_position, filter_genes

if TYPE_CHECKING:
    import pandas as pd
    from scipy.sparse import csr_array

CHUNK_NONZEROS = 4_000_000  # values moved together when rows or columns are selected: bounds the memory
Progress = Callable[[str, int, int], None]  # stage, done, total


@dataclass(frozen=True, kw_only=True)
class SectionCells:
    """The cells of one section that lie on its image."""

    section: Section
    tissue: TissueMap
    rows: np.ndarray  # int64: observations on the image
    is_centre: np.ndarray  # bool [N]: they pass all filters
    n_counts: np.ndarray  # int64 [N]
    tissue_fraction: np.ndarray  # float [N]
    removals: list[Removal]
    protein_NP: np.ndarray | None  # float32 [N, P]; see `Section.proteins`
    shift: Shift | None  # measured on those that pass the filters by position, or on the bins that cells are made of

    @property
    def centre_rows(self) -> np.ndarray:
        """Observations that are centre cells."""
        return self.rows[self.is_centre]


@dataclass(frozen=True, kw_only=True)
class Cells:
    """All placed cells of all sections, N, over one list of genes, G."""

    counts_NG: csr_array
    genes: GenePanel
    obs: pd.DataFrame  # index: cell id, unique over the sections
    instrument_obs: pd.DataFrame  # the readers' tables, index: id as the instrument gave it
    centre_xy_px: np.ndarray  # of the section's image
    centre_xy_um: np.ndarray
    outline_um: np.ndarray | None  # float32 [N, V, 2] from the centre; see `Section.outline_px`
    protein: pd.DataFrame | None  # float32 [N, P], NaN where a section lacks a protein; index: cell id
    slide_of_cell: np.ndarray
    is_centre: np.ndarray  # bool [N]
    gene_removals: list[Removal]


def collect_section(section: Section, tissue: TissueMap, config: PrepareConfig) -> tuple[SectionCells, csr_array]:
    """Filter by position, read the counts of all cells on the image, filter by counts; returns the counts beside the rest.

    They are separate so that they can be freed when the sections are merged: nothing in memory is larger.
    """
    filters, fraction = filter_by_position(section, tissue, config)
    placed = np.flatnonzero(filters.placed)
    group = np.full(section.n_obs, -1, np.int64)
    group[placed] = np.arange(len(placed))
    counts = section.read_counts(group, len(placed))
    n_counts, n_genes = counts_per_cell(counts), np.diff(counts.indptr)
    candidate = filters.keep[placed]  # passes the filters by position
    shift = None
    if config.check_alignment:
        shift = _shift(section, tissue, placed[candidate], n_counts[candidate], config)
    limits = config.filters_of(section.observation)
    filter_by_counts(n_counts[candidate], n_genes[candidate], filters, limits, section.name)
    part = SectionCells(
        section=section,
        tissue=tissue,
        rows=placed,
        is_centre=filters.keep[placed],
        n_counts=n_counts,
        tissue_fraction=fraction[placed],
        removals=filters.removals,
        protein_NP=None if section.proteins is None else section.proteins.read(group, len(placed)),
        shift=shift,
    )
    return part, counts


def _shift(
    section: Section, tissue: TissueMap, candidates: np.ndarray, n_counts: np.ndarray, config: PrepareConfig
) -> Shift | None:
    """The shift of observations against the image; of the bins where cells are made of bins.

    Outlines lie on the image's nuclei by construction, so cells seem aligned whatever their counts are.
    """
    count_grid = section.count_grid
    if count_grid is None:
        return estimate_shift(tissue, section.centre_xy_px[candidates], n_counts)
    least = config.filters_of("bin").min_tissue_fraction
    on_tissue = tissue.fraction(count_grid.centre_xy_px, config.patch_um) >= least
    return estimate_shift(tissue, count_grid.centre_xy_px[on_tissue], count_grid.n_counts[on_tissue])


def merge_sections(parts: list[SectionCells], counts: list[csr_array], config: PrepareConfig) -> Cells:
    """Stack the sections over the union of their genes and drop genes with counts in too few cells.

    `counts` (one matrix per section) is emptied.

    Raises
    ------
    InputError
        If two sections share a name, or a section shares no gene with the first.
    """
    import pandas as pd

    names = [part.section.name for part in parts]
    if len(set(names)) != len(names):
        raise InputError(found=f"sections with the same name ({', '.join(names)})", expected="one name each")
    genes, stacked = _stack_counts(parts, counts)
    is_centre = np.concatenate([part.is_centre for part in parts])
    kept = filter_genes(stacked, config, is_centre)
    if not kept.keep.all():
        columns = np.flatnonzero(kept.keep)
        stacked = select_columns(stacked, kept.keep)
        genes = GenePanel([genes.ids[c] for c in columns], [genes.symbols[c] for c in columns])
    tables = [part.section.obs.iloc[part.rows] for part in parts]
    for part, table in zip(parts, tables, strict=True):
        if len(parts) > 1:
            table.index = pd.Index([f"{part.section.name}:{cell}" for cell in table.index], name="cell_id")
    slide_of_cell = np.concatenate([np.full(len(part.rows), i, np.int64) for i, part in enumerate(parts)])
    centre_xy_px = np.concatenate([part.section.centre_xy_px[part.rows] for part in parts])
    scale = np.array([part.section.um_per_px for part in parts])[slide_of_cell]
    obs = _describe_cells(pd.concat(tables), stacked, parts, slide_of_cell)
    instrument = pd.concat([part.section.obs.iloc[part.rows] for part in parts])
    return Cells(
        counts_NG=stacked,
        genes=genes,
        obs=obs,
        instrument_obs=instrument,
        centre_xy_px=centre_xy_px,
        centre_xy_um=centre_xy_px * scale[:, None],
        outline_um=_stack_outlines(parts),
        protein=_stack_proteins(parts, obs.index),
        slide_of_cell=slide_of_cell,
        is_centre=is_centre,
        gene_removals=kept.removals,
    )


def _stack_proteins(parts: list[SectionCells], cell_ids: pd.Index) -> pd.DataFrame | None:
    """Proteins of the kept cells of all sections, by name; NaN where a section lacks one.

    Raises
    ------
    InputError
        If one section counts molecules and another measures intensities.
    """
    import pandas as pd

    measured = [part.section.proteins for part in parts if part.section.proteins is not None]
    if not measured:
        return None
    if len({proteins.unit for proteins in measured}) > 1:
        raise InputError(
            found=f"proteins in {' and '.join(sorted({proteins.unit for proteins in measured}))}",
            where=", ".join(part.section.name for part in parts),
            expected="one unit in a dataset",
            repair="prepare the sections of each instrument as a dataset of their own",
        )
    tables = [
        pd.DataFrame(
            part.protein_NP,
            columns=None if part.section.proteins is None else part.section.proteins.names,
            index=range(len(part.rows)),
        )
        for part in parts
    ]
    return pd.concat(tables).astype(np.float32).set_axis(cell_ids)


def _stack_outlines(parts: list[SectionCells]) -> np.ndarray | None:
    """Outlines of the kept cells in um, with as many vertices as the most detailed section has."""
    known = [part.section.outline_px for part in parts if part.section.outline_px is not None]
    if not known:
        return None
    n_vertices = max(outlines.shape[1] for outlines in known)
    stacked = []
    for part in parts:
        outlines = part.section.outline_px
        if outlines is None:
            stacked.append(np.full((len(part.rows), n_vertices, 2), np.nan, np.float32))
            continue
        kept = outlines[part.rows] * np.float32(part.section.um_per_px)
        missing = n_vertices - kept.shape[1]
        stacked.append(np.concatenate([kept, np.repeat(kept[:, -1:], missing, 1)], 1))
    return np.concatenate(stacked)


def _describe_cells(obs: Any, counts_NG: csr_array, parts: list[SectionCells], slide_of_cell: np.ndarray) -> Any:
    import pandas as pd

    names = [part.section.name for part in parts]
    obs = obs.drop(columns=[name for name in ("cell_type", "split", "slide", "role") if name in obs.columns])
    obs = obs.rename_axis("cell_id")
    obs["slide"] = pd.Categorical([names[slide] for slide in slide_of_cell], categories=names)
    for column in ("donor", "staining"):
        of_slide = np.array([getattr(part.section, column) for part in parts])
        if any(of_slide):
            obs[column] = pd.Categorical(of_slide[slide_of_cell])
    obs["n_counts"] = counts_per_cell(counts_NG)
    obs["n_genes"] = np.diff(counts_NG.indptr).astype(np.int64)
    is_centre = np.concatenate([part.is_centre for part in parts])
    obs["role"] = pd.Categorical(np.where(is_centre, CENTRE, PLACED), categories=[CENTRE, PLACED])
    obs["tissue_fraction"] = np.concatenate([part.tissue_fraction for part in parts]).astype(np.float32)
    return obs


def _stack_counts(parts: list[SectionCells], counts: list[csr_array]) -> tuple[GenePanel, csr_array]:
    from scipy.sparse import csr_array, vstack

    panels = [GenePanel(list(p.section.genes.index), list(p.section.genes["symbol"])) for p in parts]
    if all(panel == panels[0] for panel in panels):
        stacked = counts[0] if len(parts) == 1 else csr_array(vstack(counts))
        counts.clear()
        return panels[0], stacked
    ids = dict.fromkeys(gene for panel in panels for gene in panel.ids)
    symbol = {g: s for panel in reversed(panels) for g, s in zip(panel.ids, panel.symbols, strict=True)}
    union = GenePanel(list(ids), [symbol[gene] for gene in ids])
    for panel in panels[1:]:
        panels[0].align(panel)  # raises when sections share no gene
    gathered = [union.gather(counts.pop(0), union.align(panel))[0] for panel in panels]
    return union, csr_array(vstack(gathered))


def select_columns(counts_NG: csr_array, keep: np.ndarray) -> csr_array:
    """``counts_NG[:, keep]`` for a bool mask [G], moved to the front of the same arrays: `counts_NG` is used up."""
    from scipy.sparse import csr_array

    indptr = counts_NG.indptr.astype(np.int64)
    column = np.where(keep, np.cumsum(keep) - 1, -1).astype(counts_NG.indices.dtype)
    new_indptr = np.zeros_like(indptr)
    end = 0
    for first, last in _chunks(indptr):
        start, stop = indptr[first], indptr[last]
        moved = column[counts_NG.indices[start:stop]]
        kept = moved >= 0
        n_kept = np.concatenate([[0], np.cumsum(kept)])
        counts_NG.indices[end : end + n_kept[-1]] = moved[kept]
        counts_NG.data[end : end + n_kept[-1]] = counts_NG.data[start:stop][kept]
        new_indptr[first + 1 : last + 1] = end + n_kept[indptr[first + 1 : last + 1] - start]
        end += int(n_kept[-1])
    return _front(counts_NG, new_indptr, int(keep.sum()), csr_array)


def _chunks(indptr: np.ndarray) -> list[tuple[int, int]]:
    """Runs of rows that hold about `CHUNK_NONZEROS` values."""
    runs, first, n_rows = [], 0, len(indptr) - 1
    while first < n_rows:
        last = int(np.searchsorted(indptr, indptr[first] + CHUNK_NONZEROS, side="right")) - 1
        last = min(max(last, first + 1), n_rows)
        runs.append((first, last))
        first = last
    return runs


def _front(counts_NG: csr_array, indptr: np.ndarray, n_columns: int, make: type[csr_array]) -> csr_array:
    n = int(indptr[-1])
    return make((counts_NG.data[:n], counts_NG.indices[:n], indptr), shape=(len(indptr) - 1, n_columns))
