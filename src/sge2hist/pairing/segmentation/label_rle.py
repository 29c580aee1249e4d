"""A label image of a whole slide as horizontal runs: exact, and a hundredth of the memory of the image.

A slide of 450 megapixels is 1.8 GB as int32 labels; its 500,000 nuclei are about 9 million runs of one row each. A
run says "in this row, columns `start` to `stop` (exclusive) belong to this nucleus".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

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
        # furthest stop so far in the same row: rows are set apart by more than the width, then a running maximum
        far = row.astype(np.int64) * (2 * width_px + 1)
        reached = np.maximum.accumulate(far + stop)[:-1] - far[1:]
        start[1:] = np.maximum(start[1:], reached)
    keep = start < stop
    columns = {"row": row[keep], "start": start[keep], "stop": stop[keep], "label": label[keep]}
    return LabelRuns(**columns, width_px=width_px, height_px=height_px, n_labels=n_labels, image_px=image_px)


def runs_of_image(labels: np.ndarray, *, image_px: float = 1.0) -> LabelRuns:
    """Runs of a whole label image [H, W] in memory (0 = none); ids are kept: label = id - 1."""
    n_labels = int(labels.max(initial=0))
    height, width = labels.shape
    return join_runs([runs_of_labels(labels)], width_px=width, height_px=height, n_labels=n_labels, image_px=image_px)
