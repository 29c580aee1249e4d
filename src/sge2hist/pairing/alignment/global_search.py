"""Global search of the map from cells to an image: every rotation, mirror image, scale and shift on coarse maps.

For each rotation, mirror image and scale all shifts are scored at once: Pearson correlation over the overlap of the two maps,
its sums being cross-correlations by FFT with masks (Padfield 2012, IEEE Trans. Image Process. 21:2706).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from sge2hist.pairing.alignment.nuclear_map import NuclearMap, NuclearSource
from sge2hist.threads import available_threads

ANGLE_STEP_DEG = 6.0
SCALE_STEP = 1.12
SIDE_PX = 56  # side of the smaller map: enough structure, and a turn by half a step moves its border by two pixels
STEP_UM = (6.0, 60.0)  # finest and coarsest pixel
DETAIL_PX = 1.0  # Gaussian that makes neighbouring angles and scales overlap
TREND_PX = 9.0  # structure larger than that is removed: any two pieces of tissue share it
MIN_OVERLAP = 0.2  # share of the smaller map
MAX_SIDE_PX = 240  # of the larger map: very different areas are compared on coarser pixels
PEAK_PX = 6  # half the side of a peak
MIN_SIDE_PX = 14  # of the smaller map: less has no structure
N_BEST = 12
SAME_SHARE = 0.1  # of the extent of the cells
MIN_OTHER_SCALES, STANDS_OUT = 3, 1.5


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A similarity that may be right."""

    matrix: np.ndarray  # float64 [3, 3]: frame of the cells -> px of the image
    score: float  # arctanh(correlation) * sqrt(pixels of the overlap)
    correlation: float
    step_um: float  # pixel of the maps: the map is right to about two of them


def search_similarity(
    cells: NuclearSource, image: NuclearSource, scales: Sequence[float], *, n_best: int = N_BEST
) -> list[Candidate]:
    """The best distinct similarities, best first.

    Parameters
    ----------
    scales
        Factors on the um per px that the image states; see `scales_between`. They are tried in the order of the likelihood that
        image and cells cover the same area, and no further once one stands out.
    """
    areas = [_area_um2(source.overview(), source.um_per_unit) for source in (cells, image)]
    ordered = sorted(scales, key=lambda scale: abs(np.log(areas[1] * scale**2 / areas[0])))
    by_scale: dict[float, list[Candidate]] = {}
    with ThreadPoolExecutor(available_threads()) as pool:
        for scale in ordered:
            level = _Level.of(cells.overview(), cells.um_per_unit, image.overview(), image.um_per_unit * scale)
            if level is not None:
                by_scale[scale] = [found for both in pool.map(level.best, _turns()) for found in both]
            if _stands_out(by_scale) and _neighbours_tried(by_scale, scales):
                break
    found = sorted((c for some in by_scale.values() for c in some), key=lambda candidate: -candidate.score)
    return _distinct(found, cells.overview(), n_best)


def _area_um2(map_: NuclearMap, um_per_unit: float) -> float:
    return float(map_.known_HW.sum()) * (map_.step * um_per_unit) ** 2


def _stands_out(by_scale: dict[float, list[Candidate]]) -> bool:
    """Whether one scale scores far above those that differ from it by two steps or more."""
    top = {scale: max(found, key=lambda c: c.score).score for scale, found in by_scale.items()}
    if not top:
        return False
    best = max(top, key=lambda scale: top[scale])
    others = [score for scale, score in top.items() if abs(np.log(scale / best)) > 1.5 * np.log(SCALE_STEP)]
    return len(others) >= MIN_OTHER_SCALES and top[best] > STANDS_OUT * max(others)


def _neighbours_tried(by_scale: dict[float, list[Candidate]], scales: Sequence[float]) -> bool:
    best = max(by_scale, key=lambda scale: max(c.score for c in by_scale[scale]))
    near = [scale for scale in scales if abs(np.log(scale / best)) < 1.5 * np.log(SCALE_STEP)]
    return all(scale in by_scale for scale in near)


def scales_between(low: float, high: float) -> list[float]:
    """Factors from `low` to `high`, evenly spaced in their logarithm, 1 among them where it lies between."""
    first, last = (
        int(np.ceil(np.log(low) / np.log(SCALE_STEP) - 1e-9)),
        int(np.floor(np.log(high) / np.log(SCALE_STEP))),
    )
    return [SCALE_STEP**k for k in sorted(range(first, last + 1), key=abs)]


def _turns() -> Iterator[np.ndarray]:
    """Rotations without and with a mirror image, float64 [2, 2]."""
    for mirror in (1.0, -1.0):
        for angle in np.deg2rad(np.arange(0, 360, ANGLE_STEP_DEG)):
            rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
            yield rotation @ np.diag([mirror, 1.0])


def prepared(values_HW: np.ndarray, known_HW: np.ndarray, detail_px: float, trend_px: float) -> np.ndarray:
    """Smoothed map minus its local mean, both over known pixels only; clipped, 0 where nothing is known."""
    from scipy.ndimage import gaussian_filter

    weight = known_HW.astype(np.float32)
    values = np.where(known_HW, values_HW, 0).astype(np.float32)
    fine, coarse = (
        gaussian_filter(values, sigma, mode="constant")
        / np.maximum(gaussian_filter(weight, sigma, mode="constant"), 1e-3)
        for sigma in (detail_px, trend_px)
    )
    relief = fine - coarse
    if not known_HW.any():
        return np.zeros_like(relief)
    limit = 3 * float(np.std(relief[known_HW]))
    return np.where(known_HW, np.clip(relief, -limit, limit), 0)


@dataclass(frozen=True)
class _Level:
    """Both maps at one scale of the image, on pixels of one size."""

    cells: NuclearMap  # prepared, in the frame of the cells
    image: NuclearMap  # prepared, in px of the image
    spectra: tuple[np.ndarray, np.ndarray, np.ndarray]  # of cells * mask, cells^2 * mask, mask
    shape: tuple[int, int]  # of the transform
    min_overlap_px: float
    step_um: float

    @classmethod
    def of(cls, cells: NuclearMap, cells_um: float, image: NuclearMap, image_um: float) -> _Level | None:
        """None where one map is too small beside the other."""
        from scipy.fft import next_fast_len, rfft2

        both = ((cells, cells_um), (image, image_um))
        side_um = float(np.sqrt(min(_area_um2(m, um) for m, um in both)))
        longest_um = max(max(m.values_HW.shape) * m.step * um for m, um in both)
        step_um = max(float(np.clip(side_um / SIDE_PX, *STEP_UM)), longest_um / MAX_SIDE_PX)
        step_um = max(step_um, *(m.step * um for m, um in both))
        if side_um < MIN_SIDE_PX * step_um:
            return None
        cells, image = (_at(m, step_um / um) for m, um in both)
        diagonal = int(np.ceil(np.hypot(*image.values_HW.shape)))
        height, width = (next_fast_len(side + diagonal, real=True) for side in cells.values_HW.shape)
        shape, mask = (height, width), cells.known_HW.astype(np.float32)
        value, square, number = (rfft2(a, shape) for a in (cells.values_HW, cells.values_HW**2, mask))
        smaller = min(cells.known_HW.sum(), image.known_HW.sum())
        return cls(cells, image, (value, square, number), shape, MIN_OVERLAP * float(smaller), step_um)

    def best(self, turn: np.ndarray) -> list[Candidate]:
        """The two best shifts of the image turned by `turn`."""
        from scipy.fft import irfft2, rfft2

        values, mask, centre = self._turned(turn)
        of_image = [np.conj(rfft2(a, self.shape)) for a in (values, values**2, mask)]
        value, square, number = self.spectra

        def correlate(a: np.ndarray, b: np.ndarray) -> np.ndarray:
            return irfft2(a * b, self.shape)

        n = np.maximum(correlate(number, of_image[2]), 1)
        sum_c, sum_i = correlate(value, of_image[2]), correlate(number, of_image[0])
        var_c = correlate(square, of_image[2]) - sum_c**2 / n
        var_i = correlate(number, of_image[1]) - sum_i**2 / n
        covariance = correlate(value, of_image[0]) - sum_c * sum_i / n
        floor = 1e-4 * n * (float(np.var(self.cells.values_HW)) * float(np.var(values)) + 1e-20) ** 0.5
        correlation = covariance / np.sqrt(np.maximum(var_c, floor) * np.maximum(var_i, floor))
        correlation = np.clip(np.where(n >= self.min_overlap_px, correlation, -0.99), -0.99, 0.99)
        score = np.arctanh(correlation) * np.sqrt(n)
        found = []
        for _ in range(2):  # a pattern that repeats itself has a second peak
            row, column = np.unravel_index(int(np.argmax(score)), score.shape)
            found.append(
                Candidate(
                    matrix=self._matrix(turn, self._shift(int(row), int(column)), centre),
                    score=float(score[row, column]),
                    correlation=float(correlation[row, column]),
                    step_um=self.step_um,
                )
            )
            score[max(0, row - PEAK_PX) : row + PEAK_PX + 1, max(0, column - PEAK_PX) : column + PEAK_PX + 1] = -99
        return found

    def _shift(self, row: int, column: int) -> np.ndarray:
        """Shift (x, y) of the turned image against the cells, in pixels; the transform is cyclic."""
        height, width = self.cells.values_HW.shape
        x = column - self.shape[1] if column >= width else column
        y = row - self.shape[0] if row >= height else row
        return np.array([x, y], np.float64)

    def _turned(self, turn: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The image turned about its centre: values, mask float32 [h, w], and the centre in their pixels (x, y)."""
        from scipy.ndimage import affine_transform

        height, width = self.image.values_HW.shape
        size = np.abs(turn.T) @ [width, height]  # turn maps directions of the cells to directions of the image
        out_w, out_h = (int(np.ceil(side)) for side in size)
        centre = np.array([out_w, out_h]) / 2
        # turned pixel centre p -> image pixel centre: turn (p + 0.5 - centre) + (width, height) / 2 - 0.5, as (row, column)
        matrix = turn[::-1, ::-1]
        offset = (turn @ (0.5 - centre) + np.array([width, height]) / 2 - 0.5)[::-1]
        known = affine_transform(
            self.image.known_HW.astype(np.float32), matrix, offset, (out_h, out_w), order=1, mode="constant"
        )
        values = affine_transform(self.image.values_HW, matrix, offset, (out_h, out_w), order=1, mode="constant")
        mask = (known > 0.5).astype(np.float32)
        return values * mask, mask, centre

    def _matrix(self, turn: np.ndarray, shift: np.ndarray, centre: np.ndarray) -> np.ndarray:
        """Frame of the cells -> px of the image, of a turn and a shift."""
        height, width = self.image.values_HW.shape
        linear = turn * (self.image.step / self.cells.step)
        middle_of_image = self.image.origin_xy + self.image.step * np.array([width, height]) / 2
        same_in_cells = self.cells.origin_xy + self.cells.step * (shift + centre)
        matrix = np.eye(3)
        matrix[:2, :2], matrix[:2, 2] = linear, middle_of_image - linear @ same_in_cells
        return matrix


def _at(map_: NuclearMap, step: float) -> NuclearMap:
    """The map on pixels of side `step`, prepared."""
    coarse = map_.coarser(step / map_.step)
    values = prepared(coarse.values_HW, coarse.known_HW, DETAIL_PX, TREND_PX)
    return NuclearMap(values_HW=values, known_HW=coarse.known_HW, origin_xy=coarse.origin_xy, step=coarse.step)


def _distinct(candidates: list[Candidate], cells: NuclearMap, n_best: int) -> list[Candidate]:
    kept: list[Candidate] = []
    for candidate in candidates:
        if not any(same_map(candidate.matrix, other.matrix, cells) for other in kept):
            kept.append(candidate)
        if len(kept) == n_best:
            break
    return kept


def same_map(first: np.ndarray, second: np.ndarray, cells: NuclearMap) -> bool:
    """Whether two maps put the corners of the cells within a tenth of their extent of each other."""
    height, width = cells.values_HW.shape
    corner = cells.origin_xy + cells.step * np.array([[0, 0], [width, 0], [0, height], [width, height]])
    at, other = (corner @ matrix[:2, :2].T + matrix[:2, 2] for matrix in (first, second))
    extent = float(np.hypot(*(at.max(axis=0) - at.min(axis=0))))
    return float(np.linalg.norm(at - other, axis=1).mean()) <= SAME_SHARE * extent
