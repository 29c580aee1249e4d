"""Expression as the gene stage needs it: sparse counts on the model's panel, types, positions; batches made dense."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from sge2hist.data.errors import InputError
from sge2hist.models.gene_vae import COUNTS_PER, GeneStatistics

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from sge2hist.data.paired import PairedDataset

MEMORY_LIMIT_BYTES = 8 * 2**30  # sparse counts above this stay on disk


@dataclass(frozen=True, kw_only=True)
class GeneData:
    """Cells of one split on the panel of a model. N cells, G genes."""

    read: Callable[[np.ndarray], csr_array]  # row numbers 0..N-1 -> float32 CSR [n, G]
    n_cells: int
    n_genes: int
    symbols: list[str]  # of the G genes
    type_N: np.ndarray  # int64, index into `type_names`, -1 = unlabelled
    type_names: list[str]
    centre_um_N2: np.ndarray | None = None  # x, y; None = no positions
    slide_N: np.ndarray | None = None  # int64; None = one slide

    @classmethod
    def from_counts(
        cls,
        counts_NG: csr_array,
        *,
        symbols: list[str] | None = None,
        type_N: np.ndarray | None = None,
        type_names: list[str] | None = None,
        centre_um_N2: np.ndarray | None = None,
        slide_N: np.ndarray | None = None,
    ) -> GeneData:
        """Wrap counts in memory, CSR [N, G]; everything else is optional."""
        n_cells, n_genes = counts_NG.shape
        counts_NG = counts_NG.astype(np.float32)
        return cls(
            read=lambda rows: counts_NG[rows],
            n_cells=n_cells,
            n_genes=n_genes,
            symbols=symbols or [str(g) for g in range(n_genes)],
            type_N=np.full(n_cells, -1, np.int64) if type_N is None else type_N.astype(np.int64),
            type_names=type_names or [],
            centre_um_N2=centre_um_N2,
            slide_N=slide_N,
        )

    @classmethod
    def from_paired(cls, dataset: PairedDataset, rows: np.ndarray, columns: np.ndarray | None = None) -> GeneData:
        """Cells `rows` of a paired dataset on the genes `columns` (None = all).

        Counts are read once and kept sparse in memory when they fit, else read from the file batch by batch.
        """
        columns = np.arange(len(dataset.genes)) if columns is None else np.asarray(columns, np.int64)
        centre_um_N2 = dataset.centre_xy_px[rows] * dataset.um_per_px
        shared = {
            "symbols": [dataset.genes.symbols[c] for c in columns],
            "type_N": dataset.type_of_cell[rows],
            "type_names": list(dataset.types),
            "centre_um_N2": centre_um_N2 if np.isfinite(centre_um_N2).all() else None,
            "slide_N": dataset.slide_of_cell[rows],
        }
        probe = dataset.counts(rows[:: max(1, len(rows) // 256)][:256])
        if 8 * probe.nnz / max(1, probe.shape[0]) * len(rows) <= MEMORY_LIMIT_BYTES:
            return cls.from_counts(_read_columns(dataset, rows, columns), **shared)

        def read(numbers: np.ndarray) -> csr_array:
            return dataset.counts(rows[numbers])[:, columns].astype(np.float32)

        return cls(read=read, n_cells=len(rows), n_genes=len(columns), **shared)

    def chunks(self, size: int = 4096, rows: np.ndarray | None = None) -> Iterator[tuple[np.ndarray, csr_array]]:
        """Row numbers and their counts, a chunk at a time."""
        rows = np.arange(self.n_cells) if rows is None else rows
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            yield part, self.read(part)


def _read_columns(dataset: PairedDataset, rows: np.ndarray, columns: np.ndarray) -> csr_array:
    from scipy.sparse import csr_array, vstack

    parts = []
    for start in range(0, len(rows), 16384):
        part = dataset.counts(rows[start : start + 16384])
        parts.append(csr_array(part[:, columns] if len(columns) < part.shape[1] else part).astype(np.float32))
    return csr_array(vstack(parts, format="csr"))


def dense_counts(counts_NG: csr_array, device: torch.device | str = "cpu") -> Tensor:
    """Float32 [N, G] on the device; only the non-zero entries are transferred."""
    n_cells, n_genes = counts_NG.shape
    row = np.repeat(np.arange(n_cells, dtype=np.int64), np.diff(counts_NG.indptr))
    place = torch.from_numpy(row * n_genes + counts_NG.indices).to(device)
    values = torch.from_numpy(np.ascontiguousarray(counts_NG.data, np.float32)).to(device)
    return torch.zeros(n_cells * n_genes, device=device).index_add_(0, place, values).view(n_cells, n_genes)


def gene_statistics(data: GeneData) -> GeneStatistics:
    """Mean cell of the training set, streamed.

    Raises
    ------
    InputError
        If the cells hold no counts at all on this panel.
    """
    library_N = np.concatenate([np.asarray(counts.sum(1)).ravel() for _, counts in data.chunks()])
    filled = library_N > 0
    if not filled.any():
        raise InputError(
            found=f"no counts in {data.n_cells} training cells", expected="raw counts on the model's genes"
        )
    median = float(np.median(library_N[filled]))
    sums = np.zeros((3, data.n_genes))
    for rows, counts in data.chunks():
        values = counts.data / np.repeat(library_N[rows].clip(1.0), np.diff(counts.indptr))
        for total, weights in zip(
            sums, (values, np.log1p(values * median), np.log1p(values * COUNTS_PER)), strict=True
        ):
            total += np.bincount(counts.indices, weights, minlength=data.n_genes)
    proportion_G, input_G, log1p_G = (torch.from_numpy(total / filled.sum()).float() for total in sums)
    return GeneStatistics(
        median_library=median, mean_proportion_G=proportion_G, mean_input_G=input_G, mean_log1p_G=log1p_G
    )
