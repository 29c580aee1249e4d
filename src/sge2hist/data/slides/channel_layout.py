"""Fluorescence TIFF: the pages of the requested channels, their names, and how 16 bits become 8.

OME-TIFF with axes y,x or c,y,x, one page per channel, in one file or one file per channel (as Xenium writes its morphology
images); pyramids in sub-resolutions. Stacks along z or t are refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.data.slides.channels import Channels, choose_channels
from sge2hist.data.slides.image_metadata import tiff_um_per_px
from sge2hist.data.slides.pixel_source import (
    CACHE_BYTES,
    ChannelPage,
    ChannelPages,
    PixelSource,
    ScaledPixels,
    TiffPixels,
)
from sge2hist.data.slides.stain_scale import FULL_RANGE, StainScale

EXPECTED = "8- or 16-bit channels, one page each (axes y,x or c,y,x)"
LOW_PERCENTILE, HIGH_PERCENTILE = 1.0, 99.8  # of a channel's values: these become 0 and 255
ENOUGH_PX = 1_000_000  # a level of this area suffices for the range of a channel
WINDOWS, WINDOW_PX = 8, 256  # where it is larger than that: this many windows along each side


def open_channels(
    path: Path, requested: Channels
) -> tuple[list[PixelSource], float | None, Channels, dict[str, StainScale], list[str]]:
    """Open the levels of a fluorescence TIFF, largest first.

    Returns
    -------
    levels, um/px from the metadata (or None), names of the channels, the scale of each (linear; 0 to 255 for 8 bits, which are
    unchanged), and notes on the um/px.

    Raises
    ------
    InputError
        If the file is an RGB picture, a stack, of another type of number, or lacks a requested channel.
    """
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        series = max(tiff.series, key=lambda one: int(np.prod(one.shape[-2:])) if one.axes[-2:] == "YX" else 0)
        _check(path, series, tiff.ome_metadata)
        in_file = channel_names(tiff.ome_metadata, tiff.series.index(series)) if tiff.is_ome else []
        count = len(series.pages)
        numbers, channels = choose_channels(requested, in_file if len(in_file) == count else [], count, str(path))
        levels = [[_open(level.pages[i], len(numbers)) for i in numbers] for level in series.levels]
        um_per_px, notes = tiff_um_per_px(tiff, series.pages[0])
    scaled, scales = scaled_levels(levels, channels)
    return scaled, um_per_px, channels, scales, notes


def open_stain_files(files: Mapping[str, Path], requested: Channels) -> tuple[list[list[TiffPixels]], Channels]:
    """Pages of the requested stains, [level][channel], where each stain has a TIFF of its own.

    Raises
    ------
    InputError
        If a file is no grey image of 8 or 16 bits, they differ in size or type, or a requested stain has none.
    """
    import tifffile

    where = ", ".join(path.name for path in files.values())
    numbers, channels = choose_channels(requested, list(files), len(files), where)
    by_channel: list[list[TiffPixels]] = []
    for number in numbers:
        path = list(files.values())[number]
        with tifffile.TiffFile(path) as tiff:
            series = tiff.series[0]
            _check(path, series, tiff.ome_metadata)
            if len(series.pages) != 1:
                raise InputError(found=f"{len(series.pages)} pages", where=str(path), expected="one stain per file")
            by_channel.append([_open(level.pages[0], len(numbers)) for level in series.levels])
    for level in zip(*by_channel, strict=False):
        if len({(page.height_px, page.width_px, page.dtype) for page in level}) > 1:
            sizes = ", ".join(f"{page.width_px} x {page.height_px} px, {page.dtype}" for page in level)
            raise InputError(found=f"stains that differ ({sizes})", where=where, expected="one size and type of number")
    return [list(level) for level in zip(*by_channel, strict=False)], channels


def scaled_levels(
    levels: Sequence[Sequence[ChannelPage]], channels: Channels
) -> tuple[list[PixelSource], dict[str, StainScale]]:
    """Levels 0 to 255 of pages [level][channel], and the scale of each channel."""
    scales = _scales(levels)
    scaled: list[PixelSource] = [ScaledPixels(ChannelPages(pages), scales) for pages in levels]
    return scaled, dict(zip(channels, scales, strict=True))


def _check(path: Path, series: Any, ome_metadata: str | None) -> None:
    key = series.keyframe
    if key.samplesperpixel != 1 or series.axes not in ("YX", "CYX") or key.dtype not in (np.uint8, np.uint16):
        rgb = " (an RGB picture?)" if key.samplesperpixel in (3, 4) else ""
        raise InputError(
            found=f"{key.dtype} with axes {series.axes.lower()}, {key.samplesperpixel} sample(s) per pixel{rgb}",
            where=str(path),
            expected=EXPECTED,
            repair="omit --channels for H&E" if rgb else "give one focal plane (e.g. morphology_focus) as OME-TIFF",
        )
    if any(page is None for page in series.pages):
        named = sorted(set(re.findall(r'FileName="([^"]+)"', ome_metadata or "")))
        missing = [name for name in named if not (path.parent / name).is_file()]
        raise InputError(
            found=f"an OME-TIFF in several files of which some are missing ({', '.join(missing) or 'which, it does not name'})",
            where=str(path),
            expected="all of them in one folder, under the names that they had",
        )


def _open(page: Any, n_channels: int) -> TiffPixels:
    own = Path(page.parent.filehandle.path)  # one file per channel: not the one that was named
    size = own.stat().st_size
    end = max((o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=False)), default=0)
    if end > size:
        raise InputError(
            found=f"a truncated file ({size} bytes, pixels up to byte {end})",
            where=str(own),
            expected="a complete TIFF",
            repair="copy it again",
        )
    return TiffPixels(own, [page], CACHE_BYTES // n_channels)


def channel_names(xml: str | None, number: int) -> list[str]:
    """Names of the channels of an image in OME-XML; [] where one has none or two are the same.

    >>> channel_names('<OME><Image><Pixels><Channel Name="DAPI"/><Channel Name="18S"/></Pixels></Image></OME>', 0)
    ['DAPI', '18S']
    """
    try:
        images = [node for node in ElementTree.fromstring(xml or "").iter() if _tag(node) == "Image"]
        found = [node.get("Name") or "" for node in images[number].iter() if _tag(node) == "Channel"]
    except (ElementTree.ParseError, IndexError):
        return []
    names = [name.strip() for name in found]
    return names if all(names) and len(set(names)) == len(names) else []


def _tag(node: Any) -> str:
    return str(node.tag).rsplit("}", 1)[-1]


def _scales(levels: Sequence[Sequence[ChannelPage]]) -> list[StainScale]:
    """Robust range of each channel, measured from the coarsest level that is large enough."""
    enough = [level for level in levels if level[0].height_px * level[0].width_px >= ENOUGH_PX]
    return [_scale(page) for page in (enough or levels)[-1 if enough else 0]]


def _scale(page: ChannelPage) -> StainScale:
    if page.dtype == np.uint8:
        return StainScale(low=FULL_RANGE[0], high=FULL_RANGE[1])
    parts = []
    for y0, y1 in _windows(page.height_px):
        for x0, x1 in _windows(page.width_px):
            parts.append(page.region(y0, x0, y1, x1).ravel())
    low, high = np.percentile(np.concatenate(parts), [LOW_PERCENTILE, HIGH_PERCENTILE])
    return StainScale(low=float(low), high=float(max(high, low + 1)))


def _windows(length: int) -> list[tuple[int, int]]:
    """Up to `WINDOWS` evenly spaced pieces of a side, all of it where it is short."""
    step = length / min(WINDOWS, length)
    size = min(WINDOW_PX, int(np.ceil(step)))
    starts = (np.arange(min(WINDOWS, length)) * step + (step - size) / 2).clip(0).astype(int)
    return [(int(start), min(int(start) + size, length)) for start in starts]
