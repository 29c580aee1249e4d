"""The comparison set: real patches from other places of the tissue, matched one to one to the evaluated cells.

Realism asks whether generated patches could be real patches of such tissue. They are therefore compared with real
patches B that nobody generated: each has the cell type of one evaluated cell and, among the free ones, the most similar
neighbourhood. Three distances from B then differ in the images alone: that of the generated patches, that of the evaluated
cells' own real patches (the floor), and that of the shuffled ones. Real patches in place of generated ones give the floor
itself, whatever the tissue and the number of cells.

A patch of B shares no pixel with an evaluated one and lies in another spatial block. It may come from any split.

Shape letters: N evaluated cells, K of them matched, M candidates, T types and "unknown".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree

from sge2hist.data.paired import DROPPED, SPLITS, PairedDataset
from sge2hist.evaluation.resampling import MIN_BLOCKS, spatial_blocks

MIN_MATCHED = 0.8  # share of the evaluated cells
MIN_PATCHES = 100  # fewer give no verdict
MAX_GAP = 0.35  # of the neighbourhoods, median over the pairs
CANDIDATES_PER_CELL = 30
MIN_CANDIDATES = 500
N_NEAREST_CANDIDATES = 64  # candidates that a cell is offered in one round
MAX_BLOCK_SHARE = 2.0  # a block gives at most this many times its even share, where there are others


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Real patches from other places, matched to evaluated cells.

    Attributes:
        matched_K: positions among the evaluated cells, ascending.
        rows_K: the patch opposite each, as a row of the paired dataset.
        n_cells: number N of evaluated cells.
        splits: split -> number of patches from it.
        n_blocks: number of spatial blocks that they come from.
        gap: median difference of the neighbourhoods of a pair, 0 (equal) to 1; nan without pairs.
        problem: why these patches do not show how real images are; "" when they do.
    """

    matched_K: np.ndarray
    rows_K: np.ndarray
    n_cells: int
    splits: dict[str, int]
    n_blocks: int
    gap: float
    problem: str

    def describe(self) -> str:
        """Return one sentence: how many, from where, how similar."""
        if len(self.rows_K) == 0:
            return "no other real patches"
        where = ", ".join(f"{count:,} from {name}" for name, count in self.splits.items())
        return (
            f"{len(self.rows_K):,} real patches from {self.n_blocks:,} other spatial blocks ({where}), matched to "
            f"{len(self.rows_K):,} of {self.n_cells:,} evaluated cells by type and neighbourhood "
            f"(median difference {100 * self.gap:.0f} %); no pixel in common"
        )


def choose_comparison(
    rows_N: np.ndarray, data: PairedDataset, patch_um: float, block_um: float, rng: np.random.Generator
) -> Comparison:
    """Match a real patch from another place to every evaluated cell that has one of its type.

    Parameters
    ----------
    rows_N
        Evaluated cells, as rows of the dataset.
    patch_um, block_um
        Side of a patch and of a spatial block, um.
    """
    block_of_row = spatial_blocks(data.centre_xy_px * data.um_per_px, data.slide_of_cell, block_um)
    elsewhere = ~np.isin(block_of_row, block_of_row[rows_N])
    candidates = np.flatnonzero(elsewhere & data.is_centre)
    candidates = candidates[~overlaps(candidates, rows_N, data, patch_um)]
    partner_N = np.full(len(rows_N), -1, np.int64)
    gap_N = np.full(len(rows_N), np.nan)
    if len(candidates):
        chosen = sample_candidates(candidates, rows_N, data, rng)
        composition = patch_compositions(np.concatenate([rows_N, chosen]), data, patch_um)
        target_NT, offered_MT = composition[: len(rows_N)], composition[len(rows_N) :]
        matching = Matching(
            target_NT=target_NT,
            offered_MT=offered_MT,
            block_M=block_of_row[chosen],
            limit=int(np.ceil(MAX_BLOCK_SHARE * len(rows_N) / len(np.unique(block_of_row[chosen])))),
        )
        for cells, offers in same_type_groups(rows_N, chosen, data):
            matching.add(cells, offers)
        found = matching.partner_N >= 0
        partner_N[found] = chosen[matching.partner_N[found]]
        gap_N[found] = difference(target_NT[found], offered_MT[matching.partner_N[found]])
    matched = np.flatnonzero(partner_N >= 0)
    partners = partner_N[matched]
    n_blocks = len(np.unique(block_of_row[partners]))
    gap = float(np.median(gap_N[matched])) if len(matched) else float("nan")
    return Comparison(
        matched_K=matched,
        rows_K=partners,
        n_cells=len(rows_N),
        splits=count_splits(partners, data),
        n_blocks=n_blocks,
        gap=gap,
        problem=problem_of(rows_N, matched, partners, n_blocks, gap, data),
    )


def overlaps(candidates: np.ndarray, rows: np.ndarray, data: PairedDataset, patch_um: float) -> np.ndarray:
    """Return bool: whether a candidate's patch shares pixels with the patch of any of the rows (squares on the same
    slide).
    """
    side_px = patch_um / data.um_per_px
    result = np.zeros(len(candidates), bool)
    for slide in np.unique(data.slide_of_cell[candidates]):
        on_slide = data.slide_of_cell[candidates] == slide
        rows_of_slide = rows[data.slide_of_cell[rows] == slide]
        if len(rows_of_slide):
            tree = KDTree(data.centre_xy_px[rows_of_slide])
            distance, _ = tree.query(data.centre_xy_px[candidates[on_slide]], p=np.inf)
            result[on_slide] = distance < side_px
    return result


def sample_candidates(
    candidates: np.ndarray, rows_N: np.ndarray, data: PairedDataset, rng: np.random.Generator
) -> np.ndarray:
    """Return candidates of the types of the evaluated cells, at random.

    Of each type at most 30 for each evaluated cell, or 500 if that is more.
    """
    chosen = []
    types, counts = np.unique(data.type_of_cell[rows_N], return_counts=True)
    for type_index, count in zip(types, counts, strict=True):
        same = candidates[data.type_of_cell[candidates] == type_index]
        limit = max(MIN_CANDIDATES, CANDIDATES_PER_CELL * int(count))
        chosen.append(same if len(same) <= limit else rng.choice(same, limit, replace=False))
    return np.sort(np.concatenate(chosen))


def patch_compositions(rows: np.ndarray, data: PairedDataset, patch_um: float) -> np.ndarray:
    """Return float64 [len(rows), T + 2]: shares of the types, of unknown cells, and of empty space in the patch.

    A patch is full when it holds as many cells as the 95th percentile of these patches.
    """
    half_px = patch_um / data.um_per_px / 2
    counts = np.zeros((len(rows), len(data.types) + 1))
    for slide in np.unique(data.slide_of_cell[rows]):
        on_slide = np.flatnonzero(data.slide_of_cell[rows] == slide)
        centres = data.centre_xy_px[rows[on_slide]]
        for type_index in range(-1, len(data.types)):
            cells = data.centre_xy_px[(data.slide_of_cell == slide) & (data.type_of_cell == type_index)]
            if len(cells):
                counts[on_slide, type_index] = KDTree(cells).query_ball_point(
                    centres, half_px, p=np.inf, return_length=True
                )
    total = counts.sum(axis=1, keepdims=True)  # at least the cell itself
    full = max(float(np.percentile(total, 95)), 1.0)
    shares = counts / np.maximum(total, full)
    return np.column_stack([shares, 1 - shares.sum(axis=1)])


def difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the total variation of pairs of compositions, 0 to 1."""
    return np.abs(a - b).sum(axis=1) / 2


def same_type_groups(
    rows_N: np.ndarray, chosen: np.ndarray, data: PairedDataset
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield positions of evaluated cells and of candidates of one type, first within each slide, then over slides."""
    slide_N, slide_M = data.slide_of_cell[rows_N], data.slide_of_cell[chosen]
    type_N, type_M = data.type_of_cell[rows_N], data.type_of_cell[chosen]
    slides = np.unique(slide_N)
    for slide in slides:
        for type_index in np.unique(type_N[slide_N == slide]):
            yield (
                np.flatnonzero((type_N == type_index) & (slide_N == slide)),
                np.flatnonzero((type_M == type_index) & (slide_M == slide)),
            )
    if len(data.slide_ids) > 1:
        for type_index in np.unique(type_N):
            yield np.flatnonzero(type_N == type_index), np.flatnonzero(type_M == type_index)


class Matching:
    """A greedy assignment without replacement, the most similar pair first, spread over spatial blocks.

    Attributes:
        partner_N: number of the candidate given to each cell, -1 = none.
    """

    def __init__(self, *, target_NT: np.ndarray, offered_MT: np.ndarray, block_M: np.ndarray, limit: int) -> None:
        self.target_NT, self.offered_MT, self.block_M = target_NT, offered_MT, block_M
        self.limit = max(limit, 1)
        self.partner_N = np.full(len(target_NT), -1, np.int64)
        self.is_free_M = np.ones(len(offered_MT), bool)
        self.used = dict.fromkeys(np.unique(block_M).tolist(), 0)

    def add(self, cells: np.ndarray, offers: np.ndarray) -> None:
        """Match cells that have no partner yet with free candidates, as far as there are any."""
        limit = self.limit
        while True:
            waiting = cells[self.partner_N[cells] < 0]
            free = offers[self.is_free_M[offers]]
            if len(waiting) == 0 or len(free) == 0:
                return
            used = np.array([self.used[block] for block in self.block_M[free].tolist()])
            open_offers = free[used < limit]
            if len(open_offers) == 0:
                limit *= 2
                continue
            self.match_nearest(waiting, open_offers, limit)

    def match_nearest(self, waiting: np.ndarray, offers: np.ndarray, limit: int) -> None:
        """Give every cell the choice of its nearest candidates; at least one pair is made."""
        k = min(N_NEAREST_CANDIDATES, len(offers))
        distance, near = KDTree(self.offered_MT[offers]).query(self.target_NT[waiting], k=k, p=1)
        distance, near = (np.asarray(found).reshape(len(waiting), k) for found in (distance, near))
        order = np.argsort(distance, axis=None, kind="stable")
        for flat in order.tolist():
            cell, offer = waiting[flat // k], offers[near[flat // k, flat % k]]
            block = int(self.block_M[offer])
            if self.partner_N[cell] < 0 and self.is_free_M[offer] and self.used[block] < limit:
                self.partner_N[cell] = offer
                self.is_free_M[offer] = False
                self.used[block] += 1


def count_splits(rows: np.ndarray, data: PairedDataset) -> dict[str, int]:
    """Return how many of the rows belong to each split."""
    split = data.obs["split"].astype(str).to_numpy()[rows]
    counts = {f"split '{name}'": int((split == name).sum()) for name in SPLITS}
    counts["no split"] = int((split == DROPPED).sum())
    return {name: count for name, count in counts.items() if count}


def problem_of(
    rows_N: np.ndarray, matched: np.ndarray, partners: np.ndarray, n_blocks: int, gap: float, data: PairedDataset
) -> str:
    """Return why these patches cannot stand for the tissue of the evaluated cells, or ""."""
    if len(matched) < MIN_MATCHED * len(rows_N):
        return (
            f"only {len(matched):,} of {len(rows_N):,} evaluated cells have a real patch of their type elsewhere, "
            "so the comparison patches come from other tissue"
        )
    if len(matched) < MIN_PATCHES:
        return f"{len(matched):,} cells are too few, at least {MIN_PATCHES} are needed"
    if (data.type_of_cell[rows_N] >= 0).mean() < 0.5:
        return (
            "most evaluated cells have no cell type to match them by, so the comparison patches may show other tissue"
        )
    if n_blocks < MIN_BLOCKS:
        return f"the comparison patches come from {n_blocks} places only, at least {MIN_BLOCKS} are needed"
    other_slide = float((data.slide_of_cell[rows_N[matched]] != data.slide_of_cell[partners]).mean())
    if other_slide > 0.5:
        return f"{100 * other_slide:.0f} % of the comparison patches come from other slides"
    if gap > MAX_GAP:
        return (
            f"the neighbourhoods of evaluated and comparison patches differ by {100 * gap:.0f} % (median), "
            "so the comparison patches come from other tissue"
        )
    return ""
