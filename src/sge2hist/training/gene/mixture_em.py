"""Expectation-maximisation of the mixture prior on posteriors instead of points.

A cell is a Gaussian q(z1 | x) = N(m, diag v). For fixed posteriors the bound of VaDE over the mixture is raised by

    gamma_c  ∝ pi_c exp(-KL(q || N_c))                                   (E)
    pi_c = mean gamma_c,  mu_c = E_gamma[m],  var_c = E_gamma[(m - mu_c)^2 + v]   (M)

which for v = 0 is the usual EM of a Gaussian mixture. A mixture fitted to the means alone would be too narrow: the prior
describes samples of q, and every cell would be charged tens of nats. Shapes: N cells, K components, T dims.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from sge2hist.models.gene.encode import assign_components
from sge2hist.models.gene.vae import GeneVAE
from sge2hist.training.gene.data import GeneData, encode_data

VARIANCE_FLOOR = 1e-3


@dataclass(frozen=True, kw_only=True)
class PosteriorMixture:
    """Weights [K], means [K, T] and variances [K, T] of a diagonal Gaussian mixture, float64."""

    weights_K: np.ndarray
    means_KT: np.ndarray
    vars_KT: np.ndarray

    def scores(self, mean_NT: np.ndarray, var_NT: np.ndarray, allowed_NK: np.ndarray | None = None) -> np.ndarray:
        """log pi_c - KL(N(mean, var) || N_c), [N, K], nats; -inf where not `allowed_NK`."""
        inverse_KT = 1 / self.vars_KT
        squares_NK = (mean_NT**2 + var_NT) @ inverse_KT.T - 2 * mean_NT @ (self.means_KT * inverse_KT).T
        squares_NK += (self.means_KT**2 * inverse_KT).sum(1)
        log_ratio_NK = np.log(self.vars_KT).sum(1) - np.log(var_NT).sum(1)[:, None]
        kl_NK = 0.5 * (squares_NK + log_ratio_NK - mean_NT.shape[1])
        score_NK = np.log(np.maximum(self.weights_K, 1e-300)) - kl_NK
        return score_NK if allowed_NK is None else np.where(allowed_NK, score_NK, -np.inf)

    def bound(self, mean_NT: np.ndarray, var_NT: np.ndarray, allowed_NK: np.ndarray | None = None) -> float:
        """Mean over cells of -KL(q(z1, c) || p(z1, c)) at the best responsibilities, nats: higher is better."""
        return float(np.logaddexp.reduce(self.scores(mean_NT, var_NT, allowed_NK), axis=1).mean())

    def responsibilities(
        self, mean_NT: np.ndarray, var_NT: np.ndarray, allowed_NK: np.ndarray | None = None
    ) -> np.ndarray:
        """Best q(c | x), [N, K], rows sum to 1."""
        score_NK = self.scores(mean_NT, var_NT, allowed_NK)
        return np.exp(score_NK - np.logaddexp.reduce(score_NK, axis=1, keepdims=True))


def fit_mixture(
    mean_NT: np.ndarray,
    var_NT: np.ndarray,
    centres_KT: np.ndarray,
    *,
    allowed_NK: np.ndarray | None = None,
    max_steps: int = 100,
    tolerance: float = 1e-4,
) -> PosteriorMixture:
    """Climb from centres (each cell starts in the nearest) until the bound gains less than `tolerance` nats per step.

    `allowed_NK`: bool, the components that each cell may take (at least one); None: all.
    """
    distance_NK = (centres_KT**2).sum(1) - 2 * mean_NT @ centres_KT.T
    if allowed_NK is not None:
        distance_NK = np.where(allowed_NK, distance_NK, np.inf)
    gamma_NK = np.eye(len(centres_KT))[distance_NK.argmin(1)]
    mixture, last = maximise(mean_NT, var_NT, gamma_NK), -np.inf
    for _ in range(max_steps):
        reached = mixture.bound(mean_NT, var_NT, allowed_NK)
        if reached - last < tolerance:
            break
        last = reached
        mixture = maximise(mean_NT, var_NT, mixture.responsibilities(mean_NT, var_NT, allowed_NK))
    return mixture


def maximise(mean_NT: np.ndarray, var_NT: np.ndarray, gamma_NK: np.ndarray) -> PosteriorMixture:
    """The M step: the best mixture for given responsibilities, [N, K]."""
    mass_K = gamma_NK.sum(0) + 1e-6
    means_KT = (gamma_NK.T @ mean_NT) / mass_K[:, None]
    second_KT = (gamma_NK.T @ (mean_NT**2 + var_NT)) / mass_K[:, None]
    return PosteriorMixture(
        weights_K=mass_K / mass_K.sum(),
        means_KT=means_KT,
        vars_KT=np.maximum(second_KT - means_KT**2, VARIANCE_FLOOR),
    )


@torch.no_grad()
def refit_mixture(model: GeneVAE, data: GeneData, *, min_cells: float = 10.0) -> int:
    """One exact M step of the mixture on the posteriors of all training cells, in place; returns the number of components.

    Gradients follow the moving posteriors with a lag, so that components end beside their cells or too wide for them, and
    cells sampled from one type look like those of another. This step, after a new fit to part of the cells, ends training.

    Labelled cells count for the components of their type alone, as in training; pooled bins count for the components that
    they are assigned together, each with its own posterior. Components with less than `min_cells` of responsibility are
    dropped. Then z2 is centred on the components, and its distribution among the cells of each is stored.
    """
    encoded = encode_data(model, data)
    gamma_NK = assign_components(model, encoded, data.pooled(model.config.pool_um), data.type_N).astype(np.float64)
    kept = np.flatnonzero(gamma_NK.sum(0) >= min(min_cells, data.n_cells / 100))
    mean_NT = encoded.z1.astype(np.float64)
    var_NT = np.exp(encoded.z1_log_var.astype(np.float64))
    mixture = maximise(mean_NT, var_NT, gamma_NK[:, kept])
    owner_K = model.mixture.type_of_component_K[torch.from_numpy(kept).to(model.mixture.type_of_component_K.device)]
    model.initialise_mixture(
        torch.from_numpy(mixture.weights_K),
        torch.from_numpy(mixture.means_KT),
        torch.from_numpy(mixture.vars_KT),
        owner_K,
    )
    centre_micro(model, data)
    return len(kept)


@torch.no_grad()
def centre_micro(model: GeneVAE, data: GeneData) -> None:
    """Store where z2 lies among the cells of each component: its centre, if the model centres it, then means and variances."""
    mixture, micro = model.mixture, model.micro
    micro.centres_KM.zero_()
    encoded = encode_data(model, data)
    z2_NM = encoded.z2.astype(np.float64)
    zero_var_NM = np.zeros_like(z2_NM)
    if model.config.centre_micro:
        gamma_NK = mixture.assign(encoded.z1, encoded.z1_log_var).astype(np.float64)
        centres = maximise(z2_NM, zero_var_NM, gamma_NK)
        micro.centres_KM.copy_(torch.from_numpy(centres.means_KT))
        micro.centre_mass_K.copy_(torch.from_numpy(centres.weights_K))
        z2_NM = z2_NM - gamma_NK @ centres.means_KT
    gamma_NK = assign_components(model, encoded, data.pooled(model.config.pool_um), data.type_N).astype(np.float64)
    fitted = maximise(z2_NM, zero_var_NM, gamma_NK)  # of means: see `single_cell_latents`
    micro.means_KM.copy_(torch.from_numpy(fitted.means_KT))
    micro.vars_KM.copy_(torch.from_numpy(fitted.vars_KT))
