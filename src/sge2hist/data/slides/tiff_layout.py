"""Which pages of a TIFF are the slide, and how they are stored: tiled, striped, planar, one page per channel."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.data.slides.channel_layout import channel_names
from sge2hist.data.slides.channels import is_nuclear
from sge2hist.data.slides.image_metadata import tiff_um_per_px
from sge2hist.data.slides.not_8bit_rgb import EXPECTED, of_chroma, of_tiff
from sge2hist.data.slides.pixel_source import MAX_TILES, ArrayPixels, PixelSource, TiffPixels
from sge2hist.data.slides.tiff_segment import disagreement, has_unread_chroma

MIN_SHARE_CLEAR = 0.9  # of an undeclared fourth sample at 0 or 255: below it, it is no transparency


def open_levels(
    path: Path, page: int | None, decode_whole_bytes: int
) -> tuple[list[PixelSource], float | None, list[str]]:
    """Open the resolution levels of the slide in a TIFF, largest first.

    Returns
    -------
    levels, um/px from the metadata (or None), notes for people.

    Raises
    ------
    InputError
        If no page is 8-bit RGB(A) or the requested page does not exist.
    """
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        groups = _page_groups(tiff, page, path)
        first = groups[0][0]
        if has_unread_chroma(first.keyframe):
            raise of_chroma(path, first)
        _check_complete(path, groups[0])
        _refuse_stains(path, tiff, groups[0])
        tiles = [TiffPixels(path, pages) for pages in groups]
        if first.keyframe.is_tiled:
            tiles[0].try_first_tile()
        um_per_px, notes = tiff_um_per_px(tiff, first)
        notes += _settle_alpha(tiles)
        if note := disagreement(first):
            notes.append(note)
        orientation = first.tags.get("Orientation")
        if orientation is not None and int(orientation.value) != 1:
            notes.append(f"TIFF orientation tag {int(orientation.value)} ignored: pixels are used in stored order")
        if len(tiff.pages) > 1 and page is None and len(first.treeindex) == 1 and first.index > 0:
            notes.append(f"image taken from page {first.index} of {len(tiff.pages)}")
        levels = [_source(pages, level, decode_whole_bytes) for pages, level in zip(groups, tiles, strict=True)]
        return levels, um_per_px, notes


def _settle_alpha(levels: list[TiffPixels]) -> list[str]:
    """Ignore a fourth sample that is no transparency, in all levels; notes.

    A sample that is 0 everywhere is padding, whatever the file declares; one that the file does not declare as alpha is alpha
    where it is 0 or 255 nearly everywhere.
    """
    if levels[0].alpha is None:
        return []
    opaque = any(tile.any() for tile in levels[-1].alpha_tiles())
    if opaque and levels[0].alpha != "unspecified":
        return []
    tiles = list(itertools.islice(levels[0].alpha_tiles(), MAX_TILES)) if opaque else []
    if tiles and np.mean([np.mean((tile == 0) | (tile == 255)) for tile in tiles]) >= MIN_SHARE_CLEAR:
        return []
    for level in levels:
        level.alpha = None
    return ["fourth sample ignored: " + ("not declared as transparency" if opaque else "0 everywhere")]


def _page_groups(tiff: Any, page: int | None, path: Path) -> list[list[Any]]:
    """Pages of each level: [[level 0 page(s)], [level 1 page(s)], ...]."""
    if page is not None:
        if not 0 <= page < len(tiff.pages):
            raise InputError(found=f"page {page}", where=str(path), expected=f"0 to {len(tiff.pages) - 1}")
        chosen = tiff.pages[page]
        if not _is_rgb(chosen):
            raise _not_rgb(path, tiff, chosen)
        return [[chosen]]
    best: list[list[Any]] = []
    for series in tiff.series:
        groups = [pages for level in series.levels if (pages := _colour_pages(level))]
        if groups and (not best or _area(groups[0]) > _area(best[0])):
            best = groups
    if not best:
        pages = [series.keyframe for series in tiff.series]
        colour = [page for page in pages if page.samplesperpixel in (3, 4)]
        raise _not_rgb(path, tiff, max(colour or pages, key=lambda page: _area([page])))
    area = _area(best[0])
    return [best[0], *(group for group in best[1:] if _area(group) < area)]


def _colour_pages(level: Any) -> list[Any]:
    pages = [page for page in level.pages if page is not None]
    if pages and _is_rgb(pages[0]):
        return pages[:1]  # a stack of equal pages: the first is the slide
    key = pages[0].keyframe if pages else None
    if key is None or key.dtype != np.uint8 or key.samplesperpixel != 1 or len(pages) not in (3, 4):
        return []
    return pages if "C" in level.axes or "S" in level.axes else []


def _is_rgb(page: Any) -> bool:
    key = page.keyframe
    return (
        key.dtype == np.uint8
        and key.samplesperpixel in (3, 4)
        and int(key.photometric) in (2, 6, 1)  # RGB, YCbCr, and colour written with a "black is zero" tag
        and key.imagedepth == 1
    )


def _area(pages: list[Any]) -> int:
    key = pages[0].keyframe
    return int(key.imagelength) * int(key.imagewidth)


def _not_rgb(path: Path, tiff: Any, page: Any) -> InputError:
    key = page.keyframe
    highest = um_per_px = None
    if key.samplesperpixel in (3, 4) and key.dtype != np.uint8 and int(key.photometric) in (1, 2):
        pixels = TiffPixels(path, [page])
        pixels.alpha = None
        highest, um_per_px = pixels.highest(), tiff_um_per_px(tiff, page)[0]
        pixels.close()
    return of_tiff(path, page, highest, um_per_px)


def _refuse_stains(path: Path, tiff: Any, pages: list[Any]) -> None:
    """Three grey pages may be red, green and blue, or three stains; their names decide."""
    names = channel_names(tiff.ome_metadata, 0) if tiff.is_ome and len(pages) > 1 else []
    if any(is_nuclear(name) for name in names):
        raise InputError(
            found=f"a fluorescence image ({', '.join(names)})",
            where=str(path),
            expected=EXPECTED,
            repair="give the H&E image; `prepare --channels all` (or names) takes fluorescence",
        )


def _source(pages: list[Any], tiles: TiffPixels, decode_whole_bytes: int) -> PixelSource:
    key = pages[0].keyframe
    n_bytes = _area(pages) * 3
    if not key.is_tiled and math.prod(key.shape[:2]) == _area(pages) and n_bytes < decode_whole_bytes:
        tiles.keep_none()
        return LazyWhole(tiles)
    return tiles


def _check_complete(path: Path, pages: list[Any]) -> None:
    """A truncated copy is reported when the file is opened, not in the middle of the work."""
    size = path.stat().st_size
    for page in pages:
        end = max((o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=False)), default=0)
        if end > size:
            raise InputError(
                found=f"a truncated file ({size} bytes, pixels up to byte {end})",
                where=str(path),
                expected="a complete TIFF",
                repair="copy it again",
            )


class LazyWhole:
    """A striped image that fits in memory: decoded once, at the first read."""

    def __init__(self, strips: TiffPixels) -> None:
        self.height_px, self.width_px = strips.height_px, strips.width_px
        self._strips = strips
        self._whole: ArrayPixels | None = None

    def region(self, y0: int, x0: int, y1: int, x1: int) -> np.ndarray:
        """See `PixelSource.region`."""
        if self._whole is None:
            self._whole = ArrayPixels(self._strips.region(0, 0, self.height_px, self.width_px))
            self._strips.close()
        return self._whole.region(y0, x0, y1, x1)

    def close(self) -> None:
        """Drop the decoded pixels."""
        self._whole = None
        self._strips.close()
