"""Expression -> latents of cells, streamed, whatever the panel the expression comes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.data.gene_panel import Alignment, GenePanel
from sge2hist.data.paired import PairedDataset
from sge2hist.data.spatial_index import CellIndex
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.gene.encode import component_posterior, encode_chunks, log_depth
from sge2hist.models.gene.neighbours import neighbour_features

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
    if not gene.config.n_neighbour_features:
        return None
    alignment = bundle.genes.align(panel)

    def read(cells: np.ndarray) -> csr_array:
        return bundle.genes.gather(read_counts(cells), alignment)[0]

    def around(rows: np.ndarray) -> np.ndarray:
        who = places.around(rows, gene.config.neighbour_um)
        return neighbour_features(gene.encoder, read, who, alignment.columns >= 0)

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
    observed_G = alignment.columns >= 0
    rows = np.unique(np.asarray(rows, np.int64))
    neighbour_NA = None if around is None else around(rows)

    def chunks() -> Iterator[tuple[csr_array, np.ndarray | None]]:
        for start in range(0, len(rows), CHUNK):
            part = slice(start, start + CHUNK)
            counts, _ = bundle.genes.gather(read_counts(rows[part]), alignment)
            yield counts, None if neighbour_NA is None else neighbour_NA[part]

    encoded = encode_chunks(gene, chunks(), len(rows), observed_G=observed_G, progress=progress)
    if bundle.z2_range is not None:
        np.clip(encoded.z2, *bundle.z2_range, out=encoded.z2)
    return CellLatents(
        row_N=rows,
        mean_NZ=encoded.mean_NZ,
        type_sd_NT=np.exp(0.5 * encoded.z1_log_var),
        depth_N=log_depth(gene, encoded.library_N, observed_G),
        type_N=bundle.types.predicted_types(component_posterior(gene, encoded))[0],
        alignment=alignment,
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
