"""`barcode_mappings.parquet` of Space Ranger 4: which cell each 2 um bin belongs to.

Columns ``square_002um, square_008um, square_016um, cell_id (nullable), in_nucleus, in_cell``. Seen with and without
the ``-1`` suffix of barcodes, and with ``cellid_000000000`` where a bin belongs to no cell: both are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.readers.tables import damaged

FILE = "barcode_mappings.parquet"
NO_CELL = "cellid_000000000"
_DIGITS = [8, 9, 10, 11, 12, 14, 15, 16, 17, 18]  # of s_002um_00012_00345


@dataclass(frozen=True, kw_only=True)
class BarcodeMappings:
    """The bins that belong to a cell, M of them; C cells."""

    row: np.ndarray  # int64 [M] on the 2 um array
    column: np.ndarray  # int64 [M]
    cell: np.ndarray  # int64 [M]
    in_nucleus: np.ndarray  # bool [M]
    cell_ids: list[str]  # [C], sorted, with the suffix -1


def read_barcode_mappings(path: str | Path) -> BarcodeMappings:
    """Read the cells of 2 um bins; bins without a cell are excluded.

    Raises
    ------
    InputError
        If the file is damaged, lacks a column, or names bins in another way, or no bin belongs to a cell.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    path = Path(path)
    try:
        with pq.ParquetFile(path) as file:
            missing = {"square_002um", "cell_id"} - set(file.schema_arrow.names)
            if missing:
                raise InputError(
                    found=f"no column {', '.join(sorted(missing))}", where=str(path), expected="square_002um, cell_id"
                )
        flags = [name for name in ("in_cell", "in_nucleus") if name in file.schema_arrow.names]
        table = pq.read_table(path, columns=["square_002um", "cell_id", *flags], read_dictionary=["cell_id"])
        has_cell = pc.is_valid(table["cell_id"])
        if "in_cell" in flags:
            has_cell = pc.and_(has_cell, pc.fill_null(table["in_cell"].cast(pa.bool_()), False))
        table = table.filter(has_cell)
        cell, cell_ids = _cells(table["cell_id"])
        row, column = _array_indices(table["square_002um"], path)
        in_nucleus = np.zeros(len(row), bool)
        if "in_nucleus" in flags:
            in_nucleus = np.asarray(pc.fill_null(table["in_nucleus"].cast(pa.bool_()), False))
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(found="no such file", where=str(path), expected=FILE) from None
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, MemoryError) as error:
        raise damaged(path, "Parquet table", error) from error
    keep = cell >= 0
    if not keep.any():
        raise InputError(found="no bin that belongs to a cell", where=str(path), expected="cell_id of some bins")
    return BarcodeMappings(
        row=row[keep], column=column[keep], cell=cell[keep], in_nucleus=in_nucleus[keep], cell_ids=cell_ids
    )


def _cells(column: Any) -> tuple[np.ndarray, list[str]]:
    """Number of the cell of each row (-1 = none), and the sorted ids."""
    merged = column.unify_dictionaries().combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    names = [_with_suffix(str(name)) for name in merged.dictionary.to_pylist()]
    ids = sorted({name for name in names if not name.startswith(NO_CELL)})
    number = {name: index for index, name in enumerate(ids)}
    of_code = np.array([number.get(name, -1) for name in names], np.int64)
    return of_code[np.asarray(merged.indices)], ids


def _with_suffix(name: str) -> str:
    return name if "-" in name else f"{name}-1"


def _array_indices(column: Any, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Array row and column of barcodes ``s_002um_00012_00345`` with or without ``-1``, by a view of their bytes."""
    rows = []
    for chunk in column.chunks:
        if not len(chunk):
            continue
        barcodes = np.asarray(chunk.to_numpy(zero_copy_only=False), "S")
        letters = barcodes.view(np.uint8).reshape(len(barcodes), -1)
        if letters.shape[1] < 19 or bytes(letters[0, :8]) != b"s_002um_":
            raise InputError(found=f"barcode {barcodes[0]!r}", where=str(path), expected="s_002um_00000_00000")
        digits = letters[:, _DIGITS] - ord("0")  # uint8: other letters wrap beyond 9
        if (digits > 9).any():
            raise InputError(found="barcodes of another form", where=str(path), expected="s_002um_00000_00000")
        rows.append(digits.astype(np.int64))
    digits = np.concatenate(rows) if rows else np.empty((0, 10), np.int64)
    powers = 10 ** np.arange(4, -1, -1)
    return digits[:, :5] @ powers, digits[:, 5:] @ powers
