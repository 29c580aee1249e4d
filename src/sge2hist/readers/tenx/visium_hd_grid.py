"""The bin grid of Visium HD: positions table, barcodes, and blocks of bins."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.readers.tables import read_parquet

MAX_INDEX = 60_000  # the 2 um grid has 3350 rows; anything near this is a damaged file
FITTED_BINS = 200_000  # evenly spread ones suffice for the pitch
_BARCODE_BYTES = 21  # s_008um_00012_00345-1
_REPAIR = "copy the folder again; matrix and positions must be of one run"


@dataclass(frozen=True, kw_only=True)
class GridPositions:
    """All bins of the array; M of them."""

    row: np.ndarray  # int32 [M]
    column: np.ndarray  # int32 [M]
    centre_xy_px: np.ndarray  # float64 [M, 2]
    in_tissue: np.ndarray  # bool [M]
    path: Path

    @property
    def width(self) -> int:
        """Columns of the smallest grid that holds all bins."""
        return int(self.column.max()) + 1

    @property
    def height(self) -> int:
        """Rows of the smallest grid that holds all bins."""
        return int(self.row.max()) + 1

    def um_per_px(self, bin_um: float) -> float:
        """Scale that the positions themselves show: `bin_um` over the pitch of an affine fit of position to index.

        The square root of the determinant is used, so rotated and mirrored layouts count alike.
        """
        some = slice(None, None, max(1, len(self.row) // FITTED_BINS))
        index = np.column_stack([self.column[some], self.row[some]]).astype(np.float64)
        index -= index.mean(axis=0)
        centre = self.centre_xy_px[some]
        linear, *_ = np.linalg.lstsq(index, centre - centre.mean(axis=0), rcond=None)
        pitch_px = float(np.sqrt(abs(np.linalg.det(linear))))
        if not (np.isfinite(pitch_px) and pitch_px > 0):
            raise InputError(found="bins that do not spread over the image", where=str(self.path), repair=_REPAIR)
        return bin_um / pitch_px


def read_positions(path: str | Path) -> GridPositions:
    """Read ``tissue_positions.parquet`` without its barcode column (index columns name the bin already).

    Columns are read one after the other: the full array has 11 million rows, and Arrow keeps what it has once held.
    """
    path = Path(path)
    columns = ["in_tissue", "array_row", "array_col"]
    table = read_parquet(path, columns)
    try:
        indices = [table[name] for name in ("array_row", "array_col")]
        in_range = all(not len(index) or 0 <= index.min() <= index.max() <= MAX_INDEX for index in indices)
        in_tissue = table["in_tissue"].astype(np.int64) != 0
        centre = np.empty((len(in_tissue), 2))
        for axis, name in enumerate(("pxl_col_in_fullres", "pxl_row_in_fullres")):
            centre[:, axis] = read_parquet(path, [name])[name]
    except (TypeError, ValueError) as error:
        raise InputError(found=f"columns that are not numbers ({error})", where=str(path), repair=_REPAIR) from error
    if len(in_tissue) == 0:
        raise InputError(found="no bins", where=str(path), repair=_REPAIR)
    if not in_range:
        raise InputError(found="array indices out of range", where=str(path), repair=_REPAIR)
    if not np.isfinite(centre).all():
        raise InputError(found="positions that are not finite", where=str(path), repair=_REPAIR)
    row, column = (index.astype(np.int32) for index in indices)
    return GridPositions(row=row, column=column, centre_xy_px=centre, in_tissue=in_tissue, path=path)


def parse_barcodes(barcodes: np.ndarray, where: str, bin_um: int) -> tuple[np.ndarray, np.ndarray]:
    """Array row and column, int32 [N], of barcodes ``s_{size:03d}um_{row:05d}_{column:05d}-1`` (bytes [N]).

    A view of the bytes: 6 million take about a second.
    """
    prefix = f"s_{bin_um:03d}um_".encode()
    if barcodes.dtype.itemsize != _BARCODE_BYTES or not barcodes[0].startswith(prefix):
        raise InputError(
            found=f"barcode {barcodes[0]!r}",
            where=where,
            expected=f"{prefix.decode()}00000_00000-1",
            repair="give the matrix of this bin size",
        )
    letters = np.ascontiguousarray(barcodes).view(np.uint8).reshape(len(barcodes), _BARCODE_BYTES)
    numbers = []
    regular = bool((letters[:, :8] == np.frombuffer(prefix, np.uint8)).all())
    for first in (8, 14):
        number = np.zeros(len(barcodes), np.int32)
        for position in range(first, first + 5):
            digit = letters[:, position] - ord("0")  # uint8: other letters wrap beyond 9
            regular &= bool((digit <= 9).all())
            number = number * 10 + digit
        numbers.append(number)
    if not regular:
        raise InputError(found="barcodes of another form", where=where, expected=f"{prefix.decode()}00000_00000-1")
    return numbers[0], numbers[1]


def position_of_bins(grid: GridPositions, row: np.ndarray, column: np.ndarray, where: str) -> np.ndarray:
    """Index into the positions table of each bin (int32 [N]).

    Raises
    ------
    InputError
        If the table or the matrix names a bin twice, or the table lacks one of the matrix.
    """
    lookup = np.full(grid.height * grid.width, -1, np.int32)
    cell = grid.row.astype(np.int64) * grid.width + grid.column
    lookup[cell] = np.arange(len(cell))
    if int((lookup >= 0).sum()) != len(cell):
        raise InputError(found="bins listed twice", where=str(grid.path), repair=_REPAIR)
    inside = (row < grid.height) & (column < grid.width)
    found = np.where(inside, lookup[np.where(inside, row.astype(np.int64) * grid.width + column, 0)], -1)
    if (found < 0).any():
        raise InputError(
            found=f"{int((found < 0).sum()):,} of {len(found):,} bins of {where} without a position",
            where=str(grid.path),
            expected="a position for every bin of the matrix",
            repair=_REPAIR,
        )
    seen = np.zeros(len(cell), bool)
    seen[found] = True
    if int(seen.sum()) != len(found):
        raise InputError(found="barcodes listed twice", where=where, repair=_REPAIR)
    return found


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """k x k blocks of bins that hold at least one bin of the matrix; B of them, in row-major order."""

    row: np.ndarray  # int64 [B]
    column: np.ndarray  # int64 [B]
    centre_xy_px: np.ndarray  # float64 [B, 2]
    block_of_bin: np.ndarray  # int64 [N]
    n_bins: np.ndarray  # int64 [B]: bins of the matrix in the block


def blocks_of(grid: GridPositions, row: np.ndarray, column: np.ndarray, k: int) -> Blocks:
    """Group bins by ``(row // k, column // k)``.

    The centre is the mean position of all bins of the array in the block, also of those without counts: the mean of the
    bins present would lean towards the tissue.
    """
    width = grid.width // k + 1
    block_of_bin_all = (row // k).astype(np.int64) * width + column // k
    block = (grid.row // k).astype(np.int64) * width + grid.column // k
    present, block_of_bin, n_bins = np.unique(block_of_bin_all, return_inverse=True, return_counts=True)
    compact = np.full((grid.height // k + 1) * width, -1, np.int64)
    compact[present] = np.arange(len(present))
    target = compact[block]
    kept = target >= 0
    n_positions = np.bincount(target[kept], minlength=len(present))
    sums = [np.bincount(target[kept], grid.centre_xy_px[kept, axis], len(present)) for axis in (0, 1)]
    return Blocks(
        row=present // width,
        column=present % width,
        centre_xy_px=np.column_stack(sums) / n_positions[:, None],
        block_of_bin=block_of_bin,
        n_bins=n_bins,
    )
