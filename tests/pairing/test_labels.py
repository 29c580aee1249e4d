import dataclasses

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array
from sklearn.metrics import adjusted_rand_score

from sge2hist.data import leiden
from sge2hist.data.errors import InputError
from sge2hist.data.gene_panel import GenePanel
from sge2hist.pairing import markers
from sge2hist.pairing.config import PrepareConfig
from sge2hist.pairing.labels import LabelInputs, label_cells


@pytest.fixture(scope="module")
def inputs() -> LabelInputs:
    rng = np.random.default_rng(0)
    side = 30
    row, column = np.divmod(np.arange(side * side), side)
    type_of = column // 10
    rate = np.full((3, 60), 0.5)
    for t in range(3):
        rate[t, t * 8 : t * 8 + 8] = 5.0
    counts = csr_array(rng.poisson(rate[type_of]).astype(np.int32))
    obs = pd.DataFrame({"truth": [f"T{k}" for k in type_of]}, index=[f"c{i}" for i in range(len(type_of))])
    return LabelInputs(
        counts_NG=counts,
        genes=GenePanel([f"E{g}" for g in range(60)], [f"G{g}" for g in range(60)]),
        obs=obs,
        cell_ids=obs.index,
        centre_xy_um=np.column_stack([column, row]) * 16.0,
        slide_of_cell=np.zeros(len(type_of), np.int64),
        train_rows=np.flatnonzero(row < 20),
        bin_um=16.0,
    )


def truth(inputs: LabelInputs) -> np.ndarray:
    return inputs.obs["truth"].to_numpy()


def test_leiden_finds_the_types_and_is_seeded(inputs, monkeypatch) -> None:
    config = PrepareConfig(types="leiden", resolution=0.5)
    names = label_cells(inputs, config).names
    assert adjusted_rand_score(truth(inputs), names) > 0.95
    assert (names == label_cells(inputs, config).names).all()
    monkeypatch.setattr(leiden, "MAX_GRAPH", 200)  # most cells are then assigned by their neighbours
    assert adjusted_rand_score(truth(inputs), label_cells(inputs, config).names) > 0.9


def test_leiden_depends_on_train_cells_only(inputs) -> None:
    config = PrepareConfig(types="leiden")
    dense = inputs.counts_NG.toarray()
    other = np.setdiff1d(np.arange(len(dense)), inputs.train_rows)
    dense[other[:50]] = 0
    changed = dataclasses.replace(inputs, counts_NG=csr_array(dense))
    train = inputs.train_rows
    assert (label_cells(inputs, config).names[train] == label_cells(changed, config).names[train]).all()


def test_markers_name_the_types(inputs, tmp_path) -> None:
    (tmp_path / "my.csv").write_text("type,gene\nT0,G0\nT0,G1\nT1,G8\nT1,E9\nT2,G16\nT2,nope\n")
    labels = label_cells(inputs, PrepareConfig(types=f"markers:{tmp_path / 'my.csv'}"))
    named = labels.names != "unknown"
    assert named.mean() > 0.8
    assert (labels.names == truth(inputs))[named].mean() > 0.95
    assert "1 markers not in the data: nope" in labels.warnings[0]
    strict = label_cells(inputs, PrepareConfig(types=f"markers:{tmp_path / 'my.csv'}", marker_margin=3.0))
    assert (strict.names == "unknown").mean() > (labels.names == "unknown").mean()


def test_neighbours_are_the_eight_bins_that_touch() -> None:
    row, column = np.divmod(np.arange(9), 3)
    centre = np.column_stack([column, row]) * 8.0
    weights = markers.neighbour_weights(centre, np.zeros(9, np.int64), 1.6 * 8).toarray()
    np.testing.assert_array_equal(weights[4], [0.5] * 4 + [1.0] + [0.5] * 4)
    np.testing.assert_array_equal(weights[0], [1, 0.5, 0, 0.5, 0.5, 0, 0, 0, 0])
    apart = markers.neighbour_weights(centre, np.arange(9), 1.6 * 8).toarray()
    np.testing.assert_array_equal(apart, np.eye(9))


def test_shipped_sets() -> None:
    assert markers.shipped_sets() == ["kidney", "pancreas"]
    for name in markers.shipped_sets():
        listed = markers.read_markers(name)
        genes = [gene for of_type in listed.values() for gene in of_type]
        assert len(set(genes)) == len(genes)
        assert all(listed.values())
    kidney = markers.read_markers("kidney")
    assert kidney["Podocyte"] == ["NPHS1", "NPHS2", "PODXL"]


def test_column_and_table(inputs, tmp_path) -> None:
    assert (label_cells(inputs, PrepareConfig(types="truth")).names == truth(inputs)).all()
    assert (label_cells(inputs, PrepareConfig(types="column:truth")).names == truth(inputs)).all()
    (tmp_path / "t.csv").write_text("cell,type\nc0,A\nc1,\nzzz,B\n")
    labels = label_cells(inputs, PrepareConfig(types=str(tmp_path / "t.csv")))
    assert labels.names[:3].tolist() == ["A", "unknown", "unknown"]
    assert "899 cells have no type in t.csv" in labels.warnings[0]
    assert set(label_cells(inputs, PrepareConfig(types="none")).names) == {"unknown"}


def test_a_table_with_more_columns_is_read_by_the_name_of_one(inputs, tmp_path) -> None:
    (tmp_path / "t.csv").write_text("cell,sample,Cell_Type,score\nc0,s,A,1\nc1,s,B,2\n")
    labels = label_cells(inputs, PrepareConfig(types=str(tmp_path / "t.csv")))
    assert labels.names[:3].tolist() == ["A", "B", "unknown"]


def test_a_table_of_a_spreadsheet_with_semicolons_and_a_byte_order_mark(inputs, tmp_path) -> None:
    (tmp_path / "t.csv").write_bytes("\ufeffcell;type\r\nc0;T cell, naive\r\nc1;B\r\n".encode())
    labels = label_cells(inputs, PrepareConfig(types=str(tmp_path / "t.csv")))
    assert labels.names[:3].tolist() == ["T cell, naive", "B", "unknown"]


def test_bins_of_several_slides_are_distinguished(inputs, tmp_path) -> None:
    half = len(inputs.obs) // 2
    plain = [f"c{i % half}" for i in range(len(inputs.obs))]
    ids = [f"{'one' if i < half else 'two'}:{name}" for i, name in enumerate(plain)]
    both = dataclasses.replace(inputs, obs=inputs.obs.set_axis(plain), cell_ids=pd.Index(ids))
    (tmp_path / "t.csv").write_text("cell,type\n" + "".join(f"{name},T{name[:3]}\n" for name in ids))
    names = label_cells(both, PrepareConfig(types=str(tmp_path / "t.csv"))).names
    assert (names == ["Tone"] * half + ["Ttwo"] * half).all()
    (tmp_path / "t.csv").write_text("cell,type\nc0,A\nc1,B\n")
    with pytest.raises(InputError, match="several slides have"):
        label_cells(both, PrepareConfig(types=str(tmp_path / "t.csv")))


def test_as_many_types_as_cells_are_refused(inputs, tmp_path) -> None:
    (tmp_path / "t.csv").write_text("cell,type\n" + "".join(f"c{i},{i}\n" for i in range(800)))
    with pytest.raises(InputError, match="800 types of 800 cells"):
        label_cells(inputs, PrepareConfig(types=str(tmp_path / "t.csv")))


@pytest.mark.parametrize(
    ("types", "content", "message"),
    [
        ("nothere", None, "no column 'nothere'"),
        ("clusters", None, "no clusters"),
        ("FILE.csv", "cell,type\nzzz,A\n", "no id in common"),
        ("FILE.csv", "cell\nc0\n", "one column"),
        ("FILE.csv", "cell,type\nc0,A\nc0,B\n", "listed twice"),
        ("FILE.csv", "cell,type\nc0,\n", "no type at all|no id in common"),
        ("FILE.csv", None, "cannot be read"),
        ("FILE.csv", "cell,type\n", "no type at all"),
        ("FILE.csv", "cell,sample,score\nc0,A,1\n", "3 columns"),
        ("markers:FILE.csv", "type,gene\nA,nope\n", "none of the markers"),
        ("markers:FILE.csv", "a,b\n1,2\n", "no row with a type"),
        ("markers:FILE.csv", "type,gene\nunknown,G1\n", "another name"),
        ("markers:liver", None, "no marker set"),
    ],
)
def test_bad_labels(inputs, tmp_path, types, content, message) -> None:
    if content is not None:
        (tmp_path / "FILE.csv").write_text(content)
    with pytest.raises(InputError, match=message):
        label_cells(inputs, PrepareConfig(types=types.replace("FILE", str(tmp_path / "FILE"))))


@pytest.mark.parametrize("n", [0, 1, 19])
@pytest.mark.parametrize("types", ["leiden", "markers:kidney"])
def test_types_need_training_cells(inputs, monkeypatch, types, n) -> None:
    """Scores over no training cell are nan: version 0.1 called every cell by the first type of the set."""
    monkeypatch.setattr(markers, "read_markers", lambda name: {"a": [inputs.genes.ids[0]], "b": [inputs.genes.ids[1]]})
    with pytest.raises(InputError, match=rf"found {n} training cells.*at least 20.*--types none"):
        label_cells(dataclasses.replace(inputs, train_rows=np.arange(n)), PrepareConfig(types=types))


@pytest.mark.parametrize("types", ["leiden", "markers:kidney"])
def test_a_share_of_no_training_cells_is_refused_before_anything_is_read(types) -> None:
    with pytest.raises(InputError, match=r"--fractions 0,0,1: found --types .*--types none"):
        PrepareConfig(types=types, fractions=(0.0, 0.0, 1.0))
    assert PrepareConfig(types="none", fractions=(0.0, 0.0, 1.0)).fractions[2] == 1
