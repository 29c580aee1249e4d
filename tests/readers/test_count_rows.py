"""Rows that come piece by piece are summed by group: the result of one dense sum, at a cost that grows with the counts alone."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy.sparse import csr_array, random_array

from sge2hist.readers.count_rows import sum_pieces


def _pieces(counts_NG, group_N, size):
    for first in range(0, len(group_N), size):
        yield group_N[first : first + size], csr_array(counts_NG[first : first + size])


@pytest.mark.parametrize("size", [1, 7, 100])
@pytest.mark.parametrize("n_groups", [12, 30])
def test_groups_over_several_pieces(size, n_groups):
    rng = np.random.default_rng(0)
    counts_NG = rng.poisson(0.3, (60, 9)).astype(np.int32)
    group_N = rng.integers(-1, 12, 60)
    expected = np.zeros((n_groups, 9), np.int32)
    np.add.at(expected, group_N[group_N >= 0], counts_NG[group_N >= 0])
    summed = sum_pieces(_pieces(counts_NG, group_N, size), n_groups, 9)
    assert summed.dtype == np.int32
    assert summed.has_canonical_format
    assert (summed.toarray() == expected).all()


def test_one_row_for_each_group_in_any_order():
    rng = np.random.default_rng(1)
    counts_NG = rng.poisson(0.3, (60, 9)).astype(np.int32)
    order = rng.permutation(60)
    for group_N in (np.arange(60), order):
        summed = sum_pieces(_pieces(counts_NG, group_N, 16), 60, 9).toarray()
        assert (summed[group_N] == counts_NG).all()


def test_no_piece_and_no_kept_row():
    nothing = csr_array((3, 5), dtype=np.int32)
    assert sum_pieces([], 2, 5).shape == (2, 5)
    assert sum_pieces([(np.array([-1, -1, -1]), nothing)], 2, 5).nnz == 0


def test_many_pieces_cost_what_their_counts_cost():
    """Adding each piece to the sum of those before it takes time with the square of their number."""

    def seconds(n_pieces: int) -> float:
        piece = random_array((50, 200), density=0.5, format="csr", dtype=np.int32, rng=0)
        begun = time.process_time()
        sum_pieces(((np.arange(50) + 50 * i, piece) for i in range(n_pieces)), 50 * n_pieces, 200)
        return time.process_time() - begun

    seconds(10)
    assert seconds(1600) < 16 * max(seconds(200), 0.01)  # 8 times as much; squared it were 64
