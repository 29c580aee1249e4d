"""What the posterior of z2 reads of a cell's surroundings: the mean expression of the cells around it."""

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
    around: csr_array,
    observed_G: np.ndarray | None = None,
) -> np.ndarray:
    """Mean coordinates on the encoder's axes of the cells around, and 1; zeros for a cell without neighbours.

    Parameters
    ----------
    read_counts : rising cell numbers -> raw counts on the model's genes, CSR [n, G].
    around : who is around each of n cells, [n, N], rows of equal weights that sum to one, or empty (`CellIndex.around`).
    observed_G : bool, genes that were measured; None = all.

    Returns
    -------
    float32 [n, E + 1]. A cell's row depends on its neighbours alone, not on which others are asked for.
    """

    def coordinates(near: np.ndarray) -> np.ndarray:
        parts = [
            encoder.coordinates(read_counts(near[start : start + CHUNK]), observed_G)
            for start in range(0, len(near), CHUNK)
        ]
        return np.concatenate([np.zeros((0, encoder.n_axes), np.float32), *parts])

    return mean_of_neighbours(coordinates, around)


def mean_of_neighbours(coordinates: Callable[[np.ndarray], np.ndarray], around: csr_array) -> np.ndarray:
    """:func:`neighbour_features` from a function that gives the coordinates of cells (rising numbers), float32 [n, E]."""
    from scipy.sparse import csr_array

    near = np.unique(around.indices)
    shape = (around.shape[0], len(near))
    local = csr_array((around.data, np.searchsorted(near, around.indices), around.indptr), shape=shape)
    known = (np.diff(around.indptr) > 0).astype(np.float32)
    return np.column_stack([local @ coordinates(near), known]).astype(np.float32)
