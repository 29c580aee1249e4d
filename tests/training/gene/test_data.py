"""Counts to dense batches, streamed statistics, markers and gene selection, each against a dense reference."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from sge2hist.data.errors import InputError
from sge2hist.models.gene.encode import dense_counts
from sge2hist.training.gene.data import GeneData, gene_statistics
from sge2hist.training.gene.selection import binomial_deviance, select_columns
from sge2hist.training.gene.type_names import group_means
from tests.training.gene.fixtures import make_cells


def test_dense_counts_equal_toarray_also_for_empty_rows() -> None:
    dense = np.array([[0, 3, 0], [0, 0, 0], [1, 0, 2]])
    assert dense_counts(csr_array(dense)).tolist() == dense.tolist()
    assert dense_counts(csr_array((0, 3), dtype=np.float32)).shape == (0, 3)


def test_statistics_equal_a_dense_computation() -> None:
    data = make_cells(50)
    x = data.read(np.arange(50)).toarray()
    library = x.sum(1, keepdims=True)
    found = gene_statistics(data)
    assert found.median_library == np.median(library)
    np.testing.assert_allclose(found.mean_proportion_G, (x / library).mean(0), rtol=1e-5)
    np.testing.assert_allclose(found.mean_input_G, np.log1p(x / library * np.median(library)).mean(0), rtol=1e-5)
    np.testing.assert_allclose(found.mean_log1p_G, np.log1p(x / library * 1e4).mean(0), rtol=1e-5)


def test_no_counts_at_all_is_an_error() -> None:
    with pytest.raises(InputError, match="no counts"):
        gene_statistics(GeneData.from_counts(csr_array((5, 4), dtype=np.float32)))


def test_binomial_deviance_equals_its_formula() -> None:
    data = make_cells(80)
    x = data.read(np.arange(80)).toarray().astype(np.float64)
    n, p = x.sum(1, keepdims=True), x.sum(0) / x.sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.nan_to_num(x * np.log(x / (n * p))) + (n - x) * np.log((n - x) / (n * (1 - p)))
    np.testing.assert_allclose(binomial_deviance(data), 2 * terms.sum(0), rtol=1e-6)


def test_selection_keeps_markers_and_informative_genes() -> None:
    labelled, unlabelled = make_cells(), make_cells(labels=False)
    assert set(select_columns(unlabelled, 40)) >= set(
        range(40)
    )  # 30 markers and 10 gradient genes carry all the signal
    chosen = select_columns(labelled, 12)
    assert len(chosen) == 12
    assert (np.diff(chosen) > 0).all()
    assert {kind for kind in range(3) if np.isin(np.arange(10 * kind, 10 * kind + 10), chosen).any()} == {0, 1, 2}


def test_group_means_and_markers() -> None:
    data = make_cells()
    means = group_means(data, data.type_N, 3)
    x = data.read(np.arange(400)).toarray()
    scaled = x / x.sum(1, keepdims=True) * 1e4
    np.testing.assert_allclose(means.mean_CG[1], scaled[data.type_N == 1].mean(0), rtol=1e-5)
    np.testing.assert_allclose(means.detected_CG[1], (x[data.type_N == 1] > 0).mean(0), rtol=1e-5)
    for kind in range(3):
        assert set(means.top_markers(kind, 10)) == set(range(10 * kind, 10 * kind + 10))
    assert len(group_means(data, np.where(data.type_N == 2, -1, data.type_N), 3).top_markers(2, 5)) == 0


def test_counts_read_in_any_order_and_as_float() -> None:
    data = make_cells(30)
    rows = np.array([7, 2, 7])
    part = data.read(rows)
    assert part.dtype == np.float32
    whole = data.read(np.arange(30)).toarray()
    np.testing.assert_array_equal(part.toarray(), whole[rows])
    assert torch.equal(dense_counts(part), torch.from_numpy(whole[rows]))
