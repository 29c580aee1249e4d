"""Deep-zoom tiles of the real and the generated slide, made when they are asked for."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np

from sge2hist.data.generated import GeneratedSlide
from sge2hist.data.paired import PairedDataset
from sge2hist.data.slides.slide_image import SlideImage
from sge2hist.explorer.fields import not_found
from sge2hist.viewer.colours import colours_of, colours_of_dataset
from sge2hist.viewer.layers import generated_layer, uncertainty_layer
from sge2hist.viewer.pyramid import JPEG_QUALITY, n_levels

TILE_PX = 256
MAX_TILES = 512  # kept in memory
Rectangle = tuple[float, float, float, float]


@dataclass(kw_only=True)
class TiledLayer:
    """One slide at all resolutions; level 0 is the coarsest."""

    key: str
    title: str
    note: str
    slide: SlideImage
    rectangle_um: Rectangle
    show: Callable[[np.ndarray], np.ndarray]  # pixels of the slide -> RGB
    legend: list[dict[str, str]] = field(default_factory=list)  # name and colour of each stain
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def levels(self) -> int:
        """Number of resolutions."""
        return n_levels(self.slide.width_px, self.slide.height_px, TILE_PX)

    def facts(self) -> dict[str, Any]:
        """What the page must know."""
        x, y, width, height = self.rectangle_um
        return {
            "key": self.key,
            "title": self.title,
            "note": self.note,
            "suffix": "jpg",
            "width": self.slide.width_px,
            "height": self.slide.height_px,
            "tile": TILE_PX,
            "levels": self.levels,
            "x_um": x,
            "y_um": y,
            "width_um": width,
            "height_um": height,
            "stains": self.legend,
        }

    def tile(self, level: int, column: int, row: int) -> np.ndarray:
        """RGB of one tile, uint8 [<= TILE_PX, <= TILE_PX, 3]; `RequestError` outside the slide."""
        if not 0 <= level < self.levels:
            raise not_found(f"no level {level}")
        step = 2 ** (self.levels - 1 - level)
        width, height = -(-self.slide.width_px // step), -(-self.slide.height_px // step)
        x, y = column * TILE_PX, row * TILE_PX
        if not 0 <= x < width or not 0 <= y < height:
            raise not_found(f"no tile {column}, {row} at level {level}")
        w, h = min(TILE_PX, width - x), min(TILE_PX, height - y)
        with self._lock:  # readers of files are not safe for threads
            source = self._stored(step)
            factor = step * source.width_px / self.slide.width_px
            if factor == 1:
                pixels = source.read(x, y, w, h)
            else:  # the last row and column may extend past the image by a part of a px: stay inside
                wide = min(w * factor, source.width_px - x * factor)
                tall = min(h * factor, source.height_px - y * factor)
                pixels = source.read_window(x * factor, y * factor, wide, tall, w, h)
        return self.show(pixels)

    def patch(self, centre_px: tuple[float, float], side_um: float, out_px: int, um_per_px: float) -> np.ndarray:
        """RGB of a square of the slide, uint8 [out_px, out_px, 3]."""
        with self._lock:
            pixels = self.slide.read_patch(centre_px, side_um, out_px, um_per_px)
        return self.show(pixels)

    def _stored(self, step: int) -> SlideImage:
        """The coarsest stored resolution that is fine enough."""
        slide = self.slide
        fit = [level for level in slide.levels if slide.width_px / level.width_px <= step * 1.001]
        source = fit[-1] if fit else slide.levels[0]
        if source is slide.levels[0]:
            return slide
        return SlideImage(slide.path, [source], None, channels=slide.channels, transform=slide.transform)


class TileCache:
    """JPEG tiles of the layers; the last ones stay in memory."""

    def __init__(self, layers: list[TiledLayer]) -> None:
        self.layers = {layer.key: layer for layer in layers}
        self._kept: OrderedDict[tuple[str, int, int, int], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def jpeg(self, key: str, level: int, column: int, row: int) -> bytes:
        """One tile."""
        place = (key, level, column, row)
        with self._lock:
            if place in self._kept:
                self._kept.move_to_end(place)
                return self._kept[place]
        if key not in self.layers:
            raise not_found(f"no layer {key!r}")
        content = jpeg_bytes(self.layers[key].tile(level, column, row))
        with self._lock:
            self._kept[place] = content
            while len(self._kept) > MAX_TILES:
                self._kept.popitem(last=False)
        return content


def jpeg_bytes(image: np.ndarray) -> bytes:
    """An RGB image as JPEG."""
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def open_tiles(dataset: PairedDataset, number: int, generated: GeneratedSlide | None) -> list[TiledLayer]:
    """The layers of a slide of a dataset, and of the slide generated from it."""
    slide, um = dataset.slides[number], dataset.um_per_px
    colours = colours_of_dataset(dataset, generated)
    layers = [
        TiledLayer(
            key="real",
            title="Real",
            note=f"{colours.note} of {dataset.slide_ids[number]}",
            slide=slide,
            rectangle_um=(0.0, 0.0, slide.width_px * um, slide.height_px * um),
            show=colours.show,
            legend=colours.legend(),
        )
    ]
    if generated is None:
        return layers
    shown_as = colours_of(generated.channels, dataset.stain_transform, None)
    shown = generated_layer(generated)
    layers.append(
        TiledLayer(
            key="generated",
            title=shown.title,
            note=shown.note,
            slide=generated.image,
            rectangle_um=generated.region_um,
            show=shown_as.show,
            legend=shown_as.legend() or colours.legend(),
        )
    )
    spread = uncertainty_layer(generated)
    if spread is not None and generated.uncertainty is not None:
        from matplotlib import colormaps

        table = (colormaps["inferno"](np.arange(256))[:, :3] * 255).round().astype(np.uint8)
        layers.append(
            TiledLayer(
                key="uncertainty",
                title=spread.title,
                note=spread.note,
                slide=generated.uncertainty,
                rectangle_um=generated.region_um,
                show=lambda pixels: table[pixels[..., 0]],
            )
        )
    return layers
