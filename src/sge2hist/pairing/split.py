"""Train, val and test from spatial blocks, with a gap so that no patch of one split overlaps a patch of another."""

from __future__ import annotations

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.data.paired import DROPPED, SPLITS


def split_cells(
    centre_xy_um: np.ndarray,
    slide_of_cell: np.ndarray,
    *,
    block_um: float,
    gap_um: float,
    fractions: tuple[float, float, float],
    seed: int,
    test_slides: tuple[int, ...] = (),
) -> np.ndarray:
    """Assign every cell to "train", "val", "test" or "dropped" (object array [N]).

    Blocks, in random order, are assigned to the split that lacks the largest share of its cells. Then train cells closer
    than `gap_um` (``max(|dx|, |dy|)``) to a val or test cell are dropped, and val cells that close to a test cell.

    Parameters
    ----------
    centre_xy_um
        float64 [N, 2], on each slide.
    slide_of_cell
        int [N]; cells of different slides have no distance.
    test_slides
        Whole slides that become the test set; the blocks of the others are shared by train and val.

    Raises
    ------
    InputError
        If a split with a share above 0 ends up empty.
    """
    shares = np.array(fractions, np.float64)
    held_out = np.isin(slide_of_cell, test_slides)
    label = np.full(len(centre_xy_um), 2, np.int64)
    if len(test_slides):
        shares[2] = 0
        shares /= max(shares.sum(), 1e-12)
    block = np.floor(centre_xy_um / block_um).astype(np.int64)
    _, block_of_cell = np.unique(np.column_stack([slide_of_cell, block])[~held_out], axis=0, return_inverse=True)
    label[~held_out] = _share_blocks(block_of_cell.reshape(-1), shares, np.random.default_rng(seed))
    label = _cut_gap(label, centre_xy_um, slide_of_cell, gap_um)
    names = np.array([*SPLITS, DROPPED], dtype=object)[label]
    requested = [name for name, share in zip(SPLITS, fractions, strict=True) if share > 0]
    empty = [name for name in requested if not (names == name).any()]
    if empty:
        raise InputError(
            found=f"no cell in split {', '.join(empty)} (blocks of {block_um:g} um, gap {gap_um:g} um)",
            expected="cells in every split with a share above 0",
            repair="a smaller --split-block-um or --patch-um, other --fractions (0 for a split that is not needed), "
            "or another --seed",
        )
    return names


def split_placed(
    split: np.ndarray, is_centre: np.ndarray, centre_xy_um: np.ndarray, slide_of_cell: np.ndarray, gap_um: float
) -> np.ndarray:
    """Split of all cells, object [N], from that of the centre cells (`split`, object [n of them], in their order).

    A placed cell belongs to train where the nearest centre cell of its slide does and no cell of val or test lies closer than
    `gap_um`: it is a neighbour of training cells. All others are dropped: nobody evaluates them.
    """
    from scipy.spatial import cKDTree

    out = np.full(len(is_centre), DROPPED, dtype=object)
    out[is_centre] = split
    for slide in np.unique(slide_of_cell[~is_centre]):
        mine = np.flatnonzero(~is_centre & (slide_of_cell == slide))
        centres = np.flatnonzero(is_centre & (slide_of_cell == slide))
        if len(centres):
            _, nearest = cKDTree(centre_xy_um[centres]).query(centre_xy_um[mine], k=1)
            out[mine[out[centres[nearest]] == SPLITS[0]]] = SPLITS[0]
    held_out, placed_train = np.isin(out, SPLITS[1:]), ~is_centre & (out == SPLITS[0])
    out[_close(centre_xy_um, slide_of_cell, placed_train, held_out, gap_um)] = DROPPED
    return out


def _share_blocks(block_of_cell: np.ndarray, shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Split index 0, 1, 2 of each cell: each of the shuffled blocks goes to the split that lacks most."""
    size = np.bincount(block_of_cell)
    split_of_block = np.zeros(len(size), np.int64)
    filled = np.zeros(3)
    for block in rng.permutation(len(size)):
        with np.errstate(divide="ignore", invalid="ignore"):
            lack = np.where(shares > 0, 1 - (filled + size[block] / 2) / (shares * size.sum()), -np.inf)
        chosen = int(np.argmax(lack))
        split_of_block[block] = chosen
        filled[chosen] += size[block]
    return split_of_block[block_of_cell]


def _cut_gap(label: np.ndarray, centre_xy_um: np.ndarray, slide_of_cell: np.ndarray, gap_um: float) -> np.ndarray:
    label = label.copy()
    for kept, cut in ((2, 1), (2, 0), (1, 0)):
        close = _close(centre_xy_um, slide_of_cell, label == cut, label == kept, gap_um)
        label[close] = 3
    for a, b in ((0, 1), (0, 2), (1, 2)):
        if len(_close(centre_xy_um, slide_of_cell, label == a, label == b, gap_um)):
            raise AssertionError("patches of two splits overlap")
    return label


def _close(
    centre_xy_um: np.ndarray, slide_of_cell: np.ndarray, cells: np.ndarray, others: np.ndarray, gap_um: float
) -> np.ndarray:
    """Indices among `cells` (bool [N]) closer than `gap_um` in the maximum norm to one of `others` on the same slide."""
    from scipy.spatial import cKDTree

    close = []
    for slide in np.unique(slide_of_cell[cells]):
        mine = np.flatnonzero(cells & (slide_of_cell == slide))
        theirs = np.flatnonzero(others & (slide_of_cell == slide))
        if len(theirs):
            tree = cKDTree(centre_xy_um[theirs])
            distance, _ = tree.query(centre_xy_um[mine], k=1, p=np.inf, distance_upper_bound=gap_um)
            close.append(mine[distance < gap_um])
    return np.concatenate(close) if close else np.empty(0, np.int64)
