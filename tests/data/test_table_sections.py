"""Several sections in one table are found by columns, libraries and barcodes; parts of one slide are not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sge2hist.data.errors import InputError
from sge2hist.data.table_sections import choose_section, find_sections

XY = np.stack(np.meshgrid(np.arange(20.0), np.arange(20.0)), -1).reshape(-1, 2)
TWO = np.concatenate([XY, XY + 0.3])
NAMES = ["a"] * len(XY) + ["b"] * len(XY)


def table(**columns: object) -> pd.DataFrame:
    return pd.DataFrame(columns, index=[f"c{i}" for i in range(len(TWO))])


@pytest.mark.parametrize("column", ["sample", "batch", "section", "fov", "library_id", "orig.ident"])
def test_columns_with_overlapping_positions_are_sections(column: str) -> None:
    obs = table(**{column: NAMES})
    with pytest.raises(InputError, match=rf"2 slides in one file \({column}: a, b\).*--section a"):
        choose_section(obs, TWO, [], None, "x.h5ad")
    rows = choose_section(obs, TWO, [], "b", "x.h5ad")
    assert rows is not None
    np.testing.assert_array_equal(rows, np.arange(len(XY), 2 * len(XY)))
    with pytest.raises(InputError, match=r"--section c"):
        choose_section(obs, TWO, [], "c", "x.h5ad")


@pytest.mark.parametrize("column", ["sample", "batch", "fov"])
def test_parts_of_one_slide_beside_each_other_are_no_sections(column: str) -> None:
    beside = np.concatenate([XY, XY + np.array([19.5, 0])])
    assert find_sections(table(**{column: NAMES}), beside) is None
    rows = choose_section(table(**{column: NAMES}), beside, [], "a", "x")  # but one can be taken
    assert rows is not None
    assert len(rows) == len(XY)


def test_barcodes_of_joined_runs() -> None:
    barcodes = ["".join(np.random.default_rng(i).choice(list("ACGT"), 16)) for i in range(len(XY))]
    obs = pd.DataFrame(index=[f"{b}-1" for b in barcodes] + [f"{b}-2" for b in barcodes])
    with pytest.raises(InputError, match=r"barcodes that end in: -1, -2"):
        choose_section(obs, TWO, [], None, "x")
    rows = choose_section(obs, TWO, [], "-2", "x")
    assert rows is not None
    assert rows[0] == len(XY)
    assert find_sections(pd.DataFrame(index=[f"{b}-1" for b in barcodes]), XY) is None


def test_several_libraries_need_a_column() -> None:
    with pytest.raises(InputError, match=r"2 libraries in uns\['spatial'\] \(a, b\).*library_id"):
        choose_section(table(), TWO, ["a", "b"], None, "x")
    with pytest.raises(InputError, match=r"2 slides in one file \(which: a, b\)"):
        choose_section(table(which=NAMES), TWO, ["a", "b"], None, "x")
    assert choose_section(table(), TWO, ["a"], None, "x") is None
    assert choose_section(table(cell_type=NAMES), TWO, [], None, "x") is None
    with pytest.raises(InputError, match="but one section"):
        choose_section(table(), TWO, [], "a", "x")
