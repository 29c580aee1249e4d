"""YCbCr and transparency become RGB on white glass.

Sources: TIFF 6.0, sections 18 (associated and unassociated alpha) and 21 (YCbCr); JFIF 1.02; ISO/IEC 15444-1 annexes A and I.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

Alpha = Literal["associated", "unassociated", "unspecified"]

# Weights of red, green and blue in luma, and the levels of black and white in Y, Cb and Cr: those of JFIF.
LUMA = (0.299, 0.587, 0.114)
BLACK_WHITE = (0.0, 255.0, 128.0, 255.0, 128.0, 255.0)


def ycbcr_to_rgb(
    ycbcr: np.ndarray,
    luma: tuple[float, float, float] = LUMA,
    black_white: tuple[float, ...] = BLACK_WHITE,
) -> np.ndarray:
    """RGB uint8 [..., 3] of YCbCr uint8 [..., 3]; a fourth sample is kept.

    Parameters
    ----------
    luma
        TIFF's YCbCrCoefficients.
    black_white
        TIFF's ReferenceBlackWhite: black and white of Y, zero and maximum of Cb, of Cr.

    >>> ycbcr_to_rgb(np.array([[255, 128, 128], [76, 85, 255]], np.uint8)).tolist()
    [[255, 255, 255], [254, 0, 0]]
    """
    red, green, blue = luma
    low, high = np.array(black_white, np.float32).reshape(3, 2).T
    y, cb, cr = np.moveaxis((ycbcr[..., :3] - low) * (np.array([255, 127, 127], np.float32) / (high - low)), -1, 0)
    r = y + cr * np.float32(2 - 2 * red)
    b = y + cb * np.float32(2 - 2 * blue)
    g = (y - np.float32(red) * r - np.float32(blue) * b) / np.float32(green)
    rgb = (np.stack([r, g, b], axis=-1) + np.float32(0.5)).clip(0, 255).astype(np.uint8)
    return np.concatenate([rgb, ycbcr[..., 3:]], axis=-1) if ycbcr.shape[-1] > 3 else rgb


def on_white(rgba: np.ndarray, alpha: Alpha = "unassociated") -> np.ndarray:
    """Composite uint8 [..., 4] on white glass: uint8 [..., 3].

    Parameters
    ----------
    alpha
        "associated": colours are already multiplied by alpha.

    >>> on_white(np.array([[200, 0, 100, 0], [200, 0, 100, 255], [200, 0, 100, 51]], np.uint8)).tolist()
    [[255, 255, 255], [200, 0, 100], [244, 204, 224]]
    """
    rgb, opacity = rgba[..., :3], rgba[..., 3:]
    if (opacity == 255).all():
        return np.ascontiguousarray(rgb)
    glass = 255 * (255 - opacity.astype(np.uint16))
    if alpha == "associated":
        return np.minimum(rgb + glass // 255, 255).astype(np.uint8)
    return ((rgb * opacity.astype(np.uint16) + glass + 127) // 255).astype(np.uint8)


def jpeg_colour_space(data: bytes) -> Literal["RGB", "YCBCR"] | None:
    """What the markers of a JPEG stream of three components state; None where they state nothing.

    Adobe's marker (APP14) goes first, then JFIF, the names of the components and their sampling (RGB is never subsampled).
    """
    jfif, position = False, 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker, length = data[position + 1], int.from_bytes(data[position + 2 : position + 4])
        body = data[position + 4 : position + 2 + length]
        if marker == 0xEE and body[:5] == b"Adobe" and len(body) >= 12:
            return "YCBCR" if body[11] else "RGB"
        if marker == 0xE0 and body[:5] == b"JFIF\0":
            jfif = True
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            components = [body[6 + 3 * i : 9 + 3 * i] for i in range(body[5])]
            if jfif or len({component[1] for component in components}) > 1:
                return "YCBCR"
            return "RGB" if bytes(component[0] for component in components) == b"RGB" else None
        if marker == 0xDA:
            break
        position += 2 + length
    return None


def jpeg2000_is_raw_ycbcr(data: bytes, stated: bool | None) -> bool:
    """Whether a decoded JPEG 2000 stream still is YCbCr.

    A stream in a JP2 box names its colour space, and one with subsampled chroma can only be YCbCr: the codec converts both.
    A bare stream states nothing: the TIFF decides.

    Parameters
    ----------
    stated
        Whether the compression tag itself states YCbCr; None when it leaves that to the photometric tag, which says YCbCr. Then
        a stream with the codec's own colour transform (COD marker) is RGB once it is decoded.
    """
    start = data.find(b"\xff\x4f\xff\x51")
    if data[4:8] == b"jP  " or start < 0 or stated is False:
        return False
    size = start + 4  # of the SIZ segment; the components follow 38 bytes of sizes
    count = int.from_bytes(data[size + 36 : size + 38])
    steps = {data[size + 39 + 3 * i : size + 41 + 3 * i] for i in range(count)}
    if count < 3 or len(steps) > 1:
        return False
    position = size
    while stated is None and position + 8 < len(data):
        position += int.from_bytes(data[position : position + 2])
        marker, position = data[position : position + 2], position + 2
        if marker == b"\xff\x52":
            return data[position + 6] == 0
        if marker == b"\xff\x90":
            break
    return True
