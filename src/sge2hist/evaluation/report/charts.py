"""Charts as inline SVG (sharp in print, coloured by the page's own light and dark palette) and maps as PNG."""

from __future__ import annotations

import base64
import io
from html import escape
from typing import Any

import numpy as np

from sge2hist.evaluation.report.sentences import number

CHART_PX = 210
MARGIN_PX = 34
MAP_PX = 300
FRAME_ROOM = 0.5


def png_uri(image_HWC: np.ndarray) -> str:
    """Return an image (uint8 RGB or RGBA) as a data URI; without metadata."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image_HWC).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def picture(image_HWC: np.ndarray, alt: str, *, css: str = "") -> str:
    """Return an image as HTML: a button, because the page shows it enlarged when it is pressed."""
    of_class = f' class="{css}"' if css else ""
    return (
        f'<button type="button" class="enlarge"><img{of_class} src="{png_uri(image_HWC)}" alt="{escape(alt)}"></button>'
    )


def limits(*values: np.ndarray) -> tuple[float, float]:
    """Return a range that holds all finite values with a little room."""
    joined = np.concatenate([v[np.isfinite(v)] for v in values])
    if len(joined) == 0:
        return 0.0, 1.0
    low, high = float(joined.min()), float(joined.max())
    room = 0.06 * (high - low) or 0.5
    return low - room, high + room


def calibration_chart(entry: dict[str, Any], set_number: int = 0) -> str:
    """Return the calibration of one statistic: mean generated value (and its SD) in ten groups of the real value."""
    points = [p for p in entry["calibration"] if p["real_mean"] is not None and p["generated_mean"] is not None]
    if not points:
        return ""
    x = np.array([p["real_mean"] for p in points])
    y = np.array([p["generated_mean"] for p in points])
    sd = np.array([p["generated_sd"] or 0.0 for p in points])
    low, high = limits(x, y)

    def position(value: float) -> float:
        return MARGIN_PX + (value - low) / (high - low) * (CHART_PX - MARGIN_PX - 8)

    def up(value: float) -> float:
        return CHART_PX - position(value)

    bars = "".join(
        f'<line class="whisker s{set_number}" x1="{position(a):.1f}" x2="{position(a):.1f}" '
        f'y1="{up(max(b - s, low)):.1f}" y2="{up(min(b + s, high)):.1f}"/>'
        for a, b, s in zip(x, y, sd, strict=True)
    )
    path = " ".join(f"{position(a):.1f},{up(b):.1f}" for a, b in zip(x, y, strict=True))
    dots = "".join(
        f'<circle class="dot s{set_number}" cx="{position(a):.1f}" cy="{up(b):.1f}" r="3"/>'
        for a, b in zip(x, y, strict=True)
    )
    ticks = axis(low, high, position)
    return (
        f'<svg class="chart" viewBox="0 0 {CHART_PX} {CHART_PX}" role="img" aria-label="calibration of '
        f'{escape(entry["statistic"])}">'
        f'{ticks}<line class="ideal" x1="{position(low):.1f}" y1="{up(low):.1f}" x2="{position(high):.1f}" '
        f'y2="{up(high):.1f}"/>'
        f'{bars}<polyline class="line s{set_number}" points="{path}"/>{dots}</svg>'
    )


def axis(low: float, high: float, position: Any) -> str:
    """Return two axes with three ticks each; x and y share their range."""
    parts = []
    for value in nice_ticks(low, high):
        at = position(value)
        label = f"{value:.4g}".replace("-", "−")
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="8" y2="{CHART_PX - MARGIN_PX}"/>')
        parts.append(
            f'<line class="grid" x1="{MARGIN_PX}" x2="{CHART_PX - 8}" y1="{CHART_PX - at:.1f}" '
            f'y2="{CHART_PX - at:.1f}"/>'
        )
        parts.append(
            f'<text class="tick" x="{at:.1f}" y="{CHART_PX - MARGIN_PX + 14}" text-anchor="middle">{label}</text>'
        )
        parts.append(
            f'<text class="tick" x="{MARGIN_PX - 5}" y="{CHART_PX - at + 3.5:.1f}" text-anchor="end">{label}</text>'
        )
    middle = (CHART_PX + MARGIN_PX) / 2
    parts.append(f'<text class="tick" x="{middle}" y="{CHART_PX - 4}" text-anchor="middle">real</text>')
    turn = f"translate(9 {CHART_PX - middle}) rotate(-90)"
    parts.append(f'<text class="tick" transform="{turn}" text-anchor="middle">generated</text>')
    return "".join(parts)


def nice_ticks(low: float, high: float) -> list[float]:
    """Return two to four round values inside a range."""
    rough = (high - low) / 4.5
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough)
    return [float(v) for v in np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step]


def gauge(value: float | None, shuffled: float | None, low: float | None, high: float | None) -> str:
    """Return a small bar from -0.2 to 1: value with interval, and a tick at the shuffled value."""

    def position(v: float) -> float:
        return 2 + 116 * (min(max(v, -0.2), 1.0) + 0.2) / 1.2

    if value is None:
        return ""
    zero = position(0)
    parts = [f'<line class="grid" x1="{zero:.1f}" x2="{zero:.1f}" y1="1" y2="15"/>']
    left, right = sorted((zero, position(value)))
    parts.append(f'<rect class="bar" x="{left:.1f}" y="5" width="{max(right - left, 0.5):.1f}" height="6" rx="1.5"/>')
    if low is not None and high is not None:
        parts.append(f'<line class="whisker" x1="{position(low):.1f}" x2="{position(high):.1f}" y1="8" y2="8"/>')
    if shuffled is not None:
        parts.append(
            f'<line class="shuffled" x1="{position(shuffled):.1f}" x2="{position(shuffled):.1f}" y1="2" y2="14"/>'
        )
    return f'<svg class="gauge" viewBox="0 0 120 16" aria-hidden="true">{"".join(parts)}</svg>'


def plane_frame(points: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the lower and upper limits (x, y) of a scatter: those of all points, unless a few lie far outside the rest,
    which would press the others together.

    The frame reaches at most half the width of the middle 99 % beyond it.
    """
    joined = np.concatenate(list(points.values()))
    inner_low, inner_high = np.percentile(joined, [0.5, 99.5], axis=0)
    room = FRAME_ROOM * (inner_high - inner_low)
    return np.maximum(joined.min(axis=0), inner_low - room), np.minimum(joined.max(axis=0), inner_high + room)


def points_beyond(points: dict[str, np.ndarray]) -> int:
    """Return how many points lie outside the frame of their scatter."""
    low, high = plane_frame(points)
    return int(sum(((own < low) | (own > high)).any(axis=1).sum() for own in points.values()))


def in_frame(points: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the points in units of the page; those beyond the frame at its edge."""
    low, high = plane_frame(points)
    return {
        name: 10 + np.clip((own - low) / np.maximum(high - low, 1e-9), 0, 1) * (460, 340)
        for name, own in points.items()
    }


def scatter(points: dict[str, np.ndarray]) -> str:
    """Return a scatter of several sources; points alternate so that none hides the others."""
    scaled = in_frame(points)
    n_points = max(len(p) for p in points.values())
    dots = [
        f'<circle class="dot s{number_of - 1}" cx="{p[i, 0]:.1f}" cy="{p[i, 1]:.1f}" r="1.9"/>'
        if number_of
        else f'<circle class="dot real" cx="{p[i, 0]:.1f}" cy="{p[i, 1]:.1f}" r="1.9"/>'
        for i in range(n_points)
        for number_of, p in enumerate(scaled.values())
        if i < len(p)
    ]
    return (
        f'<svg class="scatter" viewBox="0 0 480 360" role="img" aria-label="features in two dimensions">'
        f"{''.join(dots)}</svg>"
    )


TYPE_COLOURS = (
    "#d55e00",
    "#0072b2",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#8c564b",
    "#7f7f7f",
    "#bcbd22",
    "#5d3fd3",
)
"""Okabe and Ito's palette and four more, distinct on light and dark backgrounds."""


def type_colour(i: int) -> str:
    """Return the colour of the i-th type; they repeat after ten."""
    return TYPE_COLOURS[i % len(TYPE_COLOURS)]


def type_scatter(points: dict[str, np.ndarray]) -> str:
    """Return a scatter of classes; small classes on top."""
    groups = []
    for i, at in enumerate(in_frame(points).values()):
        dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="1.9"/>' for x, y in at)
        groups.append(f'<g fill="{type_colour(i)}" fill-opacity="0.75">{dots}</g>')
    return (
        f'<svg class="scatter" viewBox="0 0 480 360" role="img" aria-label="z1 in two dimensions, by cell type">'
        f"{''.join(groups)}</svg>"
    )


def map_png(centre_um: np.ndarray, values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return a map as RGBA: one square per cell, coloured from `low` to `high`, transparent elsewhere."""
    from matplotlib import colormaps

    start = centre_um.min(axis=0)
    extent = float((centre_um.max(axis=0) - start).max()) or 1.0
    pixels = ((centre_um - start) / extent * (MAP_PX - 8)).astype(np.int64) + 4
    height = int(pixels[:, 1].max()) + 5
    canvas = np.zeros((height, MAP_PX, 4), np.uint8)
    colours = (colormaps["viridis"](np.clip((values - low) / max(high - low, 1e-9), 0, 1)) * 255).astype(np.uint8)
    side = int(np.clip(MAP_PX / np.sqrt(len(values)) / 4, 1, 3))
    for dy in range(-side, side + 1):
        for dx in range(-side, side + 1):
            canvas[np.clip(pixels[:, 1] + dy, 0, height - 1), np.clip(pixels[:, 0] + dx, 0, MAP_PX - 1)] = colours
    return canvas


def colour_scale(low: float, high: float) -> str:
    """Return a horizontal colour scale with its two ends."""
    from matplotlib import colormaps

    strip = (colormaps["viridis"](np.linspace(0, 1, 120))[None, :, :3] * 255).astype(np.uint8).repeat(6, axis=0)
    return f'<span class="scale">{number(low)} <img src="{png_uri(strip)}" alt="colour scale"> {number(high)}</span>'
