import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from sge2hist.pairing import collect


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), chunk=st.sampled_from([1, 5, 1000]))
def test_in_place_selection_agrees_with_scipy(seed, chunk) -> None:
    rng = np.random.default_rng(seed)
    dense = rng.poisson(0.6, (rng.integers(1, 12), rng.integers(1, 9)))
    keep = rng.uniform(size=dense.shape[1]) < 0.6
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collect, "CHUNK_NONZEROS", chunk)
        columns = collect.select_columns(csr_array(dense), keep)
    np.testing.assert_array_equal(columns.toarray(), dense[:, keep])
    assert columns.has_sorted_indices
