"""Encoder and decoder of the gene model: equations of normalisation first, then blocks, then networks.

Shapes: N cells, G genes, E axes of expression, A neighbourhood features, Z latent dims. Inputs are raw counts; everything before
the first matrix product and after the last one is float32, also under mixed precision.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from sge2hist.models.gene.proteins import ProteinInput

if TYPE_CHECKING:
    from scipy.sparse import csr_array

LOG_VAR_RANGE = (-10.0, 4.0)  # of a posterior
NEIGHBOUR_WIDTH = 128  # of the layer that reads the neighbourhood features
HEAD_SCALE = 0.3  # of the head's initial weights for z1, when z1 starts on the axes
MIN_SHARE = 0.02  # of an axis's squared weights on measured genes, below which its coordinate is shrunk


def library_size(counts_NG: Tensor) -> Tensor:
    """Total counts of each cell over the genes given, at least 1 so that empty cells stay finite, [N, 1]."""
    return counts_NG.sum(1, keepdim=True).clamp_min(1.0)


def log_normalised(counts_NG: Tensor, scale: Tensor | float) -> Tensor:
    """log(1 + scale * counts / library)."""
    return torch.log1p(counts_NG * (scale / library_size(counts_NG)))


def mlp(widths: tuple[int, ...], dropout: float, *, plain: bool = False) -> nn.Sequential:
    """Linear, layer norm, SiLU, dropout for each pair of widths; `plain`: linear and ReLU, as in the published code.

    Layer norm: no cell depends on its batch.
    """
    layers: list[nn.Module] = []
    for width_in, width_out in pairwise(widths):
        if plain:
            layers += [nn.Linear(width_in, width_out), nn.ReLU()]
            continue
        layers += [nn.Linear(width_in, width_out), nn.LayerNorm(width_out), nn.SiLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers)


class ExpressionAxes(nn.Module):
    """Principal axes of expression: a fixed linear summary of a cell, in units of the spread among training cells.

    The coordinates of log-normalised, centred expression on orthonormal axes start z1 at the principal components, from which
    a few thousand steps lead further than from random weights; their mean over the neighbours of a cell is the input from
    which the posterior of z2 learns its microenvironment.

    When only part of the genes is measured, a coordinate is divided by the share of the axis's squared weights on measured
    genes (the least-squares estimate, if the measured parts of different axes are uncorrelated), and shrunk where that share
    is small.
    """

    weight_GE: Tensor
    spread_E: Tensor

    def __init__(self, n_genes: int, n_axes: int) -> None:
        super().__init__()
        self.register_buffer("weight_GE", torch.zeros(n_genes, n_axes))
        self.register_buffer("spread_E", torch.ones(n_axes))

    @property
    def n_axes(self) -> int:
        """Number of axes E."""
        return self.spread_E.shape[0]

    def forward(self, input_NG: Tensor, observed_G: Tensor | None = None) -> Tensor:
        """Coordinates [N, E] of centred inputs in which missing genes are zero; observed: bool [G] or [N, G]."""
        coordinate_NE = input_NG @ self.weight_GE / self.spread_E
        if observed_G is None:
            return coordinate_NE
        share_E = observed_G.to(input_NG.dtype) @ self.weight_GE.square()
        return coordinate_NE * (1 + MIN_SHARE) / (share_E + MIN_SHARE)

    def of_counts(
        self, counts_NG: csr_array, observed_G: np.ndarray, scale: float, mean_input_G: np.ndarray
    ) -> np.ndarray:
        """Coordinates of sparse raw counts, float32 [N, E], never made dense; a cell's row does not depend on the others.

        `scale`: depth of a typical cell on the measured genes. Columns that were not measured must be empty.
        """
        from scipy.sparse import csr_array

        weight_GE = self.weight_GE.cpu().numpy().astype(np.float64)
        counts = counts_NG.data.astype(np.float64)  # the same result for every type of counts
        library_N = np.asarray(counts_NG.sum(1, dtype=np.float64)).ravel().clip(1.0)
        values = np.log1p(counts * (scale / np.repeat(library_N, np.diff(counts_NG.indptr))))
        log_NG = csr_array((values, counts_NG.indices, counts_NG.indptr), counts_NG.shape)
        centre_E = (mean_input_G * observed_G) @ weight_GE
        coordinate_NE = (log_NG @ weight_GE - centre_E) / self.spread_E.cpu().numpy()
        if not observed_G.all():
            share_E = observed_G.astype(np.float64) @ weight_GE**2
            coordinate_NE *= (1 + MIN_SHARE) / (share_E + MIN_SHARE)
        return coordinate_NE.astype(np.float32)


class GeneEncoder(nn.Module):
    """q(z | x): raw counts of any part of the panel -> mean and log-variance.

    Each cell is scaled to the depth that a typical cell has on the same genes: the input of a gene does not depend on
    which others were measured. Genes not observed enter as their training mean. Depth and observed share are two more
    inputs, because they determine the uncertainty.

    With axes, the coordinates on them enter the posterior directly, and z1 starts there. The posterior of z2 may also read
    neighbourhood features (`neighbour_features`): the mean coordinates of the neighbours and a 1, or zeros when unknown.
    Proteins enter the first hidden layer beside the genes (`ProteinInput`).
    """

    scale: Tensor
    mean_proportion_G: Tensor
    mean_input_G: Tensor

    def __init__(
        self,
        n_genes: int,
        hidden: tuple[int, ...],
        n_type: int,
        n_micro: int,
        dropout: float,
        *,
        n_axes: int = 0,
        n_neighbour_features: int = 0,
        n_proteins: int = 0,
        plain: bool = False,
    ) -> None:
        super().__init__()
        self.reads_raw_counts = plain
        self.n_type = n_type
        n_latent = n_type + n_micro
        self.trunk = mlp((n_genes + 2, *hidden), dropout, plain=plain)
        self.head = nn.Linear(hidden[-1], 2 * n_latent)
        self.axes = ExpressionAxes(n_genes, n_axes) if n_axes else None
        self.from_axes = nn.Linear(n_axes, 2 * n_latent, bias=False) if n_axes else None
        self.from_neighbours = None
        if n_neighbour_features:
            self.from_neighbours = nn.Sequential(
                nn.Linear(n_neighbour_features, NEIGHBOUR_WIDTH), nn.SiLU(), nn.Linear(NEIGHBOUR_WIDTH, 2 * n_micro)
            )
        self.from_proteins = ProteinInput(n_proteins, hidden[0]) if n_proteins else None
        self.register_buffer("scale", torch.tensor(1000.0))
        self.register_buffer("mean_proportion_G", torch.full((n_genes,), 1.0 / n_genes))
        self.register_buffer("mean_input_G", torch.zeros(n_genes))

    @property
    def n_axes(self) -> int:
        """Number of axes E; 0 = none."""
        return 0 if self.axes is None else self.axes.n_axes

    def inputs(self, counts_NG: Tensor, observed_G: Tensor | None = None) -> Tensor:
        """Centred log-normalised (or raw) counts, log depth, observed share: [N, G + 2]. observed: bool [G] or [N, G]."""
        share = counts_NG.new_ones(1)
        if observed_G is not None:
            counts_NG = counts_NG * observed_G
            share = (observed_G * self.mean_proportion_G).sum(-1, keepdim=True)
        if self.reads_raw_counts:
            input_NG = counts_NG
        else:
            input_NG = log_normalised(counts_NG, self.scale * share) - self.mean_input_G
        if observed_G is not None:
            input_NG = input_NG * observed_G
        depth_N1 = (counts_NG.sum(1, keepdim=True).log1p() - self.scale.log1p()).clamp(-8, 3)
        return torch.cat([input_NG, depth_N1, share.expand(len(counts_NG), 1)], 1)

    def forward(
        self,
        counts_NG: Tensor,
        observed_G: Tensor | None = None,
        neighbour_NA: Tensor | None = None,
        protein_NP: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Mean and clamped log-variance of q(z | x, neighbours, proteins), each float32 [N, Z]; None: they are unknown."""
        input_NI = self.inputs(counts_NG.float(), observed_G)
        hidden_NH = self.trunk[0](input_NI)
        if self.from_proteins is not None and protein_NP is not None:
            hidden_NH = hidden_NH + self.from_proteins(protein_NP)
        hidden_NH = self.trunk[1:](hidden_NH)
        with torch.autocast(hidden_NH.device.type, enabled=False):
            mean_NZ, log_var_NZ = self.head(hidden_NH.float()).chunk(2, dim=1)
            if self.axes is not None and self.from_axes is not None:
                coordinate_NE = self.axes(input_NI[:, :-2].float(), observed_G)
                more_mean_NZ, more_log_var_NZ = self.from_axes(coordinate_NE).chunk(2, dim=1)
                mean_NZ, log_var_NZ = mean_NZ + more_mean_NZ, log_var_NZ + more_log_var_NZ
            if self.from_neighbours is not None:
                if neighbour_NA is None:
                    neighbour_NA = mean_NZ.new_zeros(len(mean_NZ), self.from_neighbours[0].in_features)
                more = nn.functional.pad(self.from_neighbours(neighbour_NA).unflatten(1, (2, -1)), (self.n_type, 0))
                mean_NZ, log_var_NZ = mean_NZ + more[:, 0], log_var_NZ + more[:, 1]
        return mean_NZ, log_var_NZ.clamp(*LOG_VAR_RANGE)

    @torch.no_grad()
    def start_on_axes(self, weight_GE: Tensor, spread_E: Tensor) -> None:
        """Initialise z1 as the leading coordinates, in proportion to their spread among cells."""
        if self.axes is None or self.from_axes is None:
            return
        self.axes.weight_GE.copy_(weight_GE)
        self.axes.spread_E.copy_(spread_E)
        self.head.weight[: self.n_type].mul_(HEAD_SCALE)
        self.from_axes.weight.zero_()
        n_shared = min(self.n_type, self.axes.n_axes)
        self.from_axes.weight[range(n_shared), range(n_shared)] = spread_E[:n_shared] / spread_E[0]

    def coordinates(self, counts_NG: csr_array, observed_G: np.ndarray | None = None) -> np.ndarray:
        """Coordinates of raw counts on the axes, float32 [N, E]; observed: bool [G], None = all."""
        if self.axes is None:
            raise ValueError("an encoder without axes has no coordinates")
        if observed_G is None:
            observed_G = np.ones(counts_NG.shape[1], bool)
        share = float(self.mean_proportion_G.cpu().numpy()[observed_G].sum())
        scale = float(self.scale) * (1.0 if observed_G.all() else share)
        return self.axes.of_counts(counts_NG, observed_G, scale, self.mean_input_G.cpu().numpy().astype(np.float64))


class GeneDecoder(nn.Module):
    """z -> one number per gene: an offset from a bias that starts at the training mean and stays float32."""

    def __init__(
        self, n_genes: int, hidden: tuple[int, ...], n_latent: int, dropout: float, *, plain: bool = False
    ) -> None:
        super().__init__()
        self.trunk = mlp((n_latent, *reversed(hidden)), dropout, plain=plain)
        self.weight = nn.Linear(hidden[0], n_genes, bias=False)
        self.bias_G = nn.Parameter(torch.zeros(n_genes))
        nn.init.normal_(self.weight.weight, std=0.1 / hidden[0] ** 0.5)

    def forward(self, z_NZ: Tensor) -> Tensor:
        """Float32 [N, G]: logits of the gene proportions (counts) or predicted log1p values (mse)."""
        logits: Tensor = self.weight(self.trunk(z_NZ)).float() + self.bias_G
        return logits
