"""Counts -> posteriors of many cells, one chunk at a time: memory is bounded by the chunk.

Training encodes the cells of a dataset with it, generation those of any source.

N cells, G genes and P proteins of the model, Z latent dims (the T dims of z1 first, then z2), K mixture components.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sge2hist.models.gene.cell_types import pool_posteriors
from sge2hist.models.gene.vae import GeneVAE, Posterior

if TYPE_CHECKING:
    from scipy.sparse import csr_array

MAX_LOG_DEPTH = 3.0


class CellChunk(NamedTuple):
    """What the encoder reads of n cells."""

    counts_NG: csr_array  # raw, on the model's genes
    neighbour_NA: np.ndarray | None = None  # float32, neighbourhood features; None: no positions are known
    protein_NP: np.ndarray | None = None  # float32, NaN = not measured; None: of none of the cells


Chunks = Iterable[CellChunk]


@dataclass(frozen=True, kw_only=True)
class EncodedCells:
    """Posteriors of N cells."""

    mean_NZ: np.ndarray  # float32
    log_var_NZ: np.ndarray  # float32
    library_N: np.ndarray  # counts of each cell on the model's genes
    n_type: int  # T

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


def dense_counts(counts_NG: csr_array, device: torch.device | str = "cpu") -> Tensor:
    """Float32 [N, G] on the device; only the non-zero entries are transferred."""
    n_cells, n_genes = counts_NG.shape
    row = np.repeat(np.arange(n_cells, dtype=np.int64), np.diff(counts_NG.indptr))
    entry = torch.from_numpy(row * n_genes + counts_NG.indices).to(device)
    values = torch.from_numpy(np.ascontiguousarray(counts_NG.data, np.float32)).to(device)
    return torch.zeros(n_cells * n_genes, device=device).index_add_(0, entry, values).view(n_cells, n_genes)


@torch.no_grad()
def stream_posteriors(
    model: GeneVAE, chunks: Chunks, observed_G: np.ndarray | None = None
) -> Iterator[tuple[Tensor, Posterior]]:
    """Yield the dense counts [n, G] and the posterior of each chunk, on the model's device and in evaluation mode.

    `observed_G`: bool, genes that were measured; None: all.
    """
    device = next(model.parameters()).device
    partial = observed_G is not None and not observed_G.all()
    observed = torch.from_numpy(np.asarray(observed_G, bool)).to(device) if partial else None
    was_training = model.training
    model.eval()
    try:
        for counts, *others in chunks:
            counts_NG = dense_counts(counts, device)
            neighbours, proteins = (None if of is None else torch.from_numpy(of).to(device) for of in others)
            yield counts_NG, model.encode(counts_NG, observed, neighbours, proteins)
    finally:
        model.train(was_training)


def encode_chunks(
    model: GeneVAE,
    chunks: Chunks,
    n_cells: int,
    *,
    observed_G: np.ndarray | None = None,
    visit: Callable[[Tensor, Posterior], None] = lambda counts_NG, posterior: None,
    progress: Callable[[int], None] = lambda n: None,
) -> EncodedCells:
    """Collect the posteriors of `n_cells` cells from their chunks.

    `visit` sees the dense counts and the posterior of each chunk; `progress` counts the encoded cells.
    """
    mean_NZ = np.empty((n_cells, model.config.n_latent), np.float32)
    log_var_NZ = np.empty_like(mean_NZ)
    libraries: list[np.ndarray] = [np.empty(0, np.float32)]

    def with_library() -> Chunks:
        for chunk in chunks:
            libraries.append(np.asarray(chunk.counts_NG.sum(axis=1)).ravel())
            yield chunk

    start = 0
    for counts_NG, posterior in stream_posteriors(model, with_library(), observed_G):
        part = slice(start, start + len(posterior.mean_NZ))
        mean_NZ[part] = posterior.mean_NZ.float().cpu().numpy()
        log_var_NZ[part] = posterior.log_var_NZ.float().cpu().numpy()
        start += len(posterior.mean_NZ)
        visit(counts_NG, posterior)
        progress(len(posterior.mean_NZ))
    library_N = np.concatenate(libraries)
    _prior_where_empty(model, mean_NZ, log_var_NZ, library_N == 0)
    return EncodedCells(mean_NZ=mean_NZ, log_var_NZ=log_var_NZ, library_N=library_N, n_type=model.config.n_type)


def _prior_where_empty(model: GeneVAE, mean_NZ: np.ndarray, log_var_NZ: np.ndarray, empty_N: np.ndarray) -> None:
    """Give cells without counts the prior, in place: nothing was seen, where the network would take zeros for an expression.

    z1 has the mean and variance of the whole mixture, z2 those of N(0, I).
    """
    if not empty_N.any():
        return
    n_type = model.config.n_type
    mean_T, var_T = (moment.float().cpu().numpy() for moment in model.mixture.moments())
    mean_NZ[empty_N] = np.concatenate([mean_T, np.zeros(model.config.n_latent - n_type)])
    log_var_NZ[empty_N] = np.concatenate([np.log(var_T), np.zeros(model.config.n_latent - n_type)])


def log_depth(model: GeneVAE, library_N: np.ndarray, observed_G: np.ndarray | None = None) -> np.ndarray:
    """Log of each cell's counts over the training median, clipped to +-3, float32 [N]: the depth of a cell.

    With `observed_G` (bool, genes that were measured) the counts are scaled up by the share of these genes in the training
    data: a cell measured on part of the panel is as deep as if all of it had been measured.
    """
    if observed_G is not None:
        proportion_G = model.encoder.mean_proportion_G
        share = float(proportion_G[torch.from_numpy(observed_G).to(proportion_G.device)].sum())
        library_N = library_N / max(share, 1e-6)
    log_N = np.log((library_N + 1) / (float(model.encoder.scale) + 1))
    return np.clip(log_N, -MAX_LOG_DEPTH, MAX_LOG_DEPTH).astype(np.float32)


def type_posterior(encoded: EncodedCells, pooled_NN: csr_array | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Mean and log-variance of z1 from which types are assigned, float32 [N, T] each.

    `pooled_NN`: the cells that are assigned one type with each cell (`CellIndex.around`; see :func:`pool_posteriors`); None:
    each cell by its own counts.
    """
    if pooled_NN is None:
        return encoded.z1, encoded.z1_log_var
    mean_NT, var_NT = pool_posteriors(encoded.z1, np.exp(encoded.z1_log_var), pooled_NN)
    return mean_NT, np.log(var_NT)


def assign_components(
    model: GeneVAE, encoded: EncodedCells, pooled_NN: csr_array | None = None, type_N: np.ndarray | None = None
) -> np.ndarray:
    """Responsibilities q(c | x) that minimise the bound, float32 [N, K]; `type_N`: a labelled cell takes those of its type."""
    return model.mixture.assign(*type_posterior(encoded, pooled_NN), type_N)


def component_posterior(model: GeneVAE, encoded: EncodedCells, pooled_NN: csr_array | None = None) -> np.ndarray:
    """Component posterior p(c | z1) at the posterior mean, float32 [N, K]."""
    return model.mixture.component_posterior(type_posterior(encoded, pooled_NN)[0])
