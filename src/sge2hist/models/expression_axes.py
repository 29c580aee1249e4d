"""Principal axes of expression: a fixed, linear summary of a cell that the encoder reads beside the counts themselves.

They start z1 where principal components are, from which a few thousand steps reach further than from random weights; and
their mean over the cells around is what the posterior of z2, the microenvironment, reads of a cell's surroundings.
Letters: N cells, G genes, E axes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from scipy.sparse import csr_array

SMALLEST_PART = 0.02
"""Of an axis's squared weights that must be on measured genes before its coordinate is scaled up in full."""


class ExpressionAxes(nn.Module):
    """Coordinates of log-normalised, centred expression on orthonormal axes, in units of their spread among training cells.

    Of a part of the genes an axis sees a part: the coordinate is scaled up by the share of its squared weights that was
    measured (the least-squares estimate, when what was measured of different axes is uncorrelated), and shrunk where that
    is hardly any.
    """

    weight_GE: Tensor
    spread_E: Tensor

    def __init__(self, n_genes: int, n_axes: int) -> None:
        super().__init__()
        self.register_buffer("weight_GE", torch.zeros(n_genes, n_axes))
        self.register_buffer("spread_E", torch.ones(n_axes))

    @property
    def n_axes(self) -> int:
        """Number of axes E."""
        return self.spread_E.shape[0]

    def forward(self, input_NG: Tensor, observed_G: Tensor | None = None) -> Tensor:
        """Coordinates [N, E] of centred inputs in which missing genes are zero; observed: bool [G] or [N, G]."""
        coordinate_NE = input_NG @ self.weight_GE / self.spread_E
        if observed_G is None:
            return coordinate_NE
        part_E = observed_G.to(input_NG.dtype) @ self.weight_GE.square()
        return coordinate_NE * (1 + SMALLEST_PART) / (part_E + SMALLEST_PART)

    def of_counts(
        self, counts_NG: csr_array, observed_G: np.ndarray, scale: float, mean_input_G: np.ndarray
    ) -> np.ndarray:
        """The same of raw counts, float32 [N, E], without ever making them dense; each cell's does not depend on the others.

        `scale`: depth that a typical cell has on the measured genes. Columns that were not measured must be empty.
        """
        from scipy.sparse import csr_array

        weight_GE = self.weight_GE.cpu().numpy().astype(np.float64)
        counts = counts_NG.data.astype(np.float64)  # whatever type counts come in, the same to the last digit
        library_N = np.asarray(counts_NG.sum(1, dtype=np.float64)).ravel().clip(1.0)
        values = np.log1p(counts * (scale / np.repeat(library_N, np.diff(counts_NG.indptr))))
        log_NG = csr_array((values, counts_NG.indices, counts_NG.indptr), counts_NG.shape)
        centre_E = (mean_input_G * observed_G) @ weight_GE
        coordinate_NE = (log_NG @ weight_GE - centre_E) / self.spread_E.cpu().numpy()
        if not observed_G.all():
            part_E = observed_G.astype(np.float64) @ weight_GE**2
            coordinate_NE *= (1 + SMALLEST_PART) / (part_E + SMALLEST_PART)
        return coordinate_NE.astype(np.float32)
