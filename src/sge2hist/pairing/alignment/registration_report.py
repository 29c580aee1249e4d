"""``registration.png``: cells on the image at three zooms, and a checkerboard of image and cells."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sge2hist.data.section import Section
from sge2hist.data.slides.channels import composite
from sge2hist.pairing.alignment.map_to_image import NUCLEUS_UM, ImageMap
from sge2hist.pairing.alignment.nuclear_map import ImageNuclei, NuclearSource, PointNuclei

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ZOOMS_UM = (800.0, 200.0)
BOARD_UM = 600.0
N_SQUARES = 8  # of the checkerboard, along a side
WINDOW_PX = 700
MAX_DOTS = 30_000
DOT = "#00b050"


def write_registration_report(path: Path, section: Section, applied: ImageMap, *, toy: bool = False) -> None:
    """Write the page as PNG, of a section whose positions lie on its image."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(18, 12), dpi=100, layout="constrained")
    mark = "  [TOY TISSUE: simulated]" if toy else ""
    figure.suptitle(f"{section.name}: {section.observation}s on {section.image.path.name}{mark}", fontsize=13)
    grid = figure.add_gridspec(2, 3)
    _plot_whole(figure.add_subplot(grid[0, 0:2]), section)
    for place, side_um in ((grid[0, 2], ZOOMS_UM[0]), (grid[1, 0], ZOOMS_UM[1])):
        _plot_zoom(figure.add_subplot(place), section, side_um)
    _plot_board(figure.add_subplot(grid[1, 1]), section)
    _show_numbers(figure.add_subplot(grid[1, 2]), section, applied)
    figure.savefig(path, format="png")


def _plot_whole(axes: Axes, section: Section) -> None:
    pixels, step = section.image.thumbnail(1400)
    extent = (0, pixels.shape[1] * step, pixels.shape[0] * step, 0)
    axes.imshow(composite(pixels, section.image.channels), extent=extent)
    rng = np.random.default_rng(0)
    shown = rng.permutation(section.n_obs)[:MAX_DOTS]
    x_N, y_N = section.centre_xy_px[shown].T
    axes.scatter(x_N, y_N, s=0.3, color=DOT, linewidths=0)
    for side_um in ZOOMS_UM:
        x, y, side = _window(section, side_um)
        axes.plot([x, x + side, x + side, x, x], [y, y, y + side, y + side, y], color="black", linewidth=1.2)
    axes.set(title="whole image", xlim=extent[:2], ylim=extent[2:])
    axes.set_axis_off()


def _plot_zoom(axes: Axes, section: Section, side_um: float) -> None:
    x, y, side = _window(section, side_um)
    pixels = section.image.read_window(x, y, side, side, WINDOW_PX, WINDOW_PX)
    axes.imshow(composite(pixels, section.image.channels), extent=(x, x + side, y + side, y))
    inside = ((section.centre_xy_px >= [x, y]) & (section.centre_xy_px < [x + side, y + side])).all(axis=1)
    size = 6 * (ZOOMS_UM[0] / side_um) ** 2 / 4
    x_N, y_N = section.centre_xy_px[inside].T
    axes.scatter(x_N, y_N, s=size, facecolors="none", edgecolors=DOT, linewidths=1.0)
    axes.set(title=f"{side_um:g} um", xlim=(x, x + side), ylim=(y + side, y))
    axes.set_axis_off()


def _plot_board(axes: Axes, section: Section) -> None:
    """Squares of the image's nuclear stain and of the cells in turn: structures must go on across the borders."""
    x, y, side = _window(section, BOARD_UM)
    sigma_um = NUCLEUS_UM if section.observation == "cell" else max(NUCLEUS_UM, section.observation_um or 0)
    image = ImageNuclei(section.image, section.um_per_px)
    cells = PointNuclei(section.centre_xy_px, section.um_per_px, sigma_um=sigma_um)
    stain, density = (_grey(source, x, y, side) for source in (image, cells))
    square = np.arange(WINDOW_PX) * N_SQUARES // WINDOW_PX
    of_image = (square[:, None] + square[None, :]) % 2 == 0
    board = np.where(of_image[..., None], _tint(stain, (0.35, 0.2, 0.55)), _tint(density, (0.0, 0.45, 0.2)))
    axes.imshow(board)
    axes.set_title(f"{BOARD_UM:g} um in squares: nuclear stain (violet), {section.observation}s (green)")
    axes.set_axis_off()


def _grey(source: NuclearSource, x: float, y: float, side: float) -> np.ndarray:
    values = source.window(x, y, WINDOW_PX, WINDOW_PX, side / WINDOW_PX).values_HW
    low, high = np.quantile(values, [0.02, 0.995])
    return np.clip((values - low) / max(float(high - low), 1e-6), 0, 1)


def _tint(amount_HW: np.ndarray, colour: tuple[float, float, float]) -> np.ndarray:
    """White to a colour."""
    return 1 - amount_HW[..., None] * (1 - np.array(colour))


def _window(section: Section, side_um: float) -> tuple[float, float, float]:
    """Corner (x, y) and side, in px, of the window of the image with the most cells."""
    size = np.array([section.image.width_px, section.image.height_px], float)
    side = min(side_um / section.um_per_px, float(size.min()))
    inside = ((section.centre_xy_px >= 0) & (section.centre_xy_px < size)).all(axis=1)
    step = side / 2
    bins = [np.arange(0, length + step, step) for length in size]
    x_N, y_N = section.centre_xy_px[inside].T
    number, x_edges, y_edges = np.histogram2d(x_N, y_N, bins=bins)
    both = number[:-1, :-1] + number[1:, :-1] + number[:-1, 1:] + number[1:, 1:] if min(number.shape) > 1 else number
    column, row = np.unravel_index(int(np.argmax(both)), both.shape)
    x, y = np.minimum([x_edges[column], y_edges[row]], size - side)
    return float(x), float(y), side


def _show_numbers(axes: Axes, section: Section, applied: ImageMap) -> None:
    lines = [applied.source.replace(": ", ":\n"), ""]
    lines += [f"um per px: {value:.5g} ({name})" for name, value in section.um_per_px_sources.items()]
    linear = applied.image_to_cells[:2, :2]
    turn = np.degrees(np.arctan2(linear[1, 0], linear[0, 0]))
    mirror = ", mirrored" if np.linalg.det(linear) < 0 else ""
    lines += [f"image turned by {turn:.1f} degrees{mirror}", ""]
    if applied.registration is not None:
        evidence = applied.registration.evidence
        lines += [
            "cross-validation over tiles:",
            f"  {evidence.n_agreeing} of {evidence.n_tiles} agree within {evidence.tolerance_um:.1f} um",
            f"  by chance: 10^{evidence.log10_chance:.0f}",
            f"  residual of a tile: {evidence.residual_um:.2f} um, 95 % below {evidence.residual_95_um:.2f} um",
            f"  uncertainty of the map: {evidence.uncertainty_um:.2f} um",
            f"search: {applied.registration.score:.0f}, best other map {applied.registration.runner_up:.0f}",
        ]
    axes.text(0, 1, "\n".join(lines), va="top", family="monospace", fontsize=9, wrap=True)
    axes.set_axis_off()
