"""Latents of cells from their counts, streamed, for any gene panel that shares genes with the model's."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.data.gene_panel import GenePanel, PanelMatch
from sge2hist.data.paired import PairedDataset
from sge2hist.data.spatial_index import CellIndex
from sge2hist.data.table.proteins import ProteinTable
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.gene.encode import CellChunk, component_posterior, encode_chunks, log_depth
from sge2hist.models.gene.neighbours import neighbour_features

if TYPE_CHECKING:
    import pandas as pd
    from scipy.sparse import csr_array

CHUNK = 1024  # cells whose counts are dense at one time
MAX_SEARCHED = 100_000  # ids among which similar ones are looked for


@dataclass(frozen=True, kw_only=True)
class CellLatents:
    """Posteriors and depths of N cells; `row_N` are their rows in the source."""

    row_N: np.ndarray  # int64, rising
    mean_NZ: np.ndarray  # float32
    type_sd_NT: np.ndarray  # float32, standard deviation of the posterior of z1
    depth_N: np.ndarray  # float32, log counts over the training median, clipped to +-3
    type_N: np.ndarray  # int64, type that the mixture of z1 gives, an index into the model's type names
    alignment: PanelMatch

    def find(self, rows: np.ndarray) -> np.ndarray:
        """Positions of source rows in the arrays."""
        return np.searchsorted(self.row_N, rows)

    def take(self, at: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mean, spread of z1, and depth of the cells at some positions."""
        return self.mean_NZ[at], self.type_sd_NT[at], self.depth_N[at]


NeighbourReader = Callable[[np.ndarray], np.ndarray]
"""Rising rows of a source -> features of the neighbours of these cells, float32 [n, A] (`models.gene.neighbours`)."""


def neighbour_reader(
    bundle: ModelBundle, read_counts: Callable[[np.ndarray], csr_array], panel: GenePanel, index: CellIndex
) -> NeighbourReader | None:
    """Features of the neighbours of cells, from the positions of all cells of a source; None if the model uses none."""
    gene = bundle.model.gene
    if not gene.config.n_neighbour_features:
        return None
    alignment = bundle.genes.align(panel)

    def read(cells: np.ndarray) -> csr_array:
        return bundle.genes.gather(read_counts(cells), alignment)[0]

    def features(rows: np.ndarray) -> np.ndarray:
        weights = index.neighbour_weights(rows, gene.config.neighbour_um)
        return neighbour_features(gene.encoder, read, weights, alignment.columns >= 0)

    return features


ProteinReader = Callable[[np.ndarray], np.ndarray]
"""Rows of a source -> the model's proteins of these cells, float32 [n, P], NaN = not measured."""


class WithProteins(Protocol):
    """A source of cells: a `PairedDataset`, a `CellTable` or a `SlideSource`."""

    @property
    def proteins(self) -> ProteinTable | None:
        """Proteins of all its cells; None where it has none."""


def protein_reader(bundle: ModelBundle, source: WithProteins) -> ProteinReader | None:
    """The proteins of a source by row; None if the model reads none, or the source has none: RNA alone conditions then.

    Raises
    ------
    InputError
        If the source has proteins, but not all that the model reads, or in another unit.
    """
    panel = bundle.proteins
    table = None if panel is None else source.proteins  # a model of RNA leaves them in the file
    if panel is None or table is None:
        return None
    panel.columns(table)
    return lambda rows: panel.values(table, rows)


def features_used(bundle: ModelBundle, proteins: ProteinReader | None) -> dict[str, str]:
    """For manifests: which features condition the images of a model that reads proteins; nothing for other models."""
    return {} if bundle.proteins is None else {"features": "rna" if proteins is None else "rna,protein"}


def encode_cells(
    bundle: ModelBundle,
    read_counts: Callable[[np.ndarray], csr_array],
    panel: GenePanel,
    rows: np.ndarray,
    *,
    neighbours: NeighbourReader | None = None,
    proteins: ProteinReader | None = None,
    progress: Callable[[int], None] = lambda n: None,
) -> CellLatents:
    """Encode source rows (sorted and made unique here). `read_counts(rows)` returns raw counts, CSR [n, G_source].

    `neighbours`: features that z2 is conditioned on (:func:`neighbour_reader`); None: z2 depends on the cell's own counts alone.
    `proteins`: of the cells (:func:`protein_reader`); None: none was measured, and RNA alone conditions.
    z2 is clipped to the range of the training cells (`ModelBundle.z2_range`): edited genes may give cells that no tissue holds,
    and the image model cannot extrapolate to them.

    Raises
    ------
    InputError
        If the panels share no gene.
    """
    alignment = bundle.genes.align(panel)
    gene = bundle.model.gene
    observed_G = alignment.columns >= 0
    rows = np.unique(np.asarray(rows, np.int64))
    neighbour_NA = None if neighbours is None else neighbours(rows)

    def chunks() -> Iterator[CellChunk]:
        for start in range(0, len(rows), CHUNK):
            part = slice(start, start + CHUNK)
            counts, _ = bundle.genes.gather(read_counts(rows[part]), alignment)
            yield CellChunk(
                counts,
                None if neighbour_NA is None else neighbour_NA[part],
                None if proteins is None else proteins(rows[part]),
            )

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


def row_of_cell(ids: pd.Index, cell_id: str, where: str = "") -> int:
    """Row of the cell with an id; `InputError` with similar ids if there is none. `where`: the source, for the message."""
    if cell_id not in ids:
        close = difflib.get_close_matches(cell_id, map(str, ids[:MAX_SEARCHED]), n=3, cutoff=0.6) or [str(ids[0])]
        raise InputError(found=f"cell {cell_id!r}", where=where, expected=f"an id such as {', '.join(close)}")
    row = ids.get_loc(cell_id)
    if not isinstance(row, int):
        raise InputError(found=f"several cells {cell_id!r}", where=where, expected="ids that are unique")
    return row


def z2_of_cell(bundle: ModelBundle, dataset: PairedDataset, cell_id: str) -> np.ndarray:
    """Microenvironment latent of a cell of a paired dataset, float32 [n_micro]."""
    row = np.array([row_of_cell(dataset.obs.index, cell_id, str(dataset.path))], np.int64)
    index = CellIndex(dataset.centre_xy_px * dataset.um_per_px, dataset.slide_of_cell)
    neighbours = neighbour_reader(bundle, dataset.counts, dataset.genes, index)
    proteins = protein_reader(bundle, dataset)
    latents = encode_cells(bundle, dataset.counts, dataset.genes, row, neighbours=neighbours, proteins=proteins)
    return latents.mean_NZ[0, bundle.model.gene.config.n_type :]
