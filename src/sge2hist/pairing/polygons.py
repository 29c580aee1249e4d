"""Outlines of cells as ragged arrays: which positions lie inside, and the pixels they cover.

Positions are x, y in px of the slide, pixel (0, 0) covering ``[0, 1) x [0, 1)``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.pairing.label_runs import LabelRuns, join_runs

_TESTS_AT_ONCE = 4_000_000  # (position, edge) pairs tested together: bounds the memory of `cell_at`


@dataclass(frozen=True, kw_only=True)
class Outlines:
    """Closed rings, one or more for each cell (several outer rings, or holes, follow the even-odd rule).

    Attributes
    ----------
    vertex_xy_px
        float64 [V, 2], rings one after the other; the last vertex of a ring may repeat the first.
    ring_start
        int64 [R + 1], first vertex of each ring, and V.
    cell_of_ring
        int64 [R], not decreasing.
    cell_ids
        Name of each cell, unique.
    classes
        Class of each cell ("" = none), or None when no file named any.
    """

    vertex_xy_px: np.ndarray
    ring_start: np.ndarray
    cell_of_ring: np.ndarray
    cell_ids: list[str]
    classes: list[str] | None = None

    def __len__(self) -> int:
        return len(self.cell_ids)

    def bounds_px(self) -> np.ndarray:
        """Bounding box of each cell: float64 [n, 4] = left, top, right, bottom."""
        low = np.minimum.reduceat(self.vertex_xy_px, self.ring_start[:-1])
        high = np.maximum.reduceat(self.vertex_xy_px, self.ring_start[:-1])
        bounds = np.concatenate([np.full((len(self), 2), np.inf), np.full((len(self), 2), -np.inf)], 1)
        np.minimum.at(bounds, (self.cell_of_ring[:, None], [0, 1]), low)
        np.maximum.at(bounds, (self.cell_of_ring[:, None], [2, 3]), high)
        return bounds

    def edges(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """From [E, 2], to [E, 2] and cell [E] of every edge, closing edges included."""
        following = np.arange(1, len(self.vertex_xy_px) + 1)
        following[self.ring_start[1:] - 1] = self.ring_start[:-1]
        n_vertices = np.diff(self.ring_start)
        return self.vertex_xy_px, self.vertex_xy_px[following], np.repeat(self.cell_of_ring, n_vertices)

    def area_and_centroid(self) -> tuple[np.ndarray, np.ndarray]:
        """Area in px^2 [n] and centre of mass x, y in px [n, 2] (shoelace; rings as written: holes run the other way)."""
        here, there, cell = self.edges()
        origin = np.zeros((len(self), 2))
        origin[self.cell_of_ring[::-1]] = self.vertex_xy_px[self.ring_start[:-1]][::-1]  # near the cell: exact sums
        here, there = here - origin[cell], there - origin[cell]
        cross = here[:, 0] * there[:, 1] - there[:, 0] * here[:, 1]
        twice = np.bincount(cell, cross, len(self))
        moment = np.stack([np.bincount(cell, cross * (here + there)[:, axis], len(self)) for axis in (0, 1)], 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            centroid = origin + moment / (3 * twice[:, None])
        return np.abs(twice) / 2, centroid


def outlines_from_rings(
    rings: list[np.ndarray], cell_of_ring: list[int], cell_ids: list[str], classes: list[str] | None = None
) -> Outlines:
    """Put rings [n, 2] one after the other.

    Raises
    ------
    InputError
        A ring of fewer than three vertices, a coordinate that is not finite, or a repeated cell id.
    """
    if not rings:
        raise InputError(found="no outlines", expected="at least one polygon")
    lengths = np.array([len(ring) for ring in rings])
    vertices = np.concatenate(rings).astype(float, copy=False)
    if lengths.min() < 3:
        found = f"an outline of {lengths.min()} vertices"
        raise InputError(found=found, where=cell_ids[cell_of_ring[int(lengths.argmin())]], expected="at least three")
    if not np.isfinite(vertices).all():
        raise InputError(found="a vertex that is not finite", expected="x, y in px")
    if len(set(cell_ids)) != len(cell_ids):
        seen: set[str] = set()
        repeated = next(name for name in cell_ids if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise InputError(found=f"the cell id {repeated!r} more than once", expected="one outline for each id")
    return Outlines(
        vertex_xy_px=vertices,
        ring_start=np.concatenate([[0], np.cumsum(lengths)]),
        cell_of_ring=np.array(cell_of_ring, np.int64),
        cell_ids=cell_ids,
        classes=classes,
    )


def cell_at(outlines: Outlines, xy_px: np.ndarray) -> np.ndarray:
    """Cell whose outline holds each position [N, 2]: int64 [N], -1 for none; the first of the file where outlines overlap.

    Exact for any outline and any placement of the positions (even-odd rule at the position itself, no raster in between).
    Positions are sorted into square buckets of the typical cell size, so each outline meets only its neighbourhood.
    """
    xy_px = np.asarray(xy_px, float)
    found = np.full(len(xy_px), len(outlines), np.int64)
    bounds = outlines.bounds_px()
    bucket_px = max(float(np.median(bounds[:, 2:] - bounds[:, :2])), 1e-9)
    low = bounds[:, :2].min(0)
    near = np.flatnonzero(((xy_px >= low) & (xy_px <= bounds[:, 2:].max(0))).all(1))
    bucket = ((xy_px[near] - low) / bucket_px).astype(np.int64)
    n_across = int((bounds[:, 2].max() - low[0]) / bucket_px) + 1
    key = bucket[:, 1] * n_across + bucket[:, 0]
    order = np.argsort(key, kind="stable")
    near, key = near[order], key[order]
    first = ((bounds[:, :2] - low) / bucket_px).astype(np.int64)
    last = ((bounds[:, 2:] - low) / bucket_px).astype(np.int64)
    # one entry for each (cell, row of buckets): its positions are neighbours in the sorted list
    n_rows = last[:, 1] - first[:, 1] + 1
    cell = np.repeat(np.arange(len(outlines)), n_rows)
    row = first[cell, 1] + _counting(n_rows)
    begin = np.searchsorted(key, row * n_across + first[cell, 0])
    length = np.searchsorted(key, row * n_across + last[cell, 0], side="right") - begin
    for part in _parts(length * np.diff(_first_edge(outlines))[cell], _TESTS_AT_ONCE):
        pair_cell = np.repeat(cell[part], length[part])
        point = near[np.repeat(begin[part], length[part]) + _counting(length[part])]
        box, xy = bounds[pair_cell], xy_px[point]
        inside_box = (xy >= box[:, :2]).all(1) & (xy <= box[:, 2:]).all(1)
        pair_cell, point = pair_cell[inside_box], point[inside_box]
        inside = _inside(outlines, pair_cell, xy_px[point])
        np.minimum.at(found, point[inside], pair_cell[inside])
    return np.where(found < len(outlines), found, -1)


def _counting(lengths: np.ndarray) -> np.ndarray:
    """0..n-1 for each length n, one after the other."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths)


def _parts(lengths: np.ndarray, most: int) -> list[slice]:
    """Slices whose lengths sum to about `most`."""
    part = np.cumsum(lengths) // most
    cuts = np.flatnonzero(np.diff(part)) + 1
    return [slice(*pair) for pair in zip([0, *cuts], [*cuts, len(lengths)], strict=True)]


def _inside(outlines: Outlines, cell: np.ndarray, xy_px: np.ndarray) -> np.ndarray:
    """Even-odd test of pairs: whether position xy_px[i] lies in the outline of cell[i]; bool."""
    first = _first_edge(outlines)
    n_edges = first[cell + 1] - first[cell]
    here, there, _ = outlines.edges()
    edge = np.repeat(first[cell], n_edges) + _counting(n_edges)
    pair = np.repeat(np.arange(len(cell)), n_edges)
    y = xy_px[pair, 1]
    crosses = (here[edge, 1] <= y) != (there[edge, 1] <= y)
    edge, pair, y = edge[crosses], pair[crosses], y[crosses]
    (x0, y0), (x1, y1) = here[edge].T, there[edge].T
    to_the_right = x0 + (y - y0) / (y1 - y0) * (x1 - x0) > xy_px[pair, 0]
    return np.bincount(pair[to_the_right], minlength=len(cell)) % 2 == 1


def _first_edge(outlines: Outlines) -> np.ndarray:
    """First edge of each cell [n + 1]; edges are numbered as the vertices that they leave from."""
    return outlines.ring_start[np.searchsorted(outlines.cell_of_ring, np.arange(len(outlines) + 1))]


def runs_of_outlines(outlines: Outlines, *, width_px: int, height_px: int, image_px: float = 1.0) -> LabelRuns:
    """Pixels whose centre lies inside an outline (even-odd rule), as runs of label = number of the cell.

    Parameters
    ----------
    width_px, height_px
        Size of the label image.
    image_px
        Side of a label pixel in px of the slide.
    """
    here, there, cell = outlines.edges()
    here, there = here / image_px - 0.5, there / image_px - 0.5  # pixel centres become whole numbers
    downwards = here[:, 1] < there[:, 1]
    top, bottom = np.where(downwards[:, None], here, there), np.where(downwards[:, None], there, here)
    first = np.clip(np.ceil(top[:, 1]), 0, height_px).astype(np.int64)  # rows with top <= row < bottom
    n_rows = np.maximum(np.clip(np.ceil(bottom[:, 1]), 0, height_px).astype(np.int64) - first, 0)
    edge = np.repeat(np.arange(len(cell)), n_rows)
    row = first[edge] + _counting(n_rows)
    along = (row - top[edge, 1]) / (bottom[edge, 1] - top[edge, 1])
    x = top[edge, 0] + along * (bottom[edge, 0] - top[edge, 0])
    order = np.lexsort((x, row, cell[edge]))
    # a closed ring crosses a row an even number of times: crossings 0-1, 2-3, ... enclose the inside
    enter, leave = order[0::2], order[1::2]
    start = np.clip(np.ceil(x[enter]), 0, width_px).astype(np.int32)
    stop = np.clip(np.ceil(x[leave]), 0, width_px).astype(np.int32)
    runs = (row[enter].astype(np.int32), start, stop, cell[edge][enter].astype(np.int32))
    return join_runs([runs], width_px=width_px, height_px=height_px, n_labels=len(outlines), image_px=image_px)
