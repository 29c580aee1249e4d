"""Stochastic rounding: unbiased, independent of order, layout and pieces, and the same for the same seed."""

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from scipy import stats

from sge2hist.data.errors import InputError
from sge2hist.data.table import stored_matrix
from sge2hist.data.table.cell_table import CellTable
from sge2hist.data.table.rounding import Rounding
from tests.data.table.tables import make_adata, make_counts

CORRECTED = make_counts(mean=2) * np.random.default_rng(0).uniform(0.4, 1, (120, 60))


def rounded(X: object, **options: object) -> np.ndarray:
    return CellTable.of(make_adata(X), round_counts=True, **options).counts_NG.toarray()  # type: ignore[arg-type]


def test_random_numbers_are_uniform_and_independent_between_neighbours() -> None:
    rounding = Rounding.of([f"cell_{i}" for i in range(400)], [f"GENE{g}" for g in range(500)], seed=4)
    rows, columns = np.indices((400, 500))
    u = rounding.uniform(rows.ravel(), columns.ravel()).reshape(400, 500)
    assert stats.kstest(u.ravel(), "uniform").pvalue > 1e-3
    assert stats.kstest(u.mean(1), "norm", (0.5, np.sqrt(1 / 12 / 500))).pvalue > 1e-3
    assert stats.kstest(u.mean(0), "norm", (0.5, np.sqrt(1 / 12 / 400))).pvalue > 1e-3
    for one, other in ((u[:-1], u[1:]), (u[:, :-1], u[:, 1:]), (u[::2], u[1::2][::-1])):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 4 / np.sqrt(one.size)
    double = u[:-1, :-1] - u[1:, :-1] - u[:-1, 1:] + u[1:, 1:]  # no structure of sums of keys
    assert double.var() == pytest.approx(4 / 12, rel=0.02)
    again = Rounding.of(["cell_0"], ["GENE0"], seed=5)
    assert again.uniform(np.array([0]), np.array([0]))[0] != u[0, 0]


def test_the_mean_over_seeds_is_the_value() -> None:
    total = np.zeros(CORRECTED.shape)
    n = 200
    for seed in range(n):
        one = rounded(CORRECTED, seed=seed)
        assert ((one == np.floor(CORRECTED)) | (one == np.ceil(CORRECTED))).all()
        total += one
    fraction = CORRECTED % 1
    error = np.sqrt(np.maximum(fraction * (1 - fraction), 1e-9) / n)
    score = (total / n - CORRECTED) / error
    some = (fraction > 0.05) & (fraction < 0.95)
    assert abs(score[some].mean()) < 4 / np.sqrt(some.sum())
    assert score[some].std() == pytest.approx(1, abs=0.1)
    assert (total[CORRECTED == 0] == 0).all()


@pytest.mark.parametrize("layout", [sp.csr_matrix, sp.csc_matrix, np.asarray])
@pytest.mark.parametrize("entries", [7, 300, 10_000_000])
def test_neither_layout_nor_pieces_matter(
    tmp_path: Path, layout: type, entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = rounded(CORRECTED, seed=3)
    monkeypatch.setattr(stored_matrix, "CHUNK_ENTRIES", entries)
    np.testing.assert_array_equal(rounded(layout(CORRECTED), seed=3), expected)
    make_adata(layout(CORRECTED)).write_h5ad(tmp_path / "a.h5ad")
    from_disk = CellTable.of(tmp_path / "a.h5ad", round_counts=True, seed=3)
    np.testing.assert_array_equal(from_disk.counts_NG.toarray(), expected)
    assert from_disk.counts["round_counts"]
    assert from_disk.counts["rounding_seed"] == 3
    assert from_disk.counts_NG.nnz == (expected > 0).sum()


def test_a_cell_is_rounded_the_same_among_other_cells_and_genes() -> None:
    adata = make_adata(CORRECTED)
    rng = np.random.default_rng(1)
    cells, genes = rng.permutation(120)[:50], rng.permutation(60)
    part = CellTable.of(adata[cells, genes], round_counts=True, seed=3).counts_NG.toarray()
    np.testing.assert_array_equal(part, rounded(CORRECTED, seed=3)[np.ix_(cells, genes)])


def test_whole_counts_stay_and_noise_is_removed() -> None:
    counts = make_counts().astype(np.float64)
    noisy = counts + np.random.default_rng(2).uniform(-1e-7, 1e-7, counts.shape)
    np.testing.assert_array_equal(CellTable.of(make_adata(noisy)).counts_NG.toarray(), counts)
    exact = CellTable.of(make_adata(counts), round_counts=True)
    np.testing.assert_array_equal(exact.counts_NG.toarray(), counts)
    assert "nothing is rounded" in exact.notes[0]


def test_shares_of_a_total_are_no_counts_of_zero() -> None:
    """All values are within 1e-3 of a whole number, of 0: a tolerance alone would take them for an empty table."""
    counts = make_counts()
    shares = counts / counts.sum(1, keepdims=True) / 1000
    with pytest.raises(InputError, match="as after division"):
        CellTable.of(make_adata(shares))
