import anndata
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from sge2hist.data import counts_file
from sge2hist.data.errors import InputError


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    dense = np.random.default_rng(0).poisson(0.4, (60, 9)).astype(np.int32)
    dense[[0, 7, 59]] = 0
    path = tmp_path_factory.mktemp("counts") / "cells.h5ad"
    anndata.AnnData(csr_matrix(dense)).write_h5ad(path, compression="lzf")
    return path, dense


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.integers(0, 59), max_size=80), chunk=st.sampled_from([1, 7, 10_000]))
def test_rows_in_any_order_with_repeats(stored, rows, chunk) -> None:
    path, dense = stored
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counts_file, "CHUNK_NONZEROS", chunk)
        got = counts_file.read_csr_rows(path, np.array(rows, np.int64))
    np.testing.assert_array_equal(got.toarray(), dense[np.array(rows, np.int64)])


def test_everything(stored) -> None:
    path, dense = stored
    np.testing.assert_array_equal(counts_file.read_csr_rows(path).toarray(), dense)


def test_damaged_file_is_an_input_error(stored, tmp_path) -> None:
    content = stored[0].read_bytes()
    (tmp_path / "half.h5ad").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="half"):
        counts_file.read_csr_rows(tmp_path / "half.h5ad", np.arange(3))
