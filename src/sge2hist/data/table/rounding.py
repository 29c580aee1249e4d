"""Stochastic rounding of corrected counts: v becomes floor(v) or floor(v) + 1, the latter with probability v - floor(v).

The mean over random numbers is v (unbiased); a fixed rule would remove every gene whose corrected counts are below one half.
The random number of an entry is a hash of the seed, the id of the cell and the id of the gene. The result therefore depends
neither on the order of cells and genes, nor on how the matrix is stored, divided into pieces, or which other cells are read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from sge2hist.data.table.count_values import ZERO_TOLERANCE, check_range


@dataclass(frozen=True)
class Rounding:
    """Stochastic rounding of a matrix with N cells and G genes.

    Example
    -------
    >>> rounding = Rounding.of(["a", "b"], ["G1", "G2"], seed=0)
    >>> rounding.rounded(np.array([2.0, 0.5, 3.25]), np.array([0, 0, 1]), np.array([0, 1, 1]), "").tolist()
    [2, 1, 3]
    """

    cell_key_N: np.ndarray  # uint64
    gene_key_G: np.ndarray  # uint64

    @classmethod
    def of(cls, cell_ids: Iterable[object], gene_ids: Iterable[object], *, seed: int) -> Rounding:
        """Rounding for cells and genes by their ids."""
        return cls(_keys(cell_ids, f"cell {seed}"), _keys(gene_ids, f"gene {seed}"))

    def rounded(self, values_V: np.ndarray, row_V: np.ndarray, column_V: np.ndarray, where: str) -> np.ndarray:
        """Values as int32; `row_V` and `column_V` are their places. `InputError` for values that are no numbers >= 0."""
        check_range(values_V, where)
        values = np.asarray(values_V, np.float64)
        values = np.where(values < ZERO_TOLERANCE, 0.0, values)
        floor = np.floor(values)
        up = self.uniform(row_V, column_V) < values - floor
        return np.minimum(floor + up, np.iinfo(np.int32).max).astype(np.int32)

    def uniform(self, row_V: np.ndarray, column_V: np.ndarray) -> np.ndarray:
        """The random number of each entry, float64 in [0, 1)."""
        mixed = _mixed(self.cell_key_N[row_V] + self.gene_key_G[column_V])
        return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _keys(ids: Iterable[object], stream: str) -> np.ndarray:
    key = blake2b(stream.encode(), digest_size=16).digest()
    digests = b"".join(blake2b(str(one).encode(), digest_size=8, key=key).digest() for one in ids)
    return np.frombuffer(digests, np.uint64)


def _mixed(bits: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014, OOPSLA; constants: Stafford's variant 13)."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
