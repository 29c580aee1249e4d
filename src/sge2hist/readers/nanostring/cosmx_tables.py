"""Tables of a CosMx slide, whose columns changed from release to release: cells, positions of the fields of view (FOV), polygons.

```
<slide>_exprMat_file.csv        fov, cell_ID (0 = outside of cells), genes, NegPrb... or Negative..., SystemControl..., ...
<slide>_metadata_file.csv       fov, cell_ID, CenterX_local_px, CenterY_local_px, CenterX_global_px, CenterY_global_px, Area, ...
                                since AtoMx 1.3: also cell or cell_id ("c_<slide>_<fov>_<cell>"), Area.um2
<slide>_fov_positions_file.csv  fov or FOV, x_global_px, y_global_px; since AtoMx 1.3 also x_global_mm, y_global_mm; or x_mm, y_mm
<slide>-polygons.csv            fov, cellID or cell_ID, x_local_px, y_local_px, ...
```
A cell is its FOV and its number in it. Sources: "Comparing AtoMx SIP flat files with the legacy format" (vendor), rows of a
public lung data set, public readers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from sge2hist.data.errors import InputError
from sge2hist.readers.outlines import outlines_of_rows
from sge2hist.readers.tables import as_float, damaged, read_delimited

LOCAL = ("CenterX_local_px", "CenterY_local_px")
GLOBAL = ("CenterX_global_px", "CenterY_global_px")
NUMBERS = ("cell_ID", "cellID", "CellId", "cellid")
NAMES = ("cell", "cell_id", "cellId")
_NAME = re.compile(r"^c_\d+_(?P<fov>\d+)_(?P<cell>\d+)$")
_CONTROL = re.compile(
    r"^(?:neg(?:ative)?(?:[ _-]?(?:prb|probe|control|add))?|system[ _-]?control|false[ _-]?code)[ _.-]?\d*$", re.I
)
POSITION_COLUMNS = (
    ("x_global_px", "y_global_px", 1.0),
    ("x_global_mm", "y_global_mm", 1000.0),
    ("x_mm", "y_mm", 1000.0),
)


@dataclass(frozen=True, kw_only=True)
class CosmxCells:
    """N cells of a slide; numbers of px are those of the instrument's images."""

    obs: pd.DataFrame
    key: pd.Index  # int64 [N]: see `keys`
    fov: np.ndarray  # int64 [N]
    local_xy_px: np.ndarray | None  # float64 [N, 2] in the FOV; None where the table lacks them
    global_xy_px: np.ndarray  # float64 [N, 2] on the slide
    um_per_px: float | None  # by Area and Area.um2


def is_control(name: str) -> bool:
    """Whether a column of counts is no gene: negative probes, system controls, false codes.

    >>> [is_control(name) for name in ("NegPrb12", "Negative01", "SystemControl3", "FalseCode7", "NEGR1", "NEG")]
    [True, True, True, True, False, True]
    """
    return _CONTROL.match(name) is not None


def keys(fov: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """One number for a FOV and the number of a cell in it, int64."""
    return fov.astype(np.int64) << 32 | cell.astype(np.int64)


def keys_of(columns: dict[str, np.ndarray], path: Path) -> np.ndarray:
    """Keys of rows by their id columns: fov and cell_ID, or the name of the cell; int64.

    Raises
    ------
    InputError
        If neither is there, or they are no numbers.
    """
    fov = next((columns[name] for name in columns if name.casefold() == "fov"), None)
    number = next((columns[name] for name in NUMBERS if name in columns), None)
    if fov is not None and number is not None and not any(_NAME.match(str(one)) for one in number[:1]):
        whole = [as_float(one, "fov or cell_ID", path) for one in (fov, number)]
        if not all(np.isfinite(one).all() and (one >= 0).all() for one in whole):
            raise InputError(found="an empty fov or cell_ID", where=str(path), expected="whole numbers")
        return keys(*whole)
    name = next((columns[name] for name in (*NAMES, *NUMBERS) if name in columns), None)
    if name is not None:
        parsed = pd.Series(name).astype(str).str.extract(_NAME.pattern)
        if not parsed.isna().any(axis=None):
            return keys(*(parsed[part].astype(np.int64).to_numpy() for part in ("fov", "cell")))
    raise InputError(
        found=f"columns {', '.join(columns)}",
        where=str(path),
        expected="fov and cell_ID, or cell with names like c_1_20_345",
    )


def read_cells(path: Path) -> CosmxCells:
    """The cells of a slide, without number 0 (outside of cells).

    Raises
    ------
    InputError
        If columns are missing, a cell is there twice, or a position is not a number.
    """
    header = [str(name) for name in read_delimited(path, separator=",", nrows=0, encoding="utf-8-sig").columns]
    missing = [name for name in GLOBAL if name not in header]
    if missing:
        raise InputError(
            found=f"no column {', '.join(missing)} (it has {', '.join(header[:12])})",
            where=str(path),
            expected=f"{', '.join(GLOBAL)}, as AtoMx exports them",
        )
    ids = [name for name in header if name.casefold() == "fov" or name in (*NUMBERS, *NAMES)]
    has_local = all(name in header for name in LOCAL)
    area = [name for name in ("Area", "Area.um2") if name in header]
    wanted = [*ids, *GLOBAL, *(LOCAL if has_local else ()), *area]
    table = read_delimited(path, separator=",", usecols=wanted, encoding="utf-8-sig")
    key = keys_of({name: table[name].to_numpy() for name in ids}, path)
    inside = (key & 0xFFFFFFFF) != 0
    table, key = table[inside], key[inside]
    index = pd.Index(key)
    if not index.is_unique:
        fov, cell = divmod(int(index[index.duplicated()][0]), 1 << 32)
        raise InputError(found=f"cell {cell} of FOV {fov} twice", where=str(path), expected="one row per cell")
    text = [name for name in NAMES if name in ids and not pd.api.types.is_numeric_dtype(table[name])]
    names = table[text[0]] if text else None
    shown = names.astype(str) if names is not None else [f"{one >> 32}_{one & 0xFFFFFFFF}" for one in key.tolist()]
    obs = pd.DataFrame({"fov": key >> 32}, index=pd.Index(list(shown), name="cell_id", dtype=object))
    scale = None
    if len(area) == 2:
        um2, px2 = (as_float(table[name].to_numpy(), name, path) for name in ("Area.um2", "Area"))
        obs["area_um2"] = um2
        positive = (um2 > 0) & (px2 > 0)
        scale = float(np.median(np.sqrt(um2[positive] / px2[positive]))) if positive.any() else None
    return CosmxCells(
        obs=obs,
        key=index,
        fov=key >> 32,
        local_xy_px=_pair(table, LOCAL, path) if has_local else None,
        global_xy_px=_pair(table, GLOBAL, path),
        um_per_px=scale,
    )


def _pair(table: pd.DataFrame, names: tuple[str, str], path: Path) -> np.ndarray:
    return np.stack([as_float(table[name].to_numpy(), name, path) for name in names], 1)


@dataclass(frozen=True, kw_only=True)
class FovPositions:
    """Positions of the FOVs as the file states them."""

    fov: np.ndarray  # int64 [F]
    xy: np.ndarray  # float64 [F, 2] in px or, where the file has only those, um
    unit: str  # "px" | "um"
    um_per_px: float | None  # where the file has both


def read_fov_positions(path: Path) -> FovPositions:
    """Read the file in any of its forms.

    Raises
    ------
    InputError
        If it has none of the known columns, or they are no numbers.
    """
    table = read_delimited(path, separator=",", encoding="utf-8-sig")
    table.columns = [str(name).strip().casefold() for name in table.columns]
    forms = [form for form in POSITION_COLUMNS if {form[0], form[1]} <= set(table.columns)]
    if "fov" not in table.columns or not forms:
        raise InputError(
            found=f"columns {', '.join(table.columns)}",
            where=str(path),
            expected="fov with x_global_px, y_global_px (or x_global_mm, y_global_mm, or x_mm, y_mm)",
        )
    found = [_pair(table, (x, y), path) * factor for x, y, factor in forms]
    um = next((xy for xy, form in zip(found, forms, strict=True) if form[2] != 1.0), None)
    px = found[0] if forms[0][2] == 1.0 else None
    scale = None
    if px is not None and um is not None and len(px) > 1:
        spread_px, spread_um = (np.linalg.norm(xy - xy.mean(axis=0), axis=1).sum() for xy in (px, um))
        scale = float(spread_um / spread_px) if spread_px > 0 and spread_um > 0 else None
    xy = px if px is not None else um
    assert xy is not None
    return FovPositions(
        fov=as_float(table["fov"].to_numpy(), "fov", path).astype(np.int64),
        xy=xy,
        unit="px" if px is not None else "um",
        um_per_px=scale,
    )


def read_polygons(path: Path, cells: CosmxCells) -> np.ndarray:
    """Outlines of the cells in px of their FOV: float64 [N, V, 2]; NaN where a cell has none.

    Raises
    ------
    InputError
        If the file is damaged, or holds none of the cells.
    """
    import pyarrow as pa
    from pyarrow import csv

    header = [str(name) for name in read_delimited(path, separator=",", nrows=0, encoding="utf-8-sig").columns]
    ids = [name for name in header if name.casefold() == "fov" or name in (*NUMBERS, *NAMES)]
    xy_names = ["x_local_px", "y_local_px"]
    if not set(xy_names) <= set(header):
        raise InputError(
            found=f"columns {', '.join(header)}", where=str(path), expected="fov, cellID, x_local_px, y_local_px"
        )
    rows, xy = [], []
    try:
        with csv.open_csv(
            path,
            read_options=csv.ReadOptions(use_threads=False, block_size=16 * 1024**2),
            convert_options=csv.ConvertOptions(
                include_columns=[*ids, *xy_names], column_types=dict.fromkeys(xy_names, pa.float64())
            ),
        ) as stream:
            for batch in stream:
                columns = {name: batch.column(name).to_numpy(zero_copy_only=False) for name in ids}
                row = cells.key.get_indexer(pd.Index(keys_of(columns, path)))
                keep = row >= 0
                rows.append(row[keep].astype(np.int32))
                xy.append(np.stack([batch.column(name).to_numpy()[keep] for name in xy_names], 1).astype(np.float32))
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        raise damaged(path, "table of polygons", error) from error
    cell_of_row = np.concatenate(rows) if rows else np.empty(0, np.int32)
    if len(cells.obs) and not len(cell_of_row):
        raise InputError(found="outlines of other cells", where=str(path), expected="the polygons of the same slide")
    return outlines_of_rows(cell_of_row.astype(np.int64), np.concatenate(xy).astype(np.float64), len(cells.obs))
