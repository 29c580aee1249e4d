"""Novelty: how unlike the training cells of the gene model a cell is. Two scores per cell, and their quantiles.

`fit`: how well the reconstruction rho explains the counts x, relative to counts sampled from rho:

    fit = ( sum_g x_g log rho_g / n + H(rho) ) / sqrt( Var_rho[log rho] / n ),   n = sum_g x_g

which needs no reference for depth or panel (both sums run over the observed genes). `latent`: log-density of the
posterior mean under the prior. Low values are unusual; a cell is flagged when either is below the 0.1 % quantile of the
reference cells.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

N_QUANTILES = 1001
FLAG_BELOW = 0.001


def fit_score(counts_NG: Tensor, proportions_NG: Tensor) -> Tensor:
    """Standardised log-likelihood of counts under proportions (rows sum to 1), [N]; 0 for empty cells."""
    n_N = counts_NG.sum(1)
    log_p_NG = proportions_NG.clamp_min(1e-12).log()
    expected_N = (proportions_NG * log_p_NG).sum(1)
    variance_N = (proportions_NG * log_p_NG.square()).sum(1) - expected_N.square()
    surplus_N = (counts_NG * log_p_NG).sum(1) / n_N.clamp_min(1.0) - expected_N
    score_N = surplus_N * (n_N / variance_N.clamp_min(1e-6)).sqrt()
    return torch.where(n_N > 0, score_N, 0.0)


class NoveltyReference(nn.Module):
    """Quantiles of both scores among reference cells, saved with the model."""

    fit_Q: Tensor
    latent_Q: Tensor
    calibrated: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("fit_Q", torch.zeros(N_QUANTILES))
        self.register_buffer("latent_Q", torch.zeros(N_QUANTILES))
        self.register_buffer("calibrated", torch.tensor(False))

    def calibrate(self, fit_N: Tensor, latent_N: Tensor) -> None:
        """Store the quantiles of the scores of reference cells."""
        probabilities = torch.linspace(0, 1, N_QUANTILES, dtype=torch.float64)
        for target_Q, score_N in ((self.fit_Q, fit_N), (self.latent_Q, latent_N)):
            target_Q.copy_(torch.quantile(score_N.double().cpu()[:1_000_000], probabilities))
        self.calibrated.fill_(True)

    def quantiles(self, fit_N: Tensor, latent_N: Tensor) -> tuple[Tensor, Tensor]:
        """Share of reference cells with a lower score, 0 to 1, for each score; nan before calibration."""
        if not self.calibrated:
            return torch.full_like(fit_N, torch.nan), torch.full_like(latent_N, torch.nan)
        return tuple(  # type: ignore[return-value]
            torch.searchsorted(grid_Q, score_N.to(grid_Q).contiguous()) / N_QUANTILES
            for grid_Q, score_N in ((self.fit_Q, fit_N), (self.latent_Q, latent_N))
        )


def latent_score(log_prior_z1_N: Tensor, z2_NM: Tensor) -> Tensor:
    """log p(z1) + log N(z2; 0, I), [N], nats."""
    return log_prior_z1_N - 0.5 * (z2_NM.square().sum(1) + z2_NM.shape[1] * math.log(2 * math.pi))
