"""Log-likelihoods of expression, summed over genes: negative binomial and Gaussian.

Shapes: N cells, G genes. All functions work in float32 and return one value per cell, in nats.

The negative binomial is written with its logit ``l = log mean - log theta`` (mean, inverse dispersion theta):

    log NB(x) = lgamma(x + theta) - lgamma(theta) - lgamma(x + 1) + x * l - (x + theta) * softplus(l)

(equal to the form of scVI, Lopez et al. 2018). Nineteen of twenty counts are zero, where the three lgamma terms vanish,
so these are computed on the non-zero counts alone. Forward and gradient are closed forms in one `autograd.Function`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

LOG_THETA_RANGE = (-6.0, 8.0)  # outside, the distribution is indistinguishable from its limit at the counts of one cell


def negative_binomial_log_prob(counts_NG: Tensor, log_mean_NG: Tensor, log_theta_G: Tensor) -> Tensor:
    """Log-probability of raw counts under a negative binomial, summed over genes.

    Parameters
    ----------
    counts_NG : non-negative counts (integers, or fractions after destriping).
    log_mean_NG : log of the mean, any finite value.
    log_theta_G : log of the inverse dispersion per gene; clamped to ``LOG_THETA_RANGE``.

    Returns
    -------
    Tensor [N], nats.
    """
    log_theta_G = log_theta_G.float().clamp(*LOG_THETA_RANGE)
    result: Tensor = _NegativeBinomial.apply(counts_NG.float(), log_mean_NG.float(), log_theta_G)
    return result


def gaussian_log_prob(target_NG: Tensor, mean_NG: Tensor) -> Tensor:
    """Log-density of a unit-variance Gaussian, no constant, summed over genes: ``-0.5 * |target - mean|^2``."""
    return -0.5 * (target_NG.float() - mean_NG.float()).square().sum(1)


class _NegativeBinomial(torch.autograd.Function):
    """Closed-form forward and backward; saves one probability per count and the gradient to log theta."""

    @staticmethod
    def forward(ctx: Any, counts_NG: Tensor, log_mean_NG: Tensor, log_theta_G: Tensor) -> Tensor:
        theta_G = log_theta_G.exp()
        logit_NG = log_mean_NG - log_theta_G
        softplus_NG = F.softplus(logit_NG)
        log_prob_N = (counts_NG * logit_NG - (counts_NG + theta_G) * softplus_NG).sum(1)
        row, column = counts_NG.nonzero(as_tuple=True)
        # double: lgamma(x + theta) - lgamma(theta) cancels to nothing in float32 when theta is large
        x, theta = counts_NG[row, column].double(), theta_G[column].double()
        gamma_terms = torch.lgamma(x + theta) - torch.lgamma(theta) - torch.lgamma(x + 1)
        log_prob_N = log_prob_N.index_add(0, row, gamma_terms.to(log_prob_N.dtype))
        ctx.save_for_backward(counts_NG, logit_NG, softplus_NG, theta_G, row, column)
        return log_prob_N

    @staticmethod
    def backward(ctx: Any, grad_N: Tensor) -> tuple[None, Tensor | None, Tensor | None]:  # type: ignore[override]
        counts_NG, logit_NG, softplus_NG, theta_G, row, column = ctx.saved_tensors
        p_NG = torch.sigmoid(logit_NG)
        grad_logit_NG = (counts_NG - (counts_NG + theta_G) * p_NG) * grad_N[:, None]
        grad_theta_G = None
        if ctx.needs_input_grad[2]:
            x, theta = counts_NG[row, column].double(), theta_G[column].double()
            digamma = (torch.digamma(x + theta) - torch.digamma(theta)).to(theta_G.dtype) * grad_N[row]
            per_theta_G = torch.zeros_like(theta_G).index_add(0, column, digamma) - (grad_N[:, None] * softplus_NG).sum(
                0
            )
            grad_theta_G = theta_G * per_theta_G - grad_logit_NG.sum(0)
        return None, grad_logit_NG, grad_theta_G
