"""Tiles and strips of a TIFF page, decoded to the samples that they stand for: RGB, RGBA or one channel."""

from __future__ import annotations

from typing import Any

import numpy as np

from sge2hist.data.slides.colour_space import (
    BLACK_WHITE,
    LUMA,
    Alpha,
    jpeg2000_is_raw_ycbcr,
    jpeg_colour_space,
    ycbcr_to_rgb,
)

JPEG = (7, 33007, 34892)
# 33003 is Aperio's YCbCr and 33005 its RGB, whatever the photometric tag says; the others leave it to the tag.
JPEG_2000: dict[int, bool | None] = {33003: True, 33005: False, 33004: None, 34712: None}
# Codecs that hand out RGB themselves; the photometric tag then says nothing about what they return.
RGB_CODECS = (6, 22610, 34933, 34934, 50001, 50002, 52546)
MIN_IS_BLACK, PHOTOMETRIC_RGB, PHOTOMETRIC_YCBCR = 1, 2, 6


def is_planar(key: Any) -> bool:
    """Whether each sample of a page lies in tiles of its own (planar configuration 2)."""
    return bool(key.samplesperpixel > 1 and int(key.planarconfig) == 2)


def alpha_of(key: Any) -> Alpha | None:
    """What the fourth sample of a page is, by its ExtraSamples tag; None when there are three."""
    if key.samplesperpixel < 4:
        return None
    stated: dict[int, Alpha] = {1: "associated", 2: "unassociated"}
    return stated.get(int(key.extrasamples[0]) if key.extrasamples else 0, "unspecified")


def has_unread_chroma(key: Any) -> bool:
    """Whether chroma is subsampled in a way that no decoder here reads: outside JPEG and JPEG 2000."""
    ours = *JPEG, *JPEG_2000, *RGB_CODECS
    if int(key.photometric) != PHOTOMETRIC_YCBCR or int(key.compression) in ours:
        return False
    return tuple(key.subsampling or (2, 2)) != (1, 1)  # the tag's default is 2, 2


def ycbcr_pages_to_rgb(key: Any, samples: np.ndarray) -> np.ndarray:
    """RGB of all samples of a tile [h, w, 3 or 4] where the page's tags say YCbCr and no codec has converted it."""
    by_codec = int(key.compression) in RGB_CODECS or (
        not is_planar(key) and int(key.compression) in (*JPEG, *JPEG_2000)
    )
    if by_codec or int(key.photometric) != PHOTOMETRIC_YCBCR or samples.shape[-1] < 3:
        return samples
    luma, levels = _rationals(key, 529), _rationals(key, 532)
    return ycbcr_to_rgb(
        samples,
        (luma[0], luma[1], luma[2]) if len(luma) == 3 and all(luma) else LUMA,
        levels if len(levels) == 6 and all(levels[i] != levels[i + 1] for i in (0, 2, 4)) else BLACK_WHITE,
    )


def _rationals(key: Any, tag: int) -> tuple[float, ...]:
    values = key.tags.valueof(tag, ())
    return tuple(values[i] / values[i + 1] for i in range(0, len(values), 2) if values[i + 1])


def read_segment(page: Any, index: int) -> bytes:
    """The compressed bytes of a tile or strip; empty for a sparse one.

    Raises
    ------
    ValueError
        If the file ends before them.
    """
    offset, n_bytes = page.dataoffsets[index], page.databytecounts[index]
    if n_bytes == 0:
        return b""
    handle = page.parent.filehandle
    handle.seek(offset)
    data: bytes = handle.read(n_bytes)
    if len(data) < n_bytes:
        raise ValueError(f"the file ends inside tile {index} ({len(data)} of {n_bytes} bytes)")
    return data


def decode_segment(page: Any, data: bytes, index: int) -> np.ndarray:
    """Decode a tile or strip: [h, w, samples], one sample where the page is planar; at a border it may be padded or cut.

    JPEG and JPEG 2000 are converted to RGB by what their own streams state, and by the page's tags where they state nothing.
    """
    key = page.keyframe
    compression = int(key.compression)
    if compression in JPEG_2000:
        decoded = _jpeg2000(key, data)
    elif compression in JPEG:
        decoded = _jpeg(page, data)
    else:
        arguments = {"jpegtables": page.jpegtables, "jpegheader": key.jpegheader} if compression == 6 else {}
        decoded = key.decode(data, index, _fullsize=key.is_tiled, **arguments)[0]
        if decoded is None:
            raise ValueError(f"tile {index} could not be decoded")
        return decoded[0]
    samples = 1 if is_planar(key) else int(key.samplesperpixel)
    decoded = decoded[..., None] if decoded.ndim == 2 else decoded
    if decoded.shape[-1] != samples:
        raise ValueError(f"tile {index} holds {decoded.shape[-1]} samples per pixel, its page {samples}")
    return decoded


def _jpeg(page: Any, data: bytes) -> np.ndarray:
    import imagecodecs

    key = page.keyframe
    colour: dict[str, Any] = {}
    if is_planar(key):
        colour = {"outcolorspace": "GRAYSCALE"}
    elif key.samplesperpixel == 3:
        colour = {"colorspace": jpeg_colour_space(data) or _stated(key), "outcolorspace": "RGB"}
    return imagecodecs.jpeg_decode(
        data,
        bitspersample=key.bitspersample,
        tables=page.jpegtables,
        header=key.jpegheader,
        shape=(key.tilelength, key.tilewidth) if key.is_tiled else None,
        **colour,
    )


def _stated(key: Any) -> str | None:
    return {PHOTOMETRIC_RGB: "RGB", PHOTOMETRIC_YCBCR: "YCBCR"}.get(int(key.photometric))


def _jpeg2000(key: Any, data: bytes) -> np.ndarray:
    import imagecodecs

    pixels = imagecodecs.jpeg2k_decode(data)
    stated = JPEG_2000[int(key.compression)]
    if stated is None and int(key.photometric) != PHOTOMETRIC_YCBCR:
        return pixels
    return ycbcr_to_rgb(pixels) if jpeg2000_is_raw_ycbcr(data, stated) else pixels


def disagreement(page: Any) -> str:
    """Note on a JPEG page whose first stored tile is of another colour space than the photometric tag; "" if there is none."""
    key = page.keyframe
    if int(key.compression) not in JPEG or is_planar(key) or key.samplesperpixel != 3 or key.jpegheader:
        return ""
    first = next((i for i, n_bytes in enumerate(page.databytecounts) if n_bytes), None)
    stream, tag = (jpeg_colour_space(read_segment(page, first)) if first is not None else None), _stated(key)
    if stream is None or tag is None or stream == tag:
        return ""
    return f"the JPEG tiles say {stream}, the photometric tag {tag}: the tiles are right"
