"""A small tissue with known types and neighbourhoods for the tests of the gene stage."""

import numpy as np
from scipy.sparse import csr_array

from sge2hist.training.gene_data import GeneData

N_GENES, N_TYPES = 60, 3


def make_cells(
    n: int = 400, *, labels: bool = True, positions: bool = True, seed: int = 0, depth: float = 150.0
) -> GeneData:
    """Three types of ten markers each; ten more genes rise with x, the microenvironment."""
    rng = np.random.default_rng(seed)
    type_N = rng.integers(N_TYPES, size=n)
    centre_um_N2 = rng.uniform(0, 400, (n, 2))
    log_rate = np.zeros((n, N_GENES))
    for kind in range(N_TYPES):
        log_rate[type_N == kind, 10 * kind : 10 * kind + 10] = 2.5
    log_rate[:, 30:40] += 3 * (centre_um_N2[:, :1] / 400 - 0.5)
    rate = np.exp(log_rate)
    counts = rng.poisson(rate / rate.sum(1, keepdims=True) * depth)
    return GeneData.from_counts(
        csr_array(counts),
        symbols=[f"GENE{g}" for g in range(N_GENES)],
        type_N=type_N if labels else None,
        type_names=["alpha", "beta", "gamma"] if labels else None,
        centre_um_N2=centre_um_N2 if positions else None,
    )
