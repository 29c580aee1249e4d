"""Contact sheets and tables of facts, as files and notebooks show them."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sge2hist.data.artifacts import atomic_path
from sge2hist.data.errors import InputError, as_path, refuse_wrong_arguments
from sge2hist.data.slides.channels import RGB, composite

if TYPE_CHECKING:
    from PIL.Image import Image

SHEET_NAME = "contact_sheet.png"
MAX_IMAGES = 64
MIN_TILE_PX = 96  # smaller images are enlarged by a whole factor up to about this side
GAP_PX = 4
TITLE_PX = 14
HEADING_PX = 22
ROW_TITLE_PX = 150


class ContactSheet:
    """A picture that a notebook shows, and that can be saved; `picture` is the Pillow image."""

    def __init__(self, picture: Image) -> None:
        self.picture = picture

    def __repr__(self) -> str:
        return f"ContactSheet({self.picture.width} x {self.picture.height} px)"

    def _repr_png_(self) -> bytes:
        buffer = BytesIO()
        self._write(buffer)
        return buffer.getvalue()

    def save(self, path: str | Path) -> Path:
        """Write a PNG; returns its path."""
        path = as_path(path, "path")
        with atomic_path(path) as partial, open(partial, "wb") as file:
            self._write(file)
        return path

    def _write(self, file: object) -> None:
        from PIL.PngImagePlugin import PngInfo

        info = PngInfo()
        info.add_text("Software", "sge2hist")
        self.picture.save(file, format="PNG", pnginfo=info)  # type: ignore[arg-type]


@refuse_wrong_arguments("titles", "heading", "columns", "channels")
def contact_sheet(
    images: np.ndarray | Sequence[np.ndarray],
    titles: Sequence[str] | None = None,
    *,
    heading: str = "",
    columns: int = 8,
    channels: Sequence[str] = RGB,
) -> ContactSheet:
    """Put images side by side, each under its title.

    Parameters
    ----------
    images
        uint8 [n, H, W, C]; the first 64 are shown. Or [rows, columns, H, W, C], as `generate_from_genes` returns
        (cells x samples): one row of images for each.
    titles
        One for each image; for rows of images one for each row.
    heading
        A line above all images.
    columns
        Images in a row, for images [n, H, W, C].
    channels
        Names of the C channels: images other than RGB are shown as a colour composite.

    Raises
    ------
    InputError
        If there is no image, it is not uint8 or of another shape, or the number of titles differs.

    Example
    -------
    >>> contact_sheet(np.zeros((3, 8, 8, 3), np.uint8), titles=["a", "b", "c"])
    ContactSheet(304 x 118 px)
    """
    array = _checked(images, channels)
    if titles is not None and (isinstance(titles, str) or len(titles) != len(array)):
        found = "one text" if isinstance(titles, str) else f"{len(titles)} titles"
        raise InputError(found=f"{found} for {len(array)} images or rows", expected="a list with one title for each")
    if columns < 1:
        raise InputError(found=f"columns={columns}", expected="1 or more")
    shown = [composite(image, channels) for image in array]
    if array.ndim == 5:
        n_rows = max(1, MAX_IMAGES // array.shape[1])
        named = titles if titles is not None else [""] * len(array)
        return sheet_of_rows([(heading, list(zip(named[:n_rows], shown[:n_rows], strict=True)))])
    return _grid(shown[:MAX_IMAGES], titles, heading, columns)


def sheet_of_rows(blocks: Sequence[tuple[str, Sequence[tuple[str, np.ndarray]]]]) -> ContactSheet:
    """Blocks (heading, rows) of rows (title at the left, RGB images uint8 [n, H, W, 3])."""
    from PIL import Image, ImageDraw

    rows = [row for _, block in blocks for row in block]
    zoom = _zoom(rows[0][1][0])
    height, width = (side * zoom + GAP_PX for side in rows[0][1].shape[1:3])
    left = ROW_TITLE_PX if any(title for title, _ in rows) else GAP_PX
    headings = [HEADING_PX if heading else 0 for heading, _ in blocks]
    size = (left + max(len(images) for _, images in rows) * width, GAP_PX + sum(headings) + len(rows) * height)
    canvas = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(canvas)
    top = GAP_PX
    for (heading, block), heading_px in zip(blocks, headings, strict=True):
        pen.text((GAP_PX, top + 4), heading, fill="black")
        top += heading_px
        for title, images in block:
            pen.text((GAP_PX, top + height // 2 - 8), _fitted(title, left - GAP_PX), fill="black")
            for column, image in enumerate(images):
                canvas.paste(_enlarged(image, zoom), (left + column * width, top))
            top += height
    return ContactSheet(canvas)


def _grid(images: Sequence[np.ndarray], titles: Sequence[str] | None, heading: str, columns: int) -> ContactSheet:
    from PIL import Image, ImageDraw

    zoom = _zoom(images[0])
    title_px = TITLE_PX if titles is not None else 0
    height, width = images[0].shape[0] * zoom + GAP_PX + title_px, images[0].shape[1] * zoom + GAP_PX
    columns, top = min(columns, len(images)), GAP_PX + (HEADING_PX if heading else 0)
    n_rows = -(-len(images) // columns)
    canvas = Image.new("RGB", (GAP_PX + columns * width, top + n_rows * height), "white")
    pen = ImageDraw.Draw(canvas)
    pen.text((GAP_PX, GAP_PX), heading, fill="black")
    for number, image in enumerate(images):
        x, y = GAP_PX + number % columns * width, top + number // columns * height
        canvas.paste(_enlarged(image, zoom), (x, y + title_px))
        if titles is not None:
            pen.text((x, y), _fitted(titles[number], width - GAP_PX), fill="black")
    return ContactSheet(canvas)


def _checked(images: np.ndarray | Sequence[np.ndarray], channels: Sequence[str]) -> np.ndarray:
    try:
        array = np.asarray(images)
    except ValueError as error:
        raise InputError(found=f"images that do not stack ({error})", expected="images of one size") from error
    if array.dtype != np.uint8 or array.ndim not in (4, 5) or array.size == 0 or array.shape[-1] != len(channels):
        raise InputError(
            found=f"images {array.dtype} of shape {list(array.shape)}",
            expected=f"uint8 [n, H, W, {len(channels)}] or [rows, columns, H, W, {len(channels)}], at least one",
            repair="give one image as image[None]" if array.ndim == 3 else "name other channels than RGB as channels=",
        )
    return array


def _zoom(image: np.ndarray) -> int:
    return max(1, round(MIN_TILE_PX / image.shape[1]))


def _enlarged(image: np.ndarray, zoom: int) -> Image:
    from PIL import Image

    size = (image.shape[1] * zoom, image.shape[0] * zoom)
    return Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)


def _fitted(text: str, width_px: int) -> str:
    """A title cut to a width, by the default font's 6 px or so a letter."""
    n_letters = max(3, width_px // 6)
    text = str(text)
    return text if len(text) <= n_letters else text[: n_letters - 1] + "…"


def png_bytes(image_HWC: np.ndarray) -> bytes:
    """RGB uint8 [H, W, 3] as the bytes of a PNG."""
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(image_HWC).save(buffer, format="PNG")
    return buffer.getvalue()


def html_facts(title: str, facts: Sequence[tuple[str, str]], picture: bytes | None = None) -> str:
    """A table of names and values for a notebook, with a PNG beside it.

    >>> html_facts("Model", [("genes", "2,000")])
    '<div><b>Model</b><table><tr><th>genes</th><td>2,000</td></tr></table></div>'
    """
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in facts)
    image = ""
    if picture is not None:
        from base64 import b64encode

        image = f'<img style="float:right" src="data:image/png;base64,{b64encode(picture).decode()}">'
    return f"<div>{image}<b>{escape(title)}</b><table>{rows}</table></div>"


def html_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table for a notebook."""
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
