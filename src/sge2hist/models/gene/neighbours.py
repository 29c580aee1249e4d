"""Neighbourhood features of a cell, from which the posterior of z2 is computed: mean expression of its neighbours."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from sge2hist.models.gene.networks import GeneEncoder

if TYPE_CHECKING:
    from scipy.sparse import csr_array

CHUNK = 8192  # cells whose counts are read at one time


def neighbour_features(
    encoder: GeneEncoder,
    read_counts: Callable[[np.ndarray], csr_array],
    neighbours_NN: csr_array,
    observed_G: np.ndarray | None = None,
) -> np.ndarray:
    """Mean coordinates of the neighbours on the encoder's axes, and 1; zeros for a cell without neighbours.

    Parameters
    ----------
    read_counts : rising cell numbers -> raw counts on the model's genes, CSR [n, G].
    neighbours_NN : neighbours of each of n cells, [n, N], rows of equal weights that sum to one, or empty (`CellIndex.around`).
    observed_G : bool, genes that were measured; None = all.

    Returns
    -------
    float32 [n, E + 1]. A cell's row depends on its neighbours alone, not on the other cells of the call.
    """

    def coordinates(cells: np.ndarray) -> np.ndarray:
        parts = [
            encoder.coordinates(read_counts(cells[start : start + CHUNK]), observed_G)
            for start in range(0, len(cells), CHUNK)
        ]
        return np.concatenate([np.zeros((0, encoder.n_axes), np.float32), *parts])

    return mean_of_neighbours(coordinates, neighbours_NN)


def mean_of_neighbours(coordinates: Callable[[np.ndarray], np.ndarray], neighbours_NN: csr_array) -> np.ndarray:
    """:func:`neighbour_features` from a function that gives the coordinates of cells (rising numbers), float32 [n, E]."""
    from scipy.sparse import csr_array

    cells = np.unique(neighbours_NN.indices)
    column = np.searchsorted(cells, neighbours_NN.indices)
    weights = csr_array((neighbours_NN.data, column, neighbours_NN.indptr), shape=(neighbours_NN.shape[0], len(cells)))
    known = (np.diff(neighbours_NN.indptr) > 0).astype(np.float32)
    return np.column_stack([weights @ coordinates(cells), known]).astype(np.float32)
