"""The folder with ``slide.html``: tiles of every layer, the viewer's script, and one page. It needs no server and no network."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from sge2hist.data.artifacts import atomic_directory, check_output, write_manifest
from sge2hist.data.errors import InputError
from sge2hist.data.generated import APPLICABILITY, GeneratedSlide, applicability_headline
from sge2hist.data.output_lock import locks_output
from sge2hist.data.paired import PairedDataset
from sge2hist.data.virtual_he import mark_of
from sge2hist.viewer.colours import shown_slide_number
from sge2hist.viewer.layers import (
    TypedCells,
    generated_layer,
    paired_cells,
    real_layer,
    stored_cells,
    type_layer,
    uncertainty_layer,
)
from sge2hist.viewer.pyramid import TILE_PX, Layer, write_pyramid

PAGE_NAME = "slide.html"
CELLS_NAME = "cells.js"
PARTS = ("slide.css", "cells.js", "slide.js")  # written into the page
SCRIPTS = ("openseadragon.min.js", "openseadragon.LICENSE.txt")
ORDER = ("real", "generated", "types", "uncertainty")


@locks_output()
def build_viewer(
    generated: str | Path,
    output: str | Path,
    *,
    data: PairedDataset | None = None,
    overwrite: bool = False,
    progress: Callable[[int], None] = lambda n: None,
) -> Path:
    """Write a folder that shows a generated slide in a browser, with all views linked. Returns the path of its page.

    Parameters
    ----------
    generated
        A slide made by ``sge2hist generate-slide``.
    data
        The paired dataset that it was generated from; the real section is then shown beside it.
    progress
        Counts tiles of the finest level; at most :func:`n_tiles` of them.

    Raises
    ------
    InputError
        If the output exists, `generated` is no slide, or `data` lacks its slide.
    """
    check_output(output, overwrite=overwrite, kind="viewer")
    layers, legend, cells, manifest = open_layers(Path(generated), data)
    with atomic_directory(output, overwrite=overwrite, kind="viewer") as partial:
        shown = [write_pyramid(partial / "tiles" / layer.key, layer, progress=progress) for layer in layers]
        assets = files("sge2hist.viewer").joinpath("assets")
        for name in SCRIPTS:
            (partial / name).write_bytes(assets.joinpath(name).read_bytes())
        x, y, width, height = manifest["region_um"]
        content = {
            "layers": shown,
            "legend": legend,
            "x_um": x,
            "y_um": y,
            "width_um": width,
            "height_um": height,
        }
        if cells is not None:
            (partial / CELLS_NAME).write_text(cells_script(cells, legend, manifest), encoding="utf-8")
        title = Path(generated).name.removesuffix(".generated")
        page = page_html(title, content, manifest, with_cells=cells is not None)
        (partial / PAGE_NAME).write_text(page, encoding="utf-8")
        write_manifest(
            partial, "viewer", synthetic=True, generated=str(generated), layers=[layer.key for layer in layers]
        )
    return Path(output) / PAGE_NAME


def open_layers(
    path: Path, data: PairedDataset | None
) -> tuple[list[Layer], list[dict[str, Any]], TypedCells | None, dict[str, Any]]:
    """Return the layers of a slide, the legend of its types, its cells if they are known, and its manifest."""
    slide = GeneratedSlide.open(path)
    manifest = slide.manifest
    picture = generated_layer(slide)
    layers, cells = [picture], stored_cells(slide)
    if data is not None:
        made_from = manifest.get("data_fingerprint")
        if manifest.get("data_path") and made_from != data.fingerprint:
            raise InputError(
                found=f"another dataset than the slide was generated from (fingerprint {made_from})",
                where=str(data.path),
                expected="the dataset itself, not one prepared again",
                repair="generate the slide again, or give the dataset that it was generated from as --data",
            )
        number = shown_slide_number(slide, data)
        layers.append(real_layer(data, number, slide))
        cells = cells or paired_cells(data, number, slide.region_um, slide.um_per_px)
    legend: list[dict[str, Any]] = []
    if cells is not None and not len(cells.xy_px_N2):
        cells = None
    if cells is not None:
        layer, legend = type_layer(cells, picture.width_px, picture.height_px)
        layers.append(layer)
    uncertainty = uncertainty_layer(slide)
    if uncertainty is not None:
        layers.append(uncertainty)
    return sorted(layers, key=lambda layer: ORDER.index(layer.key)), legend, cells, manifest


def cells_script(cells: TypedCells, legend: list[dict[str, Any]], manifest: dict[str, Any]) -> str:
    """The cells inside the slide as a script, because a page that is opened as a file may load nothing else.

    `xy_um` is float32, x and y in turn, from the upper left corner of the slide; `type` int16, the row of the legend; both in
    base64, little-endian.
    """
    row_of = {row["name"]: number for number, row in enumerate(legend)}
    rows = np.array([row_of.get(name, -1) for name in [*cells.names, "unknown"]], "<i2")[cells.code_N]
    um_per_px = float(manifest["um_per_px"])
    xy_um_N2 = cells.xy_px_N2 * um_per_px
    inside = np.flatnonzero(((xy_um_N2 >= 0) & (xy_um_N2 < manifest["region_um"][2:])).all(1))
    content = {
        "xy_um": _base64(xy_um_N2[inside].astype("<f4")),
        "type": _base64(rows[inside]),
        "ids": [cells.ids[number] for number in inside],
        "spacing_um": cells.spacing_px * um_per_px,
    }
    return f"window.slideCells = {json.dumps(content)};\n"


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")


def n_tiles(layers: list[Layer]) -> int:
    """Tiles of the finest level of all layers."""
    return sum(-(-layer.width_px // TILE_PX) * -(-layer.height_px // TILE_PX) for layer in layers)


def page_html(title: str, content: dict[str, Any], manifest: dict[str, Any], *, with_cells: bool) -> str:
    """The page; `content` is what its script reads."""
    assets = files("sge2hist.viewer").joinpath("assets")
    style, cells, script = (assets.joinpath(name).read_text(encoding="utf-8") for name in PARTS)
    cells_element = f'<script src="{CELLS_NAME}"></script>' if with_cells else ""
    data = json.dumps(content).replace("</", "<\\/")  # a name must not end the script element
    toy = '<span class="mark toy">TOY</span>' if manifest.get("toy") else ""
    toy += f'<span class="mark toy">{escape(mark_of(manifest))}</span>' if mark_of(manifest) else ""
    found = manifest.get(APPLICABILITY)
    headline = applicability_headline(found)
    applicability = ""
    if headline is not None and found is not None:
        shown = {
            "known": "",
            "doubtful": "cells differ from the training cells",
            "unknown": "cells unknown to the model",
        }
        mark = shown[found["verdict"]]
        applicability = f'<span class="mark toy">{mark}</span>' if mark else ""
        applicability += f'<span class="line applicability">{escape(headline)}</span>'
    area_mm2 = content["width_um"] * content["height_um"] / 1e6
    line = (
        f"{content['width_um'] / 1000:.2f} x {content['height_um'] / 1000:.2f} mm ({area_mm2:.2f} mm²) · "
        f"{manifest['um_per_px']:g} µm/px · seed {manifest['seed']}"
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{escape(title)}: real and generated</title><style>{style}</style></head><body>"
        f'<header><h1>{escape(title)}</h1>{toy}<span class="mark">synthetic image, not for diagnosis</span>'
        f'{applicability}<span class="line">{escape(line)}</span><span id="toggles"></span>'
        '<button id="home" type="button">whole image</button><span id="place"></span>'
        '<span id="cell" role="status"></span></header>'
        '<main id="views"></main><footer id="legend"></footer>'
        f'<script id="content" type="application/json">{data}</script>'
        f'<script src="{SCRIPTS[0]}"></script>{cells_element}<script>{cells}{script}</script></body></html>\n'
    )
