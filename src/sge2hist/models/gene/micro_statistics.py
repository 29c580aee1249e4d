"""Where z2, the microenvironment, lies among the training cells of each component of the mixture.

No part of the prior, which is N(0, I) for z2. The statistics serve two purposes:

- z2 is sampled as among the cells of a type, when only the type of a cell is given: `means_KM`, `vars_KM`, moments of the
  aggregated posterior per component;
- z2 is centred: what a cell's type predicts of it is subtracted, so that no linear predictor finds the component in z2:
  `centres_KM`, a running mean over batches, in which component k has the weight `centre_mass_K`.

Shapes: N cells, K components, M dims of z2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sge2hist.models.gene.mixture_prior import resize_components

BATCH_WEIGHT = 0.02  # weight of a batch in the running centres


class MicroStatistics(nn.Module):
    """Mean, variance and running centre of z2 per component."""

    means_KM: Tensor
    vars_KM: Tensor
    centres_KM: Tensor
    centre_mass_K: Tensor

    def __init__(self, n_components: int, n_micro: int) -> None:
        super().__init__()
        self.register_buffer("means_KM", torch.zeros(n_components, n_micro))
        self.register_buffer("vars_KM", torch.ones(n_components, n_micro))
        self.register_buffer("centres_KM", torch.zeros(n_components, n_micro))
        self.register_buffer("centre_mass_K", torch.zeros(n_components))

    @torch.no_grad()
    def reset(self, n_components: int) -> None:
        """Start from the prior N(0, I), with no centre, for a new number of components."""
        device, n_micro = self.means_KM.device, self.means_KM.shape[1]
        self.means_KM = torch.zeros(n_components, n_micro, device=device)
        self.vars_KM = torch.ones(n_components, n_micro, device=device)
        self.centres_KM = torch.zeros(n_components, n_micro, device=device)
        self.centre_mass_K = torch.zeros(n_components, device=device)

    @torch.no_grad()
    def follow_centres(self, uncentred_NM: Tensor, gamma_NK: Tensor) -> None:
        """Move the centres towards the component means of a batch; a component without cells in it stays."""
        mass_K = (1 - BATCH_WEIGHT) * self.centre_mass_K
        batch_KM = BATCH_WEIGHT * gamma_NK.T @ uncentred_NM.float() / len(uncentred_NM)
        sum_KM = mass_K[:, None] * self.centres_KM + batch_KM
        mass_K = mass_K + BATCH_WEIGHT * gamma_NK.mean(0)
        self.centres_KM.copy_(sum_KM / mass_K.clamp_min(1e-9)[:, None])
        self.centre_mass_K.copy_(mass_K)

    @torch.no_grad()
    def sample(self, component_N: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Sample z2 as among the training cells of the given components, [N, M]; noise comes from the generator's device."""
        device = generator.device if generator is not None else self.means_KM.device
        noise_NM = torch.randn(len(component_N), self.means_KM.shape[1], generator=generator, device=device)
        component_N = component_N.to(self.means_KM.device)
        std_NM = self.vars_KM[component_N].sqrt()
        return self.means_KM[component_N] + std_NM * noise_NM.to(std_NM.device)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: object, **kwargs: object) -> None:
        resize_components(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)  # type: ignore[arg-type]
