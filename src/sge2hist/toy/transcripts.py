"""Where the transcripts of the toy cells lie, and which bin catches each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from sge2hist.toy.array_frame import ArrayFrame
from sge2hist.toy.cell_types import trait
from sge2hist.toy.cells import ToyCells

MAX_SPREAD_UM = 25.0  # no transcript lies further from its nucleus


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
    """Put every count around its nucleus: a Gaussian drawn out along the nucleus, cut at `MAX_SPREAD_UM`."""
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
