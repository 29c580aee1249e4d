"""A label image of a whole slide as horizontal runs: exact, and a hundredth of the memory of the image.

A slide of 450 megapixels is 1.8 GB as int32 labels; its 500,000 nuclei are about 9 million runs of one row each. A
run means: in this row, columns `start` to `stop` (exclusive) belong to this nucleus.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sge2hist.data.errors import InputError

EXPECTED = "a label image of the slide (TIFF, PNG or npy of whole numbers, 0 = none) or polygons (GeoJSON)"
SIZE_TOLERANCE = 0.005  # relative difference of the two scales of a label image that was made at another resolution
Runs = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # row, start, stop, label of R runs


@dataclass(frozen=True, kw_only=True)
class LabelRuns:
    """Runs sorted by (row, start), without overlap; labels 0..n_labels-1.

    Attributes
    ----------
    row, start, stop, label
        int32 [R] each, in pixels of the label image.
    width_px, height_px
        Size of the label image.
    n_labels
        Number of labels; some may have no run.
    image_px
        Side of a label pixel in pixels of the slide, so that positions on the slide can be looked up.
    """

    row: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    label: np.ndarray
    width_px: int
    height_px: int
    n_labels: int
    image_px: float = 1.0

    def at(self, xy_px: np.ndarray) -> np.ndarray:
        """Label under positions [N, 2] (x, y in px of the slide): int64 [N], -1 outside every nucleus."""
        column, row = np.floor(np.asarray(xy_px, float).T / self.image_px)
        found = np.full(len(column), -1, np.int64)
        inside = (column >= 0) & (row >= 0) & (column < self.width_px) & (row < self.height_px)
        if not len(self.row):
            return found
        key = row[inside].astype(np.int64) * self.width_px + column[inside].astype(np.int64)
        run = np.searchsorted(self.row.astype(np.int64) * self.width_px + self.start, key, side="right") - 1
        in_run = (run >= 0) & (key < self.row[run].astype(np.int64) * self.width_px + self.stop[run])
        found[np.flatnonzero(inside)[in_run]] = self.label[run[in_run]]
        return found

    def window(self, left: int, top: int, width: int, height: int) -> np.ndarray:
        """Cut a window of the label image: int32 [height, width], label + 1, 0 = none."""
        out = np.zeros((height, width), np.int32)
        first, last = np.searchsorted(self.row, (top, top + height))
        for index in range(first, last):
            out[self.row[index] - top, max(self.start[index] - left, 0) : max(self.stop[index] - left, 0)] = (
                self.label[index] + 1
            )
        return out

    def area_px(self) -> np.ndarray:
        """Pixels of the label image in each label: int64 [n_labels]."""
        return np.bincount(self.label, self.stop - self.start, minlength=self.n_labels).astype(np.int64)

    def centroid_xy_px(self) -> np.ndarray:
        """Centre of mass of each label in px of the slide: float64 [n_labels, 2]; nan for a label without pixels."""
        length = (self.stop - self.start).astype(float)
        # mean of pixel centres of a run: x = (start + stop) / 2, y = row + 1/2
        moment_x = np.bincount(self.label, length * (self.start + self.stop) / 2, minlength=self.n_labels)
        moment_y = np.bincount(self.label, length * (self.row + 0.5), minlength=self.n_labels)
        area = self.area_px()[:, None]
        with np.errstate(invalid="ignore"):
            return np.stack([moment_x, moment_y], 1) / np.where(area > 0, area, np.nan) * self.image_px


def runs_of_labels(labels: np.ndarray) -> Runs:
    """Row, start, stop and label - 1 of the runs of a label image [H, W] (0 = none), each int32 [R], in row order."""
    padded = np.zeros((labels.shape[0], labels.shape[1] + 2), labels.dtype)
    padded[:, 1:-1] = labels
    row, step = np.nonzero(padded[:, 1:] != padded[:, :-1])  # a change between column step-1 and step
    before, after = padded[row, step], padded[row, step + 1]
    starts, stops = after != 0, before != 0
    # changes of a row alternate: each start is closed by the next stop, so both lists pair up in order
    return (
        row[starts].astype(np.int32),
        step[starts].astype(np.int32),
        step[stops].astype(np.int32),
        (after[starts] - 1).astype(np.int32),
    )


def join_runs(
    parts: Sequence[Runs],
    *,
    width_px: int,
    height_px: int,
    n_labels: int,
    image_px: float = 1.0,
) -> LabelRuns:
    """Sort runs of several parts of a slide; where two overlap, the one that starts first keeps the pixels."""
    empty = (np.empty(0, np.int32),) * 4
    row, start, stop, label = (
        np.concatenate(column).astype(np.int32, copy=False) for column in zip(*[empty, *parts], strict=True)
    )
    start, stop = np.clip(start, 0, width_px), np.clip(stop, 0, width_px)
    inside = (row >= 0) & (row < height_px) & (start < stop)
    row, start, stop, label = row[inside], start[inside], stop[inside], label[inside]
    order = np.lexsort((label, start, row))
    row, start, stop, label = row[order], start[order], stop[order], label[order]
    if len(row):
        # largest stop so far in the same row: rows are offset by more than the width, then a running maximum
        far = row.astype(np.int64) * (2 * width_px + 1)
        covered = np.maximum.accumulate(far + stop)[:-1] - far[1:]
        start[1:] = np.maximum(start[1:], covered)
    keep = start < stop
    columns = {"row": row[keep], "start": start[keep], "stop": stop[keep], "label": label[keep]}
    return LabelRuns(**columns, width_px=width_px, height_px=height_px, n_labels=n_labels, image_px=image_px)


def runs_of_image(labels: np.ndarray, *, image_px: float = 1.0) -> LabelRuns:
    """Runs of a whole label image [H, W] in memory (0 = none); ids are kept: label = id - 1."""
    n_labels = int(labels.max(initial=0))
    height, width = labels.shape
    return join_runs([runs_of_labels(labels)], width_px=width, height_px=height, n_labels=n_labels, image_px=image_px)


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
