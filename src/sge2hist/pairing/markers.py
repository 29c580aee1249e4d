"""Cell types from marker genes that the user names: a csv of ``type,gene`` rows."""

from __future__ import annotations

import csv
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.data.expression_space import TARGET_COUNTS
from sge2hist.data.gene_panel import GenePanel
from sge2hist.data.paired import UNKNOWN
from sge2hist.pairing.quality import counts_per_cell

if TYPE_CHECKING:
    from scipy.sparse import csr_array

MIN_TRAIN_CELLS = 20  # that marker scores are standardised over, as for clusters
MIN_SCORE = 0.5  # standard deviations above the mean over training cells
NEIGHBOUR_WEIGHT = 0.5  # of a neighbour's counts when smoothing, against 1 for the cell's own


def shipped_sets() -> list[str]:
    """Names of the marker sets that come with the package."""
    folder = resources.files("sge2hist.pairing") / "marker_sets"
    return sorted(file.name.removesuffix(".csv") for file in folder.iterdir() if file.name.endswith(".csv"))


def read_markers(name: str) -> dict[str, list[str]]:
    """Markers by type, from a csv with columns ``type,gene`` or the name of a set that is shipped ("kidney").

    Raises
    ------
    InputError
        If there is no such set or file, or it has no such columns or no row.
    """
    if name in shipped_sets():
        text = (resources.files("sge2hist.pairing") / "marker_sets" / f"{name}.csv").read_text(encoding="utf-8")
    else:
        try:
            text = Path(name).read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                found=f"no marker set or file {name!r} ({error})",
                expected=f"one of {', '.join(shipped_sets())}, or a csv with columns type,gene",
            ) from error
    markers: dict[str, list[str]] = {}
    for row in csv.DictReader(text.splitlines()):
        cell_type, gene = (row.get("type") or "").strip(), (row.get("gene") or "").strip()
        if cell_type and gene and gene not in markers.setdefault(cell_type, []):
            markers[cell_type].append(gene)
    if not any(markers.values()):
        raise InputError(found="no row with a type and a gene", where=name, expected="a csv with columns type,gene")
    if UNKNOWN in markers:
        raise InputError(found=f"a type named '{UNKNOWN}'", where=name, expected="another name: it means no type")
    return markers


def marker_columns(markers: dict[str, list[str]], genes: GenePanel) -> tuple[dict[str, np.ndarray], list[str]]:
    """Columns of each type's markers, and warnings about markers that the data lack.

    Raises
    ------
    InputError
        If no type has a marker in the data.
    """
    by_name = {
        name: column for names in (genes.symbols, genes.ids) for column, name in reversed(list(enumerate(names)))
    }
    found = {name: [by_name[g] for g in listed if g in by_name] for name, listed in markers.items()}
    warnings = [f"type '{name}' excluded: none of its markers is in the data" for name, c in found.items() if not c]
    missing = [gene for listed in markers.values() for gene in listed if gene not in by_name]
    if missing:
        warnings.append(f"{len(missing)} markers not in the data: {', '.join(missing[:8])}")
    columns = {name: np.array(listed, np.int64) for name, listed in found.items() if listed}
    if not columns:
        raise InputError(found=f"none of the markers ({', '.join(missing[:5])}) in the data", expected="gene symbols")
    return columns, warnings


def marker_types(
    counts_NG: csr_array,
    columns: dict[str, np.ndarray],
    train_rows: np.ndarray,
    *,
    margin: float,
    neighbours: csr_array | None = None,
) -> np.ndarray:
    """Name every cell after the type with the highest marker score, or "unknown": object array [N].

    Score of a type: mean over its markers of ``log1p(counts / library x 10,000)``, each standardised over the
    training cells; the sum is standardised as well. The best type must score 0.5 and lead the next by `margin`.

    Parameters
    ----------
    neighbours
        Weights [N, N] with a unit diagonal (see `neighbour_weights`); counts and library are summed with them, which
        reduces the noise of small bins.

    Raises
    ------
    InputError
        If there are fewer than 20 training cells: a score is only high in comparison with theirs.
    """
    if len(train_rows) < MIN_TRAIN_CELLS:
        raise InputError(
            found=f"{len(train_rows)} training cells, over which scores of marker genes are standardised",
            where="--types markers",
            expected=f"at least {MIN_TRAIN_CELLS}",
            repair="a larger first number of --fractions, or --types none, or a table of types",
        )
    library = counts_per_cell(counts_NG).astype(np.float64)
    all_columns = np.concatenate(list(columns.values()))
    counts = counts_NG[:, all_columns].toarray().astype(np.float64)
    if neighbours is not None:
        counts, library = neighbours @ counts, neighbours @ library
    logged = np.log1p(counts / np.maximum(library, 1)[:, None] * TARGET_COUNTS)
    standard = _standardise(logged, train_rows)
    scores, first = np.empty((len(logged), len(columns))), 0
    for position, listed in enumerate(columns.values()):
        scores[:, position] = standard[:, first : first + len(listed)].mean(axis=1)
        first += len(listed)
    scores = _standardise(scores, train_rows)
    best = scores.argmax(axis=1)
    ordered = np.sort(scores, axis=1)
    lead = ordered[:, -1] - (ordered[:, -2] if scores.shape[1] > 1 else 0)
    names = np.array(list(columns), dtype=object)[best]
    names[(ordered[:, -1] < MIN_SCORE) | (lead < margin)] = UNKNOWN
    return names


def neighbour_weights(centre_xy_um: np.ndarray, slide_of_cell: np.ndarray, radius_um: float) -> csr_array:
    """Weight 1 for the cell itself, 0.5 for cells of the same slide within `radius_um`: CSR [N, N]."""
    from scipy.sparse import csr_array
    from scipy.spatial import cKDTree

    n = len(centre_xy_um)
    row, column = [np.arange(n)], [np.arange(n)]
    for slide in np.unique(slide_of_cell):
        cells = np.flatnonzero(slide_of_cell == slide)
        pairs = cells[cKDTree(centre_xy_um[cells]).query_pairs(radius_um, output_type="ndarray")]
        row += [pairs[:, 0], pairs[:, 1]]
        column += [pairs[:, 1], pairs[:, 0]]
    rows, columns = np.concatenate(row), np.concatenate(column)
    weights = np.full(len(rows), NEIGHBOUR_WEIGHT, np.float32)
    weights[:n] = 1
    return csr_array((weights, (rows, columns)), shape=(n, n))


def _standardise(values: np.ndarray, train_rows: np.ndarray) -> np.ndarray:
    mean, std = values[train_rows].mean(axis=0), values[train_rows].std(axis=0)
    return (values - mean) / np.where(std > 0, std, 1)
