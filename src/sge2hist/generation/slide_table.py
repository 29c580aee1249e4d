"""The table beside a generated slide: its cells, their types and where they lie on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from sge2hist.generation.slide_cells import ADDED, SOURCE, XY, Z
from sge2hist.generation.slide_edits import Edit
from sge2hist.generation.slide_job import CELLS, SlideJob
from sge2hist.generation.slide_source import SlideSource

if TYPE_CHECKING:
    import anndata

CHUNK = 16384


def slide_cells(job: SlideJob, source: SlideSource, edits: list[Edit]) -> anndata.AnnData:
    """Cells on the slide: obs cell_type, edited, seed; ``obsm["spatial"]`` px of it, ``obsm["spatial_um"]`` of the source."""
    import anndata
    import pandas as pd
    from scipy.sparse import csr_matrix

    folder = job.folder / CELLS
    xy_um, position = np.load(folder / XY), np.load(folder / SOURCE)
    x, y, width, height = job.drawing.region_px
    xy_px = xy_um / job.bundle.config.um_per_px - (x, y)
    inside = np.flatnonzero(((xy_px >= 0) & (xy_px < (width, height))).all(1))
    # source order, cells put in last
    inside = inside[
        np.argsort(np.where(position[inside] == ADDED, np.iinfo(np.int64).max, position[inside]), kind="stable")
    ]
    at = position[inside]
    own = at != ADDED
    if source.type_N is None:
        kinds = _types_by_model(job, inside)
    else:
        kinds = np.full(len(at), "", object)
        kinds[own] = source.type_N[at[own]]
    edited = ~own
    for edit in edits:
        covered = edit.covers(xy_um[inside])
        if edit.set_type is not None:
            kinds[covered & own] = edit.set_type
        elif edit.add_type is not None:
            kinds[covered & ~own] = edit.add_type
        edited |= covered & (edit.set_type is not None or edit.gene is not None)
    ids = np.full(len(at), "", object)
    ids[own] = source.id_N[at[own]]
    ids[~own] = [f"added_{number}" for number in range(int((~own).sum()))]
    obs = pd.DataFrame(
        {"cell_type": pd.Categorical(kinds), "edited": edited, "seed": job.drawing.seeds[0]}, index=ids.astype(str)
    )
    table = anndata.AnnData(X=csr_matrix(np.zeros((len(at), 0), np.float32)), obs=obs)
    table.obsm["spatial"], table.obsm["spatial_um"] = xy_px[inside], xy_um[inside]
    return table


@torch.no_grad()
def _types_by_model(job: SlideJob, rows: np.ndarray) -> np.ndarray:
    """Names of the types that the model gives to stored cells."""
    gene, types = job.bundle.model.gene, job.bundle.types
    device = next(gene.parameters()).device
    out = []
    for start in range(0, len(rows), CHUNK):
        z1 = np.load(job.folder / CELLS / Z, mmap_mode="r")[rows[start : start + CHUNK], : gene.config.n_type]
        gamma = gene.mixture.responsibilities(torch.from_numpy(np.ascontiguousarray(z1)).to(device)).cpu().numpy()
        out.append(np.array(types.names, object)[types.type_probabilities(gamma).argmax(1)])
    return np.concatenate(out) if out else np.empty(0, object)
