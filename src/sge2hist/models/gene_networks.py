"""Encoder and decoder of the gene model: equations of normalisation first, then blocks, then networks.

Shapes: N cells, G genes, Z latent dims. Counts come in raw; everything before the first matrix product and after the
last one is float32, also under mixed precision.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

LOG_VAR_RANGE = (-10.0, 4.0)  # of a posterior


def library_size(counts_NG: Tensor) -> Tensor:
    """Total counts of each cell over the genes given, at least 1 so that empty cells stay finite, [N, 1]."""
    return counts_NG.sum(1, keepdim=True).clamp_min(1.0)


def log_normalised(counts_NG: Tensor, scale: Tensor | float) -> Tensor:
    """log(1 + scale * counts / library)."""
    return torch.log1p(counts_NG * (scale / library_size(counts_NG)))


def mlp(widths: tuple[int, ...], dropout: float) -> nn.Sequential:
    """Linear, layer norm, SiLU, dropout for each pair of widths. Layer norm: no cell depends on its batch."""
    layers: list[nn.Module] = []
    for width_in, width_out in pairwise(widths):
        layers += [nn.Linear(width_in, width_out), nn.LayerNorm(width_out), nn.SiLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers)


class GeneEncoder(nn.Module):
    """q(z | x): raw counts of any part of the panel -> mean and log-variance.

    Each cell is scaled to the depth that a typical cell has on the same genes: the input of a gene does not depend on
    which others were measured. Genes not observed enter as their training mean. Depth and observed share are two more
    inputs, because they say how sure one can be.
    """

    scale: Tensor
    mean_proportion_G: Tensor
    mean_input_G: Tensor

    def __init__(self, n_genes: int, hidden: tuple[int, ...], n_latent: int, dropout: float) -> None:
        super().__init__()
        self.trunk = mlp((n_genes + 2, *hidden), dropout)
        self.head = nn.Linear(hidden[-1], 2 * n_latent)
        self.register_buffer("scale", torch.tensor(1000.0))
        self.register_buffer("mean_proportion_G", torch.full((n_genes,), 1.0 / n_genes))
        self.register_buffer("mean_input_G", torch.zeros(n_genes))

    def inputs(self, counts_NG: Tensor, observed_G: Tensor | None = None) -> Tensor:
        """Centred log-normalised counts, log depth and observed share: [N, G + 2]. observed: bool [G] or [N, G]."""
        share = counts_NG.new_ones(1)
        if observed_G is not None:
            counts_NG = counts_NG * observed_G
            share = (observed_G * self.mean_proportion_G).sum(-1, keepdim=True)
        input_NG = log_normalised(counts_NG, self.scale * share) - self.mean_input_G
        if observed_G is not None:
            input_NG = input_NG * observed_G
        depth_N1 = (counts_NG.sum(1, keepdim=True).log1p() - self.scale.log1p()).clamp(-8, 3)
        return torch.cat([input_NG, depth_N1, share.expand(len(counts_NG), 1)], 1)

    def forward(self, counts_NG: Tensor, observed_G: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and clamped log-variance of q(z | x), each float32 [N, Z]."""
        hidden_NH = self.trunk(self.inputs(counts_NG.float(), observed_G))
        with torch.autocast(hidden_NH.device.type, enabled=False):
            mean_NZ, log_var_NZ = self.head(hidden_NH.float()).chunk(2, dim=1)
        return mean_NZ, log_var_NZ.clamp(*LOG_VAR_RANGE)


class GeneDecoder(nn.Module):
    """z -> one number per gene: an offset from a bias that starts at the training mean and stays float32."""

    def __init__(self, n_genes: int, hidden: tuple[int, ...], n_latent: int, dropout: float) -> None:
        super().__init__()
        self.trunk = mlp((n_latent, *reversed(hidden)), dropout)
        self.weight = nn.Linear(hidden[0], n_genes, bias=False)
        self.bias_G = nn.Parameter(torch.zeros(n_genes))
        nn.init.normal_(self.weight.weight, std=0.1 / hidden[0] ** 0.5)

    def hidden(self, z_NZ: Tensor) -> Tensor:
        """Last hidden layer [N, hidden[0]]."""
        hidden: Tensor = self.trunk(z_NZ)
        return hidden

    def forward(self, z_NZ: Tensor) -> Tensor:
        """Float32 [N, G]: logits of the gene proportions (counts) or predicted log1p values (mse)."""
        logits: Tensor = self.weight(self.hidden(z_NZ)).float() + self.bias_G
        return logits
