"""Auxiliary losses of z2: independence of the type, and prediction of the neighbourhood.

Independence of z1 and z2. With responsibilities gamma = q(c | x), the two blocks are independent when

    z2 is independent of c            (the type is not in z2: has a gradient to z2), and
    z1 is independent of z2 given c   (z1 does not repeat z2: measured only).

Each is measured by the R^2 of a ridge regression that is solved in closed form in the batch and corrected for the number of
predictors: 0 = no linear predictor finds anything, 1 = determined. An adversarial network would have to be trained against a
moving target; the regression is always at its optimum. Dependence that is too weak to measure in a batch is removed from z2 by
construction: see `centre_micro` in `GeneVAE.encode`.

Neighbourhood. Heads predict the composition and the mean expression of the neighbours from z2 (after scVIVA). An additive term
that reads the responsibilities explains what the type of a cell already predicts (not z1, which could then encode the
neighbourhood in place of z2), and z2 learns the rest.

Shapes: N cells, K components, T dims of z1, M of z2, P classes of neighbours, E dims of their mean expression.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

RIDGE = 1e-2  # of the standardised predictors, so that directions without spread have no weight
MIN_CLASS_SHARE = 1e-3  # of a class among the neighbours of a component's cells, so that its logit stays finite


def linear_r2(predictor_ND: Tensor, target_NE: Tensor) -> Tensor:
    """Adjusted R^2 of the linear regression of standardised targets on standardised predictors, scalar float32.

    About 0 for unrelated blocks whatever D, 1 when determined. Constant columns count for nothing. With fewer than
    D + 8 cells the regression could fit anything: the result is 0, still connected to the inputs.
    """
    n_cells, n_predictors = predictor_ND.shape
    if n_cells < n_predictors + 8:
        return 0.0 * (predictor_ND.sum() + target_NE.sum())
    with torch.autocast(predictor_ND.device.type, enabled=False):
        x_ND, y_NE = _standardised(predictor_ND.float()), _standardised(target_NE.float())
        gram_DD = x_ND.T @ x_ND / n_cells
        inverse_DD = torch.linalg.inv(gram_DD + RIDGE * torch.eye(n_predictors, device=x_ND.device))
        cross_DE = x_ND.T @ y_NE / n_cells
        r2 = (cross_DE * (inverse_DD @ cross_DE)).sum() / y_NE.square().mean(0).sum().clamp_min(1e-6)
        # effective number of predictors; with D itself, fewer independent dims would look like less dependence
        n_effective = (inverse_DD * gram_DD).sum()
        return 1 - (1 - r2) * (n_cells - 1) / (n_cells - 1 - n_effective)


def within_component(z_ND: Tensor, gamma_NK: Tensor) -> Tensor:
    """z minus the mean of its component: sum_c gamma_c (z - mean_c), [N, D]; the means are taken without gradient."""
    mass_K1 = gamma_NK.sum(0)[:, None].clamp_min(1e-6)
    means_KD = (gamma_NK.T @ z_ND.detach()) / mass_K1
    return z_ND - gamma_NK @ means_KD


def dependence(z1_NT: Tensor, z2_NM: Tensor, gamma_NK: Tensor | None) -> tuple[Tensor, Tensor]:
    """(R^2 of the type from z2, R^2 of z1 from z2 within types); the first has a gradient to z2 alone, the second has none.

    z1 never reads the neighbours, and a gradient to z1 would cost types: on kidney bins without labels NMI 0.20 with a weight of
    200, 0.33 with 5, 0.34 with none.

    Without a mixture (`gamma_NK` None), the first is the R^2 of z1 from z2, and the second is 0. Clamped at 0: values below
    the chance level could only be reached by overfitting the batch.
    """
    with torch.autocast(z1_NT.device.type, enabled=False):
        z1_NT, z2_NM = z1_NT.float(), z2_NM.float()
        if gamma_NK is None:
            return linear_r2(z2_NM, z1_NT.detach()).clamp_min(0), z1_NT.new_zeros(())
        gamma_NK = gamma_NK.detach().float()
        with torch.no_grad():
            inside = linear_r2(within_component(z2_NM, gamma_NK), within_component(z1_NT, gamma_NK))
        return linear_r2(z2_NM, gamma_NK).clamp_min(0), inside.clamp_min(0)


def _standardised(x_ND: Tensor) -> Tensor:
    """Zero mean and unit spread per column; constant columns become zero."""
    centred_ND = x_ND - x_ND.mean(0)
    return centred_ND / (centred_ND.square().mean(0) + 1e-8).sqrt()


class Neighbourhood(NamedTuple):
    """Targets of the neighbourhood heads. Rows of weight 0 (no neighbours, no positions) are ignored."""

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
        """Initialise the additive term at the mean neighbourhood of each component's cells."""
        weight_NK = gamma_NK * target.weight_N[:, None]
        share_KN = (weight_NK / weight_NK.sum(0).clamp_min(1e-6)).T
        mean_KO = torch.cat(
            [(share_KN @ target.composition_NP).clamp_min(MIN_CLASS_SHARE).log(), share_KN @ target.embedding_NE], 1
        )
        self.of_component_KO[: len(mean_KO)].copy_(mean_KO)

    def loss(self, gamma_NK: Tensor, z2_NM: Tensor, target: Neighbourhood) -> Tensor:
        """KL(target || predicted composition) + half the squared error of the embedding, mean over cells, nats."""
        logits_NP, embedding_NE = self(gamma_NK, z2_NM)
        entropy_N = -torch.xlogy(target.composition_NP, target.composition_NP).sum(1)
        composition_N = -(target.composition_NP * F.log_softmax(logits_NP, 1)).sum(1) - entropy_N
        embedding_N = 0.5 * (embedding_NE - target.embedding_NE).square().sum(1)
        return ((composition_N + embedding_N) * target.weight_N).sum() / target.weight_N.sum().clamp_min(1.0)
