"""What a trained model remembers of its reference cells, so that unusual cells can be flagged later."""

from __future__ import annotations

import numpy as np
import torch

from sge2hist.models.gene_vae import GeneVAE
from sge2hist.training.gene_data import GeneData, dense_counts

MAX_CELLS = 20_000


@torch.no_grad()
def calibrate_novelty(model: GeneVAE, data: GeneData, *, seed: int = 0, device: torch.device | str = "cpu") -> None:
    """Store score quantiles of up to 20,000 reference cells (best: the validation split) in ``model.novelty``."""
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.permutation(data.n_cells)[:MAX_CELLS])
    was_training = model.training
    model.eval()
    fits, latents = [], []
    for part, counts in data.chunks(512, rows):
        counts_NG = dense_counts(counts, device)
        posterior = model.encode(counts_NG, around_NA=data.around(part, device))
        fit_N, latent_N = model.novelty_scores(counts_NG, posterior)
        filled = counts_NG.sum(1) > 0
        fits.append(fit_N[filled])
        latents.append(latent_N[filled])
    model.novelty.calibrate(torch.cat(fits), torch.cat(latents))
    model.train(was_training)
