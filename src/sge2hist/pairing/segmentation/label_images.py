"""Outlines that the user brings: a label image (TIFF, PNG, npy) or polygons (GeoJSON)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.pairing.segmentation.label_rle import LabelRuns, Runs, join_runs, runs_of_labels

EXPECTED = "a label image of the slide (TIFF, PNG or npy of whole numbers, 0 = none) or polygons (GeoJSON)"
SIZE_TOLERANCE = 0.005  # relative difference of the two scales of a label image that was made at another resolution


def read_label_image(path: str | Path, *, width_px: int, height_px: int) -> tuple[LabelRuns, list[str]]:
    """Read a label image as runs, and the name of each label (its number in the image).

    A TIFF is decoded tile by tile (or strip by strip): memory does not grow with the image. The label image may be
    smaller or larger than the slide by one factor.

    Parameters
    ----------
    width_px, height_px
        Size of the slide.

    Raises
    ------
    InputError
        A file that is no image of whole numbers, has another shape than the slide, or no label.
    """
    path = Path(path)
    try:
        shape, parts = _tiff_parts(path) if path.suffix.lower() in (".tif", ".tiff", ".btf") else _picture_parts(path)
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(found="no such file", where=str(path), expected=EXPECTED) from None
    except Exception as error:  # every decoder raises its own types; whatever it is, the file is no label image
        raise InputError(found=f"an image that cannot be read ({error})", where=str(path), expected=EXPECTED) from error
    height, width = shape
    image_px = width_px / width
    if abs(height_px / height / image_px - 1) > SIZE_TOLERANCE:
        raise InputError(
            found=f"labels of {width} x {height} px",
            where=str(path),
            expected=f"{width_px} x {height_px} px as the slide, or this times one factor",
            repair="make the labels from the image that is given with --image, not turned or cut",
        )
    values = np.unique(np.concatenate([np.empty(0, np.int64), *(part[3] for part in parts)]))
    if not len(values):
        raise InputError(found="no label", where=str(path), expected=EXPECTED)
    numbered = [(row, start, stop, np.searchsorted(values, value)) for row, start, stop, value in parts]
    runs = join_runs(numbered, width_px=width, height_px=height, n_labels=len(values), image_px=image_px)
    return runs, [f"label_{value + 1}" for value in values]


def _tiff_parts(path: Path) -> tuple[tuple[int, int], list[Runs]]:
    import tifffile

    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        if not isinstance(page, tifffile.TiffPage) or page.dtype is None or page.ndim != 2:
            raise InputError(found=f"a TIFF of shape {page.shape}", where=str(path), expected=EXPECTED)
        height, width = page.shape
        parts = []
        for pixels, (*_, top, left, _), _ in page.segments():
            if pixels is not None:
                parts.append(_runs_at(np.asarray(pixels)[0, : height - top, : width - left, 0], top, left, path))
        return (height, width), parts


def _picture_parts(path: Path) -> tuple[tuple[int, int], list[Runs]]:
    if path.suffix.lower() == ".npy":
        pixels = np.load(path, mmap_mode="r", allow_pickle=False)
    else:
        from PIL import Image

        with Image.open(path) as picture:
            pixels = np.asarray(picture)
    if pixels.ndim != 2:
        raise InputError(found=f"an image of shape {pixels.shape}", where=str(path), expected=EXPECTED)
    strip = 2048
    parts = [_runs_at(np.asarray(pixels[top : top + strip]), top, 0, path) for top in range(0, len(pixels), strip)]
    return (pixels.shape[0], pixels.shape[1]), parts


def _runs_at(labels: np.ndarray, top: int, left: int, path: Path) -> Runs:
    if labels.dtype.kind not in "iu":
        raise InputError(found=f"pixels of type {labels.dtype}", where=str(path), expected=EXPECTED)
    if labels.size and (labels.min() < 0 or labels.max() >= 2**31):
        raise InputError(found="labels below 0 or above 2^31", where=str(path), expected=EXPECTED)
    row, start, stop, label = runs_of_labels(labels.astype(np.int32, copy=False))
    return row + top, start + left, stop + left, label
