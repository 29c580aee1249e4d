"""Where the fields of view (FOV) of a CosMx slide lie, by the cells in them; no file states it the same way in all releases.

Every cell has a position in its FOV (local) and one on the slide (global), so the map between both is found, not assumed:

    global = sign * local + offset(FOV)       sign +1 or -1 for x and y, the same in all FOVs

Seen in public data: (+, +) in the first release, (-, +) in the brain release, (+, -) in exports of AtoMx. The file of FOV
positions (px or mm, of the upper or the lower corner) serves FOVs without cells only, after its own offset was fitted.

Images are stored with row 0 on top, and the y axis of the slide points up, so a picture is mirrored against its slide: if the
signs multiply to -1 local y counts rows downwards, else upwards. The nuclear stain at the cells can show otherwise; it decides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.readers.nanostring.cosmx_tables import CosmxCells, FovPositions

MAX_MISFIT_PX = 20.0  # of a cell from the map of its FOV: 2.4 um


@dataclass(frozen=True, kw_only=True)
class FovFrame:
    """The map of each FOV to the slide."""

    sign_xy: np.ndarray  # [2] of +1, -1
    fov: np.ndarray  # int64 [F], sorted
    offset_xy_px: np.ndarray  # float64 [F, 2]
    notes: list[str]

    @property
    def rows_go_down(self) -> bool:
        """Whether local y counts rows of the picture from its top, by the handedness of the slide."""
        return bool(self.sign_xy.prod() < 0)


def fit_frame(cells: CosmxCells, positions: FovPositions | None, where: str) -> FovFrame:
    """Find the map from the cells, and that of FOVs without cells from `positions`.

    Raises
    ------
    InputError
        If local and global positions contradict each other.
    """
    assert cells.local_xy_px is not None
    fovs, index = np.unique(cells.fov, return_inverse=True)
    count = np.bincount(index)[:, None]
    local, on_slide = (xy - (_sums(xy, index) / count)[index] for xy in (cells.local_xy_px, cells.global_xy_px))
    variance = (local**2).sum(axis=0)
    slope = (local * on_slide).sum(axis=0) / np.where(variance > 0, variance, 1)
    if (variance == 0).any() or (np.abs(np.abs(slope) - 1) > 0.02).any():
        raise InputError(
            found=f"positions on the slide that change by {slope[0]:.3g}, {slope[1]:.3g} px per px in a FOV",
            where=where,
            expected="1 or -1: local and global positions in px of the same images",
        )
    sign = np.sign(slope)
    residual = cells.global_xy_px - sign * cells.local_xy_px
    offset = np.stack([np.median(residual[index == i], axis=0) for i in range(len(fovs))])
    misfit = np.abs(residual - offset[index]).max(axis=1)
    if (far := float(np.median(misfit))) > MAX_MISFIT_PX:
        raise InputError(
            found=f"cells {far:.0f} px from where their FOV puts them",
            where=where,
            expected=f"less than {MAX_MISFIT_PX:g} px: fov, local and global positions of one export",
        )
    notes: list[str] = []
    if positions is not None:
        fovs, offset = _with_empty_fovs(fovs, offset, positions, notes)
    return FovFrame(sign_xy=sign, fov=fovs, offset_xy_px=offset, notes=notes)


def _sums(values: np.ndarray, index: np.ndarray) -> np.ndarray:
    return np.stack([np.bincount(index, weights=values[:, i]) for i in (0, 1)], 1)


def _with_empty_fovs(
    fovs: np.ndarray, offset: np.ndarray, positions: FovPositions, notes: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Offsets of FOVs without cells, by the positions of the file fitted to those of FOVs with cells."""
    known = np.isin(positions.fov, fovs)
    if known.sum() < 2:
        return fovs, offset
    stated, true = positions.xy[known], offset[np.searchsorted(fovs, positions.fov[known])]
    centred, centred_true = stated - np.median(stated, axis=0), true - np.median(true, axis=0)
    spread = np.abs(centred).sum(axis=0)
    slope = (centred * centred_true).sum(axis=0) / np.where(spread > 0, (centred**2).sum(axis=0), 1)
    slope = np.where(spread > 0, slope, slope[slope != 0].mean() if (slope != 0).any() else 1.0)
    shift = np.median(true - slope * stated, axis=0)
    far = np.abs(slope * stated + shift - true).max(axis=1)
    if (worst := float(far.max())) > MAX_MISFIT_PX:
        notes.append(
            f"the file of FOV positions differs from the cells by up to {worst:.0f} px (FOV "
            f"{int(positions.fov[known][np.argmax(far)])}): the cells are right"
        )
    empty = ~known
    all_fovs = np.concatenate([fovs, positions.fov[empty]])
    all_offsets = np.concatenate([offset, slope * positions.xy[empty] + shift])
    order = np.argsort(all_fovs)
    return all_fovs[order], all_offsets[order]


@dataclass(frozen=True, kw_only=True)
class MosaicFrame:
    """Places of the pictures of the FOVs in one picture of the slide; (0, 0) is the upper left corner of all of them."""

    fov: np.ndarray  # int64 [F], sorted
    left_top_px: np.ndarray  # int64 [F, 2]
    height_px: int  # of a FOV
    rows_go_down: bool

    def place(self, fov: np.ndarray, local_xy_px: np.ndarray) -> np.ndarray:
        """Positions in FOVs -> px of the mosaic, float64 [N, 2]."""
        y = local_xy_px[:, 1] if self.rows_go_down else self.height_px - local_xy_px[:, 1]
        corner = self.left_top_px[np.searchsorted(self.fov, fov)]
        return np.stack([local_xy_px[:, 0], y], 1) + corner


def mosaic_frame(frame: FovFrame, height_px: int, *, rows_go_down: bool) -> MosaicFrame:
    """Put the pictures together as they are stored, none of them turned or mirrored.

    Columns of the mosaic are sign_x * x of the slide + a constant, because those of a FOV are:
    so a FOV begins at sign_x * offset_x.
    Rows likewise: sign_y * offset_y where rows are local y, -sign_y * offset_y where they are height - local y.
    """
    direction = frame.sign_xy * [1, 1 if rows_go_down else -1]
    corner = np.rint(direction * frame.offset_xy_px).astype(np.int64)
    return MosaicFrame(
        fov=frame.fov, left_top_px=corner - corner.min(axis=0), height_px=height_px, rows_go_down=rows_go_down
    )
