"""Which positions lie inside which polygon.

Positions are x, y in px of the slide, pixel (0, 0) covering ``[0, 1) x [0, 1)``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sge2hist.readers.geojson import Polygons

_TESTS_AT_ONCE = 1_000_000  # (position, edge) pairs tested together: some 100 MB
_MAX_TESTS = 250_000  # of one polygon together with others; with more it is tested on its own
_MAX_ROWS = 64  # of buckets that a polygon tested together with others meets
_RANGES_AT_ONCE = 500_000


def bounds_px(polygons: Polygons) -> np.ndarray:
    """Bounding box of each polygon: float64 [P, 4] = left, top, right, bottom."""
    start = _first_edge(polygons)[:-1]
    corners = polygons.corner_xy_px
    return np.concatenate([np.minimum.reduceat(corners, start), np.maximum.reduceat(corners, start)], axis=1)


def polygon_at(polygons: Polygons, xy_px: np.ndarray) -> np.ndarray:
    """Polygon that holds each position [N, 2]: int64 [N], -1 for none; the first of the file where polygons overlap.

    Exact for any polygon and any placement of the positions (even-odd rule at the position itself, no raster in between): a
    position is inside where a ray to the right crosses an odd number of edges. A position exactly on an edge is inside where
    the inside lies to its right, or below it on a horizontal edge, so that polygons that share an edge share no position.

    Memory is that of the positions, the corners and some 200 MB, whatever the polygons. Small ones are compared together
    with the positions in the buckets that they meet; each large one on its own, every edge with the positions at its height.
    """
    xy_px = np.asarray(xy_px, float)
    if not len(xy_px) or not len(polygons):
        return np.full(len(xy_px), -1, np.int64)
    bounds, edges, buckets = bounds_px(polygons), _Edges.of(polygons), _Buckets.of(polygons, xy_px)
    found = np.full(len(xy_px), len(polygons), np.int64)
    n_rows = buckets.n_rows(bounds)
    is_large = n_rows > _MAX_ROWS
    small = np.flatnonzero((n_rows > 0) & ~is_large)
    for part in _parts(n_rows[small], _RANGES_AT_ONCE):
        index, begin, length = buckets.ranges(bounds[small[part]])
        n_edges = np.diff(edges.first)[small[part]]
        too_many = np.bincount(index, length, len(n_edges)) * n_edges > _MAX_TESTS
        is_large[small[part][too_many]] = True
        kept = ~too_many[index]
        _test_together(found, xy_px, bounds, edges, small[part][index[kept]], buckets.order, begin[kept], length[kept])
    if is_large.any():
        order = np.argsort(xy_px[:, 1], kind="stable")
        sorted_xy_px = xy_px[order]
        for polygon in np.flatnonzero(is_large).tolist():
            inside = order[_inside_one(sorted_xy_px, bounds[polygon], *edges.of_polygon(polygon))]
            found[inside] = np.minimum(found[inside], polygon)
    return np.where(found < len(polygons), found, -1)


@dataclass(frozen=True, kw_only=True)
class _Edges:
    """Edges in the order of the corners that they leave from; closing edges included (some of length zero)."""

    here: np.ndarray  # float64 [E, 2]
    there: np.ndarray  # float64 [E, 2]
    first: np.ndarray  # int64 [P + 1]: first edge of each polygon, and E

    @classmethod
    def of(cls, polygons: Polygons) -> _Edges:
        following = np.arange(1, len(polygons.corner_xy_px) + 1)
        following[polygons.ring_start[1:] - 1] = polygons.ring_start[:-1]
        corners = polygons.corner_xy_px
        return cls(here=corners, there=corners[following], first=_first_edge(polygons))

    def of_polygon(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """From and to, [n, 2] each."""
        own = slice(self.first[number], self.first[number + 1])
        return self.here[own], self.there[own]


@dataclass(frozen=True, kw_only=True)
class _Buckets:
    """Positions by square buckets of the typical polygon size, row after row."""

    low_xy_px: np.ndarray
    side_px: float
    n_across: int
    n_down: int
    order: np.ndarray  # int64 [N]: positions sorted by bucket
    key: np.ndarray  # int64 [N]: their buckets

    @classmethod
    def of(cls, polygons: Polygons, xy_px: np.ndarray) -> _Buckets:
        bounds = bounds_px(polygons)
        low, high = xy_px.min(0), xy_px.max(0)
        extent = max(float((high - low).max()), 1e-9)
        side_px = max(float(np.median(bounds[:, 2:] - bounds[:, :2])), extent / 20_000)
        bucket = ((xy_px - low) / side_px).astype(np.int64)
        n_across, n_down = bucket.max(0) + 1
        key = bucket[:, 1] * n_across + bucket[:, 0]
        order = np.argsort(key, kind="stable")
        return cls(
            low_xy_px=low, side_px=side_px, n_across=int(n_across), n_down=int(n_down), order=order, key=key[order]
        )

    def n_rows(self, bounds: np.ndarray) -> np.ndarray:
        """Rows of buckets that each bounding box meets: int64 [P]."""
        first, last = self._meets(bounds)
        return np.where(first[:, 0] <= last[:, 0], np.maximum(last[:, 1] - first[:, 1] + 1, 0), 0)

    def ranges(self, bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ranges of `order` that bounding boxes meet, one for each row of buckets: box, first index and length."""
        first, last = self._meets(bounds)
        n_rows = self.n_rows(bounds)
        box = np.repeat(np.arange(len(bounds)), n_rows)
        row = first[box, 1] + _counting(n_rows)
        begin = np.searchsorted(self.key, row * self.n_across + first[box, 0])
        end = np.searchsorted(self.key, row * self.n_across + last[box, 0], side="right")
        return box, begin, end - begin

    def _meets(self, bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        size = np.array([self.n_across, self.n_down])
        first = np.clip(np.floor((bounds[:, :2] - self.low_xy_px) / self.side_px), 0, size)
        last = np.clip(np.floor((bounds[:, 2:] - self.low_xy_px) / self.side_px), -1, size - 1)
        return first.astype(np.int64), last.astype(np.int64)


def _test_together(
    found: np.ndarray,
    xy_px: np.ndarray,
    bounds: np.ndarray,
    edges: _Edges,
    polygon: np.ndarray,
    order: np.ndarray,
    begin: np.ndarray,
    length: np.ndarray,
) -> None:
    """Compare ranges of positions with their polygons and lower `found` to the polygons that hold them."""
    for part in _parts(length * np.diff(edges.first)[polygon], _TESTS_AT_ONCE):
        pair_polygon = np.repeat(polygon[part], length[part])
        point = order[np.repeat(begin[part], length[part]) + _counting(length[part])]
        box, xy = bounds[pair_polygon], xy_px[point]
        close = (xy >= box[:, :2]).all(1) & (xy <= box[:, 2:]).all(1)
        pair_polygon, point = pair_polygon[close], point[close]
        n_edges = edges.first[pair_polygon + 1] - edges.first[pair_polygon]
        edge = np.repeat(edges.first[pair_polygon], n_edges) + _counting(n_edges)
        pair = np.repeat(np.arange(len(point)), n_edges)
        crossed = _crosses_to_the_right(edges.here[edge], edges.there[edge], xy_px[point[pair]])
        inside = np.bincount(pair[crossed], minlength=len(point)) % 2 == 1
        np.minimum.at(found, point[inside], pair_polygon[inside])


def _inside_one(xy_px: np.ndarray, box: np.ndarray, here: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Indices of the positions [N, 2], sorted by y, that lie inside one polygon of edges [E, 2] -> [E, 2]."""
    first, last = np.searchsorted(xy_px[:, 1], box[1]), np.searchsorted(xy_px[:, 1], box[3], side="right")
    x = xy_px[first:last, 0]
    point = first + np.flatnonzero((x >= box[0]) & (x <= box[2]))
    xy = xy_px[point]
    begin = np.searchsorted(xy[:, 1], np.minimum(here[:, 1], there[:, 1]))  # top <= y < bottom
    end = np.searchsorted(xy[:, 1], np.maximum(here[:, 1], there[:, 1]))
    n_crossings = np.zeros(len(point), np.uint8)  # modulo 256, which is even
    for edge, position in _pairs(begin, end - begin, _TESTS_AT_ONCE):
        crossed = _crosses_to_the_right(here[edge], there[edge], xy[position])
        np.add.at(n_crossings, position[crossed], 1)
    return point[n_crossings % 2 == 1]


def _crosses_to_the_right(here: np.ndarray, there: np.ndarray, xy_px: np.ndarray) -> np.ndarray:
    """Indices i for which a ray from position i to the right crosses the edge here[i] -> there[i] (half-open in y)."""
    y = xy_px[:, 1]
    crosses = np.flatnonzero((here[:, 1] <= y) != (there[:, 1] <= y))
    (x0, y0), (x1, y1) = here[crosses].T, there[crosses].T
    x = x0 + (y[crosses] - y0) / (y1 - y0) * (x1 - x0)
    return crosses[x > xy_px[crosses, 0]]


def _counting(lengths: np.ndarray) -> np.ndarray:
    """0..n-1 for each length n, one after the other."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths)


def _parts(lengths: np.ndarray, target: int) -> list[slice]:
    """Slices whose lengths sum to about `target`."""
    if not len(lengths):
        return []
    part = np.cumsum(lengths) // target
    cuts = np.flatnonzero(np.diff(part)) + 1
    return [slice(*pair) for pair in zip([0, *cuts], [*cuts, len(lengths)], strict=True)]


def _pairs(begin: np.ndarray, length: np.ndarray, target: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All (range, index in it) of ranges of any length, at most `target` at a time."""
    end = np.cumsum(length)
    start = end - length
    for first in range(0, int(end[-1]), target):
        last = min(first + target, int(end[-1]))
        ranges = np.arange(np.searchsorted(end, first, side="right"), np.searchsorted(end, last) + 1)
        low, high = np.maximum(start[ranges], first), np.minimum(end[ranges], last)
        n = high - low
        yield np.repeat(ranges, n), np.repeat(begin[ranges] + low - start[ranges], n) + _counting(n)


def _first_edge(polygons: Polygons) -> np.ndarray:
    """First edge of each polygon, and the number of edges: int64 [P + 1]."""
    return polygons.ring_start[np.searchsorted(polygons.polygon_of_ring, np.arange(len(polygons) + 1))]
