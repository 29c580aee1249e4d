"""How far are the counts shifted against the image? Correlation of nuclear stain and UMI over all shifts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sge2hist.pairing.alignment.tissue import TissueMap

MAX_SHIFT_UM = 200.0  # largest shift of the search, in x and in y
TREND_UM = 150.0  # coarser structure is subtracted: the fine edges determine the shift
PEAK_UM = 60.0  # a second peak lies at least this far from the first
MIN_OBSERVATIONS = 200
MIN_OVERLAP = 0.5  # share of the observations that must stay on the image: a small overlap correlates by chance


@dataclass(frozen=True, kw_only=True)
class Shift:
    """Estimate of the shift that, added to the positions, aligns the counts with the image."""

    x_um: float
    y_um: float
    correlation: float  # at the best shift
    correlation_unshifted: float
    prominence: float  # best correlation / best correlation elsewhere; 1 = no preference
    z: float  # best correlation minus the median elsewhere, in standard deviations of the correlation elsewhere
    confidence: str  # "high" | "moderate" | "low"
    surface: (
        np.ndarray
    )  # correlation at shifts -MAX_SHIFT_UM .. MAX_SHIFT_UM, rows are y; NaN where too little overlaps
    step_um: float

    @property
    def length_um(self) -> float:
        """Length of the shift."""
        return float(np.hypot(self.x_um, self.y_um))

    def summary(self) -> dict[str, Any]:
        """The numbers, for a manifest."""
        names = ("x_um", "y_um", "correlation", "correlation_unshifted", "prominence", "z", "confidence")
        return {"length_um": self.length_um, **{name: getattr(self, name) for name in names}}


def estimate_shift(tissue: TissueMap, centre_xy_px: np.ndarray, n_counts: np.ndarray) -> Shift | None:
    """Pearson correlation over observations between log UMI and nuclear stain under them, for every shift at once.

    With u the values of the observations on the map's grid and f the map of the nuclear stain, all sums over observations at
    shift s are cross-correlations (``sum u f(. + s)``, ``sum f(. + s)``, ``sum f^2(. + s)``), done by FFT.

    Parameters
    ----------
    centre_xy_px
        float64 [N, 2] in slide px.
    n_counts
        UMI of each observation.

    Returns
    -------
    The estimate, or None with too few observations.
    """
    if len(n_counts) < MIN_OBSERVATIONS:
        return None
    step = tissue.um_per_px
    max_steps = round(MAX_SHIFT_UM / step)
    height, width = tissue.nuclear.shape
    column, row = np.floor(centre_xy_px / tissue.step_px).astype(np.int64).T
    inside = (column >= 0) & (row >= 0) & (column < width) & (row < height)
    cell = row[inside] * width + column[inside]
    number = np.bincount(cell, minlength=height * width).reshape(height, width)
    value = np.bincount(cell, np.log1p(n_counts[inside]), height * width).reshape(height, width)
    value = _detrend_points(value, number, TREND_UM / step)
    feature = _detrend_map(tissue.nuclear, TREND_UM / step)
    surface = _correlation_surface(value.astype(np.float32), number.astype(np.float32), feature, max_steps)
    return _read_peak(surface, step, max_steps)


def _detrend_map(density: np.ndarray, sigma: float) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    return density - gaussian_filter(density, sigma, mode="nearest")


def _detrend_points(value: np.ndarray, number: np.ndarray, sigma: float) -> np.ndarray:
    """Sum of values per grid cell minus the local mean over observations, normalised convolution."""
    from scipy.ndimage import gaussian_filter

    weight = gaussian_filter(number.astype(np.float32), sigma, mode="constant")
    local = gaussian_filter(value.astype(np.float32), sigma, mode="constant") / np.maximum(weight, 1e-6)
    return value - local * number


def _correlation_surface(value: np.ndarray, number: np.ndarray, feature: np.ndarray, max_steps: int) -> np.ndarray:
    """Pearson correlation at shifts -max_steps..max_steps (rows y, columns x) over the observations that stay on the map.

    NaN where fewer than `MIN_OVERLAP` of them do.
    """
    from scipy.fft import irfft2, next_fast_len, rfft2

    shape = tuple(next_fast_len(side + max_steps, real=True) for side in feature.shape)
    on_map = np.ones_like(feature)

    def correlate(points: np.ndarray, field: np.ndarray) -> np.ndarray:
        product = np.conj(rfft2(points, shape)) * rfft2(field, shape)
        full = irfft2(product, shape)
        rows, columns = (np.arange(-max_steps, max_steps + 1) % side for side in shape)
        return full[np.ix_(rows, columns)].astype(np.float64)

    on_image = correlate(number, on_map)
    n = np.maximum(on_image, 1)
    mean_value = correlate(value, on_map) / n
    mean_feature = correlate(number, feature) / n
    with np.errstate(divide="ignore", invalid="ignore"):
        value_squared = np.where(number > 0, value**2 / number, 0)
    var_value = correlate(value_squared, on_map) / n - mean_value**2
    var_feature = correlate(number, feature**2) / n - mean_feature**2
    covariance = correlate(value, feature) / n - mean_value * mean_feature
    correlation = covariance / np.sqrt(np.maximum(var_value * var_feature, 1e-20))
    return np.where(on_image >= MIN_OVERLAP * number.sum(), correlation, np.nan)


def _read_peak(surface: np.ndarray, step: float, max_steps: int) -> Shift:
    row, column = np.unravel_index(int(np.nanargmax(surface)), surface.shape)
    best = float(surface[row, column])
    y, x = np.mgrid[-max_steps : max_steps + 1, -max_steps : max_steps + 1] * step
    outside_peak = (np.hypot(y - y[row, column], x - x[row, column]) > PEAK_UM) & np.isfinite(surface)
    elsewhere = (
        surface[outside_peak] if outside_peak.any() else np.array([best])
    )  # a slide smaller than the peak has no preference
    spread = float(np.std(elsewhere)) or 1e-12
    second = float(elsewhere.max())
    z = (best - float(np.median(elsewhere))) / spread
    prominence = best / second if second > 0 else float("inf")
    peak = np.pad(surface, 1, constant_values=np.nan)[row : row + 3, column : column + 3]
    at_border = not np.isfinite(peak).all()
    confidence = "low"
    if not at_border and best > 0.05 and z > 4 and prominence > 1.2:
        confidence = "high" if z > 6 and prominence > 1.5 else "moderate"
    return Shift(
        x_um=float(x[row, column]) + vertex(peak[1]) * step,
        y_um=float(y[row, column]) + vertex(peak[:, 1]) * step,
        correlation=best,
        correlation_unshifted=float(surface[max_steps, max_steps]),
        prominence=min(prominence, 99.0),
        z=float(z),
        confidence=confidence,
        surface=surface,
        step_um=step,
    )


def vertex(three: np.ndarray) -> float:
    """Offset of the vertex of the parabola through three equally spaced values, -0.5 to 0.5."""
    curvature = three[0] - 2 * three[1] + three[2]  # NaN beside the border: no vertex there
    return float(np.clip((three[0] - three[2]) / (2 * curvature), -0.5, 0.5)) if curvature < 0 else 0.0
