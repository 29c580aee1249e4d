"""Outlines of cells on a grid: which cell covers each point, and where one cell ends and the next begins.

Shape letters: M cells of all images together, V vertices of an outline, B images, r c rows and columns of the grid.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SIZE_STEPS = (16, 40, 4096)
"""Cells are rasterised in groups of similar size (grid points along the longer side): a large cell costs its own area alone."""


def rasterise(
    outline_MV2: Tensor, image_M: Tensor, shape: tuple[int, int, int], *, step_um: float, start_um: float
) -> Tensor:
    """Label raster of outlined cells: m + 1 where cell m covers a grid point, 0 where none does; int64 [B, r, c].

    Grid point (i, j) lies at ``start_um + (j + 0.5) step_um`` in x, and likewise with i in y. The even-odd rule decides, with
    half-open edges: of two outlines with a common edge exactly one covers a point on it. Where outlines overlap, the later cell
    counts.

    Parameters
    ----------
    outline_MV2
        Vertices (x, y) in um on the canvas, in order; repeated vertices have no effect. NaN: a cell without an outline.
    image_M
        Image of each cell.
    shape
        (B, r, c).
    """
    label = torch.zeros(shape, dtype=torch.long, device=outline_MV2.device)
    grid_MV2 = (outline_MV2 - start_um) / step_um - 0.5  # in units of the grid: point (i, j) at (j, i)
    limit = torch.tensor([shape[2] - 1, shape[1] - 1], device=grid_MV2.device)
    low_M2 = grid_MV2.amin(1).ceil().clamp_min(0)
    high_M2 = torch.minimum(grid_MV2.amax(1).floor(), limit)
    known_M = torch.isfinite(grid_MV2).all(dim=(1, 2)) & (high_M2 >= low_M2).all(1)
    size_M = (high_M2 - low_M2).amax(1) + 1
    smallest = 0
    for largest in SIZE_STEPS:
        chosen = torch.nonzero(known_M & (size_M > smallest) & (size_M <= largest))[:, 0]
        smallest = largest
        if len(chosen):
            side = int(size_M[chosen].max())
            inside_mrc = _covered(grid_MV2[chosen], low_M2[chosen], side)
            _write(label, inside_mrc, low_M2[chosen].long(), image_M[chosen], chosen + 1)
    return label


def _covered(grid_MV2: Tensor, low_M2: Tensor, side: int) -> Tensor:
    """Which points of a square of `side` points from `low` on are inside each outline: bool [M, side, side]."""
    steps = torch.arange(side, device=grid_MV2.device, dtype=grid_MV2.dtype)
    y_Mr = low_M2[:, 1:] + steps
    x1_MV, y1_MV = grid_MV2.unbind(2)
    x2_MV, y2_MV = x1_MV.roll(-1, 1), y1_MV.roll(-1, 1)
    y = y_Mr[:, :, None]
    crosses_MrV = (y1_MV[:, None] <= y) != (y2_MV[:, None] <= y)
    rise_MV = torch.where(y2_MV == y1_MV, 1.0, y2_MV - y1_MV)
    x_MrV = x1_MV[:, None] + (y - y1_MV[:, None]) * ((x2_MV - x1_MV) / rise_MV)[:, None]
    # the first grid column at or right of the crossing; a point with an odd number of crossings to its left is inside
    column_MrV = (x_MrV - low_M2[:, None, :1]).ceil().clamp(0, side).long()
    crossings = torch.zeros(*y_Mr.shape, side + 1, dtype=torch.int32, device=grid_MV2.device)
    crossings.scatter_add_(2, column_MrV, crosses_MrV.int())
    return crossings[:, :, :side].cumsum(2) % 2 == 1


def _write(label_Brc: Tensor, inside_mrc: Tensor, low_m2: Tensor, image_m: Tensor, number_m: Tensor) -> None:
    cell, row, column = torch.nonzero(inside_mrc, as_tuple=True)
    row, column = row + low_m2[cell, 1], column + low_m2[cell, 0]
    flat = (image_m[cell] * label_Brc.shape[1] + row) * label_Brc.shape[2] + column
    within = (row < label_Brc.shape[1]) & (column < label_Brc.shape[2])
    # the larger number wins whatever the order of writing, so that results repeat
    label_Brc.view(-1).scatter_reduce_(0, flat[within], number_m[cell[within]], "amax")


def boundary(label_Brc: Tensor) -> Tensor:
    """Covered points with another cell, or none, above, below, left or right of them: bool [B, r, c]."""
    padded = F.pad(label_Brc[:, None].float(), (1, 1, 1, 1), mode="replicate")[:, 0].long()
    inner = padded[:, 1:-1, 1:-1]
    differs = torch.zeros_like(inner, dtype=torch.bool)
    for shifted in (padded[:, :-2, 1:-1], padded[:, 2:, 1:-1], padded[:, 1:-1, :-2], padded[:, 1:-1, 2:]):
        differs |= shifted != inner
    return differs & (inner > 0)
