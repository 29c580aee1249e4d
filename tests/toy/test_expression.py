import numpy as np
import pytest
from sklearn.neighbors import NearestCentroid

from sge2hist.toy.cell_types import TYPE_NAMES, trait
from sge2hist.toy.expression import draw_counts, mean_counts


@pytest.mark.parametrize("dispersion", [0.5, 4.0, 1e6])
def test_moments_of_the_count_model(dispersion):
    n, means = 40_000, np.array([0.2, 3.0, 40.0])
    counts = draw_counts(np.tile(means, (n, 1)), dispersion, np.random.default_rng(0)).toarray().astype(float)
    variance = means + means**2 / dispersion  # negative binomial
    np.testing.assert_allclose(counts.mean(axis=0), means, atol=0, rtol=5 * np.max(np.sqrt(variance / n) / means))
    # fourth central moment of the negative binomial gives the standard error of the variance
    kurtosis = 3.0 + 6.0 / dispersion + 1.0 / variance
    tolerance = 5 * np.sqrt((kurtosis - 1.0) / n)
    assert (np.abs(counts.var(axis=0) / variance - 1.0) < tolerance).all()


def test_expected_counts_follow_the_stated_equation(tiny_tissue):
    cells, genes, config = tiny_tissue.cells, tiny_tissue.genes, tiny_tissue.config
    depth = np.random.default_rng(0).uniform(50, 200, len(cells))
    mean = mean_counts(genes, cells, depth)
    np.testing.assert_allclose(mean.sum(axis=1), depth)
    flat = np.flatnonzero(genes.frame["role"] == "flat")[0]
    relative = np.log(mean / mean[:, [flat]]) - np.log(genes.base_G / genes.base_G[flat])
    up = np.flatnonzero(genes.frame["symbol"] == "UP-TOY1")[0]
    np.testing.assert_allclose(relative[:, up], config.gradient_log_fold * (cells.gradient - 0.5), atol=1e-9)
    niche = np.flatnonzero(genes.frame["role"] == "neighbourhood")[0]
    np.testing.assert_allclose(relative[:, niche], config.neighbourhood_log_fold * cells.immune_fraction, atol=1e-9)
    marker = np.flatnonzero(genes.frame["marker_of"] == "Gland")[0]
    own = cells.type_N == TYPE_NAMES.index("Gland")
    np.testing.assert_allclose(np.exp(relative[own, marker]), config.marker_fold)
    np.testing.assert_allclose(relative[~own, marker], 0.0, atol=1e-9)


def test_depth_is_what_the_types_say(tiny_tissue):
    n_counts = np.asarray(tiny_tissue.counts_NG.sum(axis=1)).ravel()
    for index, expected in enumerate(trait("mean_umi")):
        own = n_counts[tiny_tissue.cells.type_N == index]
        assert abs(own.mean() / expected - 1.0) < 5 * own.std() / expected / np.sqrt(len(own)) + 0.02


def test_markers_separate_the_types(tiny_tissue):
    counts = tiny_tissue.counts_NG.toarray().astype(float)
    log_share = np.log1p(1e3 * counts / counts.sum(axis=1, keepdims=True))
    half = np.random.default_rng(0).uniform(size=len(counts)) < 0.5
    type_N = tiny_tissue.cells.type_N
    guess = NearestCentroid().fit(log_share[half], type_N[half]).predict(log_share[~half])
    assert (guess == type_N[~half]).mean() > 0.95
    flat = (tiny_tissue.genes.frame["role"] == "flat").to_numpy()
    guess = NearestCentroid().fit(counts[half][:, flat], type_N[half]).predict(counts[~half][:, flat])
    # what flat genes still tell is the depth of the cell, not its type
    assert (guess == type_N[~half]).mean() < 0.5
