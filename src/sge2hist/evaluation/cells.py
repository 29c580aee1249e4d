"""Choose the evaluated cells and the real patches that they are compared with, and pair images with cells.

All sets are evaluated on the same cells, those that every set shows. The comparison set comes from other places
(`sge2hist.evaluation.comparison`).

Shape letters: N evaluated cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.data.paired import PairedDataset
from sge2hist.evaluation.comparison import Comparison, choose_comparison
from sge2hist.evaluation.config import EvaluateConfig
from sge2hist.evaluation.images import ImageSet

MIN_CELLS = 20


@dataclass(frozen=True, kw_only=True)
class Cells:
    """The cells of one evaluation, all as rows of the paired dataset.

    Attributes:
        rows_N: evaluated cells, ascending.
        comparison: real patches from other places, matched to the evaluated cells.
        train_rows, val_rows: cells on which the reference models are fitted and tuned.
        shuffle_N: for each cell, the position of another one (a derangement).
        images: set name -> one int64 [N] per sample, the image of each cell.
        type_N: type index of each evaluated cell (for images without own cell: the requested type), -1 = unknown.
        own_cells: whether images claim to show these very cells (False: only cells of the same type).
        notes: remarks for the reader of the report.
    """

    rows_N: np.ndarray
    comparison: Comparison
    train_rows: np.ndarray
    val_rows: np.ndarray
    shuffle_N: np.ndarray
    images: dict[str, list[np.ndarray]]
    type_N: np.ndarray
    own_cells: bool
    notes: list[str]


def choose_cells(
    sets: list[ImageSet], data: PairedDataset, config: EvaluateConfig, patch_um: float, rng: np.random.Generator
) -> Cells:
    """Return the cells of an evaluation.

    Raises
    ------
    InputError
        When the sets share fewer than 20 cells, or sets with and without cells are mixed.
    """
    notes: list[str] = []
    own_cells = all(images.names_cells for images in sets)
    if own_cells:
        rows = shared_rows(sets, config.max_cells, rng, notes)
        images = {images.name: images_of_rows(images, rows, config.max_samples) for images in sets}
        types = data.type_of_cell[rows]
    else:
        if len(sets) > 1:
            raise InputError(
                found="several sets, of which some name no cell for each image",
                where=", ".join(images.name for images in sets if not images.names_cells),
                expected="sets made for the same cells, or a single set",
                repair="evaluate the sets made from cell types one by one",
            )
        rows, indices, types = rows_of_same_type(sets[0], data, config, rng, notes)
        images = {sets[0].name: [indices]}
    note_split(rows, data, config.split, notes)
    # The same for any sets and number of cells, so that their stored features serve again.
    of_reference = np.random.default_rng([config.seed, 4])
    return Cells(
        rows_N=rows,
        comparison=choose_comparison(rows, data, patch_um, config.block_um or 2 * patch_um, rng),
        train_rows=subsample(data.rows("train"), config.max_train, of_reference),
        val_rows=subsample(data.rows("val"), config.max_val, of_reference),
        shuffle_N=derangement(len(rows), rng),
        images=images,
        type_N=types,
        own_cells=own_cells,
        notes=notes,
    )


def subsample(rows: np.ndarray, limit: int, rng: np.random.Generator) -> np.ndarray:
    """Return at most `limit` of the rows, sampled at random, ascending."""
    return rows if len(rows) <= limit else np.sort(rng.choice(rows, limit, replace=False))


def derangement(n: int, rng: np.random.Generator) -> np.ndarray:
    """Return a permutation that leaves nothing in place: a random cycle through all."""
    order = rng.permutation(n)
    result = np.empty(n, np.int64)
    result[order] = np.roll(order, -1)
    return result


def shared_rows(sets: list[ImageSet], limit: int, rng: np.random.Generator, notes: list[str]) -> np.ndarray:
    """Return the cells that every set shows, at most `limit`; notes how many are excluded."""
    shared = set(sets[0].row_M.tolist())
    for images in sets[1:]:
        shared &= set(images.row_M.tolist())
    rows = np.array(sorted(shared), np.int64)
    if len(rows) < MIN_CELLS:
        raise InputError(
            found=f"{len(rows)} cells in common",
            where=", ".join(images.name for images in sets),
            expected=f"at least {MIN_CELLS}",
            repair="generate the sets from the same cells (same --split, -n and seed)",
        )
    largest = max(len(np.unique(images.row_M)) for images in sets)
    if len(rows) < largest:
        notes.append(f"{len(rows)} cells are shown by every set; the largest set shows {largest}.")
    if len(rows) > limit:
        notes.append(f"{limit} of {len(rows)} cells were sampled at random.")
    return subsample(rows, limit, rng)


def images_of_rows(images: ImageSet, rows: np.ndarray, max_samples: int) -> list[np.ndarray]:
    """Return, for each sample that covers every row (at most `max_samples`, lowest number first), the image of each
    row.
    """
    found = []
    for sample in np.unique(images.sample_M):
        of_sample = np.flatnonzero(images.sample_M == sample)
        order = of_sample[np.argsort(images.row_M[of_sample], kind="stable")]
        position = np.searchsorted(images.row_M[order], rows)
        inside = position < len(order)
        if inside.all() and np.array_equal(images.row_M[order[position]], rows):
            found.append(order[position])
        if len(found) == max_samples:
            break
    if not found:
        raise InputError(
            found="no sample number that is there for every cell",
            where=images.name,
            expected="a column `sample` that starts at 0 for each cell",
            repair="omit the column: repeats are then numbered",
        )
    return found


def rows_of_same_type(
    images: ImageSet, data: PairedDataset, config: EvaluateConfig, rng: np.random.Generator, notes: list[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return real cells of the same types as images that name no cell, the images that have one, and their types."""
    pool = data.rows(config.split)
    code = {name: number for number, name in enumerate(data.types)}
    wanted = np.array([code.get(name, -1) for name in images.type_M])
    if (wanted < 0).any():
        names = ", ".join(sorted({str(name) or "none" for name in images.type_M[wanted < 0]})[:5])
        notes.append(f"{int((wanted < 0).sum())} images name no type of this dataset ({names}): any real cell is used.")
    rows, indices = [], []
    for type_index in np.unique(wanted):
        candidates = pool if type_index < 0 else pool[data.type_of_cell[pool] == type_index]
        mine = rng.permutation(np.flatnonzero(wanted == type_index))
        count = min(len(candidates), len(mine), config.max_cells)
        rows.append(rng.choice(candidates, count, replace=False))
        indices.append(mine[:count])
    notes.append(
        "Images name no cell: each is paired with a random real cell of its type, "
        "and metrics that need the own cell are omitted."
    )
    order = np.argsort(np.concatenate(rows), kind="stable")
    if len(order) < MIN_CELLS:
        raise InputError(
            found=f"{len(order)} images with a real cell of their type",
            where=images.name,
            expected=f"at least {MIN_CELLS}",
        )
    found = np.concatenate(indices)[order]
    return np.concatenate(rows)[order], found, wanted[found]


def note_split(rows: np.ndarray, data: PairedDataset, split: str, notes: list[str]) -> None:
    """Note how many evaluated cells lie outside the split: scores on training cells are no evidence."""
    if split != "all":
        outside = int((~np.isin(rows, data.rows(split))).sum())
        if outside:
            notes.append(f"Warning: {outside} of {len(rows)} evaluated cells are not in split '{split}'.")
