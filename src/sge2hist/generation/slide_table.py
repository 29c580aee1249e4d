"""The table beside a generated slide: its cells, their types and where they lie on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sge2hist.generation.cell_table import TableRows, writing_table
from sge2hist.generation.slide_cells import PlacedRows
from sge2hist.generation.slide_edits import Edit
from sge2hist.generation.slide_job import SlideJob
from sge2hist.generation.slide_source import SlideSource


def write_slide_cells(path: Path, job: SlideJob, source: SlideSource, edits: list[Edit]) -> None:
    """Cells on the slide: obs cell_type, edited, seed; ``obsm["spatial"]`` px of it, ``obsm["spatial_um"]`` of the source."""
    with writing_table(path) as table:
        for rows in _rows(job, source, edits):
            table.add(rows)


def _rows(job: SlideJob, source: SlideSource, edits: list[Edit]) -> Iterator[TableRows]:
    x, y, width, height = job.drawing.region_px
    n_added = 0
    for cells in job.cells.in_source_order():
        xy_px = cells.xy_um_M2 / job.bundle.config.um_per_px - (x, y)
        inside = np.asarray(((xy_px >= 0) & (xy_px < (width, height))).all(1))
        at, xy_um = cells.source_M[inside], cells.xy_um_M2[inside]
        own = at >= 0
        kinds, edited = _types(job, source, cells, inside), ~own
        for number, edit in enumerate(edits):
            covered = edit.covers(xy_um)
            if edit.set_type is not None:
                kinds[covered & own] = job.bundle.type_called(edit.set_type)
            if edit.add_type is not None:
                kinds[at == -1 - number] = job.bundle.type_called(edit.add_type)
            edited |= covered & (edit.set_type is not None or edit.gene is not None)
        ids = np.full(len(at), "", object)
        ids[own] = source.id_N[at[own]]
        ids[~own] = [f"added_{n_added + number}" for number in range(int((~own).sum()))]
        n_added += int((~own).sum())
        yield TableRows(
            id_N=ids, type_N=kinds, edited_N=edited, seed_N=np.full(len(at), job.drawing.seeds[0], np.int64),
            xy_px_N2=xy_px[inside], xy_um_N2=xy_um,
        )  # fmt: skip


def _types(job: SlideJob, source: SlideSource, cells: PlacedRows, inside: np.ndarray) -> np.ndarray:
    """Names of the types of some cells: those of the source, or as the model says."""
    at = cells.source_M[inside]
    if source.type_N is not None:
        kinds = np.full(len(at), "", object)
        kinds[at >= 0] = source.type_N[at[at >= 0]]
        return kinds
    gene, types = job.bundle.model.gene, job.bundle.types
    z1 = np.ascontiguousarray(cells.z_MZ[inside, : gene.config.n_type])
    return np.array(types.names, object)[types.told(gene.mixture.tell(z1))[0]]
