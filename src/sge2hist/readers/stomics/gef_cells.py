"""Cells of a ``.cellbin.gef``: counts by cell, centres and outlines in DNB of the chip.

```
/ offsetX, offsetY, maxX, maxY, resolution (nm per DNB)         attributes
/cellBin/cell        id, x, y, offset, geneCount, expCount, dnbCount, area, ...
/cellBin/cellExp     geneID (number of the gene), count; the rows of a cell from `offset` on, `geneCount` of them
/cellBin/gene        geneName, and geneID since SAW 7.1 (then geneName is the symbol)
/cellBin/cellBorder  int16 [N, 32, 2]: vertices from the centre; 32767 = none
```
Written from the vendor's documentation of the format ("GEF (cell bin)") and public readers of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from sge2hist.data.errors import InputError
from sge2hist.readers.count_rows import sum_pieces
from sge2hist.readers.hdf5_probe import probe_hdf5
from sge2hist.readers.stomics.gef_genes import gene_table
from sge2hist.readers.tables import damaged

NO_VERTEX = 32767
ROWS_AT_ONCE = 4_000_000
ERRORS = (OSError, LookupError, RuntimeError, ValueError, TypeError, AttributeError, MemoryError)


@dataclass(frozen=True, kw_only=True)
class GefCells:
    """An opened file; counts stay in it until `read_counts`."""

    path: Path
    obs: pd.DataFrame
    xy_dnb: np.ndarray  # float64 [N, 2], from the offset of the chip
    outline_dnb: np.ndarray | None  # float32 [N, V, 2] from the centre
    genes: pd.DataFrame
    indptr: np.ndarray  # int64 [N + 1]
    um_per_dnb: float
    size_dnb: tuple[int, int] | None  # width and height of the chip's matrix, where the file states it
    notes: list[str]

    @classmethod
    def open(cls, path: Path) -> GefCells:
        """Read everything but the counts.

        Raises
        ------
        InputError
            If the file is damaged or of another layout.
        """
        probe_hdf5(path)
        try:
            with h5py.File(path, "r") as file:
                return cls._open(path, file)
        except ERRORS as error:
            raise damaged(path, "cellbin.gef", error) from error

    @classmethod
    def _open(cls, path: Path, file: Any) -> GefCells:
        if "cellBin" not in file:
            raise InputError(
                found=f"an HDF5 file with {', '.join(list(file)[:6]) or 'nothing'} at its root",
                where=str(path),
                expected="a group cellBin (SAW 7 or later)",
                repair="convert it with the vendor's tools, or give square bins: --bin-um 10",
            )
        group = file["cellBin"]
        cell = group["cell"][:]
        count = cell["geneCount"].astype(np.int64)
        indptr = np.concatenate([[0], np.cumsum(count)])
        if indptr[-1] != len(group["cellExp"]) or not (cell["offset"] == indptr[:-1])[count > 0].all():
            raise InputError(
                found=f"{indptr[-1]:,} values by the table of cells, {len(group['cellExp']):,} of them stored",
                where=str(path),
                expected="equal numbers, in the order of the cells",
                repair="copy it again",
            )
        genes, notes = gene_table(group["gene"][:])
        xy_dnb = np.stack([cell["x"], cell["y"]], 1).astype(np.float64)
        xy_dnb, size_dnb = from_offset(xy_dnb, dict(file.attrs), ("offsetX", "offsetY"))
        outline = None
        if "cellBorder" in group and len(group["cellBorder"]) == len(cell):
            outline = _outlines(group["cellBorder"][:])
        um_per_dnb = resolution_um(dict(file.attrs))
        obs = pd.DataFrame(
            {"area_um2": cell["area"] * um_per_dnb**2, "n_dnb": cell["dnbCount"].astype(np.int64)},
            index=pd.Index([str(one) for one in cell["id"]], name="cell_id", dtype=object),
        )
        return cls(
            path=path,
            obs=obs,
            xy_dnb=xy_dnb + 0.5,  # the middle of the DNB
            outline_dnb=outline,
            genes=genes,
            indptr=indptr,
            um_per_dnb=um_per_dnb,
            size_dnb=size_dnb,
            notes=notes,
        )

    def read_counts(self, group_of_obs: np.ndarray | None = None, n_groups: int | None = None) -> csr_array:
        """See `Section.read_counts`; beside the result, `ROWS_AT_ONCE` values are in memory."""
        if group_of_obs is None:
            n_values = int(self.indptr[-1])
            data, indices = np.empty(n_values, np.int32), np.empty(n_values, np.int32)
            for first, last, piece in self._pieces():
                start, stop = self.indptr[first], self.indptr[last]
                data[start:stop], indices[start:stop] = piece.data, piece.indices
            whole = csr_array((data, indices, self.indptr), shape=(len(self.obs), len(self.genes)))
            whole.sum_duplicates()
            return whole
        n_groups = int(group_of_obs.max(initial=-1)) + 1 if n_groups is None else n_groups
        pieces = ((group_of_obs[first:last], piece) for first, last, piece in self._pieces())
        return sum_pieces(pieces, n_groups, len(self.genes))

    def _pieces(self) -> Iterator[tuple[int, int, csr_array]]:
        try:
            with h5py.File(self.path, "r") as file:
                stored = file["cellBin/cellExp"]
                first = 0
                while first < len(self.obs):
                    last = int(np.searchsorted(self.indptr, self.indptr[first] + ROWS_AT_ONCE, side="right")) - 1
                    last = min(max(last, first + 1), len(self.obs))
                    rows = stored[int(self.indptr[first]) : int(self.indptr[last])]
                    if len(rows) and rows["geneID"].max() >= len(self.genes):
                        raise InputError(found="a gene beyond the table of genes", where=str(self.path))
                    indptr = self.indptr[first : last + 1] - self.indptr[first]
                    parts = rows["count"].astype(np.int32), rows["geneID"].astype(np.int32), indptr
                    yield first, last, csr_array(parts, shape=(last - first, len(self.genes)))
                    first = last
        except ERRORS as error:
            raise damaged(self.path, "cellbin.gef", error) from error


def from_offset(
    xy: np.ndarray, attributes: dict[str, Any], names: tuple[str, str]
) -> tuple[np.ndarray, tuple[int, int] | None]:
    """Positions from the offset of the matrix, and its size; files store them so, or from the corner of the chip.

    Positions from the offset never exceed max - offset; those from the corner of the chip reach max.
    """
    try:
        low = np.array([int(np.ravel(attributes[name])[0]) for name in names])
        high = np.array([int(np.ravel(attributes[name])[0]) for name in ("maxX", "maxY")])
    except (KeyError, IndexError, ValueError, TypeError):
        return xy, None
    size = int(high[0] - low[0] + 1), int(high[1] - low[1] + 1)
    if len(xy) and (low > 0).any() and (xy.max(axis=0) > high - low).any():
        xy = xy - low
    return xy, size if min(size) > 0 else None


def resolution_um(attributes: dict[str, Any]) -> float:
    """Um per DNB: the attribute `resolution` in nm, 0.5 where it is missing or implausible."""
    try:
        nm = float(np.ravel(attributes["resolution"])[0])
    except (KeyError, IndexError, ValueError, TypeError):
        return 0.5
    return nm / 1000 if 100 <= nm <= 2000 else 0.5


def _outlines(border: np.ndarray) -> np.ndarray:
    """Vertices from the centre, the last one repeated where there are fewer; NaN without three."""
    known = (border != NO_VERTEX).all(axis=2)
    order = np.argsort(~known, axis=1, kind="stable")  # known ones first, in their order
    out = np.take_along_axis(border.astype(np.float32), order[..., None], axis=1)
    count = known.sum(axis=1)
    slot = np.minimum(np.arange(border.shape[1]), (count - 1).clip(0)[:, None])
    out = np.take_along_axis(out, slot[..., None], axis=1)
    out[count < 3] = np.nan
    return out
