"""Training patches: crops of the slides around cells, and where the cells of each crop lie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sge2hist.data.errors import InputError
from sge2hist.data.paired import PairedDataset
from sge2hist.data.slides.channels import background_level
from sge2hist.data.slides.glass import glass_colour
from sge2hist.data.spatial_index import CellIndex
from sge2hist.training.image.exclusion_mask import ExclusionMask

SHARE_OFF_SLIDE = 0.2
"""Share of the crops taken anywhere that lie off the slide: glass without any cell, which few sections show enough of."""


@dataclass(frozen=True, kw_only=True)
class PatchBatch:
    """B crops and the M cells that lie in or near them."""

    image_BCHW: Tensor  # float32 in [-1, 1]
    centre_row_B: np.ndarray  # row of the cell that each crop was made for
    row_M: np.ndarray  # rows of the cells, grouped by crop
    crop_M: np.ndarray  # which crop each belongs to, rising
    xy_um_M2: np.ndarray  # position from the crop's top left corner
    outline_um_MV2: (
        np.ndarray | None
    )  # vertices of each cell from the crop's top left corner; None: outlines are not known
    is_centre_M: np.ndarray  # whether it is the cell that the crop was made for
    slide_B: np.ndarray


class PatchSource:
    """Crops around training cells, in random position and orientation.

    Slides are kept in memory at the model's resolution. A crop's centre is moved by up to `jitter_um` off its cell, so that
    positions are learnt; cells whose moved crop could touch the patch of a validation or test cell are excluded.
    """

    def __init__(
        self,
        dataset: PairedDataset,
        *,
        patch_px: int,
        um_per_px: float,
        receptive_radius_um: float,
        jitter_um: float,
        excluded: ExclusionMask | None = None,
    ) -> None:
        """`receptive_radius_um`: how far beyond a crop's edge cells are gathered; `excluded`: areas that no crop may touch."""
        self.patch_px, self.um_per_px, self.jitter_um = patch_px, um_per_px, jitter_um
        self.patch_um = patch_px * um_per_px
        white = (background_level(dataset.channels),) * len(dataset.channels)
        self.glass = [np.array(glass_colour(slide) or white, np.uint8) for slide in dataset.slides]
        self.slides = [slide.as_array(dataset.um_per_px, um_per_px) for slide in dataset.slides]
        self.centre_um_N2 = dataset.centre_xy_px * dataset.um_per_px
        self.outline_um_NV2 = dataset.outline_um
        self.slide_of_cell = dataset.slide_of_cell
        self._excluded = excluded or ExclusionMask()
        self.index = CellIndex(self.centre_um_N2, self.slide_of_cell)
        self.gather_radius_um = self.patch_um / 2 + receptive_radius_um
        held_out = np.flatnonzero(np.isin(dataset.obs["split"].astype(str).to_numpy(), ["val", "test"]))
        self._held_out = CellIndex(self.centre_um_N2[held_out], self.slide_of_cell[held_out])
        self.rows = self._clear_rows(dataset)

    def _clear_rows(self, dataset: PairedDataset) -> np.ndarray:
        rows = dataset.rows("train")
        side_um = self.patch_um + 2 * (self.jitter_um + self.um_per_px)
        rows = rows[~self._excluded.touches(self.centre_um_N2[rows], self.slide_of_cell[rows], side_um)]
        if not len(rows):
            raise InputError(
                found="no training cell whose patch is clear of the excluded areas",
                where=str(dataset.path),
                expected="areas that leave most of the tissue",
            )
        clear = self._clear_of_held_out(self.centre_um_N2[rows], self.slide_of_cell[rows], margin_um=self.jitter_um)
        return rows[clear] if clear.any() else rows

    def _clear_of_held_out(self, centre_um_B2: np.ndarray, slide_B: np.ndarray, margin_um: float = 0.0) -> np.ndarray:
        """Whether a crop at each place shares no pixel with the patch of a validation or test cell."""
        distance_B = self._held_out.distance_um(centre_um_B2, slide_B)
        return distance_B >= self.patch_um + margin_um + self.um_per_px

    def batch(
        self, n: int, rng: np.random.Generator, *, augment: bool = True, share_anywhere: float = 0.0
    ) -> PatchBatch:
        """Sample `n` training crops.

        `share_anywhere` of them lie at any place of the cell's slide that is clear of held-out cells and of excluded areas, or
        off the slide, so that glass and the edge of the tissue are seen as well; their `centre_row_B` is then some cell that need
        not lie in the crop.
        """
        rows = self.rows[rng.integers(len(self.rows), size=n)]
        centre_um_B2 = self.centre_um_N2[rows] + rng.uniform(-self.jitter_um, self.jitter_um, (n, 2))
        turn_B3 = rng.integers(2, size=(n, 3)).astype(bool) if augment else np.zeros((n, 3), bool)
        if share_anywhere:
            moved = rng.random(n) < share_anywhere
            centre_um_B2[moved] = self._anywhere(rows[moved], centre_um_B2[moved], rng)
        return self.crops(rows, centre_um_B2, turn_B3)

    def _anywhere(self, rows: np.ndarray, centre_um_B2: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A random place of each row's slide, clear of held-out cells (the given place if eight tries find none), or off it."""
        slide_B = self.slide_of_cell[rows]
        side_um_B2 = np.array([self.slides[s].shape[1::-1] for s in slide_B]).reshape(-1, 2) * self.um_per_px
        room_B2 = np.maximum(side_um_B2 - self.patch_um, 0)
        out, found = centre_um_B2.copy(), np.zeros(len(rows), bool)
        for _ in range(8):
            place = self.patch_um / 2 + rng.random((len(rows), 2)) * room_B2
            take = self._clear_of_held_out(place, slide_B) & ~found
            take &= ~self._excluded.touches(place, slide_B, self.patch_um + 2 * self.um_per_px)
            out[take], found = place[take], found | take
        out[rng.random(len(rows)) < SHARE_OFF_SLIDE] = -self.gather_radius_um - self.patch_um
        return out

    def crops(self, rows: np.ndarray, centre_um_B2: np.ndarray, turn_B3: np.ndarray) -> PatchBatch:
        """Crop around given points (rounded to whole pixels); `turn_B3`: mirror x, mirror y, swap x and y."""
        size, side_um = self.patch_px, self.patch_um
        slide_B = self.slide_of_cell[rows]
        corner_B2 = np.round(centre_um_B2 / self.um_per_px - size / 2).astype(np.int64)
        images = np.empty((len(rows), size, size, len(self.glass[0])), np.uint8)
        for b, (slide, (x, y)) in enumerate(zip(slide_B, corner_B2, strict=True)):
            images[b] = _turned(_crop(self.slides[slide], x, y, size, self.glass[slide]), turn_B3[b])
        corner_um_B2 = corner_B2 * self.um_per_px
        row_M, crop_M = self.index.within(slide_B, corner_um_B2 + side_um / 2, self.gather_radius_um)
        xy_um_M2 = self.centre_um_N2[row_M] - corner_um_B2[crop_M]
        outline_um_MV2 = None
        if self.outline_um_NV2 is not None:
            vertices = self.outline_um_NV2[row_M] + xy_um_M2[:, None].astype(np.float32)
            turn_M13 = turn_B3[crop_M][:, None]
            outline_um_MV2 = _turned_positions(vertices, turn_M13, side_um).astype(np.float32)
        xy_um_M2 = _turned_positions(xy_um_M2, turn_B3[crop_M], side_um)
        return PatchBatch(
            image_BCHW=torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(127.5).sub_(1),
            centre_row_B=rows,
            row_M=row_M,
            crop_M=crop_M,
            xy_um_M2=xy_um_M2.astype(np.float32),
            outline_um_MV2=outline_um_MV2,
            is_centre_M=row_M == rows[crop_M],
            slide_B=slide_B,
        )


def _crop(slide_HWC: np.ndarray, x: int, y: int, size: int, glass_C: np.ndarray) -> np.ndarray:
    """A size x size window; glass beyond the slide's edge."""
    height, width = slide_HWC.shape[:2]
    inside = slide_HWC[max(y, 0) : max(y + size, 0), max(x, 0) : max(x + size, 0)]
    if inside.shape[:2] == (size, size):
        return inside
    out = np.empty((size, size, slide_HWC.shape[2]), np.uint8)
    out[:] = glass_C
    top, left = max(-y, 0), max(-x, 0)
    if x < width and y < height:
        out[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return out


def _turned(image_HWC: np.ndarray, turn_3: np.ndarray) -> np.ndarray:
    if turn_3[0]:
        image_HWC = image_HWC[:, ::-1]
    if turn_3[1]:
        image_HWC = image_HWC[::-1]
    return image_HWC.transpose(1, 0, 2) if turn_3[2] else image_HWC


def _turned_positions(xy_um: np.ndarray, turn: np.ndarray, side_um: float) -> np.ndarray:
    """Where :func:`_turned` takes points [..., 2] of a canvas of side `side_um`; `turn`: bool [..., 3]."""
    mirrored = np.where(turn[..., :2], side_um - xy_um, xy_um)
    return np.where(turn[..., 2:], mirrored[..., ::-1], mirrored)
