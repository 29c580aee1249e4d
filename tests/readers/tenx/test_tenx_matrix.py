import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.tenx import write_matrix_h5
from sge2hist.data.errors import InputError
from sge2hist.data.table.genes import unique_names
from sge2hist.readers import hdf5_probe
from sge2hist.readers.tenx import tenx_matrix
from sge2hist.readers.tenx.tenx_matrix import TenxMatrix


def write(path, counts, **changes):
    n, g = counts.shape
    options = {
        "barcodes": [f"b{i:03d}" for i in range(n)],
        "gene_ids": [f"E{i}" for i in range(g)],
        "symbols": [f"S{i}" for i in range(g)],
        "counts_NG": counts,
    }
    return write_matrix_h5(path, **{**options, **changes})


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), chunk=st.sampled_from([1, 13, 10_000]))
def test_reading_and_grouping_agree_with_dense_sums(tmp_path_factory, seed, chunk) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.poisson(0.5, (rng.integers(1, 30), rng.integers(1, 8))).astype(np.int32)
    counts[rng.uniform(size=len(counts)) < 0.2] = 0  # barcodes without a UMI
    n_groups = int(rng.integers(1, 6))
    group = rng.integers(-1, n_groups, len(counts))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tenx_matrix, "probe_hdf5", lambda path: None)  # a process per example takes long
        matrix = TenxMatrix.open(write(tmp_path_factory.mktemp("m") / "m.h5", counts))
    expected = np.zeros((n_groups, counts.shape[1]), np.int64)
    np.add.at(expected, group[group >= 0], counts[group >= 0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tenx_matrix, "CHUNK_NONZEROS", chunk)
        np.testing.assert_array_equal(matrix.read_counts().toarray(), counts)
        got = matrix.read_counts(group, n_groups)
    np.testing.assert_array_equal(got.toarray(), expected)
    assert got.dtype == np.int32
    assert got.has_sorted_indices


def test_scanpy_agrees(tmp_path) -> None:
    import scanpy

    counts = np.random.default_rng(0).poisson(0.5, (20, 6)).astype(np.int32)
    path = write(tmp_path / "m.h5", counts)
    table = scanpy.read_10x_h5(path)
    matrix = TenxMatrix.open(path)
    np.testing.assert_array_equal(table.X.toarray(), matrix.read_counts().toarray())
    assert list(table.var["gene_ids"]) == list(matrix.genes.index)
    assert list(table.var_names) == list(matrix.genes["symbol"])


def test_other_feature_types_are_excluded(tmp_path) -> None:
    counts = np.arange(12).reshape(3, 4).astype(np.int32)
    feature_types = ["Gene Expression", "Antibody Capture", "Gene Expression", "Negative Control Probe"]
    matrix = TenxMatrix.open(write(tmp_path / "m.h5", counts, feature_types=feature_types))
    assert list(matrix.genes.index) == ["E0", "E2"]
    np.testing.assert_array_equal(matrix.read_counts().toarray(), counts[:, [0, 2]])
    assert matrix.notes[0] == "1 protein ('Antibody Capture') kept apart from the genes"
    assert "1 features of other types" in matrix.notes[1]
    with pytest.raises(InputError, match="Antibody"):
        TenxMatrix.open(write(tmp_path / "n.h5", counts, feature_types=["Antibody Capture"] * 4))


def test_repeated_symbols_stay_apart_and_repeated_ids_are_renamed(tmp_path) -> None:
    counts = np.ones((2, 4), np.int32)
    path = write(tmp_path / "m.h5", counts, gene_ids=["E0", "E1", "E1", "E2"], symbols=["A", "A", "B", "C"])
    matrix = TenxMatrix.open(path)
    assert list(matrix.genes.index) == ["E0", "E1", "E1-1", "E2"]
    assert list(matrix.genes["symbol"]) == ["A", "A", "B", "C"]
    assert len(matrix.notes) == 2
    assert unique_names(["a", "a", "a-1", "a"]) == ["a", "a-2", "a-1", "a-3"]


def test_chunks_of_dropped_rows_are_not_read(tmp_path, monkeypatch) -> None:
    counts = np.ones((100, 5), np.int32)
    matrix = TenxMatrix.open(write(tmp_path / "m.h5", counts))
    monkeypatch.setattr(tenx_matrix, "CHUNK_NONZEROS", 50)
    read = []
    original = TenxMatrix._columns
    monkeypatch.setattr(TenxMatrix, "_columns", lambda *args: read.append(1) or original(*args))
    group = np.full(100, -1)
    group[95] = 0
    assert matrix.read_counts(group, 1).sum() == 5
    assert len(read) == 1


def test_memory_is_that_of_the_result_and_a_chunk(tmp_path, monkeypatch) -> None:
    import tracemalloc

    n, per_row = 20_000, 50
    counts = np.tile(np.eye(per_row, dtype=np.int8), (n // per_row, 1)) + 1  # every entry filled: 1 M values
    matrix = TenxMatrix.open(write(tmp_path / "m.h5", counts))
    monkeypatch.setattr(tenx_matrix, "CHUNK_NONZEROS", 20_000)
    group = np.arange(n) // 2000
    tracemalloc.start()
    total = matrix.read_counts(group, 10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total.sum() == counts.sum(dtype=np.int64)
    assert peak < 3_000_000  # the whole matrix is 8 MB even in 32 bits


def replace(path, name, values):
    import h5py

    with h5py.File(path, "r+") as file:
        del file[name]
        if values is not None:
            file[name] = values


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("matrix", None, "root"),
        ("matrix/shape", np.array([5, 99], np.int32), "shape"),
        ("matrix/indptr", np.array([0, 3, 2, 15], np.int64), "out of order"),
        ("matrix/indptr", np.array([0, 5, 10, 14], np.int64), "out of order"),
        ("matrix/indices", np.full(15, 7, np.int64), "outside the feature table"),
        ("matrix/indices", np.full(15, -1, np.int64), "outside the feature table"),
        ("matrix/data", np.full(15, -2, np.int32), "negative"),
        ("matrix/data", np.full(15, 0.5, np.float32), "fractions"),
        ("matrix/data", np.full(15, np.nan, np.float32), "out of range"),
        ("matrix/data", np.full(15, b"x"), "type"),
        ("matrix/features", None, "cannot be read"),
        ("matrix/barcodes", None, "cannot be read"),
    ],
)
def test_parts_that_disagree_are_input_errors(tmp_path, name, values, message) -> None:
    path = write(tmp_path / "m.h5", np.ones((3, 5), np.int32))
    replace(path, name, values)
    with pytest.raises(InputError, match=message):
        TenxMatrix.open(path).read_counts()


def test_a_crash_of_the_library_is_an_input_error(tmp_path, monkeypatch) -> None:
    path = write(tmp_path / "m.h5", np.ones((3, 5), np.int32))
    monkeypatch.setattr(hdf5_probe, "_LOOK", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    with pytest.raises(InputError, match="signal 11"):
        TenxMatrix.open(path)
    monkeypatch.setattr(hdf5_probe, "_LOOK", "import time; time.sleep(60)")
    monkeypatch.setattr(hdf5_probe, "TIMEOUT_S", 0.2)
    with pytest.raises(InputError, match="no answer"):
        TenxMatrix.open(path)


def test_missing_and_foreign_files(tmp_path) -> None:
    with pytest.raises(InputError, match="no such file"):
        TenxMatrix.open(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(InputError, match=r"text\.h5"):
        TenxMatrix.open(tmp_path / "text.h5")


@pytest.mark.parametrize("share", np.linspace(0, 0.98, 25))
def test_truncated_files_are_input_errors(tmp_path, share) -> None:
    path = write(tmp_path / "m.h5", np.random.default_rng(0).poisson(1.0, (200, 40)).astype(np.int32))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match=r"m\.h5"):
        TenxMatrix.open(path).read_counts()


@pytest.mark.parametrize("seed", range(40))
def test_flipped_bytes_give_counts_or_one_input_error(tmp_path, seed) -> None:
    """Without checksums a flipped count cannot be noticed; anything else must be one clear error, never another one."""
    rng = np.random.default_rng(seed)
    path = write(tmp_path / "m.h5", rng.poisson(1.0, (50, 20)).astype(np.int32))
    content = bytearray(path.read_bytes())
    for at in rng.integers(0, min(len(content), 6000), 20):
        content[at] ^= int(rng.integers(1, 256))
    path.write_bytes(bytes(content))
    try:
        counts = TenxMatrix.open(path).read_counts()
    except InputError:
        return
    assert counts.shape[0] == 50
