"""Latents of many cells, streamed: memory is bounded by the batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from sge2hist.models.gene.cell_types import pool_posteriors
from sge2hist.models.gene.vae import GeneVAE
from sge2hist.training.gene.data import GeneData, dense_counts


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Posterior of N cells: mean and log-variance of z = (z1, z2), float32 [N, Z]."""

    mean_NZ: np.ndarray
    log_var_NZ: np.ndarray
    n_type: int

    @property
    def z1(self) -> np.ndarray:
        """Mean of the cell type block [N, T]."""
        return self.mean_NZ[:, : self.n_type]

    @property
    def z2(self) -> np.ndarray:
        """Mean of the microenvironment block [N, M]."""
        return self.mean_NZ[:, self.n_type :]

    @property
    def z1_log_var(self) -> np.ndarray:
        """Log-variance of the cell type block [N, T]."""
        return self.log_var_NZ[:, : self.n_type]


@torch.no_grad()
def encode_all(
    model: GeneVAE,
    data: GeneData,
    rows: np.ndarray | None = None,
    *,
    observed_G: np.ndarray | None = None,
    batch_size: int = 1024,
    device: torch.device | str = "cpu",
) -> Encoded:
    """Encode cells (all, or `rows`) in evaluation mode; `observed_G` bool marks the genes that were measured."""
    was_training = model.training
    model.eval()
    n_cells = data.n_cells if rows is None else len(rows)
    mean_NZ = np.empty((n_cells, model.config.n_latent), np.float32)
    log_var_NZ = np.empty_like(mean_NZ)
    observed = None if observed_G is None else torch.from_numpy(np.asarray(observed_G, bool)).to(device)
    start = 0
    for part, counts in data.chunks(batch_size, rows):
        posterior = model.encode(dense_counts(counts, device), observed, data.around(part, device))
        mean_NZ[start : start + len(part)] = posterior.mean_NZ.float().cpu().numpy()
        log_var_NZ[start : start + len(part)] = posterior.log_var_NZ.float().cpu().numpy()
        start += len(part)
    model.train(was_training)
    return Encoded(mean_NZ=mean_NZ, log_var_NZ=log_var_NZ, n_type=model.config.n_type)


def type_posterior(model: GeneVAE, data: GeneData, encoded: Encoded) -> tuple[np.ndarray, np.ndarray]:
    """Mean and log-variance of z1 that the types of all cells of `data` are told from, float32 [N, T] each.

    Those of a cell's own counts, or, where the model pools bins (`pool_um`) and they have positions, of the bins together.
    """
    index = data.index() if model.config.pool_um else None
    if index is None:
        return encoded.z1, encoded.z1_log_var
    around = index.around(np.arange(data.n_cells), model.config.pool_um)
    mean_NT, var_NT = pool_posteriors(encoded.z1, np.exp(encoded.z1_log_var), around)
    return mean_NT, np.log(var_NT)


def assign_components(model: GeneVAE, data: GeneData, encoded: Encoded, *, use_labels: bool = False) -> np.ndarray:
    """Responsibilities q(c | x) of the encoded cells of `data`, float32 [N, K]; a labelled cell may have its type's alone."""
    return model.mixture.assign(*type_posterior(model, data, encoded), data.type_N if use_labels else None)


def tell_components(model: GeneVAE, data: GeneData, encoded: Encoded) -> np.ndarray:
    """What the encoded cells of `data` are told to be, p(c | z1) at posterior means, float32 [N, K]."""
    return model.mixture.tell(type_posterior(model, data, encoded)[0])
