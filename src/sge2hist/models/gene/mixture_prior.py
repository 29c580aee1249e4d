"""Gaussian mixture prior of z1, the cell type: p(c) = pi_c, p(z1 | c) = N(mu_c, diag var_c) (VaDE, Jiang et al. 2017).

Shapes: N cells, K components, T dims of z1. Weights are kept as logits and everything is computed in log-space.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

GROUP = 16_384  # cells whose responsibilities are found at one time
FOLLOWS = 0.02  # weight of a batch in the running centres of z2
LOG_VAR_RANGE = (-8.0, 4.0)  # of a component; a collapsed component would otherwise reach an infinite density
_LOG_2PI = math.log(2 * math.pi)


class MixturePrior(nn.Module):
    """Mixture of K diagonal Gaussians over z1.

    Until :meth:`initialise` is called, all components are the same standard normal and receive no gradient, so that
    :meth:`kl` is exactly the KL to N(0, I). A component may belong to a named type (`type_of_component_K`, -1 = none).

    It also remembers where z2, the microenvironment, of each component's training cells lies (`micro_means_KM`,
    `micro_vars_KM`: the aggregated posterior, no part of the prior), so that a type can be drawn in its usual surroundings;
    and where z2 would lie before it is centred (`centres_KM`, followed over batches with a weight of `centre_mass_K`).
    """

    logits_K: Tensor
    means_KT: Tensor
    log_vars_KT: Tensor
    type_of_component_K: Tensor
    micro_means_KM: Tensor
    micro_vars_KM: Tensor
    centres_KM: Tensor
    centre_mass_K: Tensor
    initialised: Tensor

    def __init__(self, n_components: int, n_dims: int, n_micro: int = 0) -> None:
        super().__init__()
        self.logits_K = nn.Parameter(torch.zeros(n_components))
        self.means_KT = nn.Parameter(torch.zeros(n_components, n_dims))
        self.log_vars_KT = nn.Parameter(torch.zeros(n_components, n_dims))
        self.register_buffer("type_of_component_K", torch.full((n_components,), -1, dtype=torch.long))
        self.register_buffer("micro_means_KM", torch.zeros(n_components, n_micro))
        self.register_buffer("micro_vars_KM", torch.ones(n_components, n_micro))
        self.register_buffer("centres_KM", torch.zeros(n_components, n_micro))
        self.register_buffer("centre_mass_K", torch.zeros(n_components))
        self.register_buffer("initialised", torch.tensor(False))

    @property
    def n_components(self) -> int:
        """Number of components K."""
        return self.logits_K.shape[0]

    @torch.no_grad()
    def initialise(
        self, weights_K: Tensor, means_KT: Tensor, vars_KT: Tensor, type_of_component_K: Tensor | None = None
    ) -> None:
        """Copy a fitted mixture (any number of components: parameters are replaced) and let it train from here.

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
        self.micro_means_KM = torch.zeros(len(weights_K), self.micro_means_KM.shape[1], device=device)
        self.micro_vars_KM = torch.ones_like(self.micro_means_KM)
        self.centres_KM = torch.zeros_like(self.micro_means_KM)
        self.centre_mass_K = torch.zeros(len(weights_K), device=device)
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

    @torch.no_grad()
    def assign(self, mean_NT: np.ndarray, log_var_NT: np.ndarray, type_N: np.ndarray | None = None) -> np.ndarray:
        """:meth:`best_responsibilities` of many cells, float32 [N, K]; `type_N`: as in :meth:`allowed_components`."""
        parts, device = [], self.means_KT.device
        for start in range(0, max(1, len(mean_NT)), GROUP):
            part = slice(start, start + GROUP)
            allowed_NK = None if type_N is None else self.allowed_components(torch.from_numpy(type_N[part]).to(device))
            mean, log_var = (torch.from_numpy(values[part]).to(device) for values in (mean_NT, log_var_NT))
            parts.append(self.best_responsibilities(mean, log_var, allowed_NK).cpu().numpy())
        return np.concatenate(parts)

    @torch.no_grad()
    def component_posterior(self, z1_NT: np.ndarray) -> np.ndarray:
        """What cells with these posterior means are told to be, float32 [N, K], rows sum to 1: p(c | z1).

        Other than :meth:`assign`, which minimises the bound that is trained on, this does not ask how wide a posterior is: a
        component that is much narrower than the posteriors of shallow cells is not thereby unlikely for them, and the largest
        one does not swallow them. Where no component belongs to a named type, all are equally likely beforehand: into how many
        components a kind was cut says nothing of a cell.
        """
        parts, device = [], self.means_KT.device
        named = bool((self.type_of_component_K >= 0).any())
        for start in range(0, max(1, len(z1_NT)), GROUP):
            z1 = torch.from_numpy(z1_NT[start : start + GROUP]).to(device)
            told_NK = self.responsibilities(z1) if named else self._likelihood_alone(z1)
            parts.append(told_NK.cpu().numpy())
        return np.concatenate(parts)

    def _likelihood_alone(self, z1_NT: Tensor) -> Tensor:
        """p(c | z1) of components that are equally likely beforehand, [N, K]."""
        return torch.softmax(self.joint_log_prob(z1_NT) - self._log_space()[0], 1)

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
    def follow_centres(self, uncentred_NM: Tensor, gamma_NK: Tensor) -> None:
        """Move the centres of the components towards the means of a batch; a component without cells in it stays."""
        mass_K = (1 - FOLLOWS) * self.centre_mass_K
        sum_KM = mass_K[:, None] * self.centres_KM + FOLLOWS * gamma_NK.T @ uncentred_NM.float() / len(uncentred_NM)
        mass_K = mass_K + FOLLOWS * gamma_NK.mean(0)
        self.centres_KM.copy_(sum_KM / mass_K.clamp_min(1e-9)[:, None])
        self.centre_mass_K.copy_(mass_K)

    @torch.no_grad()
    def sample(self, component_N: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw z1 ~ N(mu_c, var_c) for given components, [N, T]. The noise is drawn on the generator's device."""
        device = generator.device if generator is not None else self.means_KT.device
        noise_NT = torch.randn(len(component_N), self.means_KT.shape[1], generator=generator, device=device)
        component_N = component_N.to(self.means_KT.device)
        _, means_KT, log_vars_KT = self._log_space()
        return means_KT[component_N] + (0.5 * log_vars_KT[component_N]).exp() * noise_NT.to(self.means_KT.device)

    @torch.no_grad()
    def sample_micro(self, component_N: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw z2 as among the training cells of given components, [N, M]. The noise is drawn on the generator's device."""
        device = generator.device if generator is not None else self.micro_means_KM.device
        noise_NM = torch.randn(len(component_N), self.micro_means_KM.shape[1], generator=generator, device=device)
        component_N = component_N.to(self.micro_means_KM.device)
        spread_NM = self.micro_vars_KM[component_N].sqrt()
        return self.micro_means_KM[component_N] + spread_NM * noise_NM.to(spread_NM.device)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: object, **kwargs: object) -> None:
        """Take the number of components from the file: pruning changes it."""
        sized = (
            "logits_K",
            "means_KT",
            "log_vars_KT",
            "type_of_component_K",
            "micro_means_KM",
            "micro_vars_KM",
            "centres_KM",
            "centre_mass_K",
        )
        written = state_dict.get(prefix + "micro_means_KM")
        if written is not None:  # models that were written before z2 was centred
            state_dict.setdefault(prefix + "centres_KM", torch.zeros_like(written))
            state_dict.setdefault(prefix + "centre_mass_K", torch.zeros(len(written)))
        for name in sized:
            stored, own = state_dict.get(prefix + name), getattr(self, name)
            if stored is not None and stored.shape[0] != own.shape[0] and stored.shape[1:] == own.shape[1:]:
                fresh = torch.empty_like(stored, device=own.device)
                setattr(self, name, nn.Parameter(fresh) if isinstance(own, nn.Parameter) else fresh)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)  # type: ignore[arg-type]


def _scaled_squares(z_NT: Tensor, means_KT: Tensor, log_vars_KT: Tensor, var_NT: Tensor | None = None) -> Tensor:
    """sum_t ((z_t - mu_kt)^2 + var_t) / var_kt, [N, K]; differences first: expanding the square loses precision."""
    squares_NKT = (z_NT[:, None] - means_KT).square()
    if var_NT is not None:
        squares_NKT = squares_NKT + var_NT[:, None]
    return (squares_NKT * (-log_vars_KT).exp()).sum(-1)
