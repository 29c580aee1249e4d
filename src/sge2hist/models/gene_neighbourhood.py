"""Heads that make z2 carry the cells around: composition and mean expression of the neighbours (after scVIVA).

What the type of a cell already says about its surroundings is explained by an additive part that reads z1 without
sending a gradient to it; z2 learns what is left.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Neighbourhood(NamedTuple):
    """Targets of N cells. Rows of weight 0 (no neighbours, no positions) are ignored."""

    composition_NP: Tensor  # share of each class among the neighbours, rows sum to 1
    embedding_NE: Tensor  # mean expression embedding of the neighbours, standardised over the training cells
    weight_N: Tensor  # 0 or 1

    def to(self, device: torch.device | str) -> Neighbourhood:
        """The same targets on another device."""
        return Neighbourhood(*(part.to(device) for part in self))


class NeighbourhoodHeads(nn.Module):
    """Predict composition and embedding of the neighbours from z2 (and, additively, from a detached z1)."""

    def __init__(self, n_type: int, n_micro: int, n_composition: int, n_embedding: int, width: int = 128) -> None:
        super().__init__()
        self.n_composition = n_composition
        n_out = n_composition + n_embedding
        self.from_micro = nn.Sequential(nn.Linear(n_micro, width), nn.SiLU(), nn.Linear(width, n_out))
        self.from_type = nn.Sequential(nn.Linear(n_type, width), nn.SiLU(), nn.Linear(width, n_out))

    def forward(self, z1_NT: Tensor, z2_NM: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the composition [N, P] and the embedding [N, E]."""
        out = (self.from_micro(z2_NM) + self.from_type(z1_NT.detach())).float()
        return out[:, : self.n_composition], out[:, self.n_composition :]

    def loss(self, z1_NT: Tensor, z2_NM: Tensor, target: Neighbourhood) -> Tensor:
        """KL(target || predicted composition) + half the squared error of the embedding, mean over cells, nats."""
        logits_NP, embedding_NE = self(z1_NT, z2_NM)
        entropy_N = -torch.xlogy(target.composition_NP, target.composition_NP).sum(1)
        composition_N = -(target.composition_NP * F.log_softmax(logits_NP, 1)).sum(1) - entropy_N
        embedding_N = 0.5 * (embedding_NE - target.embedding_NE).square().sum(1)
        return ((composition_N + embedding_N) * target.weight_N).sum() / target.weight_N.sum().clamp_min(1.0)
