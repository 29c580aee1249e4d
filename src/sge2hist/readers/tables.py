"""Tables that instruments write (Parquet, delimited text, JSON): opened with one clear error when they are damaged."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sge2hist.data.errors import InputError


def read_parquet(path: str | Path, columns: Sequence[str], optional: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Columns of a Parquet file as arrays of equal length; only these are decoded.

    Raises
    ------
    InputError
        If the file is missing, damaged, or lacks one of `columns`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(path)
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            missing = [name for name in columns if name not in names]
            if missing:
                raise InputError(
                    found=f"a table without {', '.join(missing)} (it has {', '.join(names[:12])})",
                    where=str(path),
                    expected=f"columns {', '.join(columns)}",
                )
            wanted = [*columns, *(name for name in optional if name in names)]
            table = file.read(columns=wanted, use_threads=False)
            return {name: table.column(name).to_numpy(zero_copy_only=False) for name in wanted}
    except FileNotFoundError:
        raise InputError(found="no such file", where=str(path), expected="a Parquet table") from None
    except (pa.ArrowException, OSError, ValueError, KeyError, MemoryError, UnicodeDecodeError) as error:
        raise damaged(path, "Parquet table", error) from error


def read_delimited(path: str | Path, *, separator: str, **options: Any) -> pd.DataFrame:
    """A delimited text file (plain or gzip) as a data frame; `options` go to `pandas.read_csv`.

    Raises
    ------
    InputError
        If the file is missing, empty, damaged, or not text.
    """
    import zlib

    path = Path(path)
    try:
        return pd.read_csv(path, sep=separator, **options)
    except FileNotFoundError:
        raise InputError(found="no such file", where=str(path), expected="a table in text form") from None
    except (OSError, ValueError, EOFError, KeyError, IndexError, csv.Error, zlib.error, MemoryError) as error:
        raise damaged(path, "table", error) from error


def damaged(path: str | Path, what: str, error: BaseException) -> InputError:
    """The error for a file whose bytes cannot be read as `what`."""
    detail = " ".join(str(error).split())[:200] or type(error).__name__
    return InputError(
        found=f"a {what} that cannot be read ({detail})",
        where=str(path),
        expected=f"a complete {what}",
        repair="copy it again from the instrument's output",
    )


def as_text(ids: np.ndarray) -> np.ndarray:
    """Ids that may be bytes, strings or numbers, as an object array of str."""
    return np.array([item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item) for item in ids], object)


def as_float(values: np.ndarray, what: str, path: str | Path) -> np.ndarray:
    """Numbers as float64; text that is no number is an `InputError`."""
    try:
        return np.asarray(values).astype(np.float64)
    except (ValueError, TypeError) as error:
        raise InputError(found=f"{what} that is not a number ({error})", where=str(path)) from error
