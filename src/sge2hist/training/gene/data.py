"""Expression as the gene stage needs it: sparse counts on the model's panel, types, positions; batches made dense."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from sge2hist.data.errors import InputError
from sge2hist.data.spatial_index import CellIndex
from sge2hist.models.gene.encode import CellChunk, EncodedCells, encode_chunks
from sge2hist.models.gene.neighbours import neighbour_features
from sge2hist.models.gene.vae import COUNTS_PER, GeneStatistics, GeneVAE

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from sge2hist.data.paired import PairedDataset
    from sge2hist.data.table.proteins import ProteinPanel

MEMORY_LIMIT_BYTES = 8 * 2**30  # sparse counts above this stay on disk
MAX_AXES_CELLS = 10_000  # cells that the axes of expression are fitted to


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
    neighbour_NA: np.ndarray | None = None  # float32, what the posterior of z2 reads: see `with_neighbours`
    protein_NP: np.ndarray | None = None  # float32, as measured, NaN = not measured; None = the model reads none

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
        protein_NP: np.ndarray | None = None,
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
            protein_NP=protein_NP,
        )

    @classmethod
    def from_paired(
        cls,
        dataset: PairedDataset,
        rows: np.ndarray,
        columns: np.ndarray | None = None,
        proteins: ProteinPanel | None = None,
    ) -> GeneData:
        """Cells `rows` of a paired dataset on the genes `columns` (None = all), with `proteins` (None = none).

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
        if proteins is not None and dataset.proteins is not None:
            shared["protein_NP"] = proteins.values(dataset.proteins, rows)
        probe = dataset.counts(rows[:: max(1, len(rows) // 256)][:256])
        if 8 * probe.nnz / max(1, probe.shape[0]) * len(rows) <= MEMORY_LIMIT_BYTES:
            return cls.from_counts(_read_columns(dataset, rows, columns), **shared)

        def read(numbers: np.ndarray) -> csr_array:
            return dataset.counts(rows[numbers])[:, columns].astype(np.float32)

        return cls(read=read, n_cells=len(rows), n_genes=len(columns), **shared)

    def subset(self, rows: np.ndarray) -> GeneData:
        """Some of the cells, in this order."""

        def of(values: np.ndarray | None) -> np.ndarray | None:
            return None if values is None else values[rows]

        return replace(
            self,
            read=lambda numbers: self.read(rows[numbers]),
            n_cells=len(rows),
            type_N=self.type_N[rows],
            centre_um_N2=of(self.centre_um_N2),
            slide_N=of(self.slide_N),
            neighbour_NA=of(self.neighbour_NA),
            protein_NP=of(self.protein_NP),
        )

    @cached_property
    def index(self) -> CellIndex | None:
        """Positions of the cells; None where they are not known."""
        if self.centre_um_N2 is None:
            return None
        return CellIndex(self.centre_um_N2, np.zeros(self.n_cells, np.int64) if self.slide_N is None else self.slide_N)

    def pooled(self, pool_um: float) -> csr_array | None:
        """Cells that are assigned one type together, [N, N]: those within `pool_um`; None: each alone, or no positions."""
        if not pool_um or self.index is None:
            return None
        return self.index.neighbour_weights(np.arange(self.n_cells), pool_um)

    def neighbour_features(self, rows: np.ndarray, device: torch.device | str = "cpu") -> Tensor | None:
        """Neighbourhood features of some cells for the encoder, [n, A]; None when they were not computed."""
        return None if self.neighbour_NA is None else torch.from_numpy(self.neighbour_NA[rows]).to(device)

    def proteins(self, rows: np.ndarray, device: torch.device | str = "cpu") -> Tensor | None:
        """Proteins of some cells for the encoder, [n, P]; None when there are none."""
        return None if self.protein_NP is None else torch.from_numpy(self.protein_NP[rows]).to(device)

    @cached_property
    def library_N(self) -> np.ndarray:
        """Counts of each cell on the panel, float32 [N]."""
        return np.concatenate([np.asarray(counts.sum(1)).ravel() for _, counts in self.chunks(16384)])

    def chunks(self, size: int = 4096, rows: np.ndarray | None = None) -> Iterator[tuple[np.ndarray, csr_array]]:
        """Row numbers and their counts, a chunk at a time."""
        rows = np.arange(self.n_cells) if rows is None else rows
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            yield part, self.read(part)

    def chunks_to_encode(self, size: int, rows: np.ndarray | None = None) -> Iterator[CellChunk]:
        """What the encoder reads, a chunk at a time."""

        def of(values: np.ndarray | None, part: np.ndarray) -> np.ndarray | None:
            return None if values is None else values[part]

        for part, counts in self.chunks(size, rows):
            yield CellChunk(counts, of(self.neighbour_NA, part), of(self.protein_NP, part))


def _read_columns(dataset: PairedDataset, rows: np.ndarray, columns: np.ndarray) -> csr_array:
    from scipy.sparse import csr_array, vstack

    parts = []
    for start in range(0, len(rows), 16384):
        part = dataset.counts(rows[start : start + 16384])
        parts.append(csr_array(part[:, columns] if len(columns) < part.shape[1] else part).astype(np.float32))
    return csr_array(vstack(parts, format="csr"))


def split_groups(dataset: PairedDataset) -> np.ndarray:
    """Group of each cell, int64 [N]: its slide and split, so that no training cell has a held-out one as a neighbour."""
    split_N = np.unique(dataset.obs["split"].astype(str).to_numpy(), return_inverse=True)[1]
    groups_N: np.ndarray = split_N + (split_N.max() + 1) * dataset.slide_of_cell
    return groups_N


def with_neighbours(data: GeneData, model: GeneVAE, group_N: np.ndarray | None = None) -> GeneData:
    """The same cells with neighbourhood features for the posterior of z2, if the model reads any and they have positions.

    `group_N` int64: only cells of one group are neighbours (default: of one slide).
    """
    index = data.index
    if model.config.n_neighbour_features == 0 or index is None or data.centre_um_N2 is None:
        return data
    if group_N is not None:
        index = CellIndex(data.centre_um_N2, group_N)
    around = index.neighbour_weights(np.arange(data.n_cells), model.config.neighbour_um)
    return replace(data, neighbour_NA=neighbour_features(model.encoder, data.read, around))


def encode_data(
    model: GeneVAE,
    data: GeneData,
    rows: np.ndarray | None = None,
    *,
    observed_G: np.ndarray | None = None,
    batch_size: int = 1024,
) -> EncodedCells:
    """Encode cells (all, or `rows`) in evaluation mode; `observed_G` bool marks the genes that were measured."""
    n_cells = data.n_cells if rows is None else len(rows)
    return encode_chunks(model, data.chunks_to_encode(batch_size, rows), n_cells, observed_G=observed_G)


def gene_statistics(data: GeneData, n_axes: int = 0, *, seed: int = 0) -> GeneStatistics:
    """Mean cell of the training set, streamed, and the principal axes of its expression.

    Raises
    ------
    InputError
        If the cells hold no counts at all on this panel.
    """
    library_N = data.library_N
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
    mean_P, sd_P = (None, None) if data.protein_NP is None else _protein_statistics(data.protein_NP[filled])
    axis_GE, spread_E = _principal_axes(data, np.flatnonzero(filled), median, n_axes, seed) if n_axes else (None, None)
    return GeneStatistics(
        median_library=median,
        mean_proportion_G=proportion_G,
        mean_input_G=input_G,
        mean_log1p_G=log1p_G,
        axis_GE=axis_GE,
        axis_spread_E=spread_E,
        mean_protein_P=mean_P,
        sd_protein_P=sd_P,
    )


def _protein_statistics(protein_NP: np.ndarray) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of log1p of each protein where it was measured, [P] each (1 where it does not vary)."""
    log_NP = np.ma.masked_invalid(np.log1p(protein_NP.astype(np.float64)))
    mean_P, sd_P = log_NP.mean(0).filled(0.0), log_NP.std(0).filled(0.0)
    return torch.from_numpy(mean_P).float(), torch.from_numpy(np.where(sd_P > 1e-6, sd_P, 1.0)).float()


def _varies(values_NG: csr_array) -> bool:
    """Whether any gene differs between cells by more than rounding."""
    mean_G = np.asarray(values_NG.mean(axis=0)).ravel()
    variance_G = np.asarray(values_NG.power(2).mean(axis=0)).ravel() - mean_G**2
    return bool((variance_G > 1e-9 * np.maximum(mean_G**2, 1e-9)).any())


def _principal_axes(data: GeneData, rows: np.ndarray, scale: float, n_axes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Orthonormal axes [G, E] and the spread of the cells along each [E] (zero axes of spread 1 where there are no more)."""
    from scipy.sparse import csr_array
    from sklearn.decomposition import PCA

    rng = np.random.default_rng([seed, 23])
    counts = data.read(np.sort(rng.permutation(rows)[:MAX_AXES_CELLS]))
    library_N = np.asarray(counts.sum(1)).ravel().clip(1.0)
    values = np.log1p(counts.data * (scale / np.repeat(library_N, np.diff(counts.indptr))))
    log_NG = csr_array((values.astype(np.float64), counts.indices, counts.indptr), counts.shape)
    weight_GE, spread_E = np.zeros((data.n_genes, n_axes)), np.ones(n_axes)
    n_found = min(n_axes, min(counts.shape) - 1)
    if n_found > 0 and _varies(log_NG):
        pca = PCA(n_found, svd_solver="arpack", random_state=seed).fit(log_NG)
        found = np.flatnonzero(pca.explained_variance_ > 1e-8)
        weight_GE[:, found] = pca.components_[found].T
        spread_E[found] = np.sqrt(pca.explained_variance_[found])
    return torch.from_numpy(weight_GE).float(), torch.from_numpy(spread_E).float()


def validation_rows(dataset: PairedDataset) -> np.ndarray:
    """Rows of the centre cells of split "val", int64; may be none."""
    split = dataset.obs["split"].astype(str).to_numpy()
    return np.flatnonzero((split == "val") & dataset.is_centre)
