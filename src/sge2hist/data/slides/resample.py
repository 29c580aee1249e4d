"""Resampling a window of an image by separable weights: area averages when shrinking, bilinear when growing."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Taps(NamedTuple):
    """For each output sample, the input pixels that it takes and their weights (rows sum to one)."""

    pixel: np.ndarray  # int64 [n_out, n_taps], relative to the first pixel read
    weight: np.ndarray  # float32 [n_out, n_taps]


def input_span(start: float, length: float, n_out: int) -> tuple[int, int]:
    """First input pixel, and number of input pixels, that a window ``[start, start + length)`` needs."""
    margin = 0.0 if length >= n_out else 0.5
    first = int(np.floor(start - margin))
    last = int(np.ceil(start + length + margin))
    return first, max(last - first, 1)


def window_taps(start: float, length: float, n_out: int, first: int, n_in: int) -> Taps:
    """Taps that resample input pixels ``first .. first + n_in`` to `n_out` samples of ``[start, start + length)``.

    Shrinking (``length >= n_out``): each output pixel is the mean over the interval that it covers, partly covered
    input pixels counted by their covered share. Growing: bilinear between pixel centres.
    """
    step = length / n_out
    if step >= 1:
        low = start - first + step * np.arange(n_out)
        index = np.floor(low).astype(np.int64)[:, None] + np.arange(int(np.ceil(step)) + 1)
        overlap = np.minimum(low[:, None] + step, index + 1) - np.maximum(low[:, None], index)
        weight = np.clip(overlap, 0, None)
    else:
        centre = start - first + step * (np.arange(n_out) + 0.5) - 0.5
        index = np.floor(centre).astype(np.int64)[:, None] + np.arange(2)
        weight = 1 - np.abs(centre[:, None] - index)
    weight = np.where((index >= 0) & (index < n_in), weight, 0)
    weight = weight / weight.sum(axis=1, keepdims=True)
    return Taps(np.clip(index, 0, n_in - 1), weight.astype(np.float32))


def resample(pixels_HWC: np.ndarray, rows: Taps, columns: Taps) -> np.ndarray:
    """Apply row and column taps to uint8 pixels [H, W, C]; rounds to uint8 [n_rows, n_columns, C].

    Sums of gathered slices rather than matrix products: small products wake the threads of the linear algebra library
    for each patch, which is slower by an order of magnitude on a busy machine.
    """
    by_row = _apply(pixels_HWC, rows)
    by_column = _apply(by_row.transpose(1, 0, 2), columns)
    return (by_column.transpose(1, 0, 2) + 0.5).clip(0, 255).astype(np.uint8)


def _apply(pixels: np.ndarray, taps: Taps) -> np.ndarray:
    total = np.zeros((len(taps.pixel), *pixels.shape[1:]), np.float32)
    for index, weight in zip(taps.pixel.T, taps.weight.T, strict=True):
        total += weight[:, None, None] * pixels[index]
    return total
