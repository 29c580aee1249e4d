"""Conditioning on cells with positions: the only condition of the image model.

A patch is conditioned on a set of cells, each with its latent `z` and its position. An embedding of each cell, and an
occupancy, are spread over a coarse grid, and the image network reads the resulting map as extra channels. The map is as large
as the canvas, so the same network serves a patch and a whole slide. A cell is spread by a triangular kernel around its centre or,
in a model of cells with outlines, over its own outline.

Shape letters: B images, M cells of all images together, Z latent dims, V vertices of an outline, E embedding channels,
D condition channels, h w grid nodes. x = column, y = row, in um from the canvas's top left corner.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sge2hist.models.image.footprints import boundary, rasterise

MODE_NONE, MODE_SINGLE_CELL, MODE_ALL = 0, 1, 2
"""Conditioning mode of an image: unconditional, on its centre cell alone, or on all its cells. MODE_ALL without cells: glass."""

HALO_NODES = 2
"""Grid nodes beyond the canvas on every side: the two 3x3 convolutions of the encoder consume them."""

POINTS_PER_NODE = 2
"""Outlines are sampled at so many points per grid node, along a side, and averaged."""
N_OUTLINE_CHANNELS = 3
"""Of the map of a model of outlines: share covered by outlined cells, share on their boundaries, and the cells' centres."""


@dataclass(frozen=True, kw_only=True)
class PlacedCells:
    """The conditioning cells of a batch of images.

    Parameters
    ----------
    z_MZ: latents, one row per cell.
    depth_M: log of the cell's counts over the training median; 0 is an ordinary cell.
    xy_um_M2: position from the top left corner of the cell's own canvas; cells outside it (in the halo) count as well.
    image_M: which image of the batch the cell belongs to, in 0..B-1, increasing.
    mode_B: MODE_NONE, MODE_SINGLE_CELL or MODE_ALL of each image.
    slide_B: slide (stain) index of each image; 0 is "any slide", slide s of the model is s + 1.
    outline_MV2: outline of each cell, vertices (x, y) in um on its canvas; NaN: unknown. None: of no cell.
    """

    z_MZ: Tensor
    depth_M: Tensor
    xy_um_M2: Tensor
    image_M: Tensor
    mode_B: Tensor
    slide_B: Tensor
    outline_MV2: Tensor | None = None

    def to(self, device: torch.device | str) -> PlacedCells:
        """Return the same cells on another device."""
        moved: dict[str, Any] = {name: None if x is None else x.to(device) for name, x in vars(self).items()}
        return PlacedCells(**moved)

    def unconditional(self) -> PlacedCells:
        """Return the same batch without cells, for classifier-free guidance; the slides are kept."""
        none = torch.zeros(0, dtype=torch.long, device=self.image_M.device)
        return replace(
            self,
            z_MZ=self.z_MZ[none],
            depth_M=self.depth_M[none],
            xy_um_M2=self.xy_um_M2[none],
            image_M=none,
            mode_B=torch.zeros_like(self.mode_B),
            outline_MV2=None,
        )


@dataclass(frozen=True, kw_only=True)
class ConditionConfig:
    """Shape of the condition."""

    form: str = "map"  # "map": all cells, with positions; "vector": the z of the centre cell, as in the published model
    grid_um: float = 8.0  # spacing of the grid nodes; one node per latent pixel
    splat_um: float = 8.0  # half-width of the triangular kernel that spreads a cell over the nodes
    embedding: int = 48  # E, channels per cell on the grid
    channels: int = 64  # D, channels that the image network reads
    outlines: bool = False  # cells are spread over their outlines where these are known
    outline_um: float = 0.0  # with outlines: cells whose centre is this far outside the map may reach into it

    def __post_init__(self) -> None:
        if self.form not in ("map", "vector"):
            raise ValueError(f"form must be 'map' or 'vector', not {self.form!r}")
        if self.grid_um <= 0 or self.splat_um < self.grid_um:
            raise ValueError(
                "grid_um must be positive and splat_um at least grid_um: cells would fall between the nodes"
            )


def splat(value_ME: Tensor, xy_nodes_M2: Tensor, image_M: Tensor, shape: tuple[int, int, int], radius: float) -> Tensor:
    """Spread each cell over the nearest grid nodes: out[b, :, i, j] = sum_m value_m tri(x_m - j) tri(y_m - i).

    Parameters: `xy_nodes_M2` in units of nodes, node (i, j) at (j, i); `image_M` increasing; `shape` = (B, h, w); `radius`,
    half-width of the kernel tri(d) = max(0, 1 - |d| / radius), in nodes, at least 1. On cells that are `radius` apart on a
    lattice the weights at every node sum to one: it is then a bilinear interpolation of the lattice. Returns [B, E, h, w].

    A dense product per image: on patch-sized canvases several times faster than scattering, and summed in a fixed order.
    """
    B, h, w = shape
    count_B = torch.bincount(image_M, minlength=B)
    slot_M = torch.arange(len(image_M), device=image_M.device) - (count_B.cumsum(0) - count_B)[image_M]
    n_slots = int(count_B.max()) if len(image_M) else 0

    def padded(x_MK: Tensor) -> Tensor:
        out = x_MK.new_zeros(B, n_slots, x_MK.shape[1])
        return out.index_put((image_M, slot_M), x_MK)

    def weights(x_M: Tensor, n_nodes: int) -> Tensor:
        nodes = torch.arange(n_nodes, device=x_M.device, dtype=x_M.dtype)
        return padded((1 - (nodes - x_M[:, None]).abs() / radius).clamp_min(0))

    weight_BSh, weight_BSw = weights(xy_nodes_M2[:, 1], h), weights(xy_nodes_M2[:, 0], w)
    weight_BShw = (weight_BSh[:, :, :, None] * weight_BSw[:, :, None, :]).reshape(B, n_slots, h * w)
    return (padded(value_ME).mT @ weight_BShw.to(value_ME.dtype)).reshape(B, -1, h, w)


class CellMapEncoder(nn.Module):
    """`PlacedCells` -> condition map [B, D, h, w] and condition vector [B, D]."""

    def __init__(self, config: ConditionConfig, *, n_latent: int, n_slides: int) -> None:
        super().__init__()
        self.config = config
        self.map_channels, self.vector_dim = config.channels, config.channels
        self.embed = nn.Sequential(
            nn.Linear(n_latent + 1, 2 * config.embedding), nn.SiLU(), nn.Linear(2 * config.embedding, config.embedding)
        )
        n_extra = N_OUTLINE_CHANNELS if config.outlines else 0
        self.conv1 = nn.Conv2d(config.embedding + 1 + n_extra, config.channels, 3)
        self.conv2 = nn.Conv2d(config.channels, config.channels, 3)
        self.mode_3D = nn.Embedding(3, config.channels)
        self.slide_SD = nn.Embedding(n_slides + 1, config.channels)
        self.null_D = nn.Parameter(torch.zeros(config.channels))

    def forward(self, cells: PlacedCells, grid_hw: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return (map [B, D, h, w], vector [B, D]); node (i, j) sits at ((j + 0.5) grid_um, (i + 0.5) grid_um)."""
        value_ME = self.embed(torch.cat([cells.z_MZ, cells.depth_M[:, None]], dim=1)).float()
        value_ME = torch.cat([value_ME, torch.ones_like(value_ME[:, :1])], dim=1)
        shape = (len(cells.mode_B), grid_hw[0] + 2 * HALO_NODES, grid_hw[1] + 2 * HALO_NODES)
        grid_BEhw = (
            self._spread_outlines(cells, value_ME, shape)
            if self.config.outlines
            else self._splat(cells, value_ME, shape)
        )
        mode_BD = self.mode_3D(cells.mode_B)
        h = self.conv1(grid_BEhw.contiguous(memory_format=torch.channels_last)) + mode_BD[:, :, None, None]
        map_BDhw = self.conv2(F.silu(h))
        conditional_B = (cells.mode_B != MODE_NONE)[:, None, None, None]
        map_BDhw = torch.where(conditional_B, map_BDhw, self.null_D[:, None, None].to(map_BDhw.dtype))
        return map_BDhw, mode_BD + self.slide_SD(cells.slide_B)

    def _splat(self, cells: PlacedCells, value_ME: Tensor, shape: tuple[int, int, int]) -> Tensor:
        xy_nodes_M2 = cells.xy_um_M2 / self.config.grid_um - 0.5 + HALO_NODES
        return splat(value_ME, xy_nodes_M2, cells.image_M, shape, self.config.splat_um / self.config.grid_um)

    def _spread_outlines(self, cells: PlacedCells, value_ME: Tensor, shape: tuple[int, int, int]) -> Tensor:
        """As `_splat`, but a cell with an outline is spread over it; `N_OUTLINE_CHANNELS` follow the channels of `value_ME`."""
        step_um = self.config.grid_um / POINTS_PER_NODE
        fine_shape = (shape[0], shape[1] * POINTS_PER_NODE, shape[2] * POINTS_PER_NODE)
        outline_MV2 = cells.outline_MV2
        if outline_MV2 is None:
            outline_MV2 = cells.xy_um_M2.new_full((len(cells.xy_um_M2), 1, 2), torch.nan)
        label_Brc = rasterise(
            outline_MV2, cells.image_M, fine_shape, step_um=step_um, start_um=-HALO_NODES * self.config.grid_um
        )
        table = torch.cat([value_ME.new_zeros(1, value_ME.shape[1]), value_ME])  # the first: of no cell
        covered_Brc = label_Brc > 0
        fine = torch.cat(
            [F.embedding(label_Brc, table), torch.stack([covered_Brc, boundary(label_Brc)], dim=3).to(table.dtype)],
            dim=3,
        )
        spread = F.avg_pool2d(fine.permute(0, 3, 1, 2), POINTS_PER_NODE)
        # cells without an outline are points with a triangular kernel; the last channel marks the centres of all cells
        is_point_M1 = (~torch.isfinite(outline_MV2).all(dim=(1, 2)))[:, None]
        points_BEhw = self._splat(
            cells, torch.cat([value_ME * is_point_M1, torch.ones_like(value_ME[:, :1])], 1), shape
        )
        n_values = value_ME.shape[1]
        return torch.cat(
            [spread[:, :n_values] + points_BEhw[:, :n_values], spread[:, n_values:], points_BEhw[:, n_values:]], 1
        )


class CellVectorEncoder(nn.Module):
    """The published model's condition: the latent of the one cell at the centre, as a vector; no map."""

    def __init__(self, config: ConditionConfig, *, n_latent: int, n_slides: int) -> None:
        super().__init__()
        self.config = config
        self.map_channels, self.vector_dim = 0, n_latent
        self.null_Z = nn.Parameter(torch.zeros(n_latent))

    def forward(self, cells: PlacedCells, grid_hw: tuple[int, int]) -> tuple[None, Tensor]:
        """Return (None, vector [B, Z]): each image's cell nearest to the canvas centre, the null vector without cells."""
        side_um = torch.tensor([grid_hw[1], grid_hw[0]], device=cells.xy_um_M2.device) * self.config.grid_um
        distance_M = (cells.xy_um_M2 - side_um / 2).norm(dim=1)
        rows = []
        for b in range(len(cells.mode_B)):
            own = torch.nonzero(cells.image_M == b)[:, 0]
            conditional = len(own) > 0 and int(cells.mode_B[b]) != MODE_NONE
            rows.append(cells.z_MZ[own[distance_M[own].argmin()]].float() if conditional else self.null_Z)
        return None, torch.stack(rows)
