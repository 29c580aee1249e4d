"""A copy? Distance of a generated patch to the nearest training patch, against the same distance of held-out real
patches.

Every training patch is searched, not a sample, as a thumbnail of 8 x 8 px without its mean and contrast: a blurred or
pale image must not pass for close to everything. Mirrored and rotated copies are found too (eight symmetries). The
threshold is the first percentile of the distances of held-out real patches, so real images score about 1 % by
construction, and a generator that copies scores 100 %.

Shape letters: N images, K thumbnail values, T training patches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from sge2hist.evaluation.features.descriptors import THUMBNAIL_PX, thumbnails
from sge2hist.evaluation.features.row_store import RowStore
from sge2hist.evaluation.resampling import Estimate, Resampling

PERCENTILE = 1.0
# Added to an image's variance before it is scaled: thumbnails flatter than this (empty glass) stay small instead of
# becoming amplified noise.
MIN_SD = 0.02


def standardised(thumbnail_NK: np.ndarray) -> np.ndarray:
    """Return float32 [N, K]: each thumbnail without its mean, divided by its contrast, unit length for a patch with
    structure.
    """
    values = thumbnail_NK.astype(np.float32).reshape(len(thumbnail_NK), THUMBNAIL_PX**2, -1)
    values = values - values.mean(axis=1, keepdims=True)
    flat = values.reshape(len(values), -1)
    contrast = np.sqrt((flat**2).mean(axis=1, keepdims=True) + MIN_SD**2)
    return flat / contrast / np.sqrt(flat.shape[1])


def symmetries(thumbnail_NK: np.ndarray) -> Iterable[np.ndarray]:
    """Yield the thumbnails in their eight rotations and mirrorings."""
    square = thumbnail_NK.reshape(-1, THUMBNAIL_PX, THUMBNAIL_PX, thumbnail_NK.shape[1] // THUMBNAIL_PX**2)
    for quarter_turns in range(4):
        turned = np.rot90(square, quarter_turns, axes=(1, 2))
        yield turned.reshape(thumbnail_NK.shape)
        yield turned[:, :, ::-1].reshape(thumbnail_NK.shape)


@dataclass(frozen=True, kw_only=True)
class Nearest:
    """Distance to the nearest training patch and which one it is (float32 [N], int64 [N])."""

    distance_N: np.ndarray
    train_N: np.ndarray


def nearest_training(
    queries: list[np.ndarray], train_blocks: Iterable[tuple[np.ndarray, np.ndarray]], block: int = 2048
) -> list[Nearest]:
    """Return, for each array of query thumbnails, the nearest training patch; the training patches are read
    once, block by block.

    Parameters
    ----------
    queries
        Thumbnails [N, K] of each set of images.
    train_blocks
        Yields (rows int64 [t], thumbnails [t, K]).
    """
    turned = [np.stack([standardised(view) for view in symmetries(query)]) for query in queries]
    found = [
        Nearest(distance_N=np.full(len(q), np.inf, np.float32), train_N=np.full(len(q), -1, np.int64)) for q in queries
    ]
    for rows, part in train_blocks:
        train = standardised(part)
        for views, nearest in zip(turned, found, strict=True):
            update_nearest(views, train, rows, nearest, block)
    return found


def update_nearest(views: np.ndarray, train: np.ndarray, rows: np.ndarray, nearest: Nearest, block: int) -> None:
    """Lower the distances of one set of queries by one block of training patches, in place."""
    # The nearest patch has the largest x.y - |y|^2 / 2: one more column makes it a single product.
    train_1 = np.column_stack([train, -(train**2).sum(axis=1) / 2])
    for view in views:
        view_1 = np.column_stack([view, np.ones(len(view), view.dtype)])
        for start in range(0, len(view), block):
            part = slice(start, start + block)
            best = (view_1[part] @ train_1.T).argmax(axis=1)
            distance = np.sqrt(((view[part] - train[best]) ** 2).sum(axis=1))
            closer = distance < nearest.distance_N[part]
            nearest.distance_N[part] = np.where(closer, distance, nearest.distance_N[part])
            nearest.train_N[part] = np.where(closer, rows[best], nearest.train_N[part])


def copy_threshold(held_out_distance_N: np.ndarray) -> float:
    """Return the distance below which a patch counts as a copy: the first percentile of held-out real patches."""
    return float(np.percentile(held_out_distance_N, PERCENTILE))


def copied_share(distance_N: np.ndarray, threshold: float, resampling: Resampling) -> Estimate:
    """Return the share of images closer to a training patch than the threshold."""
    return resampling.mean((distance_N < threshold).astype(np.float64))


def training_thumbnails(
    rows: np.ndarray,
    read: Callable[[np.ndarray], np.ndarray],
    *,
    block: int = 1024,
    stored: RowStore | None = None,
    progress: Callable[[int], None] | None = None,
) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """Yield (rows, thumbnails) of the training patches, block by block; those that are not stored yet are read, and added.
    `progress(done)` follows each block.
    """
    stored = RowStore(None) if stored is None else stored
    for start in range(0, len(rows), block):
        part = rows[start : start + block]

        def compute(missing: np.ndarray, part: np.ndarray = part) -> np.ndarray:
            return thumbnails(read(part[missing]))

        yield part, stored.complete(part, compute)
        if progress is not None:
            progress(min(start + block, len(rows)))


@dataclass(frozen=True, kw_only=True)
class CopySearch:
    """The outcome: share of copies by set and among held-out real patches, the threshold, and the size of the search."""

    shares: dict[str, Estimate]
    real: Estimate
    threshold: float
    n_train: int
    n_checked: int


def find_copies(
    sets: dict[str, np.ndarray],
    held_out_NK: np.ndarray,
    train_rows: np.ndarray,
    read: Callable[[np.ndarray], np.ndarray],
    resampling: Resampling,
    stored: RowStore | None = None,
    progress: Callable[[int], None] | None = None,
) -> CopySearch:
    """Return the share of images in each set that lie closer to a training patch than held-out real patches do.

    Parameters
    ----------
    sets
        Set name -> thumbnails [N, K] of generated images.
    held_out_NK
        Thumbnails of the real patches of the same cells.
    train_rows, read
        Rows of all training patches, and the function from rows to patches uint8 [n, P, P, C].
    resampling
        Weights of the N cells.
    stored
        Thumbnails of training patches that are known already.
    """
    blocks = training_thumbnails(train_rows, read, stored=stored, progress=progress)
    real, *generated = nearest_training([held_out_NK, *sets.values()], blocks)
    threshold = copy_threshold(real.distance_N)
    return CopySearch(
        shares={
            name: copied_share(nearest.distance_N, threshold, resampling)
            for name, nearest in zip(sets, generated, strict=True)
        },
        real=copied_share(real.distance_N, threshold, resampling),
        threshold=threshold,
        n_train=len(train_rows),
        n_checked=len(held_out_NK),
    )
