"""The search for raw counts, against what was stored; in memory, in a file opened with `backed`, and on disk."""

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from sge2hist.data.errors import InputError
from sge2hist.data.table import stored_matrix
from sge2hist.data.table.cell_table import CellTable
from sge2hist.data.table.counts import ExpressionTable, find_counts
from tests.data.table.tables import N_GENES, as_cellxgene, ensembl, log_normalised, make_adata, make_counts

COUNTS = make_counts()
KEPT = np.arange(5, 40)


def location_of(adata: anndata.AnnData, **options: object) -> str:
    return find_counts(ExpressionTable.of_adata(adata), **options).location  # type: ignore[arg-type]


@pytest.mark.parametrize("opened", ["memory", "backed", "path"])
def test_counts_in_raw_come_with_the_genes_of_raw(tmp_path: Path, opened: str) -> None:
    adata = as_cellxgene(COUNTS, KEPT)
    adata.write_h5ad(tmp_path / "a.h5ad")
    cells = {
        "memory": adata,
        "backed": anndata.read_h5ad(tmp_path / "a.h5ad", backed="r"),
        "path": tmp_path / "a.h5ad",
    }[opened]
    table = CellTable.of(cells)
    assert table.counts["location"] == "raw/X"
    assert table.genes.ids == ensembl()
    assert table.genes.symbols == [f"SYMBOL{gene}" for gene in range(N_GENES)]
    np.testing.assert_array_equal(table.counts_NG.toarray(), COUNTS)
    assert table.counts_NG.dtype == np.int32
    np.testing.assert_array_equal(adata.raw.to_adata().X.toarray(), table.counts_NG.toarray())  # anndata agrees


@pytest.mark.parametrize("layout", [sp.csr_matrix, sp.csc_matrix, sp.csr_array, sp.coo_matrix, np.asarray])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.uint32, np.int64])
def test_every_layout_and_type_gives_the_same_counts(
    tmp_path: Path, layout: type, dtype: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_matrix, "CHUNK_ENTRIES", 300)
    stored = layout(COUNTS.astype(dtype))
    adata = make_adata(stored) if layout is not sp.coo_matrix else make_adata(stored.tocsr())
    np.testing.assert_array_equal(CellTable.of(adata).counts_NG.toarray(), COUNTS)
    adata.write_h5ad(tmp_path / "a.h5ad")
    np.testing.assert_array_equal(CellTable.of(tmp_path / "a.h5ad").counts_NG.toarray(), COUNTS)


def test_explicit_zeros_and_repeated_entries_are_no_genes_and_inputs_stay_unchanged() -> None:
    dense = np.array([[0, 3, 1, 0], [2, 0, 0, 1], [1, 1, 0, 0]])
    stored = sp.csr_matrix((np.array([0, 2, 1, 1, 2, 1, 1, 1.0]), [0, 1, 1, 2, 0, 3, 1, 0], [0, 4, 6, 8]), shape=(3, 4))
    before = stored.data.copy(), stored.indices.copy()
    adata = make_adata(stored)
    found = CellTable.of(adata).counts_NG
    np.testing.assert_array_equal(found.toarray(), dense)
    assert found.nnz == (dense > 0).sum()
    np.testing.assert_array_equal(adata.X.data, before[0])
    np.testing.assert_array_equal(adata.X.indices, before[1])


def test_of_several_counts_the_one_with_most_genes_is_taken() -> None:
    adata = as_cellxgene(COUNTS, KEPT)
    adata.X = sp.csr_matrix(COUNTS[:, KEPT])
    assert location_of(adata) == "raw/X"
    adata.layers["counts"] = sp.csr_matrix(COUNTS[:, KEPT])
    assert location_of(adata) == "raw/X"
    adata.raw = make_adata(log_normalised(COUNTS))  # as scanpy's tutorials keep it
    assert location_of(adata) == "layers/counts"
    adata.layers["counts"] = log_normalised(COUNTS)[:, KEPT]
    found = find_counts(ExpressionTable.of_adata(adata))
    assert found.location == "X"
    assert any("layers/counts was not taken" in note for note in found.notes)


def test_other_counts_of_the_same_genes_are_named() -> None:
    """X edited by the user, for a knock-out, beside raw: X is taken, and the note says that raw differs."""
    adata = make_adata(sp.csr_matrix(COUNTS))
    adata.raw = adata.copy()
    assert not find_counts(ExpressionTable.of_adata(adata)).notes
    adata.X = sp.csr_matrix(COUNTS * (np.arange(N_GENES) != 3))
    found = find_counts(ExpressionTable.of_adata(adata))
    assert found.location == "X"
    assert "raw/X holds other counts; --layer raw/X takes those" in found.notes[0]


def test_a_layer_is_named_in_every_way_and_all_are_listed() -> None:
    adata = make_adata(log_normalised(COUNTS))
    adata.layers["spliced"] = COUNTS.astype(np.float32)
    adata.layers["denoised"] = COUNTS * 1.37 + np.random.default_rng(0).random(COUNTS.shape)
    adata.layers["z"] = COUNTS - COUNTS.mean(0)
    for name in ("spliced", "layers/spliced"):
        assert location_of(adata, layer=name) == "layers/spliced"
    with pytest.raises(InputError) as error:
        location_of(adata)
    for text in (
        "no raw counts",
        "X: numbers with fractions",
        "as after a logarithm (natural) of counts",
        f"spliced: whole numbers up to {COUNTS.max()}",
        "denoised: numbers with fractions",
        "z: negative values",
        "--layer spliced takes these",
    ):
        assert text in str(error.value)
    with pytest.raises(InputError, match=r"no layer 'none'.*spliced: whole numbers.*X: numbers with fractions"):
        location_of(adata, layer="none")
    with pytest.raises(InputError, match="negative values"):
        location_of(adata, layer="z")
    adata.raw = make_adata(COUNTS)
    assert {location_of(adata, layer=name) for name in ("raw", "raw.X", "raw/X")} == {"raw/X"}


def test_doubtful_whole_numbers_are_taken_only_by_name() -> None:
    sparse = make_counts(400, 300, mean=0.5)
    binary = (sparse > 0).astype(np.float32)
    adata = make_adata(sp.csr_matrix(binary))
    with pytest.raises(
        InputError, match=r"X: whole numbers up to 1, zeros and ones.*--layer X takes these all the same"
    ):
        location_of(adata)
    found = find_counts(ExpressionTable.of_adata(adata), "X")
    assert "zeros and ones" in found.notes[0]
    adata.raw = make_adata(sp.csr_matrix(sparse))
    assert location_of(adata) == "raw/X"


def test_a_logarithm_that_scanpy_noted_is_none_of_counts_even_when_rounded() -> None:
    adata = make_adata(np.rint(log_normalised(COUNTS)).astype(np.int32))
    adata.uns["log1p"] = {"base": None}
    with pytest.raises(InputError, match="rounded logarithms"):
        location_of(adata)


def test_scanpy_itself_leaves_what_is_recognised() -> None:
    import scanpy as sc

    adata = make_adata(sp.csr_matrix(COUNTS.astype(np.float32)))
    adata.layers["counts"] = adata.X.copy()
    sc.pp.normalize_total(adata)
    with pytest.raises(InputError, match="division of the counts of each cell by their total"):
        location_of(adata, layer="X", round_counts=True)
    sc.pp.log1p(adata)
    with pytest.raises(InputError, match="logarithm"):
        location_of(adata, layer="X", round_counts=True)
    adata.raw = adata
    adata = adata[:, KEPT].copy()
    adata.X = adata.X.toarray()
    sc.pp.scale(adata)
    with pytest.raises(InputError, match="negative"):
        location_of(adata, layer="X", round_counts=True)
    assert location_of(adata) == "layers/counts"
    del adata.layers["counts"]
    with pytest.raises(InputError, match="store the raw counts"):
        location_of(adata, round_counts=True)


def test_downsampled_counts_stay_counts() -> None:
    import scanpy as sc

    adata = make_adata(sp.csr_matrix(make_counts(200, 300, mean=2).astype(np.float32)))
    sc.pp.downsample_counts(adata, counts_per_cell=100, random_state=0)
    assert location_of(adata) == "X"


def test_values_beyond_int32_missing_values_and_other_types_are_refused() -> None:
    for bad, text in ((3e9, r"values up to 3e\+09"), (np.nan, "missing or infinite"), (-1.0, "negative values")):
        wrong = COUNTS.astype(np.float64)
        wrong[-1, -1] = bad
        with pytest.raises(InputError, match=text):
            location_of(make_adata(wrong))
    with pytest.raises(InputError, match=r"no X, no raw\.X and no layer"):
        location_of(anndata.AnnData(obs=pd.DataFrame(index=["a"]), var=pd.DataFrame(index=["g"])))


def test_a_wrong_value_far_down_is_refused_when_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_matrix, "SAMPLE_ENTRIES", 100)
    wrong = COUNTS.astype(np.float32)
    wrong[N_GENES + 2, 7] = 0.5
    for cells in (make_adata(sp.csr_matrix(wrong)), make_adata(wrong)):
        cells.write_h5ad(tmp_path / "a.h5ad")
        with pytest.raises(InputError, match=r"numbers with fractions in places \(1, such as 0.5\).*--layer"):
            CellTable.of(tmp_path / "a.h5ad")


def test_half_of_a_joined_table_that_was_normalised_is_seen() -> None:
    joined = np.concatenate([COUNTS, log_normalised(COUNTS)])
    with pytest.raises(InputError, match="numbers with fractions"):
        location_of(make_adata(joined))


def test_raw_without_names_of_genes_is_not_taken(tmp_path: Path) -> None:
    import h5py

    adata = as_cellxgene(COUNTS, KEPT)
    adata.layers["counts"] = sp.csr_matrix(COUNTS[:, KEPT])
    adata.write_h5ad(tmp_path / "a.h5ad")
    with h5py.File(tmp_path / "a.h5ad", "a") as file:
        del file["raw/var"]
    assert CellTable.of(tmp_path / "a.h5ad").counts["location"] == "layers/counts"
    with pytest.raises(InputError, match=r"values without raw\.var"):
        CellTable.of(tmp_path / "a.h5ad", layer="raw")


def test_zeros_only_give_way_to_counts_and_are_accepted_alone() -> None:
    adata = make_adata(sp.csr_matrix(COUNTS.shape, dtype=np.float32))
    assert location_of(adata) == "X"
    adata.raw = make_adata(COUNTS)
    assert location_of(adata) == "raw/X"


def test_corrected_counts_are_refused_with_the_way_on() -> None:
    corrected = np.maximum(COUNTS - np.random.default_rng(0).random(COUNTS.shape) * 0.6, 0)
    adata = make_adata(sp.csr_matrix(corrected))
    with pytest.raises(InputError, match=r"corrected.*--layer X --round-counts.*round_counts=True"):
        location_of(adata)
    with pytest.raises(InputError, match=r"--round-counts"):
        location_of(adata, layer="X")
    assert location_of(adata, round_counts=True) == "X"
    adata.raw = make_adata(COUNTS)
    assert location_of(adata) == "raw/X"
    with pytest.raises(InputError, match=r"fractions in X and whole counts in raw/X.*--layer X takes the former"):
        location_of(adata, round_counts=True)
    assert location_of(adata, layer="X", round_counts=True) == "X"


def test_destriped_bins_may_be_rounded() -> None:
    """Destriping multiplies the counts of a bin by a number near 1: no normalisation."""
    factor = np.random.default_rng(3).uniform(0.7, 1.6, (len(COUNTS), 1))
    assert location_of(make_adata(sp.csr_matrix(COUNTS * factor)), round_counts=True) == "X"


def test_old_sparse_groups_keep_their_format(tmp_path: Path) -> None:
    """Before anndata 0.7 a sparse group stated its format as `h5sparse_format`."""
    import h5py

    stored = sp.csc_matrix(COUNTS)
    with h5py.File(tmp_path / "old.h5", "w") as file:
        group = file.create_group("X")
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(stored, name)
        group.attrs["h5sparse_format"], group.attrs["h5sparse_shape"] = "csc", stored.shape
        matrix = stored_matrix.StoredMatrix(group, "X")
        (_, piece), *rest = matrix.pieces()
        assert not rest
        np.testing.assert_array_equal(piece.toarray(), COUNTS)
