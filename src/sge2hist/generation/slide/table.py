"""``cells.h5ad`` beside a generated slide: its cells, their types and their positions, written and read a few cells at a time.

The layout is AnnData's on-disk format (https://anndata.readthedocs.io/en/stable/fileformat-prose.html), without genes. An empty
table written by anndata gives the layout; its columns are then replaced by resizable ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from sge2hist.data.artifacts import atomic_path
from sge2hist.generation.slide.cells import CellRows
from sge2hist.generation.slide.edited_source import EditedSource
from sge2hist.generation.slide.edits import Edit
from sge2hist.generation.slide.job import SlideJob
from sge2hist.generation.slide.source import SlideSource

CHUNK = 16384  # cells read at one time, and stored as one chunk of HDF5
COLUMNS = ("_index", "cell_type/codes", "edited", "seed")


@dataclass(frozen=True, kw_only=True)
class TableRows:
    """N cells of a table."""

    id_N: np.ndarray  # str
    type_N: np.ndarray  # str
    edited_N: np.ndarray  # bool
    seed_N: np.ndarray  # int64
    xy_px_N2: np.ndarray  # float64, px of the slide
    xy_um_N2: np.ndarray  # float64, um of the source


def write_slide_cells(path: Path, job: SlideJob, source: SlideSource, edits: list[Edit]) -> None:
    """Cells on the slide: obs cell_type, edited, seed; ``obsm["spatial"]`` px of it, ``obsm["spatial_um"]`` of the source."""
    with writing_table(path) as table:
        for rows in _table_rows(job, source, edits):
            table.add(rows)


def _table_rows(job: SlideJob, source: SlideSource, edits: list[Edit]) -> Iterator[TableRows]:
    x, y, width, height = job.spec.region_px
    n_added, edited_source = 0, EditedSource(source, edits)
    for cells in job.cells.in_source_order():
        xy_px = cells.xy_um_M2 / job.bundle.config.um_per_px - (x, y)
        inside = np.asarray(((xy_px >= 0) & (xy_px < (width, height))).all(1))
        at, xy_um = cells.source_M[inside], cells.xy_um_M2[inside]
        is_added = at < 0
        types, edited = _type_names(job, source, cells, inside), is_added | edited_source.is_edited(at)
        edited_source.set_type_names(job.bundle, at, types)
        for number, edit in enumerate(edits):
            if edit.add_type is not None:
                types[at == -1 - number] = job.bundle.canonical_type_name(edit.add_type)
        ids = np.full(len(at), "", object)
        ids[~is_added] = source.id_N[at[~is_added]]
        ids[is_added] = [f"added_{n_added + number}" for number in range(int(is_added.sum()))]
        n_added += int(is_added.sum())
        yield TableRows(
            id_N=ids,
            type_N=types,
            edited_N=edited,
            seed_N=np.full(len(at), job.spec.seeds[0], np.int64),
            xy_px_N2=xy_px[inside],
            xy_um_N2=xy_um,
        )


def _type_names(job: SlideJob, source: SlideSource, cells: CellRows, inside: np.ndarray) -> np.ndarray:
    """Names of the types of some cells: those of the source, or as the model predicts."""
    at = cells.source_M[inside]
    if source.type_N is not None:
        types = np.full(len(at), "", object)
        types[at >= 0] = source.type_N[at[at >= 0]]
        return types
    gene, table = job.bundle.model.gene, job.bundle.types
    z1 = np.ascontiguousarray(cells.z_MZ[inside, : gene.config.n_type])
    return np.array(table.names, object)[table.predicted_types(gene.mixture.component_posterior(z1))[0]]


@contextmanager
def writing_table(path: Path) -> Iterator[TableWriter]:
    """Write a table; it appears when the block succeeds."""
    with atomic_path(path) as partial:
        _empty_table().write_h5ad(partial)
        with h5py.File(partial, "r+") as file:
            writer = TableWriter(file)
            yield writer
            writer.finish()


class TableWriter:
    """Appends cells to the columns of an open file."""

    def __init__(self, file: h5py.File) -> None:
        self._file = file
        self._codes: dict[str, int] = {}  # of the types, in the order of their first cells
        for path in (*(f"obs/{name}" for name in COLUMNS), "obsm/spatial", "obsm/spatial_um"):
            _make_resizable(file, path)

    def add(self, rows: TableRows) -> None:
        """Append cells."""
        codes = np.array([self._codes.setdefault(str(name), len(self._codes)) for name in rows.type_N], np.int16)
        self._append("obs/_index", rows.id_N.astype(object))
        self._append("obs/cell_type/codes", codes)
        self._append("obs/edited", rows.edited_N)
        self._append("obs/seed", rows.seed_N)
        self._append("obsm/spatial", rows.xy_px_N2)
        self._append("obsm/spatial_um", rows.xy_um_N2)

    def _append(self, path: str, values: np.ndarray) -> None:
        stored = self._file[path]
        start = len(stored)
        stored.resize(start + len(values), axis=0)
        if len(values):
            stored[start:] = values

    def finish(self) -> None:
        """Sort the names of the types, as pandas does, and write the shape."""
        from anndata.io import write_elem

        names = sorted(self._codes)
        column = self._file["obs/cell_type"]
        new = np.zeros(max(len(names), 1), np.int16)
        new[[self._codes[name] for name in names]] = np.arange(len(names))
        codes = column["codes"]
        for start in range(0, len(codes), CHUNK):
            codes[start : start + CHUNK] = new[codes[start : start + CHUNK]]
        del column["categories"]
        write_elem(column, "categories", np.array(names, object))
        matrix, n = self._file["X"], len(codes)
        matrix.attrs["shape"] = np.array([n, 0])
        kept = dict(matrix["indptr"].attrs)
        del matrix["indptr"]
        matrix.create_dataset("indptr", shape=(n + 1,), dtype=np.int32, fillvalue=0).attrs.update(kept)


def _empty_table() -> Any:
    import anndata
    import pandas as pd
    from scipy.sparse import csr_matrix

    columns = {"cell_type": pd.Categorical([""])[:0], "edited": np.zeros(0, bool), "seed": np.zeros(0, np.int64)}
    obs = pd.DataFrame(columns, index=np.array([], str))
    table = anndata.AnnData(X=csr_matrix(np.zeros((0, 0), np.float32)), obs=obs)
    table.obsm["spatial"], table.obsm["spatial_um"] = np.zeros((0, 2)), np.zeros((0, 2))
    return table


def _make_resizable(file: h5py.File, path: str) -> None:
    """Replace an empty dataset by a chunked one without a maximum length; its attributes are kept."""
    old = file[path]
    attributes = dict(old.attrs)
    dtype = np.dtype(np.int16) if path.endswith("codes") else old.dtype
    shape = old.shape
    del file[path]
    new = file.create_dataset(path, shape=shape, maxshape=(None, *shape[1:]), chunks=(CHUNK, *shape[1:]), dtype=dtype)
    new.attrs.update(attributes)


def read_table(path: Path) -> Iterator[TableRows]:
    """The cells of a table, `CHUNK` at a time."""
    with h5py.File(path, "r") as file:
        obs, obsm = file["obs"], file["obsm"]
        names = obs["cell_type/categories"].asstr()[:].astype(object)
        for start in range(0, len(obs["edited"]), CHUNK):
            part = slice(start, start + CHUNK)
            yield TableRows(
                id_N=obs["_index"].asstr()[part],
                type_N=names[obs["cell_type/codes"][part]],
                edited_N=obs["edited"][part],
                seed_N=obs["seed"][part],
                xy_px_N2=obsm["spatial"][part],
                xy_um_N2=obsm["spatial_um"][part],
            )
