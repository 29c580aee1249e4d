"""One AnnData table on disk (an h5ad file or a zarr group): its obs, var, positions and raw counts, never dense.

The same layout is used by h5ad and by the tables of SpatialData, so `group` is a `h5py.Group` or a `zarr.Group`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csc_array, csr_array, vstack

from sge2hist.data.errors import InputError
from sge2hist.readers.count_rows import CountReader, sum_rows
from sge2hist.readers.unique_names import unique_names

CHUNK_ENTRIES = 20_000_000  # stored values (or dense cells) decoded at a time
COUNT_PLACES = ("layers/counts", "layers/raw_counts", "X", "raw/X")
ID_COLUMNS = ("gene_ids", "gene_id", "ensembl_id", "ensembl", "feature_id")
SYMBOL_COLUMNS = ("symbol", "gene_symbol", "gene_symbols", "feature_name", "gene_name", "name")


def read_element(group: Any, name: str, where: str) -> Any:
    """Read one small element (obs, var, an obsm array, uns) through anndata."""
    from anndata.io import read_elem

    if name not in group:
        raise InputError(found=f"no {name}", where=where, expected=f"an AnnData table with {name}")
    return read_elem(group[name])


def read_genes(var: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Gene table of a section (index: unique ids, column symbol) from `var`, and notes."""
    names = [str(name) for name in var.index]
    ids = _first_column(var, ID_COLUMNS)
    symbols = _first_column(var, SYMBOL_COLUMNS)
    unique = unique_names(ids or names)
    n_renamed = sum(new != old for new, old in zip(unique, ids or names, strict=True))
    notes = [f"{n_renamed} repeated gene ids made unique by a suffix"] if n_renamed else []
    return pd.DataFrame({"symbol": symbols or names}, index=pd.Index(unique, name="gene_id")), notes


def _first_column(var: pd.DataFrame, names: tuple[str, ...]) -> list[str] | None:
    for name in names:
        if name in var.columns and not var[name].isna().any():
            return [str(value) for value in var[name]]
    return None


def find_counts(group: Any, layer: str | None, where: str) -> str:
    """Where the raw counts lie: `layer` if given, else the first place that holds whole numbers.

    Raises
    ------
    InputError
        If no place holds whole numbers >= 0 (normalised values cannot be turned back into counts).
    """
    if layer is not None:
        place = layer if layer in ("X", "raw/X") else f"layers/{layer}"
        if place not in group:
            known = [*(f"{name}" for name in group["layers"]), "X"] if "layers" in group else ["X"]
            raise InputError(found=f"no layer {layer!r}", where=where, expected=f"one of {', '.join(known)}")
        if not _whole_numbers(group, place):
            raise InputError(
                found=f"values in {layer!r} that are not counts", where=where, expected="whole numbers >= 0"
            )
        return place
    looked = [place for place in COUNT_PLACES if place in group]
    for place in looked:
        if _whole_numbers(group, place):
            return place
    raise InputError(
        found=f"no raw counts ({', '.join(looked) or 'no X'} hold other values, e.g. normalised ones)",
        where=where,
        expected="whole numbers >= 0 in X, raw.X or layers['counts']",
        repair="save the raw counts as layers['counts'], or name their layer",
    )


def _whole_numbers(group: Any, place: str, n_values: int = 1_000_000) -> bool:
    element = group[place]
    if _is_sparse(element):
        values = element["data"][:n_values]
    else:
        values = element[: max(1, n_values // max(1, element.shape[1]))]
    values = np.asarray(values)
    return values.dtype.kind in "iufb" and bool(
        np.isfinite(values).all() and (values >= 0).all() and not (values % 1).any()
    )


def _is_sparse(element: Any) -> bool:
    return not hasattr(element, "shape") or "indptr" in getattr(element, "keys", list)()


def count_reader(group: Any, place: str, shape: tuple[int, int], where: str) -> CountReader:
    """Reader of int32 counts as `Section.read_counts` defines it; rows are streamed in chunks.

    A matrix stored by columns is loaded whole (its rows cannot be streamed); memory is then that of its values.
    """
    _check_shape(group[place], shape, f"{where}:{place}")

    def read_counts(group_of_obs: np.ndarray | None = None, n_groups: int | None = None) -> csr_array:
        chunks = _row_chunks(group[place], shape, f"{where}:{place}")
        if group_of_obs is None:
            whole: csr_array = vstack([chunk for _, chunk in chunks], format="csr")
            return whole
        n_groups = int(group_of_obs.max(initial=-1)) + 1 if n_groups is None else n_groups
        total: Any = csr_array((n_groups, shape[1]), dtype=np.int32)
        for start, chunk in chunks:
            total = csr_array(total + sum_rows(chunk, group_of_obs[start : start + chunk.shape[0]], n_groups))
        return total

    return read_counts


def _check_shape(element: Any, shape: tuple[int, int], where: str) -> None:
    found = tuple(element.attrs["shape"]) if _is_sparse(element) else tuple(element.shape)
    if tuple(map(int, found)) != shape:
        raise InputError(found=f"counts of shape {found}", where=where, expected=f"{shape} as obs and var say")


def _row_chunks(element: Any, shape: tuple[int, int], where: str) -> Iterator[tuple[int, csr_array]]:
    """(first row, int32 CSR) pieces of at most about CHUNK_ENTRIES values."""
    n_rows, n_genes = shape
    if not _is_sparse(element):
        step = max(1, CHUNK_ENTRIES // max(1, n_genes))
        for start in range(0, n_rows, step):
            yield start, csr_array(_as_counts(element[start : start + step], where))
        return
    indptr = np.asarray(element["indptr"][:], np.int64)
    if str(element.attrs.get("encoding-type", "")).startswith("csc"):
        arrays = (_as_counts(element["data"][:], where), element["indices"][:], indptr)
        yield 0, csr_array(csc_array(arrays, shape=shape))
        return
    if len(indptr) != n_rows + 1 or (np.diff(indptr) < 0).any():
        raise InputError(found="row pointers that do not fit the table", where=where, expected="a sound CSR matrix")
    start = 0
    while start < n_rows:
        stop = int(np.searchsorted(indptr, indptr[start] + CHUNK_ENTRIES, side="right")) - 1
        stop = min(max(stop, start + 1), n_rows)
        first, last = indptr[start], indptr[stop]
        indices = np.asarray(element["indices"][first:last])
        if indices.size and (indices.min() < 0 or indices.max() >= n_genes):
            raise InputError(found="gene indices outside the table", where=where, expected=f"0 to {n_genes - 1}")
        data = _as_counts(element["data"][first:last], where)
        yield start, csr_array((data, indices, indptr[start : stop + 1] - first), shape=(stop - start, n_genes))
        start = stop


def _as_counts(values: Any, where: str) -> np.ndarray:
    values = np.asarray(values)
    if values.dtype.kind not in "iufb" or (values < 0).any() or (values % 1).any():
        raise InputError(found="values that are not counts", where=where, expected="whole numbers >= 0")
    return values.astype(np.int32)
