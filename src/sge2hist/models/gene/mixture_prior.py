"""Gaussian mixture prior of z1, the cell type: p(c) = pi_c, p(z1 | c) = N(mu_c, diag var_c) (VaDE, Jiang et al. 2017).

Shapes: N cells, K components, T dims of z1. Weights are kept as logits and everything is computed in log-space.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

CHUNK = 16_384  # cells whose responsibilities are computed at one time
LOG_VAR_RANGE = (-8.0, 4.0)  # of a component; a collapsed component would otherwise reach an infinite density
_LOG_2PI = math.log(2 * math.pi)


class MixturePrior(nn.Module):
    """Mixture of K diagonal Gaussians over z1.

    Until :meth:`initialise` is called, all components are the same standard normal and receive no gradient, so that
    :meth:`kl` is exactly the KL to N(0, I). A component may belong to a named type (`type_of_component_K`, -1 = none).
    """

    logits_K: Tensor
    means_KT: Tensor
    log_vars_KT: Tensor
    type_of_component_K: Tensor
    initialised: Tensor

    def __init__(self, n_components: int, n_dims: int) -> None:
        super().__init__()
        self.logits_K = nn.Parameter(torch.zeros(n_components))
        self.means_KT = nn.Parameter(torch.zeros(n_components, n_dims))
        self.log_vars_KT = nn.Parameter(torch.zeros(n_components, n_dims))
        self.register_buffer("type_of_component_K", torch.full((n_components,), -1, dtype=torch.long))
        self.register_buffer("initialised", torch.tensor(False))

    @property
    def n_components(self) -> int:
        """Number of components K."""
        return self.logits_K.shape[0]

    @torch.no_grad()
    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of z1 under the whole mixture, [T] each."""
        log_pi_K, means_KT, log_vars_KT = self._log_space()
        weight_K1 = log_pi_K.exp()[:, None]
        mean_T = (weight_K1 * means_KT).sum(0)
        var_T = (weight_K1 * (log_vars_KT.exp() + (means_KT - mean_T).square())).sum(0)
        return mean_T, var_T

    @torch.no_grad()
    def initialise(
        self, weights_K: Tensor, means_KT: Tensor, vars_KT: Tensor, type_of_component_K: Tensor | None = None
    ) -> None:
        """Copy a fitted mixture, of any number of components (parameters are replaced); from now on they are trained.

        Parameters
        ----------
        weights_K : positive, need not sum to one.
        means_KT, vars_KT : of the components; variances positive.
        type_of_component_K : type index that owns each component, -1 for none.
        """
        device = self.logits_K.device
        self.logits_K = nn.Parameter(torch.log_softmax(weights_K.float().clamp_min(1e-12).log(), 0).to(device))
        self.means_KT = nn.Parameter(means_KT.float().clone().to(device))
        self.log_vars_KT = nn.Parameter(vars_KT.float().clamp_min(1e-12).log().clamp(*LOG_VAR_RANGE).to(device))
        owner_K = torch.full((len(weights_K),), -1) if type_of_component_K is None else type_of_component_K
        self.type_of_component_K = owner_K.long().to(device)
        self.initialised.fill_(True)

    def _log_space(self) -> tuple[Tensor, Tensor, Tensor]:
        """(log pi, means, clamped log variances) in float32; without gradient before initialisation."""
        log_pi_K = torch.log_softmax(self.logits_K.float(), 0)
        means_KT, log_vars_KT = self.means_KT.float(), self.log_vars_KT.float().clamp(*LOG_VAR_RANGE)
        if not self.initialised:
            return log_pi_K.detach(), means_KT.detach(), log_vars_KT.detach()
        return log_pi_K, means_KT, log_vars_KT

    def joint_log_prob(self, z1_NT: Tensor) -> Tensor:
        """log p(z1, c) = log pi_c + log N(z1; mu_c, var_c), [N, K]."""
        log_pi_K, means_KT, log_vars_KT = self._log_space()
        squared_NK = _scaled_squares(z1_NT.float(), means_KT, log_vars_KT)
        return log_pi_K - 0.5 * (squared_NK + log_vars_KT.sum(1) + _LOG_2PI * means_KT.shape[1])

    def log_prob(self, z1_NT: Tensor) -> Tensor:
        """log p(z1), [N]: logsumexp over components after the sum over dims."""
        return torch.logsumexp(self.joint_log_prob(z1_NT), 1)

    def log_responsibilities(self, z1_NT: Tensor) -> Tensor:
        """log p(c | z1), [N, K]."""
        return torch.log_softmax(self.joint_log_prob(z1_NT), 1)

    def responsibilities(self, z1_NT: Tensor) -> Tensor:
        """Gamma of VaDE: p(c | z1), [N, K]; rows sum to 1."""
        return self.log_responsibilities(z1_NT).exp()

    def component_kl(self, mean_NT: Tensor, log_var_NT: Tensor) -> Tensor:
        """KL( N(mean, var) || N(mu_c, var_c) ) of every cell and component, [N, K], nats."""
        _, means_KT, log_vars_KT = self._log_space()
        mean_NT, log_var_NT = mean_NT.float(), log_var_NT.float()
        squared_NK = _scaled_squares(mean_NT, means_KT, log_vars_KT, log_var_NT.exp())
        return 0.5 * (squared_NK + log_vars_KT.sum(1) - log_var_NT.sum(1, keepdim=True) - means_KT.shape[1])

    def best_responsibilities(self, mean_NT: Tensor, log_var_NT: Tensor, allowed_NK: Tensor | None = None) -> Tensor:
        """q(c | x) that minimises :meth:`kl`: softmax(log pi_c - KL_c) among the allowed components, [N, K].

        VaDE instead takes p(c | z1) at a sample of z1, which is noisier and never better for the bound.
        """
        log_pi_K, _, _ = self._log_space()
        score_NK = log_pi_K - self.component_kl(mean_NT, log_var_NT)
        if allowed_NK is not None:
            score_NK = score_NK.masked_fill(~allowed_NK, -torch.inf)
        return torch.softmax(score_NK, 1)

    def assign(self, mean_NT: np.ndarray, log_var_NT: np.ndarray, type_N: np.ndarray | None = None) -> np.ndarray:
        """:meth:`best_responsibilities` of many cells, float32 [N, K]; `type_N`: as in :meth:`allowed_components`."""

        def best(mean_NT: Tensor, log_var_NT: Tensor, type_N: Tensor | None = None) -> Tensor:
            allowed_NK = None if type_N is None else self.allowed_components(type_N)
            return self.best_responsibilities(mean_NT, log_var_NT, allowed_NK)

        columns = (mean_NT, log_var_NT) if type_N is None else (mean_NT, log_var_NT, type_N)
        return self._in_chunks(best, *columns)

    def component_posterior(self, z1_NT: np.ndarray) -> np.ndarray:
        """p(c | z1) at posterior means of z1, float32 [N, K], rows sum to 1: from it the types of cells are predicted.

        Unlike :meth:`assign`, which minimises the bound that is trained on, it does not depend on the width of a posterior: a
        component that is much narrower than the posteriors of shallow cells stays likely for them, and the largest component
        does not swallow them. When no component belongs to a named type, all have the same prior weight: the number of
        components that a type was split into says nothing about a cell.
        """
        named = bool((self.type_of_component_K >= 0).any())
        return self._in_chunks(self.responsibilities if named else self._equal_weight_posterior, z1_NT)

    def _equal_weight_posterior(self, z1_NT: Tensor) -> Tensor:
        """p(c | z1) of components with the same prior weight, [N, K]."""
        return torch.softmax(self.joint_log_prob(z1_NT) - self._log_space()[0], 1)

    @torch.no_grad()
    def _in_chunks(self, function: Callable[..., Tensor], *columns: np.ndarray) -> np.ndarray:
        """Apply a function of tensors to arrays with one row per cell, a chunk of cells at a time."""
        device = self.means_KT.device
        parts = []
        for start in range(0, max(1, len(columns[0])), CHUNK):
            chunk = (torch.from_numpy(values[start : start + CHUNK]).to(device) for values in columns)
            parts.append(function(*chunk).cpu().numpy())
        return np.concatenate(parts)

    def kl(self, mean_NT: Tensor, log_var_NT: Tensor, responsibilities_NK: Tensor | None = None) -> Tensor:
        """KL( q(z1|x) q(c|x) || p(z1, c) ) per cell (VaDE eq. 12), [N], nats.

            sum_c gamma_c KL(q(z1) || N_c) + sum_c gamma_c (log gamma_c - log pi_c)

        Parameters
        ----------
        responsibilities_NK : q(c|x), rows sum to 1; default :meth:`best_responsibilities`.
        """
        log_pi_K, _, _ = self._log_space()
        if responsibilities_NK is None:
            return -torch.logsumexp(log_pi_K - self.component_kl(mean_NT, log_var_NT), 1)
        gamma_NK = responsibilities_NK.float()
        kl_category_N = (gamma_NK * (gamma_NK.clamp_min(1e-30).log() - log_pi_K)).sum(1)
        return (gamma_NK * self.component_kl(mean_NT, log_var_NT)).sum(1) + kl_category_N

    def allowed_components(self, type_N: Tensor) -> Tensor:
        """Components that a cell may take, [N, K]: those of its type; all if unlabelled (-1) or its type owns none."""
        own_NK = type_N[:, None] == self.type_of_component_K
        return own_NK | (type_N < 0)[:, None] | ~own_NK.any(1, keepdim=True)

    @torch.no_grad()
    def sample(self, component_N: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Sample z1 ~ N(mu_c, var_c) for given components, [N, T]; noise comes from the generator's device."""
        device = generator.device if generator is not None else self.means_KT.device
        noise_NT = torch.randn(len(component_N), self.means_KT.shape[1], generator=generator, device=device)
        component_N = component_N.to(self.means_KT.device)
        _, means_KT, log_vars_KT = self._log_space()
        return means_KT[component_N] + (0.5 * log_vars_KT[component_N]).exp() * noise_NT.to(self.means_KT.device)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: object, **kwargs: object) -> None:
        resize_components(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)  # type: ignore[arg-type]


def resize_components(module: nn.Module, state_dict: dict[str, Tensor], prefix: str) -> None:
    """Give the parameters and buffers of a module as many rows as in the state to be loaded: pruning drops components."""
    for name, own in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
        stored = state_dict.get(prefix + name)
        if stored is not None and own.dim() and stored.shape[0] != own.shape[0] and stored.shape[1:] == own.shape[1:]:
            resized = torch.empty_like(stored, device=own.device)
            setattr(module, name, nn.Parameter(resized) if isinstance(own, nn.Parameter) else resized)


def _scaled_squares(z_NT: Tensor, means_KT: Tensor, log_vars_KT: Tensor, var_NT: Tensor | None = None) -> Tensor:
    """sum_t ((z_t - mu_kt)^2 + var_t) / var_kt, [N, K]; differences first: expanding the square loses precision."""
    squares_NKT = (z_NT[:, None] - means_KT).square()
    if var_NT is not None:
        squares_NKT = squares_NKT + var_NT[:, None]
    return (squares_NKT * (-log_vars_KT).exp()).sum(-1)
