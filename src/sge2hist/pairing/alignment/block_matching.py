"""Refinement of a map by block matching: tiles of the cells are found again in the image, and one affine map is fitted to all.

Tiles are spread evenly over the cells; each is a template whose best shift within a window of the image is measured by
normalised cross-correlation, to a fraction of a pixel. From coarse to fine pixels, tiles get smaller and shifts more exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sge2hist.pairing.alignment.global_search import prepared
from sge2hist.pairing.alignment.nuclear_map import NuclearMap, NuclearSource

TILE_PX, SEARCH_PX = 48, 12
FIRST_TILE_PX = 28  # on the coarsest pixels, where the shared area has few
MAX_TILES = 48
DETAIL_PX, TREND_PX = 0.7, 10.0
MIN_KNOWN = 0.7, 0.6  # share of a tile, and of its window in the image, that must be known
MIN_RELIEF = 0.1  # of the median tile: flatter tiles say nothing
TOLERANCE_PX = 2.5  # a tile that is further off the common map disagrees with it
MIN_AGREEING = 0.4  # share of the tiles; fewer agree by chance
N_SAMPLES = 400  # pairs of tiles, each of which proposes a similarity
MIN_FOR_AFFINE = 8
FINEST_UM = 1.0


@dataclass(frozen=True, kw_only=True)
class TileShifts:
    """Where T tiles of the cells were found: at `centre_T2 + shift_T2` instead of `centre_T2`, through the map that was tried."""

    centre_T2: np.ndarray  # float64, frame of the cells
    shift_T2: np.ndarray  # float64, frame of the cells
    peak_T: np.ndarray  # correlation at the best shift
    step: float  # side of a pixel in the frame of the cells

    def __len__(self) -> int:
        return len(self.peak_T)


def refine(
    cells: NuclearSource, image: NuclearSource, matrix: np.ndarray, step_um: float
) -> tuple[np.ndarray, float] | None:
    """An affine map float64 [3, 3] and the finest pixels (um) on which most tiles agree on it; None where none do.

    Parameters
    ----------
    matrix, step_um
        A similarity that is right to some two pixels of `step_um`.
    """
    finest_um = finest_step_um(cells, image, matrix)
    tile_px, reached = FIRST_TILE_PX, None
    while True:
        step_um = max(step_um / 2, finest_um)
        tiles = match_tiles(cells, image, matrix, step_um, tile_px=tile_px)
        correction = fit_correction(tiles)
        if correction is None and (tile_px != FIRST_TILE_PX or step_um <= finest_um):
            return reached  # finer pixels show only noise
        if correction is not None:
            matrix = matrix @ correction
            reached = matrix, step_um
        if step_um <= finest_um:
            return reached
        tile_px = TILE_PX


def finest_step_um(cells: NuclearSource, image: NuclearSource, matrix: np.ndarray) -> float:
    """Side of the finest pixels that show something in both."""
    image_um = cells.um_per_unit * image.finest_um / image.um_per_unit / scale_of(matrix)
    return max(FINEST_UM, image_um, cells.finest_um)


def scale_of(matrix: np.ndarray) -> float:
    """Px of the image per unit of the cells."""
    return float(np.sqrt(abs(np.linalg.det(matrix[:2, :2]))))


def apply_map(matrix: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Map positions float [..., 2] by a 3x3 affine matrix."""
    return xy @ matrix[:2, :2].T + matrix[:2, 2]


def match_tiles(
    cells: NuclearSource,
    image: NuclearSource,
    matrix: np.ndarray,
    step_um: float,
    *,
    offset: float = 0.0,
    tile_px: int = TILE_PX,
) -> TileShifts:
    """Measure the shift of tiles against the image; `offset` moves the lattice of tiles by that share of their distance."""
    step = step_um / cells.um_per_unit
    windows = _ImageWindows(image, matrix, step)
    centres, shifts, peaks, reliefs = [], [], [], []
    for centre in _tile_centres(cells, image, matrix, tile_px * step, offset):
        template = _window_of_cells(cells, centre, tile_px, step)
        window = windows.under(centre, tile_px + 2 * SEARCH_PX)
        if template.known_HW.mean() < MIN_KNOWN[0] or window.known_HW.mean() < MIN_KNOWN[1]:
            continue
        here, there = (prepared(m.values_HW, m.known_HW, DETAIL_PX, TREND_PX) for m in (template, window))
        if not here.any() or not there.any():
            continue
        shift_px, peak = _best_shift(here, there)
        centres.append(centre)
        shifts.append(shift_px * step)
        peaks.append(peak)
        reliefs.append(float(here.std()))
    relief = np.array(reliefs)
    keep = relief > MIN_RELIEF * np.median(relief) if len(relief) else np.zeros(0, bool)
    return TileShifts(
        centre_T2=np.reshape(centres, (-1, 2))[keep],
        shift_T2=np.reshape(shifts, (-1, 2))[keep],
        peak_T=np.array(peaks)[keep],
        step=step,
    )


def _tile_centres(
    cells: NuclearSource, image: NuclearSource, matrix: np.ndarray, tile: float, offset: float
) -> np.ndarray:
    """At most `MAX_TILES` centres on a lattice over what both know, float64 [T, 2] in the frame of the cells."""
    overview, other = cells.overview(), image.overview()
    centre_HW2 = overview.centres_xy()
    at = np.floor((apply_map(matrix, centre_HW2) - other.origin_xy) / other.step).astype(np.int64)
    height, width = other.values_HW.shape
    shared = overview.known_HW & ((at >= 0) & (at < [width, height])).all(axis=-1)
    if not shared.any():
        return np.zeros((0, 2))
    low, high = centre_HW2[shared].min(axis=0), centre_HW2[shared].max(axis=0)
    distance = max(0.75 * tile, float(np.sqrt(shared.sum() * overview.step**2 / MAX_TILES)))
    axes = [
        low_ + ((high_ - low_) % distance) / 2 + distance * (np.arange(int((high_ - low_) / distance) + 1) + offset)
        for low_, high_ in zip(low, high, strict=True)
    ]
    lattice = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2)
    column, row = np.floor((lattice - overview.origin_xy) / overview.step).astype(np.int64).T
    inside = (column >= 0) & (row >= 0) & (column < shared.shape[1]) & (row < shared.shape[0])
    return lattice[inside][shared[row[inside], column[inside]]]


def _window_of_cells(cells: NuclearSource, centre: np.ndarray, side_px: int, step: float) -> NuclearMap:
    x, y = centre - side_px * step / 2
    return cells.window(float(x), float(y), side_px, side_px, step)


class _ImageWindows:
    """The image resampled through a map, on pixels of side `step` in the frame of the cells."""

    def __init__(self, image: NuclearSource, matrix: np.ndarray, step: float) -> None:
        self.image, self.matrix, self.step = image, matrix, step
        self.pixel = step * scale_of(matrix)  # in px of the image
        overview = image.overview()
        self.whole = overview.coarser(self.pixel / overview.step) if self.pixel >= overview.step else None

    def under(self, centre: np.ndarray, side_px: int) -> NuclearMap:
        """What lies under a square of the cells."""
        from scipy.ndimage import map_coordinates

        corner = centre - side_px * self.step / 2
        y, x = np.mgrid[0:side_px, 0:side_px] + 0.5
        at = apply_map(self.matrix, corner + self.step * np.stack([x, y], axis=-1))  # px of the image
        source = self.whole or self._read(at)
        index = ((at - source.origin_xy) / source.step - 0.5)[..., ::-1].transpose(2, 0, 1)
        known = map_coordinates(source.known_HW.astype(np.float32), index, order=1, mode="constant") > 0.5
        values = map_coordinates(source.values_HW, index, order=1, mode="nearest")
        return NuclearMap(values_HW=np.where(known, values, 0), known_HW=known, origin_xy=corner, step=self.step)

    def _read(self, at_HW2: np.ndarray) -> NuclearMap:
        low = at_HW2.min(axis=(0, 1)) - 2 * self.pixel
        width, height = (int(np.ceil(side / self.pixel)) for side in at_HW2.max(axis=(0, 1)) + 2 * self.pixel - low)
        return self.image.window(float(low[0]), float(low[1]), width, height, self.pixel)


def _best_shift(template: np.ndarray, window: np.ndarray) -> tuple[np.ndarray, float]:
    """Shift (x, y) in pixels of the template from the centre of the window, and the correlation there."""
    from skimage.feature import match_template

    from sge2hist.pairing.alignment.registration import vertex

    surface = match_template(window, template)
    row, column = np.unravel_index(int(np.argmax(surface)), surface.shape)
    peak = np.pad(surface, 1, mode="edge")[row : row + 3, column : column + 3]
    shift = np.array([column + vertex(peak[1]), row + vertex(peak[:, 1])]) - SEARCH_PX
    return shift, float(surface[row, column])


def fit_correction(tiles: TileShifts) -> np.ndarray | None:
    """The map float64 [3, 3] from tile centres to where they were found, fitted to the tiles that agree; None with too few.

    The largest set of tiles that one similarity explains is found by sampling pairs (RANSAC, seed fixed), then fitted by
    least squares, by an affine map where enough tiles agree.
    """
    if len(tiles) < 3:
        return None
    tolerance = TOLERANCE_PX * tiles.step
    source, target = tiles.centre_T2, tiles.centre_T2 + tiles.shift_T2
    agree = _max_consensus(source, target, tolerance)
    matrix = None
    for _ in range(4):
        if agree.sum() < max(3, MIN_AGREEING * len(tiles)):
            return None
        matrix = (
            _affine(source[agree], target[agree])
            if agree.sum() >= MIN_FOR_AFFINE
            else _similarity(source[agree], target[agree])
        )
        agree = np.linalg.norm(apply_map(matrix, source) - target, axis=1) <= tolerance
    return matrix


def _max_consensus(source: np.ndarray, target: np.ndarray, tolerance: float) -> np.ndarray:
    """Which tiles the best similarity through two of them explains, bool [T]; points as complex numbers: w = a z + b."""
    z, w = source @ [1, 1j], target @ [1, 1j]
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, len(z), (2, N_SAMPLES))
    usable = z[first] != z[second]
    first, second = first[usable], second[usable]
    if len(first) == 0:
        return np.zeros(len(z), bool)
    a = (w[first] - w[second]) / (z[first] - z[second])
    b = w[first] - a * z[first]
    agree = np.abs(a[:, None] * z + b[:, None] - w) <= tolerance
    agree &= (np.abs(a - 1) < 0.25)[:, None]  # a refinement, not another map
    best: np.ndarray = agree[int(np.argmax(agree.sum(axis=1)))]
    return best


def _similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    z, w = source @ [1, 1j], target @ [1, 1j]
    system = np.column_stack([z, np.ones(len(z))])
    a, b = np.linalg.lstsq(system, w, rcond=None)[0]
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag], [0, 0, 1]])


def _affine(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    system = np.column_stack([source, np.ones(len(source))])
    solution = np.linalg.lstsq(system, target, rcond=None)[0]
    return np.vstack([solution.T, [0, 0, 1]])
