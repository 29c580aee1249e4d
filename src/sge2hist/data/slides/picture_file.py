"""JPEG and PNG: decoded once, rotated by their EXIF orientation."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.data.slides.image_metadata import plausible

EXIF_ORIENTATION = 0x0112


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
        if picture.mode not in ("RGB", "RGBA"):
            raise InputError(found=f"a picture of mode {picture.mode}", where=str(path), expected="8-bit RGB or RGBA")
        if picture.width * picture.height * 3 > max_bytes:
            raise InputError(
                found=f"a picture of {picture.width:,} x {picture.height:,} px in one piece",
                where=str(path),
                expected=f"at most {max_bytes / 3e6:,.0f} million px in a format without tiles",
                repair="save it as a tiled TIFF (e.g. `vips tiffsave IN OUT.tif --tile --compression deflate`)",
            )
        orientation = picture.getexif().get(EXIF_ORIENTATION, 1)
        notes = [f"rotated by its EXIF orientation ({orientation})"] if orientation != 1 else []
        dpi = picture.info.get("dpi")
        turned = ImageOps.exif_transpose(picture)
        pixels = np.asarray(turned.convert("RGB"))
    return pixels, plausible(25400 / float(dpi[0])) if dpi and dpi[0] else None, notes


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
