"""``alignment.png``: one page that shows whether the counts match the image, what was filtered, the split, and the types."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sge2hist.data.slides.channels import composite, is_rgb
from sge2hist.data.virtual_he import MARK
from sge2hist.pairing.alignment.verdict import WARN_UM
from sge2hist.pairing.collect import SectionCells

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ZOOMS_UM = (1500.0, 400.0)
SMOOTH_UM = (60.0, 25.0, 10.0)  # of the contours: whole slide, then the zooms
DENSER_THAN = (50, 75, 90)  # contours: per cent of the map with fewer counts
CONTOUR_COLOURS = ("#0000ff", "#007fbf", "#00ff7f")  # from sparse to dense
VERDICT_COLOURS = {"high": "#1b6e3a", "moderate": "#8a5a00", "low": "#a3221a"}
SPLIT_COLOURS = {"train": "#4477aa", "val": "#ccbb44", "test": "#ee6677", "dropped": "#bbbbbb"}
PLACED_COLOUR = "#e8e8e8"


@dataclass(frozen=True, kw_only=True)
class ReportInputs:
    """What the page shows for one section; cells are those placed, in the order of `part.rows`."""

    part: SectionCells
    split: np.ndarray  # object [n]
    cell_type: np.ndarray  # object [n]
    types: list[str]
    record: dict[str, Any]  # see `alignment_record`
    toy: bool


def write_report(path: Path, inputs: ReportInputs) -> None:
    """Write the page as PNG. The figure is made without pyplot: no global state, no display."""
    from matplotlib.figure import Figure

    section = inputs.part.section
    figure = Figure(figsize=(19, 14), dpi=100, layout="constrained")
    title = section.describe() + ("  [TOY TISSUE: simulated]" if inputs.toy else "")
    title += "" if section.image.virtual_he is None else f"  [{MARK}]"
    figure.suptitle(title, fontsize=13)
    grid = figure.add_gridspec(3, 4)
    _plot_slide(figure.add_subplot(grid[0:2, 0:2]), inputs)
    for column, (side_um, smooth_um) in enumerate(zip(ZOOMS_UM, SMOOTH_UM[1:], strict=True), start=2):
        _plot_zoom(figure.add_subplot(grid[0, column]), inputs, side_um, smooth_um)
    _plot_surface(figure.add_subplot(grid[1, 2]), inputs)
    words, colour = _verdict(inputs)
    _show_lines(figure.add_subplot(grid[1, 3]), _alignment_lines(inputs), words, colour=colour)
    _plot_split(figure.add_subplot(grid[2, 0]), inputs)
    _plot_types(figure.add_subplot(grid[2, 1:3]), inputs)
    _show_lines(
        figure.add_subplot(grid[2, 3]),
        _filter_lines(inputs),
        f"centre {inputs.part.section.observation}s, by each filter",
    )
    figure.savefig(path, format="png")


def _plot_slide(axes: Axes, inputs: ReportInputs) -> None:
    section = inputs.part.section
    pixels, step_px = section.image.thumbnail(1400)
    step_um = step_px * section.um_per_px
    extent_um = (0, pixels.shape[1] * step_um, pixels.shape[0] * step_um, 0)
    axes.imshow(composite(pixels, section.image.channels), extent=extent_um)
    _contours(axes, inputs, (0, 0, extent_um[1], extent_um[2]), SMOOTH_UM[0])
    frame = "black" if is_rgb(section.image.channels) else "white"
    for side_um in ZOOMS_UM:
        x, y = _zoom_corner(inputs, side_um)
        axes.plot([x, x + side_um, x + side_um, x, x], [y, y, y + side_um, y + side_um, y], color=frame, linewidth=1.5)
    axes.set(title="contours of counts over the image: they should follow the tissue", xlabel="x, um", ylabel="y, um")
    axes.set(xlim=(0, extent_um[1]), ylim=(extent_um[2], 0))  # counts may extend beyond the image
    _contour_legend(axes, inputs)


def _plot_zoom(axes: Axes, inputs: ReportInputs, side_um: float, smooth_um: float) -> None:
    section = inputs.part.section
    x, y = _zoom_corner(inputs, side_um)
    scale = section.um_per_px
    pixels = section.image.read_window(x / scale, y / scale, side_um / scale, side_um / scale, 700, 700)
    axes.imshow(composite(pixels, section.image.channels), extent=(x, x + side_um, y + side_um, y))
    _contours(axes, inputs, (x, y, x + side_um, y + side_um), max(smooth_um, (section.observation_um or 0) * 0.7))
    axes.set(title=f"window of {side_um:g} um", xlim=(x, x + side_um), ylim=(y + side_um, y))


def _zoom_corner(inputs: ReportInputs, side_um: float) -> tuple[float, float]:
    """Upper left corner (x, y in um) of the window where the stain varies most: edges show a shift best."""
    from scipy.ndimage import uniform_filter

    tissue = inputs.part.tissue
    height, width = tissue.density.shape
    size = max(1, round(side_um / tissue.um_per_px))
    mean = uniform_filter(tissue.density, size, mode="constant")
    contrast = uniform_filter(tissue.density**2, size, mode="constant") - mean**2
    share = uniform_filter(tissue.mask.astype(np.float32), size, mode="constant")
    score = contrast * (share > 0.8) if (share > 0.8).any() else contrast * share  # pale tissue is no "tissue"
    half_y, half_x = min(size // 2, (height - 1) // 2), min(size // 2, (width - 1) // 2)
    inner = score[half_y : height - half_y, half_x : width - half_x]
    row, column = np.unravel_index(int(np.argmax(inner)), inner.shape)
    return float(column * tissue.um_per_px), float(row * tissue.um_per_px)


def _contours(axes: Axes, inputs: ReportInputs, box_um: tuple[float, float, float, float], smooth_um: float) -> None:
    """Contours at the 50th, 75th and 90th percentile of the smoothed UMI per observation inside the box."""
    from scipy.ndimage import gaussian_filter

    section, count_grid = inputs.part.section, inputs.part.section.count_grid
    centre_um = section.centre_xy_px[inputs.part.centre_rows] * section.um_per_px
    counts = inputs.part.n_counts[inputs.part.is_centre]
    if count_grid is not None:  # outlines put cells on nuclei: only the bins show a shift
        centre_um, counts = count_grid.centre_xy_px * section.um_per_px, count_grid.n_counts
    step = max((box_um[2] - box_um[0]) / 500, smooth_um / 4)
    margin = 3 * smooth_um
    edges = [np.arange(box_um[axis] - margin, box_um[axis + 2] + margin + step, step) for axis in (0, 1)]
    sums, _, _ = np.histogram2d(centre_um[:, 1], centre_um[:, 0], bins=[edges[1], edges[0]], weights=counts)
    number, _, _ = np.histogram2d(centre_um[:, 1], centre_um[:, 0], bins=[edges[1], edges[0]])
    density = gaussian_filter(sums, smooth_um / step)
    if _on_array(inputs):  # bins and spots: UMI per observation, so that gaps leave no contours
        weight = gaussian_filter(number, smooth_um / step)
        density = np.where(weight > 0.02 * weight.max(), density / np.maximum(weight, 1e-9), 0)
    values = density[density > 0]
    if len(values) == 0:
        return
    levels, first = np.unique(np.percentile(values, DENSER_THAN), return_index=True)
    if len(levels) > 1:
        middle = [(edge[1:] + edge[:-1]) / 2 for edge in edges]
        colours = [CONTOUR_COLOURS[number] for number in first]
        axes.contour(middle[0], middle[1], density, levels=levels, colors=colours, linewidths=0.8)


def _contour_legend(axes: Axes, inputs: ReportInputs) -> None:
    """Name the contours, and the frames of the enlarged windows, below the slide."""
    from matplotlib.lines import Line2D

    per = f" per {inputs.part.section.observation}" if _on_array(inputs) else " per area"
    handles = [Line2D([], [], color=colour) for colour in CONTOUR_COLOURS]
    names = [f"UMI{per} above that of {share} % of the map" for share in DENSER_THAN]
    axes.legend(
        handles,
        names,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.07),
        ncols=3,
        fontsize=9,
        frameon=False,
        handlelength=1.5,
    )


def _on_array(inputs: ReportInputs) -> bool:
    """Whether the contours are those of bins or spots."""
    return inputs.part.section.count_grid is not None or inputs.part.section.observation != "cell"


def _plot_surface(axes: Axes, inputs: ReportInputs) -> None:
    shift = inputs.part.shift
    if shift is None:
        axes.set_axis_off()
        return
    max_um = (shift.surface.shape[0] // 2 + 0.5) * shift.step_um
    axes.imshow(shift.surface, extent=(-max_um, max_um, max_um, -max_um), cmap="magma")
    axes.axhline(0, color="white", linewidth=0.4)
    axes.axvline(0, color="white", linewidth=0.4)
    axes.plot(shift.x_um, shift.y_um, "c+", markersize=14)
    axes.set(
        title=f"correlation of {inputs.part.tissue.nuclear_name} and UMI by shift",
        xlabel="x shift, um",
        ylabel="y shift, um",
    )


def _plot_split(axes: Axes, inputs: ReportInputs) -> None:
    is_centre = inputs.part.is_centre
    if not is_centre.all():
        _dots(axes, inputs, ~is_centre, PLACED_COLOUR, "placed only")
    for name, colour in SPLIT_COLOURS.items():
        _dots(axes, inputs, (inputs.split == name) & is_centre, colour, name)
    axes.set(aspect="equal", title="split")
    axes.invert_yaxis()
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), markerscale=6, fontsize=8, frameon=False)


def _plot_types(axes: Axes, inputs: ReportInputs) -> None:
    from matplotlib import colormaps

    _dots(axes, inputs, ~np.isin(inputs.cell_type, inputs.types), "#e8e8e8", "unknown")
    for number, name in enumerate(inputs.types):
        _dots(axes, inputs, inputs.cell_type == name, colormaps["tab20"](number % 20), name)
    axes.set(aspect="equal", title="cell types")
    axes.invert_yaxis()
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), markerscale=6, fontsize=8, frameon=False)


def _dots(axes: Axes, inputs: ReportInputs, chosen: np.ndarray, colour: Any, name: str) -> None:
    part = inputs.part
    x_um, y_um = (part.section.centre_xy_px[part.rows][chosen] * part.section.um_per_px).T
    axes.scatter(x_um, y_um, s=1.5, color=colour, linewidths=0, label=f"{name} {int(chosen.sum()):,}")


def _verdict(inputs: ReportInputs) -> tuple[str, str]:
    """The verdict on the alignment, wrapped, and its colour."""
    import textwrap

    shift = inputs.part.shift
    confidence = "low" if shift is None or shift.length_um >= WARN_UM else shift.confidence
    text = inputs.record["verdict"]
    return "\n".join(textwrap.wrap(text[0].upper() + text[1:], 40)), VERDICT_COLOURS[confidence]


def _alignment_lines(inputs: ReportInputs) -> list[str]:
    record = inputs.record
    lines = ["um per px:"]
    lines += [f"  {value:.4f}  {name}" for name, value in record["um_per_px_sources"].items()]
    lines.append(f"centres inside the image: {record['inside_image']:.2%}")
    x_um, y_um = record["applied_shift_um"]
    lines.append(f"shift applied: x {x_um:g}, y {y_um:g} um")
    shift = record["measured_shift"]
    if shift is None:
        lines.append("remaining shift: not measured")
    else:
        lines.append(f"remaining shift: x {shift['x_um']:.1f}, y {shift['y_um']:.1f} um")
        lines.append(f"  confidence {shift['confidence']} (z {shift['z']:.1f}, prominence {shift['prominence']:.1f})")
        lines.append(f"  correlation {shift['correlation_unshifted']:.3f}, best {shift['correlation']:.3f}")
        lines.append(f"  measured on {record['measured_on']}")
    return lines + [f"! {warning}" for warning in record["warnings"]]


def _filter_lines(inputs: ReportInputs) -> list[str]:
    lines = [f"{inputs.part.section.n_obs:>10,}  {inputs.part.section.observation}s read"]
    lines += [f"{-line['removed']:>10,}  {line['filter']}" for line in inputs.part.removals]
    n_centre, n_placed = int(inputs.part.is_centre.sum()), len(inputs.part.rows)
    lines.append(f"{n_centre:>10,}  centre {inputs.part.section.observation}s: trained on, evaluated")
    lines.append(f"{n_placed:>10,}  placed in the image around them")
    n_evaluated = int(((inputs.split == "test") & inputs.part.is_centre).sum())
    return [*lines, f"{n_evaluated:>10,}  in the test split"]


def _show_lines(axes: Axes, lines: list[str], title: str, *, colour: str = "black") -> None:
    import textwrap

    wrapped = [
        piece for line in lines for piece in textwrap.wrap(line, 56, subsequent_indent="    ", drop_whitespace=False)
    ]
    axes.set_axis_off()
    axes.set_title(title, loc="left", color=colour, fontweight="normal" if colour == "black" else "bold")
    axes.text(0, 1, "\n".join(wrapped), va="top", family="monospace", fontsize=8, transform=axes.transAxes)
