"""The cells that condition one patch or one canvas, encoded from their counts after edits: only those within reach, with their
neighbours.

The same rectangle of the same cells gives the same latents to the last bit, whoever asks: the command line and the explorer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree

from sge2hist.data.spatial_index import RADIUS_TOLERANCE, CellIndex
from sge2hist.generation.encode import encode_cells, neighbour_reader, protein_reader
from sge2hist.generation.slide.edited_source import EditedSource, type_mean
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.image.conditioning import MODE_ALL, PlacedCells

MIN_NEIGHBOUR_UM = 50.0  # an added cell takes the mean microenvironment of the cells within this distance, at least


@dataclass(frozen=True, kw_only=True)
class NearbyCells:
    """M cells in the order of the source; added cells come last."""

    xy_um_M2: np.ndarray  # float64
    z_MZ: np.ndarray  # float32
    depth_M: np.ndarray  # float32
    outline_um_MV2: np.ndarray | None = (
        None  # float32, vertices from each cell's centre; NaN: a point. None: all are points
    )
    source_M: np.ndarray  # int64, number in the source; -1 - i for a cell that edit i added
    type_M: np.ndarray  # int64, type that the model predicts from the counts, an index into its type names; -1 if added
    report: str  # one line about the genes that cells and model share

    def placed(self, point_um: np.ndarray, at_um: float = 0.0) -> PlacedCells:
        """The cells as the condition of one canvas on which a point of the slide (x, y) lies at `at_um` in x and in y."""
        n = len(self.xy_um_M2)
        xy_um_M2 = (self.xy_um_M2 - point_um + at_um).astype(np.float32)
        outline = None if self.outline_um_MV2 is None else torch.from_numpy(self.outline_um_MV2 + xy_um_M2[:, None])
        return PlacedCells(
            z_MZ=torch.from_numpy(self.z_MZ),
            depth_M=torch.from_numpy(self.depth_M),
            xy_um_M2=torch.from_numpy(xy_um_M2),
            image_M=torch.zeros(n, dtype=torch.long),
            mode_B=torch.full((1,), MODE_ALL),
            slide_B=torch.zeros(1, dtype=torch.long),
            outline_MV2=outline,
        )


def encode_nearby(
    bundle: ModelBundle, edited: EditedSource, centre_um: np.ndarray, half_um: tuple[float, float]
) -> NearbyCells:
    """Encode the cells no farther than `half_um` from a point in x and in y; z2 reads their neighbours, as far as those lie."""
    centre_um, half = np.asarray(centre_um, np.float64), np.asarray(half_um, np.float64)
    gene = bundle.model.gene
    n_type, added_um = gene.config.n_type, max(gene.config.neighbour_um, MIN_NEIGHBOUR_UM)
    margin = added_um * RADIUS_TOLERANCE + gene.config.neighbour_um * RADIUS_TOLERANCE + 1.0
    rows = np.flatnonzero(edited.kept_N & inside_box(edited.xy_um_N2, centre_um, half + margin))
    xy = edited.xy_um_N2[rows]
    positions = [(-1 - n, p[inside_box(p, centre_um, half)]) for n, p in edited.added]
    added = np.concatenate([np.zeros((0, 2)), *(p for _, p in positions)])
    inside = inside_box(xy, centre_um, half)
    needed = inside.copy()
    near_added: list[list[int]] = []
    if len(added) and len(rows):
        near_added = list(cKDTree(xy).query_ball_point(added, added_um, return_sorted=True))
        needed[np.concatenate([np.zeros(0, np.int64), *(np.array(near, np.int64) for near in near_added)])] = True

    def read(numbers: np.ndarray):  # type: ignore[no-untyped-def]
        return edited.read_counts(rows[numbers])

    index = CellIndex(xy, np.zeros(len(rows), np.int64))
    neighbours = neighbour_reader(bundle, read, edited.source.genes, index)
    of_source = protein_reader(bundle, edited.source)
    latents = encode_cells(
        bundle,
        read,
        edited.source.genes,
        np.flatnonzero(needed),
        neighbours=neighbours,
        proteins=None if of_source is None else lambda numbers: of_source(rows[numbers]),
    )
    own = latents.find(np.flatnonzero(inside))
    z = latents.mean_NZ[own].copy()
    edited.set_types(bundle, rows[inside], z)
    z_added = np.zeros((len(added), z.shape[1]), np.float32)
    for number, near in enumerate(near_added):
        if near:
            z_added[number, n_type:] = latents.mean_NZ[latents.find(np.array(near)), n_type:].mean(0)
    source_added = np.concatenate([np.zeros(0, np.int64), *(np.full(len(p), code) for code, p in positions)])
    for code in np.unique(source_added):
        z_added[source_added == code, :n_type] = type_mean(bundle, str(edited.edits[-1 - code].add_type))
    outlines = edited.source.outline_um_NV2 if bundle.config.image.condition.outlines else None
    if outlines is not None:
        lent = [edited.added_outlines(-1 - code, p) for code, p in positions]
        outlines = np.concatenate([outlines[rows[inside]], *lent])
    return NearbyCells(
        xy_um_M2=np.concatenate([xy[inside], added]),
        z_MZ=np.concatenate([z, z_added]),
        depth_M=np.concatenate([latents.depth_N[own], np.zeros(len(added), np.float32)]),
        outline_um_MV2=outlines,
        source_M=np.concatenate([rows[inside], source_added]),
        type_M=np.concatenate([latents.type_N[own], np.full(len(added), -1)]),
        report=latents.alignment.summary(),
    )


def inside_box(xy_um_N2: np.ndarray, centre_um: np.ndarray, half_um: np.ndarray) -> np.ndarray:
    """bool [N]: positions no farther than `half_um` [2] from a point in x and in y.

    Column by column: `all` over rows of two takes 20 times as long.
    """
    x, y = (np.abs(xy_um_N2[:, axis] - centre_um[axis]) <= half_um[axis] for axis in (0, 1))
    return np.asarray(x & y)
