"""Proteins of a cell: inputs of the encoder beside its counts, and what its latent reproduces of them.

A value v (UMI of an antibody, or a mean intensity) enters as (log1p(v) - mean) / sd over the training cells, beside a mask that
is 1 where it was measured; NaN marks what was not. Shapes: N cells, P proteins, H hidden units, Z latent dims.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

RESIDUAL_SD = 0.4
"""Standard deviation of a standardised protein given z. Fixed: a learnt one would call a protein that no gene follows noise."""


class ProteinInput(nn.Module):
    """Standardised proteins and their mask -> terms of the encoder's first hidden layer; it starts at zero."""

    mean_P: Tensor
    sd_P: Tensor

    def __init__(self, n_proteins: int, width: int) -> None:
        super().__init__()
        self.register_buffer("mean_P", torch.zeros(n_proteins))
        self.register_buffer("sd_P", torch.ones(n_proteins))
        self.layer = nn.Linear(2 * n_proteins, width, bias=False)
        nn.init.zeros_(self.layer.weight)

    def standardised(self, protein_NP: Tensor) -> tuple[Tensor, Tensor]:
        """Float32 values [N, P], 0 where not measured, and where they were, bool [N, P]."""
        measured_NP = torch.isfinite(protein_NP)
        value_NP = (torch.log1p(protein_NP.float()) - self.mean_P) / self.sd_P
        return torch.where(measured_NP, value_NP, 0.0), measured_NP

    def forward(self, protein_NP: Tensor) -> Tensor:
        """Terms of the hidden layer, [N, H]; zeros for cells without proteins."""
        value_NP, measured_NP = self.standardised(protein_NP)
        terms_NH: Tensor = self.layer(torch.cat([value_NP, measured_NP.to(value_NP.dtype)], 1))
        return terms_NH


def protein_loss(predicted_NP: Tensor, value_NP: Tensor, measured_NP: Tensor) -> Tensor:
    """Mean over cells of -log N(value; predicted, RESIDUAL_SD^2) + constant over the measured proteins, nats."""
    squares_NP = ((predicted_NP.float() - value_NP) / RESIDUAL_SD).square() * measured_NP
    return 0.5 * squares_NP.sum(1).mean()


def hide_proteins(protein_NP: Tensor, share: float, generator: torch.Generator | None) -> Tensor:
    """All proteins of random cells as not measured."""
    device = generator.device if generator is not None else protein_NP.device
    hidden_N1 = torch.rand(len(protein_NP), 1, generator=generator, device=device) < share
    return protein_NP.masked_fill(hidden_N1.to(protein_NP.device), float("nan"))
