"""A wide table of counts as text: every form that exports take, read in blocks of any size, gives the same counts."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from sge2hist.data.errors import InputError
from sge2hist.readers import count_text
from sge2hist.readers.dense_counts import DenseCounts

COUNTS = np.random.default_rng(0).poisson(0.4, (37, 6)) * np.array([1, 1, 12, 1, 1, 130])


def _text(number=str, end="\n", quoted=False, last=True) -> str:
    ids = [f'"c_{i}"' if quoted else f"c_{i}" for i in range(len(COUNTS))]
    lines = [
        "cell," + ",".join(f"G{g}" for g in range(COUNTS.shape[1])),
        *(",".join([name, *map(number, row)]) for name, row in zip(ids, COUNTS, strict=True)),
    ]
    return end.join(lines) + end * last


def _read(path: Path) -> np.ndarray:
    table = DenseCounts.open(path, id_columns=("cell",), is_control=lambda name: name == "G1", n_ids=1)
    row = {f"c_{i}": i for i in range(len(COUNTS))}
    read = table.reader(lambda ids: np.array([row.get(str(one), -1) for one in ids["cell"]]), len(COUNTS))
    return read(None, None).toarray()


@pytest.mark.parametrize("block", [1, 50, 1000, 10**7])
@pytest.mark.parametrize(
    "form",
    [
        {},
        {"number": lambda n: f"{float(n)}"},
        {"end": "\r\n"},
        {"quoted": True},
        {"last": False},
        {"end": "\r\n", "last": False, "number": lambda n: f"{n}.0"},
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_forms_of_exports(tmp_path, monkeypatch, block, form, packed):
    monkeypatch.setattr(count_text, "BLOCK_BYTES", block)
    path = tmp_path / ("t.csv.gz" if packed else "t.csv")
    content = _text(**form).encode()
    path.write_bytes(gzip.compress(content) if packed else content)
    np.testing.assert_array_equal(_read(path), np.delete(COUNTS, 1, 1))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[: text.rfind(",")], r"cannot be read \(a row with 6 fields, not 7\)"),
        (lambda text: text + "c_40,1\n", "a row with 2 fields, not 7"),
        (lambda text: text.replace("c_3,", "c_3,7,", 1), "a row with 8 fields, not 7"),
        (lambda text: text + "c_40,1,2,3,x,5,6\n", "could not convert"),
        (lambda text: text + "c_40,1,2,3,,5,6\n", "an empty count"),
        (lambda text: text + "c_40,1,2,3,1.5,5,6\n", "counts with fractions"),
        (lambda text: text + "c_40,1,2,3,-1,5,6\n", "negative"),
        (lambda text: text + "c_3,1,2,3,1,5,6\n", "a cell in two rows"),
        (lambda text: text.replace("c_3,", "d_3,", 1), "no counts of 1 of 37 cells"),
    ],
)
def test_what_is_no_count_is_named(tmp_path, damage, message):
    (tmp_path / "t.csv").write_text(damage(_text()))
    with pytest.raises(InputError, match=message):
        _read(tmp_path / "t.csv")


def test_a_packed_file_that_is_cut(tmp_path):
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(_text().encode())[:-30])
    with pytest.raises(InputError, match="cannot be read"):
        _read(tmp_path / "t.csv.gz")
