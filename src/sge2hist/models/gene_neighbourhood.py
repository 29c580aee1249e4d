"""Heads that make z2 carry the cells around: composition and mean expression of the neighbours (after scVIVA).

What the type of a cell already says about its surroundings is explained by an additive part that reads its
responsibilities (not z1, which could then hold the surroundings in place of z2); z2 learns what is left.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SMALLEST_SHARE = 1e-3
"""Of a class among the neighbours of a component's cells, so that its logit stays finite."""


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

    def __init__(self, n_components: int, n_micro: int, n_composition: int, n_embedding: int, width: int = 128) -> None:
        super().__init__()
        self.n_composition = n_composition
        n_out = n_composition + n_embedding
        self.from_micro = nn.Sequential(nn.Linear(n_micro, width), nn.SiLU(), nn.Linear(width, n_out))
        self.of_component_KO = nn.Parameter(torch.zeros(n_components, n_out))

    def forward(self, gamma_NK: Tensor, z2_NM: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the composition [N, P] and the embedding [N, E]; K may be smaller than built (pruned)."""
        with torch.autocast(z2_NM.device.type, enabled=False):
            of_type_NO = gamma_NK.detach().float() @ self.of_component_KO[: gamma_NK.shape[1]]
            out_NO = self.from_micro(z2_NM.float()) + of_type_NO
        return out_NO[:, : self.n_composition], out_NO[:, self.n_composition :]

    @torch.no_grad()
    def start(self, gamma_NK: Tensor, target: Neighbourhood) -> None:
        """Let the additive part tell what each component's cells have around them on average, so that z2 need not."""
        weight_NK = gamma_NK * target.weight_N[:, None]
        share_KN = (weight_NK / weight_NK.sum(0).clamp_min(1e-6)).T
        mean_KO = torch.cat(
            [(share_KN @ target.composition_NP).clamp_min(SMALLEST_SHARE).log(), share_KN @ target.embedding_NE], 1
        )
        self.of_component_KO[: len(mean_KO)].copy_(mean_KO)

    def loss(self, gamma_NK: Tensor, z2_NM: Tensor, target: Neighbourhood) -> Tensor:
        """KL(target || predicted composition) + half the squared error of the embedding, mean over cells, nats."""
        logits_NP, embedding_NE = self(gamma_NK, z2_NM)
        entropy_N = -torch.xlogy(target.composition_NP, target.composition_NP).sum(1)
        composition_N = -(target.composition_NP * F.log_softmax(logits_NP, 1)).sum(1) - entropy_N
        embedding_N = 0.5 * (embedding_NE - target.embedding_NE).square().sum(1)
        return ((composition_N + embedding_N) * target.weight_N).sum() / target.weight_N.sum().clamp_min(1.0)
