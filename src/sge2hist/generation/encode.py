"""Expression -> latents of cells, streamed, whatever the panel the expression comes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from sge2hist.data.errors import InputError
from sge2hist.data.gene_panel import Alignment, GenePanel
from sge2hist.data.paired import PairedDataset
from sge2hist.data.spatial_index import CellIndex
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.gene.neighbours import surroundings

if TYPE_CHECKING:
    from scipy.sparse import csr_array

CHUNK = 1024  # cells whose counts are dense at one time


@dataclass(frozen=True, kw_only=True)
class CellLatents:
    """Posteriors and depths of N cells; `row_N` says which row of the source each one is."""

    row_N: np.ndarray  # int64, rising
    mean_NZ: np.ndarray  # float32
    type_sd_NT: np.ndarray  # float32, standard deviation of the posterior of z1
    depth_N: np.ndarray  # float32, log counts over the training median, clipped to +-3
    type_N: np.ndarray  # int64, type that the mixture of z1 gives, an index into the model's type names
    alignment: Alignment

    def find(self, rows: np.ndarray) -> np.ndarray:
        """Positions of source rows in the arrays."""
        return np.searchsorted(self.row_N, rows)

    def take(self, at: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mean, spread of z1, and depth of the cells at some positions."""
        return self.mean_NZ[at], self.type_sd_NT[at], self.depth_N[at]


Around = Callable[[np.ndarray], np.ndarray]
"""Rising rows of a source -> what lies around these cells, float32 [n, A] (`models.gene_surroundings.surroundings`)."""


def around_in(
    bundle: ModelBundle, read_counts: Callable[[np.ndarray], csr_array], panel: GenePanel, places: CellIndex
) -> Around | None:
    """Surroundings from where all cells of a source lie; None if the model does not ask for them."""
    gene = bundle.model.gene
    if not gene.config.n_around:
        return None
    alignment = bundle.genes.align(panel)

    def read(cells: np.ndarray) -> csr_array:
        return bundle.genes.gather(read_counts(cells), alignment)[0]

    def around(rows: np.ndarray) -> np.ndarray:
        who = places.around(rows, gene.config.around_um)
        return surroundings(gene.encoder, read, who, alignment.columns >= 0)

    return around


def encode_cells(
    bundle: ModelBundle,
    read_counts: Callable[[np.ndarray], csr_array],
    panel: GenePanel,
    rows: np.ndarray,
    *,
    around: Around | None = None,
    progress: Callable[[int], None] = lambda n: None,
) -> CellLatents:
    """Encode source rows (sorted and made unique here). `read_counts(rows)` returns raw counts, CSR [n, G_source].

    `around`: tells z2 of the cells around (:func:`around_in`); None: it is not told.
    z2 is kept within what the image model has seen in training (`ModelBundle.z2_range`): cells that no tissue holds, as edits
    of genes make them, would else be drawn from where it knows nothing.

    Raises
    ------
    InputError
        If the panels share no gene.
    """
    alignment = bundle.genes.align(panel)
    gene = bundle.model.gene
    device = next(gene.parameters()).device
    rows = np.unique(np.asarray(rows, np.int64))
    mean_NZ = np.empty((len(rows), gene.config.n_latent), np.float32)
    type_sd_NT = np.empty((len(rows), gene.config.n_type), np.float32)
    depth_N, type_N = np.empty(len(rows), np.float32), np.empty(len(rows), np.int64)
    median = float(gene.encoder.scale)
    around_NA = None if around is None else around(rows)
    for start in range(0, len(rows), CHUNK):
        part = rows[start : start + CHUNK]
        counts, observed_G = bundle.genes.gather(read_counts(part), alignment)
        dense_NG = torch.from_numpy(counts.toarray().astype(np.float32)).to(device)
        observed = None if observed_G.all() else torch.from_numpy(observed_G).to(device)
        with torch.no_grad():
            around_PA = None if around_NA is None else torch.from_numpy(around_NA[start : start + CHUNK]).to(device)
            posterior = gene.encode(dense_NG, observed, around_PA)
        mean_NZ[start : start + len(part)] = posterior.mean_NZ.float().cpu().numpy()
        if bundle.z2_range is not None:
            z2_NM = mean_NZ[start : start + len(part), gene.config.n_type :]
            np.clip(z2_NM, *bundle.z2_range, out=z2_NM)
        log_var_NT = posterior.log_var_NZ[:, : gene.config.n_type].float().cpu().numpy()
        type_sd_NT[start : start + len(part)] = np.exp(0.5 * log_var_NT)
        told_NK = gene.mixture.tell(posterior.z1.float().cpu().numpy())
        type_N[start : start + len(part)] = bundle.types.told(told_NK)[0]
        # on a part of the panel a cell is as deep as its counts on the same genes would be in the training data
        share = float(gene.encoder.mean_proportion_G[torch.from_numpy(observed_G).to(device)].sum())
        library = counts.sum(axis=1) / max(share, 1e-6)
        depth_N[start : start + len(part)] = np.clip(np.log((library + 1) / (median + 1)), -3, 3)
        progress(len(part))
    return CellLatents(
        row_N=rows, mean_NZ=mean_NZ, type_sd_NT=type_sd_NT, depth_N=depth_N, type_N=type_N, alignment=alignment
    )


def z2_of_cell(bundle: ModelBundle, dataset: PairedDataset, cell_id: str) -> np.ndarray:
    """Microenvironment latent of a cell of a paired dataset, float32 [n_micro]."""
    if cell_id not in dataset.obs.index:
        raise InputError(
            found=f"cell {cell_id!r}", where=str(dataset.path), expected=f"an id such as {dataset.obs.index[0]!r}"
        )
    row = np.array([dataset.obs.index.get_loc(cell_id)], np.int64)
    places = CellIndex(dataset.centre_xy_px * dataset.um_per_px, dataset.slide_of_cell)
    around = around_in(bundle, dataset.counts, dataset.genes, places)
    latents = encode_cells(bundle, dataset.counts, dataset.genes, row, around=around)
    return latents.mean_NZ[0, bundle.model.gene.config.n_type :]
