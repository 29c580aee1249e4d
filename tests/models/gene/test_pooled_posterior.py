"""Posteriors of several cells multiplied, against the exact posterior of a linear Gaussian model."""

import numpy as np
from scipy.sparse import csr_array

from sge2hist.models.gene.cell_types import pool_posteriors


def pairs(rows: list[list[int]]) -> csr_array:
    dense = np.zeros((len(rows), len(rows)))
    for row, others in enumerate(rows):
        dense[row, others] = 1 / max(1, len(others))
    return csr_array(dense)


def test_as_the_exact_posterior_of_all_observations_of_one_z() -> None:
    """z ~ N(0, 1), x_i | z ~ N(z, s_i^2): the posterior of each x_i and that of all of them are known."""
    rng = np.random.default_rng(0)
    x_NT, noise_NT = rng.normal(size=(4, 3)), rng.uniform(0.2, 3.0, (4, 3))
    own_var = 1 / (1 + 1 / noise_NT)
    own_mean = own_var * x_NT / noise_NT
    mean, var = pool_posteriors(own_mean, own_var, pairs([[1, 2], [0], [], [0, 1, 2]]))
    for row, group in enumerate(([0, 1, 2], [1, 0], [2], [3, 0, 1, 2])):
        exact_var = 1 / (1 + (1 / noise_NT[group]).sum(0))
        np.testing.assert_allclose(var[row], exact_var, rtol=1e-5)
        np.testing.assert_allclose(mean[row], exact_var * (x_NT[group] / noise_NT[group]).sum(0), rtol=1e-4, atol=1e-6)


def test_what_says_nothing_changes_nothing() -> None:
    mean, var = np.array([[1.0, 0.5], [9.0, -9.0]]), np.array([[0.25, 0.5], [1.0, 4.0]])
    pooled, pooled_var = pool_posteriors(mean, var, pairs([[1], [0]]))
    np.testing.assert_allclose(pooled[0], mean[0])
    np.testing.assert_allclose(pooled_var[0], var[0])
    np.testing.assert_allclose(pooled[1], mean[0])
