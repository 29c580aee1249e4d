"""Expression -> latents of cells, streamed, whatever the panel the expression comes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from sge2hist.data.cell_index import CellIndex
from sge2hist.data.gene_panel import Alignment, GenePanel
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.gene_surroundings import CHUNK as READ
from sge2hist.models.gene_surroundings import mean_around

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


class AxesOfCells:
    """Coordinates of a source's cells on the axes of the gene model, each found once, when it is first asked for.

    Cells come in any order, so those around one group of them may be all over the source.
    """

    def __init__(
        self, bundle: ModelBundle, read_counts: Callable[[np.ndarray], object], panel: GenePanel, n_cells: int
    ) -> None:
        self._bundle, self._read_counts, self._alignment = bundle, read_counts, bundle.genes.align(panel)
        n_axes = bundle.model.gene.encoder.n_axes
        self._coordinates_NE = np.empty((n_cells, n_axes), np.float32)  # takes no memory until it is written
        self._known_N = np.zeros(n_cells, bool)

    def __call__(self, cells: np.ndarray) -> np.ndarray:
        """Coordinates of some cells, float32 [n, E]."""
        missing = cells[~self._known_N[cells]]
        for start in range(0, len(missing), READ):
            part = missing[start : start + READ]
            counts, observed_G = self._bundle.genes.gather(self._read_counts(part), self._alignment)  # type: ignore[arg-type]
            self._coordinates_NE[part] = self._bundle.model.gene.encoder.coordinates(counts, observed_G)
        self._known_N[missing] = True
        return self._coordinates_NE[cells]


def encode_cells(
    bundle: ModelBundle,
    read_counts: Callable[[np.ndarray], object],
    panel: GenePanel,
    rows: np.ndarray,
    *,
    places: CellIndex | None = None,
    axes: AxesOfCells | None = None,
    progress: Callable[[int], None] = lambda n: None,
) -> CellLatents:
    """Encode source rows (sorted and made unique here). `read_counts(rows)` returns raw counts, CSR [n, G_source].

    `places`: where all cells of the source lie, so that z2 is told of the cells around; None: it is not. `axes`: what is known
    of them from earlier calls.
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
    around_NA = None
    if places is not None and gene.config.n_around:
        axes = axes or AxesOfCells(bundle, read_counts, panel, len(places.slide_of_cell))
        around_NA = mean_around(axes, places.around(rows, gene.config.around_um))
    for start in range(0, len(rows), CHUNK):
        part = rows[start : start + CHUNK]
        counts, observed_G = bundle.genes.gather(read_counts(part), alignment)  # type: ignore[arg-type]
        dense_NG = torch.from_numpy(counts.toarray().astype(np.float32)).to(device)
        observed = None if observed_G.all() else torch.from_numpy(observed_G).to(device)
        with torch.no_grad():
            around = None if around_NA is None else torch.from_numpy(around_NA[start : start + CHUNK]).to(device)
            posterior = gene.encode(dense_NG, observed, around)
            gamma = gene.mixture.best_responsibilities(posterior.z1, posterior.log_var_NZ[:, : gene.config.n_type])
        mean_NZ[start : start + len(part)] = posterior.mean_NZ.float().cpu().numpy()
        if bundle.z2_range is not None:
            z2_NM = mean_NZ[start : start + len(part), gene.config.n_type :]
            np.clip(z2_NM, *bundle.z2_range, out=z2_NM)
        log_var_NT = posterior.log_var_NZ[:, : gene.config.n_type].float().cpu().numpy()
        type_sd_NT[start : start + len(part)] = np.exp(0.5 * log_var_NT)
        type_N[start : start + len(part)] = bundle.types.type_probabilities(gamma.float().cpu().numpy()).argmax(1)
        # on a part of the panel a cell is as deep as its counts on the same genes would be in the training data
        share = float(gene.encoder.mean_proportion_G[torch.from_numpy(observed_G).to(device)].sum())
        library = counts.sum(axis=1) / max(share, 1e-6)
        depth_N[start : start + len(part)] = np.clip(np.log((library + 1) / (median + 1)), -3, 3)
        progress(len(part))
    return CellLatents(
        row_N=rows, mean_NZ=mean_NZ, type_sd_NT=type_sd_NT, depth_N=depth_N, type_N=type_N, alignment=alignment
    )
