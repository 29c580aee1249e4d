"""The slide: an H&E or fluorescence image opened lazily, read by windows in pixels or by patches in micrometres.

Coordinates are corner-based: pixel (0, 0) covers ``[0, 1) x [0, 1)``; x is the column, y the row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.data.slides import openslide_image
from sge2hist.data.slides.channels import RGB, Channels, background_level
from sge2hist.data.slides.pixel_source import (
    ArrayPixels,
    ChannelPage,
    PixelSource,
    ScaledPixels,
    TiffPixels,
    VirtualHEPixels,
)
from sge2hist.data.slides.resample import input_span, resample, window_taps
from sge2hist.data.slides.stain_scale import LINEAR, StainScale

DECODE_WHOLE_BYTES = 2 * 1024**3
_GZIP_MAGIC = b"\x1f\x8b"
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


class SlideImage:
    """An image of any size with RGB or other channels; pixels outside it read as empty glass: white (255), or black.

    Attributes
    ----------
    path
        The file (or a description, for an image made in memory).
    width_px, height_px
        Size of the full-resolution image.
    um_per_px
        From the file's own metadata; None when it states nothing plausible. The instrument's value goes first.
    notes
        What a person should know about how the file was read.
    channels
        Names of the channels, C: red, green and blue, or those of a fluorescence image.
    scales
        For each channel of a fluorescence image, how values of the file became levels; {} where that is not known.
    transform
        Of all channels, `stain_scale.TRANSFORMS`: "sqrt" where levels are the square root of light.
    virtual_he
        Of an RGB image that is virtual H&E: the channels and ranges that it is computed from, for manifests; None for all others.
    """

    def __init__(
        self,
        path: str | Path,
        levels: list[PixelSource],
        um_per_px: float | None,
        notes: list[str] | None = None,
        *,
        channels: Channels = RGB,
        scales: dict[str, StainScale] | None = None,
        transform: str = LINEAR,
        virtual_he: dict[str, Any] | None = None,
    ) -> None:
        self.path = Path(path)
        self.levels = levels
        self.width_px = levels[0].width_px
        self.height_px = levels[0].height_px
        self.um_per_px = um_per_px
        self.notes = notes or []
        self.channels, self.scales, self.transform = channels, scales or {}, transform
        self.virtual_he = virtual_he

    @classmethod
    def open(cls, path: str | Path, *, page: int | None = None, channels: Channels | None = None) -> SlideImage:
        """Open TIFF, BTF, OME-TIFF, SVS, scanner formats of OpenSlide (by tiles) or JPEG and PNG (decoded once).

        Parameters
        ----------
        page
            Number of the TIFF page; the largest colour image of the file when not given.
        channels
            Open a fluorescence TIFF and take the channels of these names, or `ALL`; a colour picture when None or `RGB`.

        Raises
        ------
        InputError
            If the file is missing, truncated, of another format, not 8-bit RGB or RGBA, or without a requested
            channel.
        """
        path = Path(path)
        try:
            with open(path, "rb") as file:
                magic = file.read(4)
        except OSError as error:
            raise InputError(
                found=f"an image that cannot be opened ({error.strerror})", where=str(path), repair="give --image"
            ) from error
        if magic.startswith(_GZIP_MAGIC):
            raise InputError(
                found="an image packed with gzip",
                where=str(path),
                expected="the image itself",
                repair=f"gunzip -k {path}, and give {path.with_suffix('') if path.suffix == '.gz' else 'what it makes'}",
            )
        is_tiff = magic in _TIFF_MAGIC
        of_scanner = page is None and path.suffix.lower() in openslide_image.SUFFIXES
        try:
            if channels is not None and channels != RGB:
                return cls._open_channels(path, channels, is_tiff)
            if of_scanner and (openslide_image.is_installed() or not is_tiff):
                return cls._open_scanner(path)
            return cls._open_tiff(path, page) if is_tiff else cls._open_picture(path)
        except InputError:
            raise
        except Exception as error:  # every decoder raises its own types; whatever it is, the file is no usable image
            raise (openslide_image.needed(path) if of_scanner else _decoding_error(path, error)) from error

    @classmethod
    def from_array(
        cls,
        pixels_HWC: np.ndarray,
        um_per_px: float | None = None,
        name: str = "array",
        *,
        channels: Channels = RGB,
    ) -> SlideImage:
        """Wrap uint8 pixels [H, W, C]."""
        n = len(channels)
        if pixels_HWC.dtype != np.uint8 or pixels_HWC.ndim != 3 or pixels_HWC.shape[2] != n:
            raise InputError(found=f"{pixels_HWC.dtype} {pixels_HWC.shape}", where=name, expected=f"uint8 [H, W, {n}]")
        return cls(name, [ArrayPixels(pixels_HWC)], um_per_px, channels=channels)

    @classmethod
    def from_pages(
        cls,
        path: str | Path,
        levels: Sequence[Sequence[ChannelPage]],
        channels: Channels,
        um_per_px: float | None = None,
        notes: list[str] | None = None,
    ) -> SlideImage:
        """A fluorescence image of pages [level][channel]: stains in files of their own, or mosaics of fields of view."""
        from sge2hist.data.slides.channel_layout import scaled_levels

        scaled, scales = scaled_levels(levels, channels)
        return cls(path, scaled, um_per_px, [*(notes or []), *_became_8_bits(scales)], channels=channels, scales=scales)

    @classmethod
    def open_stains(cls, files: Mapping[str, Path], requested: Channels) -> SlideImage:
        """Open the requested stains, or `ALL`, where each has a TIFF of its own.

        Raises
        ------
        InputError
            If a file cannot be read, is no grey image, differs in size, or a requested stain has none.
        """
        from sge2hist.data.slides.channel_layout import open_stain_files

        first = next(iter(files.values()))
        try:
            levels, channels = open_stain_files(files, requested)
            return cls.from_pages(first, levels, channels)
        except InputError:
            raise
        except Exception as error:  # every decoder raises its own types
            raise _decoding_error(first, error) from error

    @classmethod
    def _open_tiff(cls, path: Path, page: int | None) -> SlideImage:
        from sge2hist.data.slides.tiff_layout import open_levels

        levels, um_per_px, notes = open_levels(path, page, DECODE_WHOLE_BYTES)
        return cls(path, levels, um_per_px, notes)

    @classmethod
    def _open_channels(cls, path: Path, requested: Channels, is_tiff: bool) -> SlideImage:
        from sge2hist.data.slides.channel_layout import EXPECTED, open_channels

        if not is_tiff:
            raise InputError(
                found=f"a {path.suffix or 'file'} that is no TIFF",
                where=str(path),
                expected=f"a TIFF of {EXPECTED}",
                repair="omit --channels for H&E",
            )
        levels, um_per_px, channels, scales, notes = open_channels(path, requested)
        return cls(path, levels, um_per_px, [*notes, *_became_8_bits(scales)], channels=channels, scales=scales)

    @classmethod
    def _open_picture(cls, path: Path) -> SlideImage:
        from sge2hist.data.slides.picture_file import read_picture

        pixels, um_per_px, notes = read_picture(path, DECODE_WHOLE_BYTES)
        return cls(path, [ArrayPixels(pixels)], um_per_px, notes)

    @classmethod
    def _open_scanner(cls, path: Path) -> SlideImage:
        levels, um_per_px, notes = openslide_image.open_levels(path)
        return cls(path, levels, um_per_px, notes)

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """For each channel of a fluorescence image, the values of the file that became 0 and 255."""
        return {name: (scale.low, scale.high) for name, scale in self.scales.items()}

    @property
    def background(self) -> int:
        """Grey level beyond the edge."""
        return background_level(self.channels)

    def read(self, x_px: int, y_px: int, width_px: int, height_px: int) -> np.ndarray:
        """Read a window whose upper left pixel is (x_px, y_px): uint8 [height_px, width_px, C]."""
        return self._read_level(0, int(x_px), int(y_px), int(width_px), int(height_px))

    def _read_level(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        source = self.levels[level]
        x0, x1 = max(x, 0), min(x + width, source.width_px)
        y0, y1 = max(y, 0), min(y + height, source.height_px)
        inside = x0 < x1 and y0 < y1
        try:
            pixels = source.region(y0, x0, y1, x1) if inside else None
        except Exception as error:  # every decoder has its own errors; whatever it is, the file cannot be decoded
            raise _decoding_error(self.path, error) from error
        if pixels is not None and pixels.shape[:2] == (height, width):
            return pixels
        out = np.full((height, width, len(self.channels)), self.background, np.uint8)
        if pixels is not None:
            out[y0 - y : y1 - y, x0 - x : x1 - x] = pixels
        return out

    def read_window(
        self, x_px: float, y_px: float, width_px: float, height_px: float, out_width: int, out_height: int
    ) -> np.ndarray:
        """Resample a window with real-valued corners and sides: uint8 [out_height, out_width, C]."""
        x_first, n_columns = input_span(x_px, width_px, out_width)
        y_first, n_rows = input_span(y_px, height_px, out_height)
        pixels = self.read(x_first, y_first, n_columns, n_rows)
        rows = window_taps(y_px, height_px, out_height, y_first, n_rows)
        columns = window_taps(x_px, width_px, out_width, x_first, n_columns)
        return resample(pixels, rows, columns)

    def read_patch(
        self, centre_xy_px: np.ndarray | tuple[float, float], side_um: float, out_px: int, um_per_px: float
    ) -> np.ndarray:
        """Cut a square of `side_um` with a sub-pixel centre: uint8 [out_px, out_px, C].

        Area filter when shrinking, bilinear when growing; an exact crop whose centre is rounded to whole pixels when
        the source side is `out_px` pixels.
        """
        side_px = side_um / um_per_px
        x_px, y_px = (float(centre) - side_px / 2 for centre in centre_xy_px)
        if abs(side_px - out_px) < 1e-6 * out_px:
            return self.read(int(np.floor(x_px + 0.5)), int(np.floor(y_px + 0.5)), out_px, out_px)
        return self.read_window(x_px, y_px, side_px, side_px, out_px, out_px)

    def resampled_tiles(
        self, um_per_px_in: float, um_per_px_out: float, tile_px: int
    ) -> tuple[tuple[int, int], Iterator[np.ndarray]]:
        """Shape (height, width) and row-major tiles uint8 [tile_px, tile_px, C] of the slide at another resolution.

        Tiles at the right and lower border are padded with empty glass to the full tile size.
        """
        step = um_per_px_out / um_per_px_in
        height, width = max(1, round(self.height_px / step)), max(1, round(self.width_px / step))
        exact = (height, width) == (self.height_px, self.width_px)

        def tiles() -> Iterator[np.ndarray]:
            for top in range(0, height, tile_px):
                for left in range(0, width, tile_px):
                    if exact:
                        yield self.read(left, top, tile_px, tile_px)
                        continue
                    rows, columns = min(tile_px, height - top), min(tile_px, width - left)
                    # the last row may extend past the image by half an output pixel: stay inside
                    tall = min(rows * step, self.height_px - top * step)
                    wide = min(columns * step, self.width_px - left * step)
                    tile = np.full((tile_px, tile_px, len(self.channels)), self.background, np.uint8)
                    tile[:rows, :columns] = self.read_window(left * step, top * step, wide, tall, columns, rows)
                    yield tile

        return (height, width), tiles()

    def as_array(self, um_per_px_in: float = 1.0, um_per_px_out: float = 1.0) -> np.ndarray:
        """The whole image at `um_per_px_out`, for slides that fit in memory: uint8 [H, W, C]."""
        tile_px = 1024
        (height, width), tiles = self.resampled_tiles(um_per_px_in, um_per_px_out, tile_px)
        out = np.empty((height, width, len(self.channels)), np.uint8)
        for top in range(0, height, tile_px):
            for left in range(0, width, tile_px):
                target = out[top : top + tile_px, left : left + tile_px]
                target[:] = next(tiles)[: target.shape[0], : target.shape[1]]
        return out

    def thumbnail(self, longest_px: int) -> tuple[np.ndarray, float]:
        """A small copy and the number of full-resolution px per px of it; uses the pyramid when there is one."""
        factor = max(self.width_px, self.height_px) / longest_px
        if factor <= 1:
            return self.as_array(), 1.0
        level = 0
        for number, source in enumerate(self.levels):
            if self.width_px / source.width_px <= factor:
                level = number
        source = self.levels[level]
        small = SlideImage(self.path, [source], None, channels=self.channels, transform=self.transform)
        return small.as_array(1.0, factor * source.width_px / self.width_px), factor

    def close(self) -> None:
        """Close open files; they are reopened when pixels are requested again."""
        for source in self.levels:
            if isinstance(source, TiffPixels | ScaledPixels | VirtualHEPixels):
                source.close()


def _became_8_bits(scales: Mapping[str, StainScale]) -> list[str]:
    """A note on channels whose values were scaled."""
    scaled = [f"{name} {one.low:.0f} to {one.high:.0f}" for name, one in scales.items() if not one.is_identity]
    return [f"16 bits became 8: {', '.join(scaled)}"] if scaled else []


def _decoding_error(path: Path, error: BaseException) -> InputError:
    detail: Any = str(error).strip() or type(error).__name__
    return InputError(
        found=f"an image that cannot be decoded ({detail})",
        where=str(path),
        expected="TIFF, BTF, OME-TIFF, SVS, JPEG or PNG, complete, 8-bit RGB or RGBA",
        repair="check that the file was copied completely, or save it again as TIFF",
    )
