"""The last step of training for the mixture prior: an exact M step on the posteriors that the finished encoder gives.

During the joint stage gradients follow the moving posteriors with a lag, and components end beside or wider than their cells:
types drawn by name then look like their neighbours. After a fresh fit to a part of the cells, this step puts each component
where all its cells are.
"""

from __future__ import annotations

import numpy as np
import torch

from sge2hist.models.gene_vae import GeneVAE
from sge2hist.training.gene_data import GeneData
from sge2hist.training.gene_encoding import assign_components, encode_all
from sge2hist.training.mixture_em import maximise


@torch.no_grad()
def refit_mixture(
    model: GeneVAE, data: GeneData, *, min_cells: float = 10.0, device: torch.device | str = "cpu"
) -> int:
    """Put the mixture's weights, means and variances at their best for the training cells; in place.

    Labelled cells count for the components of their type alone, as in training; bins that are pooled count for the components
    that they and those around them are told to be, each with its own posterior. Components with less than `min_cells`
    of responsibility are dropped. z2 is centred anew on the components, and where it lies among the cells of each is stored.
    Returns the number of components left.
    """
    encoded = encode_all(model, data, device=device)
    gamma_NK = assign_components(model, data, encoded, use_labels=True).astype(np.float64)
    kept = np.flatnonzero(gamma_NK.sum(0) >= min(min_cells, data.n_cells / 100))
    mean_NT = encoded.z1.astype(np.float64)
    var_NT = np.exp(encoded.z1_log_var.astype(np.float64))
    mixture = maximise(mean_NT, var_NT, gamma_NK[:, kept])
    owner_K = model.mixture.type_of_component_K[torch.from_numpy(kept).to(model.mixture.type_of_component_K.device)]
    model.mixture.initialise(
        torch.from_numpy(mixture.weights_K),
        torch.from_numpy(mixture.means_KT),
        torch.from_numpy(mixture.vars_KT),
        owner_K,
    )
    centre_micro(model, data, device=device)
    return len(kept)


@torch.no_grad()
def centre_micro(model: GeneVAE, data: GeneData, *, device: torch.device | str = "cpu") -> None:
    """Store where z2 lies among the cells of each component: its centre, if the model centres it, then means and variances."""
    mixture = model.mixture
    mixture.centres_KM.zero_()
    encoded = encode_all(model, data, device=device)
    z2_NM = encoded.z2.astype(np.float64)
    none_NZ = np.zeros_like(z2_NM)
    if model.config.centre_micro:
        gamma_NK = mixture.assign(encoded.z1, encoded.z1_log_var).astype(np.float64)  # types as the encoder tells them
        centres = maximise(z2_NM, none_NZ, gamma_NK)
        mixture.centres_KM.copy_(torch.from_numpy(centres.means_KT))
        mixture.centre_mass_K.copy_(torch.from_numpy(centres.weights_K))
        z2_NM = z2_NM - gamma_NK @ centres.means_KT
    gamma_NK = assign_components(model, data, encoded, use_labels=True).astype(np.float64)
    micro = maximise(z2_NM, none_NZ, gamma_NK)  # of means: see `lone_latents`
    mixture.micro_means_KM.copy_(torch.from_numpy(micro.means_KT))
    mixture.micro_vars_KM.copy_(torch.from_numpy(micro.vars_KT))
