import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from sge2hist.data.errors import InputError
from sge2hist.data.gene_panel import GenePanel


@pytest.mark.parametrize(
    ("mine", "theirs", "columns", "by"),
    [
        ((["E1", "E2"], ["A", "B"]), (["E2", "E1"], ["x", "y"]), [1, 0], "id"),
        ((["ENSG01.3"], ["A"]), (["ENSG01.7"], ["Z"]), [0], "id"),
        ((["E1", "E2"], ["A", "B"]), (["B", "C"], ["B", "C"]), [-1, 0], "symbol"),
        ((["E1"], ["Actb"]), (["ACTB"], ["ACTB"]), [0], "symbol"),
        ((["E1", "E2"], ["A", "B"]), (["E1", "X"], ["q", "b"]), [0, 1], "mixed"),
        ((["AC1.1"], ["AC1.1"]), (["AC1.2", "AC1.1"], ["AC1.2", "AC1.1"]), [1], "id"),
    ],
)
def test_align(mine: tuple, theirs: tuple, columns: list[int], by: str) -> None:
    alignment = GenePanel(*mine).align(GenePanel(*theirs))
    assert alignment.columns.tolist() == columns
    assert alignment.by == by
    assert alignment.n_shared == sum(column >= 0 for column in columns)


def test_ids_win_over_symbols_and_first_duplicate_wins() -> None:
    panel = GenePanel(["E1", "E2"], ["A", "B"])
    alignment = panel.align(GenePanel(["x", "y", "E1"], ["A", "A", "other"]))
    assert alignment.columns.tolist() == [2, -1]
    alignment = GenePanel(["E1"], ["A"]).align(GenePanel(["x", "y"], ["A", "A"]))
    assert (alignment.columns.tolist(), alignment.n_duplicates) == ([0], 1)
    assert "1 repeated" in alignment.summary()


def test_no_overlap_says_so() -> None:
    with pytest.raises(InputError, match="no gene in common"):
        GenePanel(["E1"], ["A"]).align(GenePanel(["F1"], ["B"]))


def test_missing_genes_are_named() -> None:
    alignment = GenePanel(["E1", "E2"], ["A", "B"]).align(GenePanel(["E1"], ["A"]))
    assert alignment.missing == ["E2"]
    assert "1 of 2 genes" in alignment.summary()


def test_repeated_ids_are_refused() -> None:
    with pytest.raises(InputError, match="repeated"):
        GenePanel(["E1", "E1"])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_gather_agrees_with_dense_indexing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = [f"g{number}" for number in range(12)]
    mine = GenePanel([str(n) for n in rng.permutation(names)[: rng.integers(1, 12)]])
    theirs = GenePanel([str(n) for n in rng.permutation(names)[: rng.integers(1, 12)]])
    dense = rng.poisson(0.5, (5, len(theirs)))
    if not set(mine.ids) & set(theirs.ids):
        with pytest.raises(InputError):
            mine.align(theirs)
        return
    gathered, observed = mine.gather(csr_array(dense), mine.align(theirs))
    expected = np.stack([dense[:, theirs.ids.index(g)] if g in theirs.ids else np.zeros(5) for g in mine.ids], 1)
    np.testing.assert_array_equal(gathered.toarray(), expected)
    assert observed.tolist() == [g in theirs.ids for g in mine.ids]
    assert gathered.has_sorted_indices


def test_csv_round_trip(tmp_path) -> None:
    panel = GenePanel(["E1", "E2"], ["A,1", 'B"'])
    panel.to_csv(tmp_path / "genes.csv")
    assert GenePanel.from_csv(tmp_path / "genes.csv") == panel
    (tmp_path / "bad.csv").write_text("x,y\n1,2\n")
    for name in ("bad.csv", "none.csv"):
        with pytest.raises(InputError, match=name):
            GenePanel.from_csv(tmp_path / name)
