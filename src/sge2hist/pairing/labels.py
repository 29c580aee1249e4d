"""Cell types: from a column or table of the user, Space Ranger's clusters, marker genes, or Leiden clusters."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.data.gene_panel import GenePanel
from sge2hist.data.paired import UNKNOWN
from sge2hist.pairing.config import PrepareConfig

if TYPE_CHECKING:
    import pandas as pd
    from scipy.sparse import csr_array

TYPE_COLUMNS = ("cell_type", "type")
MANY_TYPES = 50  # more than this, and more than half as many as cells, is no column of types
NEIGHBOUR_SIDES = 1.6  # bins within this many sides are neighbours: the eight that touch a bin


@dataclass(frozen=True, kw_only=True)
class Labels:
    """A name for every cell."""

    names: np.ndarray  # object [N]; "unknown" where there is none
    source: str  # for the manifest
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class LabelInputs:
    """What cells are labelled by; N cells."""

    counts_NG: csr_array
    genes: GenePanel
    obs: pd.DataFrame  # index: id that the instrument gave; columns of the reader
    cell_ids: pd.Index  # the same in the dataset: with several slides after the slide's name and a colon
    centre_xy_um: np.ndarray
    slide_of_cell: np.ndarray
    train_rows: np.ndarray
    bin_um: float | None  # side of a bin, None for cells and spots


def label_cells(inputs: LabelInputs, config: PrepareConfig) -> Labels:
    """Label cells by the source that `config.types` names.

    Raises
    ------
    InputError
        If the column, table or marker set does not exist or names no cell.
    """
    source, _, argument = config.types.partition(":")
    if config.types == "none":
        return Labels(names=_all_unknown(inputs), source="none")
    if config.types == "leiden":
        from sge2hist.data.leiden import leiden_types

        names = leiden_types(inputs.counts_NG, inputs.train_rows, resolution=config.resolution, seed=config.seed)
        return Labels(names=names, source=f"leiden, resolution {config.resolution:g}")
    if source == "markers":
        return _by_markers(inputs, argument, config)
    if config.types == "clusters":
        return _by_column(inputs, "cluster", "Space Ranger has written no clusters for this bin size")
    if config.types.lower().endswith((".csv", ".tsv", ".csv.gz", ".tsv.gz")):
        return _by_table(inputs, Path(config.types))
    return _by_column(inputs, argument if source == "column" and argument else config.types, "")


def label_all(inputs: LabelInputs, is_centre: np.ndarray, config: PrepareConfig) -> Labels:
    """Label the centre cells, and by the same source the placed ones (bool `is_centre` [N]).

    Placed cells change no label of a centre cell and add no type. Without counts, expression says nothing of a type: unknown.
    """
    if is_centre.all():
        return label_cells(inputs, config)
    if config.types == "leiden":  # fitted to the training cells; every other cell is assigned by itself
        labels = label_cells(inputs, config)
        empty = ~is_centre & (np.diff(inputs.counts_NG.indptr) == 0)
        return replace(labels, names=np.where(empty, UNKNOWN, labels.names))
    labels = label_cells(_of_cells(inputs, is_centre), config)
    names = _all_unknown(inputs)
    names[is_centre] = labels.names
    try:
        guessed = label_cells(inputs, config).names
    except InputError:  # the source names no placed cell
        return replace(labels, names=names)
    taken = ~is_centre & np.isin(guessed, np.unique(labels.names))
    if config.types.startswith("markers:"):
        taken &= np.diff(inputs.counts_NG.indptr) > 0
    names[taken] = guessed[taken]
    return replace(labels, names=names)


def _of_cells(inputs: LabelInputs, chosen: np.ndarray) -> LabelInputs:
    """The same for some of the cells, bool [N]; all training cells are among them."""
    number = np.cumsum(chosen) - 1
    return replace(
        inputs,
        counts_NG=inputs.counts_NG[np.flatnonzero(chosen)],
        obs=inputs.obs[chosen],
        cell_ids=inputs.cell_ids[chosen],
        centre_xy_um=inputs.centre_xy_um[chosen],
        slide_of_cell=inputs.slide_of_cell[chosen],
        train_rows=number[inputs.train_rows],
    )


def _all_unknown(inputs: LabelInputs) -> np.ndarray:
    return np.full(len(inputs.obs), UNKNOWN, dtype=object)


def _by_markers(inputs: LabelInputs, name: str, config: PrepareConfig) -> Labels:
    from sge2hist.pairing import markers

    columns, warnings = markers.marker_columns(markers.read_markers(name), inputs.genes)
    neighbours = None
    if inputs.bin_um is not None:
        radius_um = NEIGHBOUR_SIDES * inputs.bin_um
        neighbours = markers.neighbour_weights(inputs.centre_xy_um, inputs.slide_of_cell, radius_um)
    names = markers.marker_types(
        inputs.counts_NG, columns, inputs.train_rows, margin=config.marker_margin, neighbours=neighbours
    )
    return Labels(names=names, source=f"markers {Path(name).name}", warnings=warnings)


def _by_column(inputs: LabelInputs, column: str, reason: str) -> Labels:
    if column not in inputs.obs.columns:
        columns = ", ".join(str(name) for name in inputs.obs.columns) or "no column"
        raise InputError(
            found=f"no column {column!r} among those of the cells ({columns})",
            where="--types",
            expected=reason or "a column, a csv file, leiden, clusters, markers:NAME or none",
            repair="--types leiden",
        )
    return Labels(names=_clean(inputs.obs[column].to_numpy(dtype=object)), source=f"column {column}")


def _by_table(inputs: LabelInputs, path: Path) -> Labels:
    import pandas as pd

    try:
        table = pd.read_csv(path, sep="\t" if ".tsv" in path.name else ",", dtype=str)
        if len(table.columns) == 1 and ";" in str(table.columns[0]):  # as spreadsheets write it in much of Europe
            table = pd.read_csv(path, sep=";", dtype=str)
    except (OSError, ValueError, UnicodeDecodeError) as error:
        raise InputError(
            found=f"a table that cannot be read ({error})", where=str(path), expected="a csv: cell id, type"
        ) from error
    column = _type_column(list(table.columns), path)
    repeated = table.iloc[:, 0][table.iloc[:, 0].duplicated()]
    if len(repeated):
        raise InputError(
            found=f"a cell id listed twice ({repeated.iloc[0]!r})", where=str(path), expected="each id once"
        )
    listed = pd.Series(table[column].to_numpy(), index=table.iloc[:, 0])
    names = listed.reindex(inputs.cell_ids)
    if not names.index.isin(listed.index).any():
        names = listed.reindex(inputs.obs.index)
        if len(listed) and not names.index.isin(listed.index).any():
            raise InputError(
                found=f"no id in common: {table.iloc[0, 0]!r} against {inputs.cell_ids[0]!r}",
                where=str(path),
                expected="ids as the instrument wrote them, with several slides SLIDE:id",
            )
        if inputs.obs.index.has_duplicates:
            raise InputError(
                found=f"ids that several slides have (e.g. {inputs.obs.index[inputs.obs.index.duplicated()][0]!r})",
                where=str(path),
                expected=f"ids with the slide's name, as {inputs.cell_ids[0]!r}",
            )
    n_found = int(names.notna().sum())
    warnings = [] if n_found == len(names) else [f"{len(names) - n_found:,} cells have no type in {path.name}"]
    return Labels(names=_clean(names.to_numpy(dtype=object)), source=f"table {path.name}", warnings=warnings)


def _type_column(columns: list[str], path: Path) -> str:
    """The column of types: the second of two, else the one that has such a name."""
    if len(columns) < 2:
        raise InputError(found="one column", where=str(path), expected="two: cell id, type (under a header)")
    named = [name for name in columns[1:] if str(name).strip().casefold() in TYPE_COLUMNS]
    if len(columns) == 2 or len(named) == 1:
        return named[0] if named else columns[1]
    raise InputError(
        found=f"{len(columns)} columns ({', '.join(map(str, columns))})",
        where=str(path),
        expected=f"two: cell id, type; or one column named {' or '.join(TYPE_COLUMNS)}",
    )


def _clean(values: np.ndarray) -> np.ndarray:
    """Missing values and empty text become "unknown"."""
    import pandas as pd

    text = np.array(
        [UNKNOWN if missing else str(v).strip() for v, missing in zip(values, pd.isna(values), strict=True)]
    )
    text = text.astype(object)
    text[(text == "") | (text == "nan")] = UNKNOWN
    named = text[text != UNKNOWN]
    if len(named) == 0:
        raise InputError(found="no type at all, only empty values", where="--types", repair="--types leiden")
    if (n_types := len(set(named))) > max(MANY_TYPES, len(named) // 2):
        raise InputError(
            found=f"{n_types:,} types of {len(named):,} cells, e.g. {named[0]!r}",
            where="--types",
            expected="types that many cells share",
            repair="name the column of types",
        )
    return text
