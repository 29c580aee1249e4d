"""Layers of the viewer: the real section, the generated one, the types of its cells, its uncertainty.

Every layer shows the same rectangle of the section, each at its own resolution. Positions are px of the generated slide
(corner-based) unless a name says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sge2hist.data.generated import GeneratedSlide
from sge2hist.data.paired import PairedDataset
from sge2hist.data.slides.channels import composite
from sge2hist.data.virtual_he import mark_of
from sge2hist.viewer.colours import colours_of_dataset
from sge2hist.viewer.pyramid import Layer

NO_CELL_RGBA = (255, 255, 255, 0)
UNKNOWN_RGB = (200, 200, 200)


def generated_layer(generated: GeneratedSlide) -> Layer:
    """The generated slide."""
    slide = generated.image
    mark = mark_of(generated.manifest)
    note = "generated from RNA and positions alone" + ("; toy tissue" if generated.is_toy else "")
    note += f"; {mark}" if mark else ""
    return Layer(
        key="generated",
        title="Generated",
        note=note,
        width_px=slide.width_px,
        height_px=slide.height_px,
        read=lambda x, y, w, h: composite(slide.read(x, y, w, h), generated.channels),
    )


def real_layer(dataset: PairedDataset, slide_number: int, beside: GeneratedSlide) -> Layer:
    """The rectangle of a generated slide on that of a paired dataset, at its own resolution, in colours like those."""
    slide, um = dataset.slides[slide_number], dataset.um_per_px
    x_px, y_px, width_px, height_px = (value / um for value in beside.region_um)
    n_columns, n_rows = max(1, round(width_px)), max(1, round(height_px))
    colours = colours_of_dataset(dataset, beside)

    def read(x: int, y: int, width: int, height: int) -> np.ndarray:
        return colours.show(slide.read_window(x_px + x, y_px + y, width, height, width, height))

    return Layer(
        key="real",
        title="Real",
        note=f"{colours.note} of {dataset.slide_ids[slide_number]}",
        width_px=n_columns,
        height_px=n_rows,
        read=read,
    )


def uncertainty_layer(generated: GeneratedSlide) -> Layer | None:
    """Spread over seeds in false colour; None for a slide of one seed."""
    from matplotlib import colormaps

    slide = generated.uncertainty
    if slide is None:
        return None
    scale, n_seeds = float(generated.manifest["uncertainty_scale"]), int(generated.manifest["n_seeds"])
    table = (colormaps["inferno"](np.arange(256))[:, :3] * 255).round().astype(np.uint8)
    note = f"spread over {n_seeds} seeds: black 0, bright {255 / scale:.0f} grey levels of 255 or more"
    return Layer(
        key="uncertainty",
        title="Uncertainty",
        note=note,
        width_px=slide.width_px,
        height_px=slide.height_px,
        read=lambda x, y, w, h: table[slide.read(x, y, w, h)[..., 0]],
    )


@dataclass(frozen=True, kw_only=True)
class TypedCells:
    """N cells, `code_N` index into `names` (-1: unknown)."""

    xy_px_N2: np.ndarray
    code_N: np.ndarray
    names: list[str]
    ids: list[str]

    @property
    def spacing_px(self) -> float:
        """Median distance of neighbouring cells, px."""
        from scipy.spatial import cKDTree

        if len(self.xy_px_N2) < 2:
            return 8.0
        some = self.xy_px_N2[:: max(1, len(self.xy_px_N2) // 2000)]
        distance_n2 = np.asarray(cKDTree(self.xy_px_N2).query(some, k=2)[0])
        return max(2.0, float(np.median(distance_n2[:, 1])))


def stored_cells(generated: GeneratedSlide) -> TypedCells | None:
    """The cells of a generated slide, None when it was written without them."""
    table = generated.cells()
    if table is None:
        return None
    types, xy_px_N2 = table.obs["cell_type"].astype("category"), np.asarray(table.obsm["spatial"], np.float64)
    names, ids = [str(name) for name in types.cat.categories], [str(name) for name in table.obs_names]
    return _without_unknown(xy_px_N2, types.cat.codes.to_numpy(np.int64), names, ids)


def paired_cells(
    dataset: PairedDataset, slide_number: int, region_um: tuple[float, float, float, float], um_per_px: float
) -> TypedCells:
    """The cells of a paired dataset, in px of a slide of the region with `um_per_px`."""
    own = dataset.slide_of_cell == slide_number
    xy_px = (dataset.centre_xy_px[own] * dataset.um_per_px - region_um[:2]) / um_per_px
    ids = [str(name) for name in dataset.obs.index[own]]
    return TypedCells(xy_px_N2=xy_px, code_N=dataset.type_of_cell[own], names=list(dataset.types), ids=ids)


def _without_unknown(xy_px_N2: np.ndarray, code_N: np.ndarray, names: list[str], ids: list[str]) -> TypedCells:
    keep = [number for number, name in enumerate(names) if name != "unknown"]
    table = np.full(len(names) + 1, -1)
    table[keep] = np.arange(len(keep))
    return TypedCells(xy_px_N2=xy_px_N2, code_N=table[code_N], names=[names[number] for number in keep], ids=ids)


def type_colours(names: list[str]) -> np.ndarray:
    """One colour per name, uint8 [n, 3]; the same for the same number of names."""
    from matplotlib import colormaps

    pairs = colormaps["tab20"](np.arange(20))[:, :3]  # a strong and a pale colour of each hue in turn
    base = np.concatenate([pairs[::2], pairs[1::2]])
    return (base[np.arange(len(names)) % len(base)] * 255).round().astype(np.uint8)


def type_layer(cells: TypedCells, width_px: int, height_px: int) -> tuple[Layer, list[dict[str, Any]]]:
    """Colour every pixel by its nearest cell, if one lies within 0.75 cell spacings, else leave it transparent.

    Returns the layer and its legend.
    """
    from scipy.spatial import cKDTree

    tree = cKDTree(cells.xy_px_N2)
    spacing_px = cells.spacing_px
    step = max(1, int(spacing_px // 6))  # px of the slide per px of the layer: six across a cell are enough
    opaque = np.concatenate([type_colours(cells.names), [UNKNOWN_RGB]])
    colours = np.concatenate([np.insert(opaque, 3, 255, axis=1), [NO_CELL_RGBA]]).astype(np.uint8)
    code_N = np.append(np.where(cells.code_N < 0, len(cells.names), cells.code_N), len(cells.names) + 1)

    def read(x: int, y: int, width: int, height: int) -> np.ndarray:
        grid_y, grid_x = np.mgrid[y : y + height, x : x + width]
        points = np.stack([grid_x.ravel() + 0.5, grid_y.ravel() + 0.5], 1) * step
        nearest = tree.query(points, distance_upper_bound=0.75 * spacing_px)[1]  # the number of cells when none is near
        return colours[code_N[nearest]].reshape(height, width, 4)

    inside = np.asarray(((cells.xy_px_N2 >= 0) & (cells.xy_px_N2 < (width_px, height_px))).all(1))
    layer = Layer(
        key="types",
        title="Cell types",
        note=f"{int(inside.sum()):,} cells",
        width_px=-(-width_px // step),
        height_px=-(-height_px // step),
        read=read,
        suffix="png",
    )
    return layer, _legend(cells, inside, colours)


def _legend(cells: TypedCells, inside: np.ndarray, colours: np.ndarray) -> list[dict[str, Any]]:
    count = np.bincount(cells.code_N[inside] + 1, minlength=len(cells.names) + 1)
    rows: list[dict[str, Any]] = [
        {"name": name, "colour": "#{:02x}{:02x}{:02x}".format(*colours[number, :3]), "n": int(count[number + 1])}
        for number, name in enumerate(cells.names)
    ]
    rows.append({"name": "unknown", "colour": "#{:02x}{:02x}{:02x}".format(*UNKNOWN_RGB), "n": int(count[0])})
    return [row for row in sorted(rows, key=lambda row: -row["n"]) if row["n"]]
