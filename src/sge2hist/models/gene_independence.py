"""Independence of z2 and the cell type: an adversary that tries to tell the type from z2, and z2 moved until it cannot.

The adversary A predicts the targets t = (z1, responsibilities), standardised over the batch, from standardised z2. It
minimises |t - A(z2)|^2; the encoder minimises |A(z2)|^2, which pulls every prediction to the mean, the best guess of who
knows nothing. Both are bounded, and R^2 = 1 - |t - A(z2)|^2 / |t|^2 measures what is left: 0 = independent as far as A
can tell, 1 = z2 determines the type.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

MIN_CELLS = 8  # fewer cells give no spread to standardise by


class Dependence(NamedTuple):
    """Scalars of one batch."""

    adversary: Tensor  # gradient to the adversary alone: mean squared error, about 1 when nothing can be told
    confusion: Tensor  # gradient to z2 alone: mean squared prediction, 0 when nothing can be told
    r2: Tensor  # explained share of the variance of the targets, no gradient


class TypeAdversary(nn.Module):
    """Two-layer network z2 -> (z1, responsibilities). N cells, T dims of z1, M dims of z2, K components."""

    def __init__(self, n_type: int, n_micro: int, n_components: int, width: int = 128) -> None:
        super().__init__()
        self.n_type, self.n_components = n_type, n_components
        self.network = nn.Sequential(nn.Linear(n_micro, width), nn.SiLU(), nn.Linear(width, n_type + n_components))

    def forward(self, z1_NT: Tensor, gamma_NK: Tensor, z2_NM: Tensor) -> Dependence:
        """Compare z2 with z1 and the responsibilities (K may have been pruned since); targets receive no gradient."""
        if len(z2_NM) < MIN_CELLS:
            zero = 0.0 * z2_NM.sum()
            return Dependence(zero, zero, zero.detach())
        with torch.autocast(z2_NM.device.type, enabled=False):
            target_ND = _standardised(torch.cat([z1_NT, gamma_NK], 1).detach().float())
            spread_M = z2_NM.detach().float().std(0).clamp_min(1e-3)
            input_NM = (z2_NM.float() - z2_NM.detach().float().mean(0)) / spread_M
            n_targets = target_ND.shape[1]
            guess_ND = self.network(input_NM.detach())[:, :n_targets]
            adversary = (target_ND - guess_ND).square().mean()
            frozen = {name: value.detach() for name, value in self.network.named_parameters()}
            confusion = functional_call(self.network, frozen, (input_NM,))[:, :n_targets].square().mean()
        return Dependence(adversary, confusion, (1 - adversary / target_ND.square().mean().clamp_min(1e-6)).detach())


def _standardised(x_ND: Tensor) -> Tensor:
    """Zero mean and unit spread per column; constant columns become zero."""
    centred_ND = x_ND - x_ND.mean(0)
    return centred_ND / centred_ND.std(0, correction=0).clamp_min(1e-3)
