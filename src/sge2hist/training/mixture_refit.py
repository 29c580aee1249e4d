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
from sge2hist.training.gene_encoding import Encoded
from sge2hist.training.mixture_em import maximise

CHUNK = 16384


@torch.no_grad()
def refit_mixture(model: GeneVAE, data: GeneData, encoded: Encoded, *, min_cells: float = 10.0) -> int:
    """Put the mixture's weights, means and variances at their best for `encoded`, the training cells; in place.

    Labelled cells count for the components of their type alone, as in training. Components with less than `min_cells`
    of responsibility are dropped. Where z2 of each component's cells lies is stored with it. Returns the number of components
    left.
    """
    gamma_NK = np.concatenate(
        [_responsibilities(model, data, encoded, slice(i, i + CHUNK)) for i in range(0, data.n_cells, CHUNK)]
    )
    kept = np.flatnonzero(gamma_NK.sum(0) >= min(min_cells, data.n_cells / 100))
    mean_NT = encoded.z1.astype(np.float64)
    var_NT = np.exp(encoded.log_var_NZ[:, : encoded.n_type].astype(np.float64))
    mixture = maximise(mean_NT, var_NT, gamma_NK[:, kept])
    owner_K = model.mixture.type_of_component_K[torch.from_numpy(kept).to(model.mixture.type_of_component_K.device)]
    model.mixture.initialise(
        torch.from_numpy(mixture.weights_K),
        torch.from_numpy(mixture.means_KT),
        torch.from_numpy(mixture.vars_KT),
        owner_K,
    )
    micro_mean_NM = encoded.mean_NZ[:, encoded.n_type :].astype(np.float64)
    micro = maximise(micro_mean_NM, np.zeros_like(micro_mean_NM), gamma_NK[:, kept])  # of means: see `lone_latents`
    model.mixture.micro_means_KM.copy_(torch.from_numpy(micro.means_KT))
    model.mixture.micro_vars_KM.copy_(torch.from_numpy(micro.vars_KT))
    return len(kept)


def _responsibilities(model: GeneVAE, data: GeneData, encoded: Encoded, part: slice) -> np.ndarray:
    mixture = model.mixture
    device = mixture.means_KT.device
    mean_NT = torch.from_numpy(encoded.z1[part]).to(device)
    log_var_NT = torch.from_numpy(encoded.log_var_NZ[part, : encoded.n_type]).to(device)
    allowed_NK = mixture.allowed_components(torch.from_numpy(data.type_N[part]).to(device))
    return mixture.best_responsibilities(mean_NT, log_var_NT, allowed_NK).double().cpu().numpy()
