"""Images that are no 8-bit RGB: what they are, and the command that makes them so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sge2hist.data.errors import InputError

EXPECTED = "8-bit RGB or RGBA (axes y,x,c or c,y,x)"
FULL_SCALES = (255, 1023, 4095, 16383, 65535)
_COLOUR_MODELS = {3: "a palette", 5: "CMYK", 8: "CIELab", 9: "CIELab", 10: "CIELab"}


def full_scale(highest: float) -> float:
    """The value that stands for white, by the highest value of an image: 1 for fractions, else that of 8 to 16 bits."""
    if highest <= 1:
        return 1.0
    return float(next((scale for scale in FULL_SCALES if highest <= scale), np.ceil(highest)))


def to_8_bits(read: str, target: Path, white: float, um_per_px: float | None = None) -> str:
    """The command that scales an image to 8 bits; `read` is the Python expression that reads it as [H, W, 3 or 4].

    >>> to_8_bits("tifffile.imread('a.tif')", Path("a.tif"), 4095.0)[:62]
    'python -c "import imagecodecs, tifffile; a = tifffile.imread(\\''
    """
    resolution = f", resolution=({10000 / um_per_px:.6g},) * 2, resolutionunit='CENTIMETER'" if um_per_px else ""
    return (
        f'python -c "import imagecodecs, tifffile; a = {read}; '
        f"a = (a * (255 / {white:g})).round().clip(0, 255).astype('uint8'); "
        f"tifffile.imwrite({str(_beside(target))!r}, a, photometric='rgb', tile=(256, 256), compression='zlib', "
        f'bigtiff=True{resolution})"'
    )


def to_rgb(path: Path) -> str:
    """The command that converts another colour model to RGB."""
    return (
        f'python -c "from PIL import Image; Image.MAX_IMAGE_PIXELS = None; '
        f"Image.open({str(path)!r}).convert('RGB').save({str(_beside(path))!r}, compression='tiff_lzw')\""
    )


def _beside(path: Path) -> Path:
    return path.with_name(path.name.split(".")[0] + "_rgb8.tif")


def of_tiff(path: Path, page: Any, highest: float | None, um_per_px: float | None) -> InputError:
    """The error for a TIFF page that is no 8-bit RGB(A).

    Parameters
    ----------
    highest
        The highest value of its pixels, for an image of three or four samples of another depth.
    """
    key = page.keyframe
    photometric = int(key.photometric)
    found = f"{key.dtype} with {key.samplesperpixel} sample(s) per pixel, photometric {photometric}"
    repair = "give the H&E image (not a label or CytAssist image) or choose its page; `prepare --channels` takes fluorescence"
    if photometric in _COLOUR_MODELS:
        found += f" ({_COLOUR_MODELS[photometric]})"
        repair = f"save it as RGB: {to_rgb(path)}"
        if photometric not in (3, 5):
            repair = f"save it as RGB: vips colourspace '{path}' '{_beside(path)}[tile,compression=deflate]' srgb"
    elif highest is not None:
        read = f"tifffile.imread({str(path)!r}, key={page.index})"
        if int(key.planarconfig) == 2:
            read += ".transpose(1, 2, 0)"
        repair = f"H&E: scale it to 8 bits: {to_8_bits(read, path, full_scale(highest), um_per_px)}"
        repair += "; fluorescence needs one page per channel and `prepare --channels`"
    return InputError(found=found, where=str(path), expected=EXPECTED, repair=repair)


def of_chroma(path: Path, page: Any) -> InputError:
    """The error for subsampled chroma outside JPEG."""
    return InputError(
        found=f"YCbCr with subsampled chroma, compression {int(page.keyframe.compression)}",
        where=str(path),
        expected=EXPECTED,
        repair=f"save it as RGB: {to_rgb(path)}",
    )
