"""Patches of held-out cells of a paired dataset, generated under several conditions, and real ones.

- own: every cell with its own expression, over its own outline (where the model knows outlines);
- points: the same, without outlines: RNA and positions alone;
- centre cells only: cells of few counts, which are placed but train no model, are not there;
- layout alone: the same positions and outlines, expression dealt to other cells of these patches;
- within type: dealt among cells of one type;
- shuffled: the cells, expression and outlines of another patch, far away.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from cell_measures import PatchCells, cells_in_patches, spread_patches
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from sge2hist.data.paired import PairedDataset
from sge2hist.data.spatial_index import CellIndex
from sge2hist.generation.encode import CellLatents, encode_cells, neighbour_reader
from sge2hist.generation.footprints import outlines_to_use
from sge2hist.generation.windows import image_seed, neighbour_cells, sample_patches, with_latents
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.image.conditioning import PlacedCells

OWN, POINTS, CENTRES, LAYOUT, WITHIN, SHUFFLED = CONDITIONS = (
    "own",
    "points",
    "centre cells only",
    "layout alone",
    "within type",
    "shuffled",
)
EDGE_UM = 8.0  # cells nearer to the edge of a patch are not measured
FAR_UM = 500.0  # of the patch whose cells a shuffled one shows, where there is one
BATCH = 8


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The model at the size of the patches, the data, and the cells of the held-out and of the training patches."""

    bundle: ModelBundle
    data: PairedDataset
    xy_um_N2: np.ndarray
    latents: CellLatents
    centres: np.ndarray  # of the held-out patches
    cells: PatchCells
    train_centres: np.ndarray
    train_cells: PatchCells

    @property
    def um(self) -> float:
        """Resolution, um per px."""
        return self.bundle.config.um_per_px

    @property
    def edge_px(self) -> float:
        """Margin of a patch in which nothing is measured."""
        return EDGE_UM / self.um

    def real(self, centres: np.ndarray) -> np.ndarray:
        """Real patches around some cells, uint8 [B, P, P, C]."""
        return self.data.patches(centres, side_um=self.bundle.config.patch_um, out_px=self.bundle.config.patch_px)

    def cells_of(self, centres: np.ndarray, edge_px: float) -> PatchCells:
        """Cells in the patches around some cells, at least `edge_px` (below 0: at most so far beyond) from the edge."""
        return _cells_of(self.bundle, self.data, self.xy_um_N2, centres, edge_px)


def _cells_of(
    bundle: ModelBundle, data: PairedDataset, xy_um_N2: np.ndarray, centres: np.ndarray, edge_px: float
) -> PatchCells:
    px, um = bundle.config.patch_px, bundle.config.um_per_px
    return cells_in_patches(xy_um_N2, data.outline_um, centres, side_px=px, um_per_px=um, edge_px=edge_px)


def prepare(bundle: ModelBundle, data: PairedDataset, n: int, n_train: int, seed: int) -> Setting:
    """Choose patches that do not overlap, around cells of each type in turn, and encode all cells."""
    xy_um, rng = data.centre_xy_px * data.um_per_px, np.random.default_rng(seed)
    chosen = {
        split: spread_patches(xy_um, data.rows(split), count, bundle.config.patch_um, rng, data.type_of_cell)
        for split, count in (("test", n), ("train", n_train))
    }
    edge_px = EDGE_UM / bundle.config.um_per_px
    around = {split: _cells_of(bundle, data, xy_um, centres, edge_px) for split, centres in chosen.items()}
    neighbours = neighbour_reader(bundle, data.counts, data.genes, CellIndex(xy_um, data.slide_of_cell))
    latents = encode_cells(bundle, data.counts, data.genes, np.arange(len(data)), neighbours=neighbours)
    return Setting(
        bundle=bundle,
        data=data,
        xy_um_N2=xy_um,
        latents=latents,
        centres=chosen["test"],
        cells=around["test"],
        train_centres=chosen["train"],
        train_cells=around["train"],
    )


def generate_patches(
    setting: Setting, centres: np.ndarray, condition: str, seed: int, bundle: ModelBundle | None = None
) -> np.ndarray:
    """Generate the patches around some cells under a condition, uint8 [B, P, P, C]."""
    bundle, data = bundle or setting.bundle, setting.data
    outlines = None if condition == POINTS else outlines_to_use(bundle, data.outline_um)
    shown = centres[far_places(setting.xy_um_N2[centres], seed)] if condition == SHUFFLED else centres
    row_M, placed = neighbour_cells(
        CellIndex(setting.xy_um_N2, data.slide_of_cell),
        data.slide_of_cell[shown],
        setting.xy_um_N2[shown],
        side_um=bundle.config.patch_um,
        receptive_radius_um=bundle.config.receptive_radius_um,
        outline_um_NV2=outlines,
    )
    at = setting.latents.find(dealt(data, row_M, condition, seed))
    placed = with_latents(placed, setting.latents.mean_NZ[at], setting.latents.depth_N[at])
    if condition == CENTRES:
        placed = some_cells(placed, data.is_centre[row_M])
    seeds = np.array([image_seed(seed, data.obs.index[row], 0) for row in centres])
    images = []
    for start in range(0, len(centres), BATCH):
        part = slice(start, start + BATCH)
        images.append(sample_patches(bundle, patches_of(placed, part), seeds[part], bundle.config.sampler))
    return np.concatenate(images)


def some_cells(placed: PlacedCells, kept_M: np.ndarray) -> PlacedCells:
    """The cells of a mask; the patches stay."""
    kept = torch.from_numpy(kept_M)
    return replace(
        placed,
        z_MZ=placed.z_MZ[kept],
        depth_M=placed.depth_M[kept],
        xy_um_M2=placed.xy_um_M2[kept],
        image_M=placed.image_M[kept],
        outline_MV2=None if placed.outline_MV2 is None else placed.outline_MV2[kept],
    )


def patches_of(placed: PlacedCells, part: slice) -> PlacedCells:
    """Some patches of a batch, and their cells."""
    image_M = placed.image_M.numpy()
    some = some_cells(placed, (image_M >= part.start) & (image_M < part.stop))
    return replace(some, image_M=some.image_M - part.start, mode_B=placed.mode_B[part], slide_B=placed.slide_B[part])


def dealt(data: PairedDataset, row_M: np.ndarray, condition: str, seed: int) -> np.ndarray:
    """The cells whose expression the cells of some rows get."""
    if condition not in (LAYOUT, WITHIN):
        return row_M
    rng, known = np.random.default_rng([seed, 11]), np.unique(row_M)
    if condition == LAYOUT:
        other = rng.permutation(known)
    else:
        other, types = known.copy(), data.type_of_cell[known]
        for name in np.unique(types):
            other[types == name] = rng.permutation(known[types == name])
    return other[np.searchsorted(known, row_M)]


def far_places(xy_um_B2: np.ndarray, seed: int, far_um: float = FAR_UM) -> np.ndarray:
    """A random derangement [B] in which as many places as possible are `far_um` from the own one; the others are not the own."""
    distance = cdist(xy_um_B2, xy_um_B2)
    cost = np.random.default_rng([seed, 12]).random(distance.shape) + len(distance) * (distance < far_um)
    np.fill_diagonal(cost, 4.0 * len(distance) ** 2)
    return linear_sum_assignment(cost)[1]


def distances_um(xy_um_B2: np.ndarray, order_B: np.ndarray) -> np.ndarray:
    """How far each place of a derangement is from the own one."""
    return np.linalg.norm(xy_um_B2 - xy_um_B2[order_B], axis=1)
