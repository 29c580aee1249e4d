"""The part of the page on generated slides: table of local maps and seams, overviews, maps of windows."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from sge2hist.evaluation.report import charts
from sge2hist.evaluation.report.sentences import is_bright_field, number
from sge2hist.evaluation.report.tables import figure, scroll
from sge2hist.evaluation.resampling import percentiles

if TYPE_CHECKING:
    from sge2hist.evaluation.report.pictures import Pictures

MAP_PX = 280  # width of a map of windows


def slide_section(report: dict[str, Any], pictures: Pictures) -> str:
    """Return all about the sets that are slides, "" when none is."""
    scored = "".join(slide_table(name, found) for name, found in report["slides"].items())
    lead = ""
    if scored:
        first = next(iter(report["slides"].values()))
        what = "Stain and lumen" if is_bright_field(report) else "Light of the channels"
        lead = (
            f'<p class="lead">{what} in windows of {first["window_um"]:g} µm that hold cells of split '
            f"{escape(first['split'])} alone, generated against real over windows; shuffled: each window given another one "
            "of the same slide. Seams: energy of the gradient where the windows of the sampler meet over that elsewhere.</p>"
        )
    shown = "".join(
        f"<h3>{escape(name)}</h3>{region_line(report, name)}{overview_pair(*pair)}{window_maps(pictures.slides.get(name, {}))}"
        for name, pair in pictures.overviews.items()
    )
    return lead + scored + shown


def region_line(report: dict[str, Any], name: str) -> str:
    """Return where on its slide a generated slide lies; "" where the report does not say."""
    made: dict[str, Any] = next((entry["manifest"] for entry in report["sets"] if entry["name"] == name), {})
    if "region_um" not in made:
        return ""
    x, y, width, height = made["region_um"]
    place = f"{width:,.0f} × {height:,.0f} µm of slide {made['slide']}, from x {x:,.0f}, y {y:,.0f} µm"
    return f"<p class=caption>{escape(place)}</p>"


def slide_table(name: str, found: dict[str, Any]) -> str:
    """Return one slide's scores: a row per statistic, and the seams."""
    rows = "".join(
        f"<tr><td>{escape(row['name'].replace('_', ' '))}</td>{figure(row['correlation'], strong=True)}"
        f"{figure(row['shuffled'])}<td class=n>{number(row['r2'])}</td><td class=n>{number(row['spread_ratio'])}</td></tr>"
        for row in found["maps"]
    )
    head = (
        f"<th>{escape(name)}, {found['n_windows']:,} windows</th><th class=n>correlation</th><th class=n>shuffled</th>"
    )
    table = scroll(
        f"<table class=metrics><thead><tr>{head}<th class=n>R²</th><th class=n>spread ratio</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>"
    )
    if found["seams"] is None:
        return table
    seams = (
        f"<tr><td>{escape(name)}, seam score (1: no seam)</td>{figure(found['seams'], strong=True)}"
        f"{figure(found['real_seams'])}</tr>"
    )
    if found["seams_alike"]:
        seams += f"<tr><td>against lines of the network's own grid only</td>{figure(found['seams_alike'])}{figure(None)}</tr>"
    head = "<tr><td></td><th class=n>generated</th><th class=n>real</th></tr>"
    return table + scroll(f"<table class=metrics><thead>{head}</thead><tbody>{seams}</tbody></table>")


def overview_pair(real: np.ndarray, generated: np.ndarray) -> str:
    """Return the whole region, real and generated."""
    panels = "".join(
        f"<figure>{charts.picture(image, f'{title} slide', css='map')}<figcaption>{title}</figcaption></figure>"
        for title, image in (("real", real), ("generated", generated))
    )
    return f"<div class=maps>{panels}</div>"


def window_maps(maps: dict[str, tuple[np.ndarray, np.ndarray]]) -> str:
    """Return the scored maps of every statistic, real and generated on one scale."""
    parts = []
    for statistic, (real, generated) in maps.items():
        low, high = percentiles(real, 2, 98)
        panels = "".join(
            f"<figure>{charts.picture(window_image(values, low, high), f'{statistic} {title}', css='map')}"
            f"<figcaption>{title}</figcaption></figure>"
            for title, values in (("real", real), ("generated", generated))
        )
        parts.append(
            f"<h3>{escape(statistic.replace('_', ' '))}</h3><div class=maps>{panels}</div>"
            f"<p class=caption>{charts.colour_scale(float(low), float(high))}</p>"
        )
    return "".join(parts)


def window_image(values_RC: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return a map of windows as RGBA, each window a square; those that are not scored are transparent."""
    from matplotlib import colormaps

    known = np.isfinite(values_RC)
    share = np.where(known, (values_RC - low) / max(high - low, 1e-9), 0.0).clip(0, 1)
    image = (colormaps["viridis"](share) * 255).astype(np.uint8) * known[..., None].astype(np.uint8)
    side = max(1, MAP_PX // max(1, values_RC.shape[1]))
    return image.repeat(side, 0).repeat(side, 1)
