"""Genes of a table: columns of ids and symbols with gaps, categories, numbers as names, genes of raw without columns."""

import numpy as np
import pandas as pd
import pytest

from sge2hist.data.errors import InputError
from sge2hist.data.table.genes import read_genes

SYMBOLS = ["UMOD", "NPHS1", "NPHS2", "GAPDH"]
IDS = ["ENSG00000169344", "ENSG00000161270", "ENSG00000116218", "ENSG00000111640"]


def genes_of(var: pd.DataFrame, **options: pd.DataFrame) -> tuple[list[str], list[str]]:
    genes, _ = read_genes(var, **options)
    return list(genes.index), list(genes["symbol"])


@pytest.mark.parametrize("gap", [np.nan, None, "", "nan", pd.NA])
def test_one_missing_id_leaves_the_others(gap: object) -> None:
    var = pd.DataFrame({"gene_ids": [*IDS[:2], gap, IDS[3]]}, index=SYMBOLS)
    assert genes_of(var) == ([*IDS[:2], "NPHS2", IDS[3]], SYMBOLS)
    assert "1 genes without an id" in read_genes(var)[1][0]


def test_symbols_with_gaps_and_categories() -> None:
    var = pd.DataFrame({"feature_name": pd.Categorical([*SYMBOLS[:3], None])}, index=IDS)
    assert genes_of(var) == (IDS, [*SYMBOLS[:3], IDS[3]])


@pytest.mark.parametrize("column", ["Gene_IDs", "ENSEMBL", "ensembl_id"])
def test_columns_are_found_in_any_case(column: str) -> None:
    assert genes_of(pd.DataFrame({column: IDS}, index=SYMBOLS))[0] == IDS


def test_a_column_without_any_value_gives_way_to_the_next() -> None:
    var = pd.DataFrame({"symbol": [np.nan] * 4, "gene_name": SYMBOLS}, index=IDS)
    assert genes_of(var) == (IDS, SYMBOLS)


def test_numbers_as_names_are_replaced_or_refused() -> None:
    numbers = [str(i) for i in range(4)]
    assert genes_of(pd.DataFrame({"feature_name": SYMBOLS}, index=numbers)) == (SYMBOLS, SYMBOLS)
    assert genes_of(pd.DataFrame({"gene_ids": IDS, "symbol": SYMBOLS}, index=numbers)) == (IDS, SYMBOLS)
    with pytest.raises(InputError, match=r"genes without names.*columns of var: highly_variable"):
        read_genes(pd.DataFrame({"highly_variable": [True] * 4}, index=numbers))


def test_repeated_ids_are_kept_apart() -> None:
    ids, symbols = genes_of(pd.DataFrame({"gene_ids": [IDS[0], IDS[0], IDS[2], IDS[3]]}, index=SYMBOLS))
    assert ids == [IDS[0], f"{IDS[0]}-1", IDS[2], IDS[3]]
    assert symbols == SYMBOLS


def test_genes_of_raw_take_what_they_lack_from_var() -> None:
    var = pd.DataFrame({"feature_name": SYMBOLS[1:3]}, index=IDS[1:3])
    raw_var = pd.DataFrame(index=IDS)
    assert genes_of(raw_var, other=var) == (IDS, [IDS[0], *SYMBOLS[1:3], IDS[3]])
    partly = pd.DataFrame({"feature_name": [SYMBOLS[0], None, None, None]}, index=IDS)
    assert genes_of(partly, other=var)[1] == [*SYMBOLS[:3], IDS[3]]
