"""The table of genes of a .gef: names, and ids where the file has both."""

from __future__ import annotations

import numpy as np
import pandas as pd

from sge2hist.data.table.genes import unique_names


def gene_table(stored: np.ndarray) -> tuple[pd.DataFrame, list[str]]:
    """Index: unique id (the name where there is no id); column symbol. And notes.

    Columns are `geneID` and `geneName` since SAW 7.1, before that `geneName` (cells) or `gene` (bins) alone.
    """
    names = stored.dtype.names or ()
    symbol_column = next(name for name in ("geneName", "gene", "geneID") if name in names)
    symbols = _text(stored[symbol_column])
    ids = _text(stored["geneID"]) if "geneID" in names else symbols
    ids = [one or symbol for one, symbol in zip(ids, symbols, strict=True)]
    symbols = [symbol or one for one, symbol in zip(ids, symbols, strict=True)]
    unique = unique_names(ids)
    n_renamed = sum(new != old for new, old in zip(unique, ids, strict=True))
    notes = [f"{n_renamed} repeated gene ids made unique by a suffix"] if n_renamed else []
    return pd.DataFrame({"symbol": symbols}, index=pd.Index(unique, name="gene_id")), notes


def _text(values: np.ndarray) -> list[str]:
    return [one.decode("utf-8", "replace") if isinstance(one, bytes) else str(one) for one in values]
