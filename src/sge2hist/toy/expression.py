"""RNA of the toy cells: a gamma-Poisson count model that depends on type, gradient and neighbours, and the positions of
the transcripts.

For cell i and gene g, with type c(i), gradient s_i and immune fraction f_i:
    rate_ig  = base_g exp(log_fold_{c(i) g} + gradient_slope_g (s_i - 1/2) + neighbourhood_slope_g f_i)
    mean_ig  = depth_i rate_ig / sum_g rate_ig
    counts_ig ~ Poisson(mean_ig Gamma(r, 1/r)):  expectation mean_ig, variance mean_ig + mean_ig^2 / r
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse

from sge2hist.toy.cell_types import TYPE_NAMES, trait
from sge2hist.toy.cells import ToyCells
from sge2hist.toy.config import ArrayFrame, ToyTissueConfig

MAX_SPREAD_UM = 25.0  # largest distance of a transcript from its nucleus


@dataclass(frozen=True, kw_only=True)
class ToyGenes:
    """The toy panel and its coefficients. G genes, C cell types."""

    frame: pd.DataFrame  # index gene id; symbol, role ("marker", "gradient", "neighbourhood", "flat"), marker_of
    base_G: np.ndarray  # relative expression without other effects
    log_fold_CG: np.ndarray  # added per cell type
    gradient_slope_G: np.ndarray  # change of log rate from gradient 0 to 1
    neighbourhood_slope_G: np.ndarray  # change of log rate from no to only immune neighbours

    def __len__(self) -> int:
        return len(self.base_G)


def make_genes(config: ToyTissueConfig, rng: np.random.Generator) -> ToyGenes:
    """Sample the panel: markers, gradient genes, neighbourhood genes, flat genes, in that order."""
    rows: list[tuple[str, str, str]] = []
    for name in TYPE_NAMES:
        rows += [(f"{name[:5].upper()}-TOY{i + 1}", "marker", name) for i in range(config.n_markers)]
    for i in range(config.n_gradient_genes):
        rows.append((f"{'UP' if i % 2 == 0 else 'DOWN'}-TOY{i // 2 + 1}", "gradient", ""))
    rows += [(f"NICHE-TOY{i + 1}", "neighbourhood", "") for i in range(config.n_neighbourhood_genes)]
    rows += [(f"FLAT-TOY{i + 1}", "flat", "") for i in range(config.n_flat_genes)]
    frame = pd.DataFrame(rows, columns=["symbol", "role", "marker_of"])
    frame.index = pd.Index([f"TOYG{i + 1:08d}" for i in range(len(frame))], name="gene_id")
    n_genes = len(frame)
    marker_of = frame["marker_of"].to_numpy()
    log_fold = np.where(marker_of[None, :] == np.asarray(TYPE_NAMES)[:, None], np.log(config.marker_fold), 0.0)
    is_gradient = (frame["role"] == "gradient").to_numpy()
    rising = frame["symbol"].str.startswith("UP").to_numpy()
    slope = np.where(is_gradient, np.where(rising, 1.0, -1.0) * config.gradient_log_fold, 0.0)
    is_neighbourhood = (frame["role"] == "neighbourhood").to_numpy()
    return ToyGenes(
        frame=frame,
        base_G=np.exp(rng.normal(0.0, 0.5, n_genes)),
        log_fold_CG=log_fold,
        gradient_slope_G=slope,
        neighbourhood_slope_G=np.where(is_neighbourhood, config.neighbourhood_log_fold, 0.0),
    )


def mean_counts(genes: ToyGenes, cells: ToyCells, depth_N: np.ndarray) -> np.ndarray:
    """Expected counts [N, G] of every cell; each row sums to the depth of the cell."""
    log_rate = genes.log_fold_CG[cells.type_N] + np.outer(cells.gradient - 0.5, genes.gradient_slope_G)
    log_rate += np.outer(cells.immune_fraction, genes.neighbourhood_slope_G)
    rate = genes.base_G * np.exp(log_rate)
    return rate * (depth_N / rate.sum(axis=1))[:, None]


def sample_depth(cells: ToyCells, config: ToyTissueConfig, rng: np.random.Generator) -> np.ndarray:
    """Expected number of transcripts of each cell: by type, spread log-normally by 30 %, mean as in `CELL_TYPES`."""
    mean = np.asarray(trait("mean_umi"))[cells.type_N] * config.depth_factor
    return mean * np.exp(rng.normal(-0.5 * 0.3**2, 0.3, len(cells)))


def sample_counts(mean_NG: np.ndarray, dispersion: float, rng: np.random.Generator) -> sparse.csr_array:
    """Gamma-Poisson counts, int32 [N, G]: mean `mean_NG`, variance `mean + mean^2 / dispersion`; in blocks of rows."""
    blocks = []
    for start in range(0, len(mean_NG), 8192):
        mean = mean_NG[start : start + 8192]
        rate = mean * rng.standard_gamma(dispersion, mean.shape) / dispersion
        blocks.append(sparse.csr_array(rng.poisson(rate).astype(np.int32)))
    return sparse.csr_array(sparse.vstack(blocks, format="csr"))


@dataclass(frozen=True, kw_only=True)
class Transcripts:
    """One entry per transcript."""

    cell: np.ndarray  # int32
    gene: np.ndarray  # int32
    array_xy_um: np.ndarray  # float32 [n, 2], inside the array

    def __len__(self) -> int:
        return len(self.cell)

    def bin_of(self, frame: ArrayFrame, bin_um: int) -> np.ndarray:
        """Bin of each transcript, row-major: row * n_columns + column, int64."""
        column_row = np.floor(self.array_xy_um / bin_um).astype(np.int64)
        return column_row[:, 1] * frame.n_bins(bin_um) + column_row[:, 0]


def scatter_transcripts(
    counts_NG: sparse.csr_array, cells: ToyCells, frame: ArrayFrame, rng: np.random.Generator
) -> Transcripts:
    """Place every transcript near its nucleus: a Gaussian elongated along the nucleus, cut at `MAX_SPREAD_UM`."""
    coo = counts_NG.tocoo()
    cell = np.repeat(coo.row.astype(np.int32), coo.data)
    gene = np.repeat(coo.col.astype(np.int32), coo.data)
    spread = np.asarray(trait("rna_spread_um"))
    stretch = np.sqrt(1.0 / np.asarray(trait("nucleus_axis_ratio"))) ** 0.5
    major = (spread * stretch)[cells.type_N].astype(np.float32)
    minor = (spread / stretch)[cells.type_N].astype(np.float32)
    cos, sin = (f(cells.orientation_rad).astype(np.float32) for f in (np.cos, np.sin))
    along = rng.standard_normal(len(cell), dtype=np.float32) * major[cell]
    across = rng.standard_normal(len(cell), dtype=np.float32) * minor[cell]
    shrink = np.minimum(1.0, MAX_SPREAD_UM / np.maximum(np.hypot(along, across), 1e-6))
    dx = (along * cos[cell] - across * sin[cell]) * shrink
    dy = (along * sin[cell] + across * cos[cell]) * shrink
    xy_um = cells.xy_um[cell] + np.stack([dx, dy], axis=1)
    inside = np.nextafter(np.float32(frame.side_um), np.float32(0.0))
    array_xy_um = np.clip(frame.to_array(xy_um).astype(np.float32), 0.0, inside)
    return Transcripts(cell=cell, gene=gene, array_xy_um=array_xy_um)


def count_by_bin(transcripts: Transcripts, frame: ArrayFrame, bin_um: int, n_genes: int) -> sparse.csr_array:
    """Counts [n_bins, G] int32 of every bin of the array, row-major, empty ones included."""
    bins = transcripts.bin_of(frame, bin_um)
    n_bins = frame.n_bins(bin_um) ** 2
    key, count = np.unique(bins * n_genes + transcripts.gene, return_counts=True)
    indptr = np.searchsorted(key, np.arange(n_bins + 1, dtype=np.int64) * n_genes)
    return sparse.csr_array((count.astype(np.int32), key % n_genes, indptr), shape=(n_bins, n_genes))


def type_by_bin(transcripts: Transcripts, cells: ToyCells, frame: ArrayFrame, bin_um: int) -> np.ndarray:
    """Cell type that gave most transcripts to each bin, int64 [n_bins]; -1 for a bin without any."""
    n_types = len(trait("name"))
    key = transcripts.bin_of(frame, bin_um) * n_types + cells.type_N[transcripts.cell]
    votes = np.bincount(key, minlength=frame.n_bins(bin_um) ** 2 * n_types).reshape(-1, n_types)
    return np.where(votes.sum(axis=1) > 0, votes.argmax(axis=1), -1)
