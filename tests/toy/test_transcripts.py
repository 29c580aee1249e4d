import numpy as np

from sge2hist.toy.transcripts import MAX_SPREAD_UM


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
