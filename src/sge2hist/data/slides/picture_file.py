"""JPEG and PNG: decoded once, rotated by their EXIF orientation."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.data.slides.colour_space import on_white
from sge2hist.data.slides.image_metadata import pixel_side_um
from sge2hist.data.slides.not_8bit_rgb import full_scale, to_8_bits, to_rgb

EXIF_ORIENTATION = 0x0112
DARK = 64  # of 255: 16-bit pictures whose values end below it hold fewer bits, scaled to none of their own


def read_picture(path: Path, max_bytes: int) -> tuple[np.ndarray, float | None, list[str]]:
    """Pixels uint8 [H, W, 3], um/px from the resolution (None when it is that of a print), and notes.

    Parameters
    ----------
    max_bytes
        A picture that would decode to more is refused: JPEG and PNG cannot be read by parts.

    Raises
    ------
    InputError
        If the picture is not 8-bit RGB(A) or too large. Damage raises what Pillow raises.
    """
    from PIL import Image, ImageOps

    with _no_pixel_limit(), Image.open(path) as picture:
        if picture.mode not in ("RGB", "RGBA", "P"):
            raise _not_rgb(path, picture.mode)
        if picture.width * picture.height * 3 > max_bytes:
            raise InputError(
                found=f"a picture of {picture.width:,} x {picture.height:,} px in one piece",
                where=str(path),
                expected=f"at most {max_bytes / 3e6:,.0f} million px in a format without tiles",
                repair="save it as a tiled TIFF (e.g. `vips tiffsave IN OUT.tif --tile --compression deflate`)",
            )
        sixteen_bits = "16" in str(picture.tile[0].args) if picture.tile else False
        orientation = picture.getexif().get(EXIF_ORIENTATION, 1)
        notes = [f"rotated by its EXIF orientation ({orientation})"] if orientation != 1 else []
        dpi = picture.info.get("dpi")
        if picture.mode == "P":
            if all(r == g == b for r, g, b in _palette(picture)):
                raise _not_rgb(path, picture.mode)
            notes.append("colours of a palette became RGB")
        transparent = picture.mode == "RGBA" or "transparency" in picture.info
        upright = ImageOps.exif_transpose(picture)
        pixels = np.asarray(upright.convert("RGBA" if transparent else "RGB"))
    if sixteen_bits:  # Pillow has taken the high byte of each value
        if pixels[..., :3].max() < DARK:
            white = full_scale(float(pixels[..., :3].max()) * 256 + 255)
            raise InputError(
                found=f"16 bits per channel that end at {white:.0f}",
                where=str(path),
                expected="8-bit RGB or RGBA, or 16 bits that use their range",
                repair=f"scale it to 8 bits: {to_8_bits(f'imagecodecs.imread({str(path)!r})', path, white)}",
            )
        notes.append("16 bits became 8: 0 to 65535")
    if transparent and pixels[..., 3].any():
        pixels = on_white(pixels)
    elif transparent:
        notes.append("transparency ignored: all of the picture is transparent")
    um_per_px, not_square = (
        pixel_side_um(*(25400 / float(side) if side else None for side in dpi)) if dpi else (None, [])
    )
    return np.ascontiguousarray(pixels[..., :3]), um_per_px, notes + not_square


def _palette(picture: Any) -> np.ndarray:
    """The colours of the palette that occur in the picture, [n, 3]."""
    used = [number for _, number in picture.getcolors(256) or ()]
    return np.array(picture.getpalette("RGB"), np.uint8).reshape(-1, 3)[used]


def _not_rgb(path: Path, mode: str) -> InputError:
    grey = mode.startswith(("1", "L", "I", "F", "P"))
    return InputError(
        found=f"a picture of mode {mode}" + (" (grey)" if grey else ""),
        where=str(path),
        expected="8-bit RGB or RGBA",
        repair="give the H&E image in colour" if grey else f"save it as RGB: {to_rgb(path)}",
    )


@contextmanager
def _no_pixel_limit() -> Iterator[None]:
    """Pillow refuses pictures above 179 million px; slides are larger, and `max_bytes` is the limit here."""
    from PIL import Image

    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before
