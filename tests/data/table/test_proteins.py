"""Proteins by name in any table, and what is refused: missing ones, another unit, values that are no measurements."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from sge2hist.data.errors import InputError
from sge2hist.data.table.cell_table import CellTable
from sge2hist.data.table.proteins import ProteinPanel, ProteinTable

VALUES = np.array([[1, 10, 100], [2, np.nan, 200]], np.float32)
TABLE = ProteinTable(names=["CD3", "cd8", "CD20"], value_NP=VALUES, unit="UMI", where="x.h5ad")


def test_columns_are_found_by_name_in_any_case_and_order():
    found = ProteinPanel(("CD20", "CD8"), "UMI").values(TABLE, np.array([1, 0]))
    np.testing.assert_array_equal(found, [[200, np.nan], [100, 10]])
    assert found.dtype == np.float32


def test_missing_proteins_are_listed():
    with pytest.raises(
        InputError, match=r"no values of 2 of the model's 3 proteins \(CD4, CD45\) among CD3, cd8, CD20"
    ):
        ProteinPanel(("CD3", "CD4", "CD45")).columns(TABLE)


def test_another_unit_is_refused_and_an_unknown_one_is_not():
    with pytest.raises(InputError, match="proteins in UMI, and a model that was trained on mean intensity"):
        ProteinPanel(("CD3",), "mean intensity").columns(TABLE)
    ProteinPanel(("CD3",)).columns(TABLE)


@pytest.mark.parametrize("value", [-0.5, np.inf])
def test_normalised_values_are_refused(value):
    table = ProteinTable(names=["CD3"], value_NP=np.array([[1], [value]], np.float32))
    with pytest.raises(InputError, match="neither normalised nor centred"):
        ProteinPanel(("CD3",)).values(table, np.arange(2))
    ProteinPanel(("CD3",)).values(table, np.arange(1))  # what is not read is not checked


def test_the_list_of_a_model_is_read_as_it_was_written(tmp_path):
    panel = ProteinPanel(("CD3", "PD-1, clone 7"), "UMI")
    panel.to_csv(tmp_path / "proteins.csv")
    assert ProteinPanel.from_csv(tmp_path / "proteins.csv") == panel
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    for name in ("other.csv", "none.csv"):
        with pytest.raises(InputError, match="a list of proteins that cannot be read"):
            ProteinPanel.from_csv(tmp_path / name)


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_table_of_an_anndata_is_read_and_an_array_names_nothing(tmp_path, on_disk):
    cells = anndata.AnnData(
        csr_matrix(np.eye(2, dtype=np.int32)), obs=pd.DataFrame(index=["a", "b"]), var=pd.DataFrame(index=["G1", "G2"])
    )
    cells.obsm["protein"] = pd.DataFrame({"CD3": [3.0, 4.0]}, index=["a", "b"])
    if on_disk:
        cells.write_h5ad(tmp_path / "x.h5ad")
    source = tmp_path / "x.h5ad" if on_disk else cells
    table = CellTable.of(source, layer="X")
    assert ProteinPanel(("CD3",)).values(table.proteins, np.array([1])).tolist() == [[4.0]]
    assert table.take(np.array([1])).proteins.value_NP.tolist() == [[4.0]]
    cells.obsm["protein"] = np.ones((2, 5))
    with pytest.raises(InputError, match=r"\(CD3\) among none"):
        ProteinPanel(("CD3",)).columns(CellTable.of(cells, layer="X").proteins)
    del cells.obsm["protein"]
    assert CellTable.of(cells, layer="X").proteins is None
