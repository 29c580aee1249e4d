"""Pictures of the fields of view (FOV) of a CosMx slide: ``Morphology2D/*_F<number>.TIF``, one page of 16 bits per stain.

They lie in `CellStatsDir/Morphology2D` of the raw files, or in `Morphology2D` beside the flat files; numbers have 3 or 5 digits.
Stains are named in the ImageDescription of the first page (JSON: ChannelOrder "BGYRU", for each ChannelId a BiologicalTarget), or
in RunSummary/Morphology_ChannelID_Dictionary.txt. The nuclear stain, called DNA there, is called DAPI here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.data.slides.channels import Channels, choose_channels, nuclear_channel
from sge2hist.data.slides.mosaic_page import MosaicPage
from sge2hist.data.slides.pixel_source import CACHE_BYTES, TiffPixels
from sge2hist.data.slides.slide_image import SlideImage
from sge2hist.readers.nanostring.cosmx_fovs import FovFrame, MosaicFrame, mosaic_frame
from sge2hist.readers.tables import damaged

_FOV_OF_NAME = re.compile(r"_F(?:OV)?0*(\d+)\.tiff?$", re.I)
DICTIONARY = "Morphology_ChannelID_Dictionary.txt"
DNA = ("dna", "dapi")
MAX_CHECKED_FOVS, SIDE_PX = 4, 9  # for the direction of rows: light in squares around cells
MIN_LEAD = 0.05  # of the brighter direction over the other


@dataclass(frozen=True, kw_only=True)
class FovImages:
    """Opened pictures; pixels are decoded later."""

    folder: Path
    fov: np.ndarray  # int64 [F], sorted
    pages: list[list[TiffPixels]]  # [F][C], those requested
    channels: Channels

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height of a FOV."""
        return self.pages[0][0].width_px, self.pages[0][0].height_px

    def mosaic(self, frame: MosaicFrame) -> SlideImage:
        """One picture of the slide; FOVs without a place are left as glass."""
        has_place = np.isin(self.fov, frame.fov)
        corner = frame.left_top_px[np.searchsorted(frame.fov, self.fov[has_place])]
        pages = [self.pages[i] for i in np.flatnonzero(has_place)]
        level = [MosaicPage([own[channel] for own in pages], corner) for channel in range(len(self.channels))]
        return SlideImage.from_pages(self.folder, [level], self.channels)


def find_folder(root: Path) -> Path | None:
    """The folder of the pictures, at most six levels below `root`; None without one."""
    for depth in range(7):
        found = sorted(path for path in root.glob("*/" * depth + "Morphology2D") if path.is_dir())
        if len(found) > 1:
            raise InputError(
                found=f"{len(found)} folders Morphology2D ({', '.join(str(path.relative_to(root)) for path in found[:3])})",
                where=str(root),
                expected="one: that of the slide",
                repair="give the folder of one slide with its raw files",
            )
        if found:
            return found[0]
    return None


def open_fovs(folder: Path, requested: Channels) -> FovImages:
    """Open the pictures of all FOVs.

    Raises
    ------
    InputError
        If there are none, they differ in size, type or stains, or a requested stain is missing.
    """
    import tifffile

    files = {int(match[1]): path for path in sorted(folder.iterdir()) if (match := _FOV_OF_NAME.search(path.name))}
    if not files:
        raise InputError(found="no *_F<number>.TIF", where=str(folder), expected="a picture of each FOV")
    numbers: list[int] = []
    channels: Channels = ()
    pages: list[list[TiffPixels]] = []
    for fov in sorted(files):
        path = files[fov]
        try:
            with tifffile.TiffFile(path) as tiff:
                stored: Any = list(tiff.pages)
                if not numbers:
                    names = _stain_names(stored[0].description or "", folder, len(stored))
                    numbers, channels = choose_channels(requested, names, len(stored), str(path))
                _check(path, stored, numbers)
                own = [TiffPixels(path, [stored[i]], CACHE_BYTES // (6 * len(numbers))) for i in numbers]
        except (OSError, ValueError, tifffile.TiffFileError) as error:
            raise damaged(path, "TIFF of a field of view", error) from error
        if pages and (own[0].width_px, own[0].height_px, own[0].dtype) != (
            pages[0][0].width_px,
            pages[0][0].height_px,
            pages[0][0].dtype,
        ):
            raise InputError(
                found=f"a picture of {own[0].width_px} x {own[0].height_px} px, {own[0].dtype}",
                where=str(path),
                expected=f"{pages[0][0].width_px} x {pages[0][0].height_px} px, {pages[0][0].dtype}, as the other FOVs",
            )
        pages.append(own)
    return FovImages(folder=folder, fov=np.array(sorted(files), np.int64), pages=pages, channels=channels)


def _check(path: Path, stored: list[Any], numbers: list[int]) -> None:
    size = path.stat().st_size
    grey = all(page.samplesperpixel == 1 and page.dtype in (np.uint8, np.uint16) for page in stored)
    if max(numbers) >= len(stored) or not grey:
        raise InputError(
            found=f"{len(stored)} page(s) of {stored[0].dtype}, {stored[0].samplesperpixel} sample(s)",
            where=str(path),
            expected="one grey page of 8 or 16 bits per stain, as many as in the other FOVs",
        )
    ends = [o + n for page in stored for o, n in zip(page.dataoffsets, page.databytecounts, strict=False)]
    if max(ends, default=0) > size:
        raise InputError(found="a truncated file", where=str(path), expected="a complete TIFF", repair="copy it again")


def _stain_names(description: str, folder: Path, count: int) -> list[str]:
    """Names of the pages, in their order; [] where nothing states them."""
    order = re.search(r'"ChannelOrder"\s*:\s*"(\w+)"', description)
    ids = re.findall(r'"ChannelId"\s*:\s*"([^"]*)"', description)
    targets = re.findall(r'"BiologicalTarget"\s*:\s*"([^"]*)"', description)
    by_id = dict(zip(ids, targets, strict=False)) if len(ids) == len(targets) else {}
    if order is not None and len(order[1]) == count:
        names = [by_id.get(one, one) for one in order[1]]
    else:
        names = _dictionary(folder)
    names = ["DAPI" if name.strip().casefold() in DNA else name.strip() for name in names]
    return names if len(names) == count and len(set(names)) == count and all(names) else []


def _dictionary(folder: Path) -> list[str]:
    for place in (folder, *list(folder.parents)[:3]):
        for path in (place / DICTIONARY, place / "RunSummary" / DICTIONARY):
            if path.is_file():
                rows = [line.split("\t") for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
                if rows and "BiologicalTarget" in rows[0]:
                    column = rows[0].index("BiologicalTarget")
                    return [row[column] for row in rows[1:] if len(row) > column]
    return []


def choose_frame(
    images: FovImages, frame: FovFrame, fov: np.ndarray, local_xy_px: np.ndarray
) -> tuple[MosaicFrame, str]:
    """The frame of the mosaic: rows by the light of the nuclear stain at the cells, else by the handedness; and a note."""
    down, up = (_light_at_cells(images, fov, local_xy_px, rows_go_down=way) for way in (True, False))
    height = images.size_px[1]
    decided = max(down, up) > (1 + MIN_LEAD) * min(down, up)
    rows_go_down = down > up if decided else frame.rows_go_down
    direction = "downwards" if rows_go_down else "upwards"
    source = f"{max(down, up) / max(min(down, up), 1e-9):.2f} times as bright at the cells as the other way"
    note = f"y in a FOV counts rows {direction}: " + (
        f"{images.channels[nuclear_channel(images.channels)]} is {source}"
        if decided
        else "by the handedness of the slide"
    )
    if decided and rows_go_down != frame.rows_go_down:
        note += "; the handedness of the slide says otherwise: look at alignment.png"
    return mosaic_frame(frame, height, rows_go_down=rows_go_down), note


def _light_at_cells(images: FovImages, fov: np.ndarray, local_xy_px: np.ndarray, *, rows_go_down: bool) -> float:
    """Mean of the nuclear stain in squares at the centres of cells, over the FOVs with most cells."""
    width, height = images.size_px
    channel = nuclear_channel(images.channels)
    present, count = np.unique(fov[np.isin(fov, images.fov)], return_counts=True)
    sums, n = 0.0, 0
    for number in present[np.argsort(-count)][:MAX_CHECKED_FOVS]:
        page = images.pages[int(np.searchsorted(images.fov, number))][channel]
        values = page.region(0, 0, height, width)[..., 0]
        page.close()
        xy = local_xy_px[fov == number]
        column, row = xy[:, 0], xy[:, 1] if rows_go_down else height - xy[:, 1]
        half = SIDE_PX // 2
        inside = (column >= half) & (row >= half) & (column < width - half) & (row < height - half)
        for x, y in zip(column[inside].astype(int), row[inside].astype(int), strict=True):
            sums += float(values[y - half : y + half + 1, x - half : x + half + 1].mean())
            n += 1
    return sums / n if n else 0.0
