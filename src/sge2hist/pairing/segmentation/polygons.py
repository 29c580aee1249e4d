"""Which positions lie inside which polygon, and the pixels that polygons cover.

Positions are x, y in px of the slide, pixel (0, 0) covering ``[0, 1) x [0, 1)``.
"""

from __future__ import annotations

import numpy as np

from sge2hist.pairing.segmentation.label_rle import LabelRuns, join_runs
from sge2hist.readers.geojson import Polygons

_TESTS_AT_ONCE = 4_000_000  # (position, edge) pairs tested together: bounds the memory of `polygon_at`


def edges(polygons: Polygons) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """From [E, 2], to [E, 2] and polygon [E] of every edge, closing edges included (some of length zero).

    Edges are numbered as the corners that they leave from.
    """
    following = np.arange(1, len(polygons.corner_xy_px) + 1)
    following[polygons.ring_start[1:] - 1] = polygons.ring_start[:-1]
    polygon = np.repeat(polygons.polygon_of_ring, np.diff(polygons.ring_start))
    return polygons.corner_xy_px, polygons.corner_xy_px[following], polygon


def bounds_px(polygons: Polygons) -> np.ndarray:
    """Bounding box of each polygon: float64 [P, 4] = left, top, right, bottom."""
    start = _first_edge(polygons)[:-1]
    corners = polygons.corner_xy_px
    return np.concatenate([np.minimum.reduceat(corners, start), np.maximum.reduceat(corners, start)], axis=1)


def polygon_at(polygons: Polygons, xy_px: np.ndarray) -> np.ndarray:
    """Polygon that holds each position [N, 2]: int64 [N], -1 for none; the first of the file where polygons overlap.

    Exact for any polygon and any placement of the positions (even-odd rule at the position itself, no raster in
    between). Only polygons and positions whose buckets meet are compared (see `_candidates`).
    """
    xy_px = np.asarray(xy_px, float)
    found = np.full(len(xy_px), len(polygons), np.int64)
    if not len(xy_px) or not len(polygons):
        return np.full(len(xy_px), -1, np.int64)
    bounds, (here, there, _), first_edge = bounds_px(polygons), edges(polygons), _first_edge(polygons)
    order, polygon, begin, length = _candidates(bounds, xy_px)
    for part in _parts(length * np.diff(first_edge)[polygon], _TESTS_AT_ONCE):
        pair_polygon = np.repeat(polygon[part], length[part])
        point = order[np.repeat(begin[part], length[part]) + _counting(length[part])]
        box, xy = bounds[pair_polygon], xy_px[point]
        close = (xy >= box[:, :2]).all(1) & (xy <= box[:, 2:]).all(1)
        pair_polygon, point, xy = pair_polygon[close], point[close], xy[close]
        n_edges = first_edge[pair_polygon + 1] - first_edge[pair_polygon]
        edge = np.repeat(first_edge[pair_polygon], n_edges) + _counting(n_edges)
        pair = np.repeat(np.arange(len(point)), n_edges)
        crossed = _crossed_to_the_right(here, there, edge, xy, pair)
        inside = np.bincount(pair[crossed], minlength=len(point)) % 2 == 1
        np.minimum.at(found, point[inside], pair_polygon[inside])
    return np.where(found < len(polygons), found, -1)


def _candidates(bounds: np.ndarray, xy_px: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Positions near each polygon, by square buckets of the typical polygon size.

    Returns an order of the positions (row-major over buckets), and ranges in it: polygon, first index and length. A
    polygon has one range for each row of buckets that its bounding box meets.
    """
    low, high = xy_px.min(0), xy_px.max(0)
    extent = max(float((high - low).max()), 1e-9)
    bucket_px = max(float(np.median(bounds[:, 2:] - bounds[:, :2])), extent / 20_000)
    bucket = ((xy_px - low) / bucket_px).astype(np.int64)
    n_across, n_down = bucket.max(0) + 1
    key = bucket[:, 1] * n_across + bucket[:, 0]
    order = np.argsort(key, kind="stable")
    key = key[order]
    first = np.clip(np.floor((bounds[:, :2] - low) / bucket_px), 0, [n_across, n_down]).astype(np.int64)
    last = np.clip(np.floor((bounds[:, 2:] - low) / bucket_px), -1, [n_across - 1, n_down - 1]).astype(np.int64)
    n_rows = np.where(first[:, 0] <= last[:, 0], np.maximum(last[:, 1] - first[:, 1] + 1, 0), 0)
    polygon = np.repeat(np.arange(len(bounds)), n_rows)
    row = first[polygon, 1] + _counting(n_rows)
    begin = np.searchsorted(key, row * n_across + first[polygon, 0])
    length = np.searchsorted(key, row * n_across + last[polygon, 0], side="right") - begin
    return order, polygon, begin, length


def _crossed_to_the_right(
    here: np.ndarray, there: np.ndarray, edge: np.ndarray, xy_px: np.ndarray, pair: np.ndarray
) -> np.ndarray:
    """Indices i for which a ray from position xy_px[pair[i]] to the right crosses edge[i] (half-open in y)."""
    y = xy_px[pair, 1]
    crosses = np.flatnonzero((here[edge, 1] <= y) != (there[edge, 1] <= y))
    (x0, y0), (x1, y1) = here[edge[crosses]].T, there[edge[crosses]].T
    x = x0 + (y[crosses] - y0) / (y1 - y0) * (x1 - x0)
    return crosses[x > xy_px[pair[crosses], 0]]


def _counting(lengths: np.ndarray) -> np.ndarray:
    """0..n-1 for each length n, one after the other."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths)


def _parts(lengths: np.ndarray, target: int) -> list[slice]:
    """Slices whose lengths sum to about `target`."""
    part = np.cumsum(lengths) // target
    cuts = np.flatnonzero(np.diff(part)) + 1
    return [slice(*pair) for pair in zip([0, *cuts], [*cuts, len(lengths)], strict=True)]


def _first_edge(polygons: Polygons) -> np.ndarray:
    """First edge of each polygon, and the number of edges: int64 [P + 1]."""
    return polygons.ring_start[np.searchsorted(polygons.polygon_of_ring, np.arange(len(polygons) + 1))]


def runs_of_polygons(polygons: Polygons, *, width_px: int, height_px: int, image_px: float = 1.0) -> LabelRuns:
    """Pixels whose centre lies inside a polygon (even-odd rule), as runs of label = number of the polygon.

    Parameters
    ----------
    width_px, height_px
        Size of the label image.
    image_px
        Side of a label pixel in px of the slide.
    """
    here, there, polygon = edges(polygons)
    here, there = here / image_px - 0.5, there / image_px - 0.5  # pixel centres become whole numbers
    downwards = here[:, 1] < there[:, 1]
    top, bottom = np.where(downwards[:, None], here, there), np.where(downwards[:, None], there, here)
    first = np.clip(np.ceil(top[:, 1]), 0, height_px).astype(np.int64)  # rows with top <= row < bottom
    n_rows = np.maximum(np.clip(np.ceil(bottom[:, 1]), 0, height_px).astype(np.int64) - first, 0)
    edge = np.repeat(np.arange(len(polygon)), n_rows)
    row = first[edge] + _counting(n_rows)
    along = (row - top[edge, 1]) / (bottom[edge, 1] - top[edge, 1])
    x = top[edge, 0] + along * (bottom[edge, 0] - top[edge, 0])
    order = np.lexsort((x, row, polygon[edge]))
    # a closed ring crosses a row an even number of times: crossings 0-1, 2-3, ... enclose the inside
    enter, leave = order[0::2], order[1::2]
    start = np.clip(np.ceil(x[enter]), 0, width_px).astype(np.int32)
    stop = np.clip(np.ceil(x[leave]), 0, width_px).astype(np.int32)
    runs = (row[enter].astype(np.int32), start, stop, polygon[edge][enter].astype(np.int32))
    return join_runs([runs], width_px=width_px, height_px=height_px, n_labels=len(polygons), image_px=image_px)
