"""Whatever is wrong with a file of a set becomes one clear error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from sge2hist.data.errors import InputError


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what readers of tables raise (a damaged file, text for a number, a missing column) into `InputError`."""
    try:
        with np.errstate(invalid="raise"):  # an empty field in a column of whole numbers
            yield
    except (OSError, ValueError, KeyError, TypeError, FloatingPointError) as error:
        raise InputError(
            found=f"a table that cannot be read ({type(error).__name__}: {error})", where=str(path),
            expected="UTF-8, columns image, cell_id[, sample, seed as whole numbers]; or a generated set as it was written",
        ) from error  # fmt: skip
