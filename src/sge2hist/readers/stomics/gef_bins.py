"""Square bins of a ``.gef``: counts on the grid of DNBs, stored gene by gene, summed to bins of any whole size.

```
/geneExp/bin<N>/expression    x, y, count; attributes minX, minY, maxX, maxY, resolution (nm per DNB)
/geneExp/bin<N>/gene          geneID and geneName (or gene), offset, count: the rows of a gene, one gene after the other
```
x and y are the lower corner of a bin in DNB (multiples of N); some files number the bins instead, which their values show.
Written from the vendor's documentation of the format ("GEF (square bin)") and public readers of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from scipy.sparse import csr_array, hstack

from sge2hist.data.errors import InputError
from sge2hist.readers.count_rows import sum_rows
from sge2hist.readers.hdf5_probe import probe_hdf5
from sge2hist.readers.stomics.gef_cells import ERRORS, ROWS_AT_ONCE, from_offset, resolution_um
from sge2hist.readers.stomics.gef_genes import gene_table
from sge2hist.readers.tables import damaged

MAX_GRID = 400_000_000  # bins on the whole chip


@dataclass(frozen=True, kw_only=True)
class GefBins:
    """Bins that hold counts; the counts stay in the file until `read_counts`."""

    path: Path
    stored_bin: int  # DNBs along a side of the bins in the file that are summed
    step: int  # stored bins along a side of a bin
    is_numbered: bool  # x, y count stored bins, not DNBs
    low: np.ndarray  # int64 [2]: subtracted from x, y in DNB
    bin_of_grid: np.ndarray  # int32 [rows, columns]: number of the bin, -1 = empty
    genes: pd.DataFrame
    gene_start: np.ndarray  # int64 [G + 1] rows of `expression`
    um_per_dnb: float
    size_dnb: tuple[int, int] | None
    notes: list[str]

    @property
    def side_dnb(self) -> int:
        """DNBs along a side of a bin."""
        return self.stored_bin * self.step

    @classmethod
    def open(cls, path: Path, bin_um: float) -> GefBins:
        """Find the bins with counts; one pass over the positions.

        Raises
        ------
        InputError
            If the file is damaged, or no stored bins add up to this size.
        """
        probe_hdf5(path)
        try:
            with h5py.File(path, "r") as file:
                return cls._open(path, file, bin_um)
        except ERRORS as error:
            raise damaged(path, ".gef", error) from error

    @classmethod
    def _open(cls, path: Path, file: Any, bin_um: float) -> GefBins:
        if "geneExp" not in file:
            raise InputError(
                found=f"an HDF5 file with {', '.join(list(file)[:6]) or 'nothing'} at its root",
                where=str(path),
                expected="a group geneExp (square bins)",
                repair="give the <SN>.tissue.gef, <SN>.gef or <SN>.raw.gef of the run",
            )
        stored = {int(name[3:]): name for name in file["geneExp"] if re.fullmatch(r"bin\d+", name)}
        attributes = dict(file["geneExp"][stored[min(stored)]]["expression"].attrs) if stored else {}
        um_per_dnb = resolution_um(attributes) if stored and min(stored) == 1 else 0.5
        side = round(bin_um / um_per_dnb)
        fitting = [size for size in stored if side % size == 0]
        if not fitting or side < 1:
            possible = ", ".join(f"{size * um_per_dnb:g}" for size in sorted(stored))
            raise InputError(
                found=f"--bin-um {bin_um:g}", where=str(path), expected=f"a multiple of the bins stored: {possible} um"
            )
        size = max(fitting)
        group = file["geneExp"][stored[size]]
        rows_of_gene = group["gene"]["count"].astype(np.int64)
        gene_start = np.concatenate([[0], np.cumsum(rows_of_gene)])
        expression = group["expression"]
        if gene_start[-1] != len(expression) or not len(expression):
            raise InputError(
                found=f"{len(expression):,} values, {gene_start[-1]:,} by the table of genes", where=str(path)
            )
        genes, notes = gene_table(group["gene"][:])
        numbered, low, high, size_dnb = _frame(path, expression, size)
        columns, rows = (int(n) for n in high // side + 1)
        if rows * columns > MAX_GRID:
            raise InputError(
                found=f"{rows:,} x {columns:,} bins of {bin_um:g} um",
                where=str(path),
                repair="larger bins: --bin-um 10",
            )
        occupied = np.zeros((rows, columns), bool)
        for first in range(0, len(expression), ROWS_AT_ONCE):
            x, y = _grid(expression[first : first + ROWS_AT_ONCE], size if numbered else 1, low, side)
            occupied[y, x] = True
        bin_of_grid = np.full((rows, columns), -1, np.int32)
        bin_of_grid[occupied] = np.arange(occupied.sum())
        return cls(
            path=path,
            stored_bin=size,
            step=side // size,
            is_numbered=numbered,
            low=low,
            bin_of_grid=bin_of_grid,
            genes=genes,
            gene_start=gene_start,
            um_per_dnb=um_per_dnb,
            size_dnb=size_dnb,
            notes=notes if side == size else [*notes, f"bins of {side} DNB summed from those of {size}"],
        )

    def row_and_column(self) -> tuple[np.ndarray, np.ndarray]:
        """Row and column of each bin on the grid, int64 [N]."""
        row, column = np.nonzero(self.bin_of_grid >= 0)
        return row, column

    def read_counts(self, group_of_obs: np.ndarray | None = None, n_groups: int | None = None) -> csr_array:
        """See `Section.read_counts`; genes are read in pieces of about `ROWS_AT_ONCE` values."""
        if group_of_obs is not None and n_groups is None:
            n_groups = int(group_of_obs.max(initial=-1)) + 1
        pieces = []
        for piece in self._pieces():
            pieces.append(piece if group_of_obs is None else sum_rows(piece, group_of_obs, int(n_groups or 0)))
        return csr_array(hstack(pieces, format="csr")).astype(np.int32)

    def _pieces(self) -> Iterator[csr_array]:
        """Counts of some genes: int32 [N, genes], one piece after the other."""
        n_obs = int((self.bin_of_grid >= 0).sum())
        try:
            with h5py.File(self.path, "r") as file:
                expression = file[f"geneExp/bin{self.stored_bin}/expression"]
                first = 0
                while first < len(self.genes):
                    last = int(np.searchsorted(self.gene_start, self.gene_start[first] + ROWS_AT_ONCE, "right")) - 1
                    last = min(max(last, first + 1), len(self.genes))
                    rows = expression[int(self.gene_start[first]) : int(self.gene_start[last])]
                    x, y = _grid(rows, self.stored_bin if self.is_numbered else 1, self.low, self.side_dnb)
                    gene = np.repeat(np.arange(last - first), np.diff(self.gene_start[first : last + 1]))
                    counts = csr_array(
                        (rows["count"].astype(np.int32), (self.bin_of_grid[y, x], gene)), shape=(n_obs, last - first)
                    )
                    counts.sum_duplicates()
                    yield counts
                    first = last
        except ERRORS as error:
            raise damaged(self.path, ".gef", error) from error


def _frame(path: Path, expression: Any, size: int) -> tuple[bool, np.ndarray, np.ndarray, tuple[int, int] | None]:
    """Whether x, y number the bins; the lowest and the highest x, y in DNB from the offset; size of the matrix."""
    highest, numbered = np.zeros(2, np.int64), False
    for first in range(0, len(expression), ROWS_AT_ONCE):
        rows = expression[first : first + ROWS_AT_ONCE]
        numbered |= bool(((rows["x"] % size) | (rows["y"] % size)).any())
        highest = np.maximum(highest, [int(rows["x"].max()), int(rows["y"].max())])
    if (highest < 0).any():
        raise InputError(found="positions below 0", where=str(path))
    highest = highest * (size if numbered else 1)
    moved, size_dnb = from_offset(highest[None].astype(np.float64), dict(expression.attrs), ("minX", "minY"))
    high = moved[0].astype(np.int64)
    return numbered, highest - high, high, size_dnb


def _grid(rows: np.ndarray, factor: int, low: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Column and row of the bin of each value."""
    x, y = (rows[name].astype(np.int64) * factor for name in ("x", "y"))
    return (x - low[0]) // side, (y - low[1]) // side
