"""Positions of the cells of an AnnData table: which array of `obsm`, and which of its columns are x and y."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from sge2hist.data.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

POSITION_KEYS = ("spatial", "X_spatial")
FULLRES_KEYS = ("spatial_fullres", "spatial_fullres_px")
"""Positions in px of the full-resolution image by their name, beside a `spatial` that was converted to something else."""
XY_COLUMNS = (
    ("x", "y"),
    ("x_centroid", "y_centroid"),
    ("pxl_col_in_fullres", "pxl_row_in_fullres"),
    ("x_um", "y_um"),
    ("x_px", "y_px"),
    ("x_location", "y_location"),
    ("x_coord", "y_coord"),
    ("centroid_x", "centroid_y"),
    ("center_x", "center_y"),
    ("centerx_global_px", "centery_global_px"),
    ("imagecol", "imagerow"),
    ("spatial_1", "spatial_2"),
    ("spatial1", "spatial2"),
    ("0", "1"),
)
"""Names of x (column of the image) and y (row), in any case, as Xenium, Space Ranger, MERSCOPE, CosMx and Seurat write them."""


def position_key(keys: Iterable[str], positions: str, where: str) -> str:
    """The array of `obsm` that holds positions in the frame that `--positions` states ("auto": to be found out).

    Raises
    ------
    InputError
        If there is none.
    """
    known = [str(key) for key in keys]
    usual = [key for key in POSITION_KEYS if key in known]
    fullres = [key for key in FULLRES_KEYS if key in known]
    found = [*fullres, *usual] if positions in ("auto", "px") else [*usual, *fullres]
    if not found:
        raise InputError(
            found=f"no positions (obsm has {', '.join(known) or 'nothing'})",
            where=where,
            expected="obsm['spatial'] with x, y in px of the image given",
            repair="adata.obsm['spatial'] = the array of x, y",
        )
    return found[0]


def read_positions(element: Any, key: str, where: str) -> np.ndarray:
    """x, y of each cell, float64 [N, 2], from an array or a table of `obsm`; a table is read by the names of its columns.

    Raises
    ------
    InputError
        If it has another shape, no numbers, or columns of which none or several pairs are x and y.
    """
    if hasattr(element, "columns"):
        element = _xy_columns(element, key, where)
    positions = np.asarray(element.toarray() if hasattr(element, "toarray") else element)
    if positions.ndim != 2 or positions.shape[1] < 2 or positions.dtype.kind not in "iuf":
        raise InputError(
            found=f"obsm[{key!r}] of shape {positions.shape} and type {positions.dtype}",
            where=where,
            expected="numbers [cells, 2]: x, y",
        )
    return positions[:, :2].astype(np.float64)


def _xy_columns(table: pd.DataFrame, key: str, where: str) -> np.ndarray:
    names = [str(column).strip().lower() for column in table.columns]
    pairs = [(x, y) for x, y in XY_COLUMNS if names.count(x) == 1 and names.count(y) == 1]
    if len(pairs) != 1:
        shown = ", ".join(str(column) for column in table.columns)
        raise InputError(
            found=f"obsm[{key!r}], a table with columns {shown}: "
            + ("several pairs of x and y" if pairs else "no x and y"),
            where=where,
            expected="columns x and y (x_centroid and y_centroid, pxl_col_in_fullres and pxl_row_in_fullres, ...)",
            repair=f"adata.obsm[{key!r}] = adata.obsm[{key!r}][['THE COLUMN OF X', 'THE COLUMN OF Y']].to_numpy()",
        )
    columns: list[pd.Series] = [table.iloc[:, names.index(name)] for name in pairs[0]]
    try:
        return np.stack([column.to_numpy(np.float64, na_value=np.nan) for column in columns], axis=1)
    except (TypeError, ValueError) as error:
        raise InputError(found=f"obsm[{key!r}] with text ({error})", where=where, expected="numbers") from None


def px_by_name(keys: Iterable[str], positions: str, read: Callable[[str], np.ndarray]) -> tuple[str, bool]:
    """Of a table without an image: the array to take, and whether its name says that it is in px.

    With "auto", `spatial` beside `spatial_fullres` is taken to be something else than px, unless both are equal.
    """
    known = [str(key) for key in keys]
    usual = [key for key in POSITION_KEYS if key in known]
    fullres = [key for key in FULLRES_KEYS if key in known]
    if positions == "auto" and usual and fullres:
        return usual[0], bool(np.allclose(read(usual[0]), read(fullres[0]), equal_nan=True))
    key = position_key(known, positions if positions != "auto" or usual else "px", "")
    return key, key in FULLRES_KEYS
