import numpy as np
import pytest
from sklearn.neighbors import NearestCentroid

from sge2hist.toy.cell_types import TYPE_NAMES, trait
from sge2hist.toy.expression import MAX_SPREAD_UM, mean_counts, sample_counts


@pytest.mark.parametrize("dispersion", [0.5, 4.0, 1e6])
def test_moments_of_the_count_model(dispersion):
    n, means = 40_000, np.array([0.2, 3.0, 40.0])
    counts = sample_counts(np.tile(means, (n, 1)), dispersion, np.random.default_rng(0)).toarray().astype(float)
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


def test_depth_is_that_of_the_types(tiny_tissue):
    n_counts = np.asarray(tiny_tissue.counts_NG.sum(axis=1)).ravel()
    for index, expected in enumerate(trait("mean_umi")):
        own = n_counts[tiny_tissue.cells.type_N == index]
        assert abs(own.mean() / expected - 1.0) < 5 * own.std() / expected / np.sqrt(len(own)) + 0.02


def test_markers_separate_the_types(tiny_tissue):
    counts = tiny_tissue.counts_NG.toarray().astype(float)
    log_share = np.log1p(1e3 * counts / counts.sum(axis=1, keepdims=True))
    half = np.random.default_rng(0).uniform(size=len(counts)) < 0.5
    type_N = tiny_tissue.cells.type_N
    predicted = NearestCentroid().fit(log_share[half], type_N[half]).predict(log_share[~half])
    assert (predicted == type_N[~half]).mean() > 0.95
    flat = (tiny_tissue.genes.frame["role"] == "flat").to_numpy()
    predicted = NearestCentroid().fit(counts[half][:, flat], type_N[half]).predict(counts[~half][:, flat])
    # flat genes carry the depth of the cell, not its type
    assert (predicted == type_N[~half]).mean() < 0.5


def test_bins_sum_to_the_counts_of_the_cells_exactly(tiny_tissue):
    for bin_um in (2, 8, 16):
        bins = tiny_tissue.bin_counts(bin_um)
        assert bins.shape == (tiny_tissue.frame.n_bins(bin_um) ** 2, len(tiny_tissue.genes))
        np.testing.assert_array_equal(bins.sum(axis=0), tiny_tissue.counts_NG.sum(axis=0))
    cells = np.bincount(tiny_tissue.transcripts.cell, minlength=len(tiny_tissue.cells))
    np.testing.assert_array_equal(cells, tiny_tissue.counts_NG.sum(axis=1))


def test_coarse_bins_are_sums_of_fine_ones(tiny_tissue):
    n, n_genes = tiny_tissue.frame.n_bins(8), len(tiny_tissue.genes)
    fine = tiny_tissue.bin_counts(8).toarray().reshape(n // 2, 2, n // 2, 2, n_genes)
    np.testing.assert_array_equal(fine.sum(axis=(1, 3)).reshape(-1, n_genes), tiny_tissue.bin_counts(16).toarray())


def test_transcripts_stay_with_their_nucleus_and_on_the_array(tiny_tissue):
    transcripts, frame = tiny_tissue.transcripts, tiny_tissue.frame
    assert transcripts.array_xy_um.min() >= 0
    assert transcripts.array_xy_um.max() < frame.side_um
    image_xy_um = frame.to_image(transcripts.array_xy_um.astype(np.float64))
    distance = np.hypot(*(image_xy_um - tiny_tissue.cells.xy_um[transcripts.cell]).T)
    assert distance.max() < MAX_SPREAD_UM + 0.01


def test_bin_types_agree_with_a_slow_vote(tiny_tissue):
    types = tiny_tissue.bin_types(16)
    bins = tiny_tissue.transcripts.bin_of(tiny_tissue.frame, 16)
    type_of = tiny_tissue.cells.type_N[tiny_tissue.transcripts.cell]
    for index in range(0, len(types), 53):
        votes = type_of[bins == index]
        assert types[index] == (np.bincount(votes).argmax() if len(votes) else -1)


def test_every_transcript_falls_into_a_bin_in_tissue(tiny_tissue):
    for bin_um in (8, 16):
        in_tissue = tiny_tissue.bins_in_tissue(bin_um)
        assert in_tissue[tiny_tissue.transcripts.bin_of(tiny_tissue.frame, bin_um)].all()
        assert 0.3 < in_tissue.mean() < 0.95
