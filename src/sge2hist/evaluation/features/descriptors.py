"""Descriptors of images: features, morphometry and thumbnails, computed in one pass over batches.

Memory is one batch of images plus the descriptors.

Shape letters: N images, D features, P pixels of the side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sge2hist.data.slides.channels import RGB, Channels, composite, is_rgb
from sge2hist.evaluation.features.extractor import Extractor
from sge2hist.evaluation.features.row_store import RowStore

BATCH = 256
THUMBNAIL_PX = 8
Progress = Callable[[str, int, int], None]  # progress(stage, done, total)
ReadImages = Callable[[np.ndarray], np.ndarray]
Morphometry = Callable[[np.ndarray], dict[str, np.ndarray]]  # images -> name -> float64 [N]


@dataclass(frozen=True, kw_only=True)
class ImageDescriptors:
    """Descriptors of N images.

    Attributes:
        features_ND: float32, from the extractor.
        morphometry: name -> float64 [N]; empty where it was not requested.
        thumbnails_NK: float16 [N, 8 * 8 * C] in [0, 1]; empty where not requested.
    """

    features_ND: np.ndarray
    morphometry: dict[str, np.ndarray]
    thumbnails_NK: np.ndarray

    def __len__(self) -> int:
        return len(self.features_ND)

    def take(self, rows: np.ndarray) -> ImageDescriptors:
        """Return the descriptors of some of the images."""
        return ImageDescriptors(
            features_ND=self.features_ND[rows],
            morphometry={name: values[rows] for name, values in self.morphometry.items()},
            thumbnails_NK=self.thumbnails_NK[rows] if len(self.thumbnails_NK) else self.thumbnails_NK,
        )


def thumbnails(image_NHWC: np.ndarray) -> np.ndarray:
    """Return float16 [N, 8 * 8 * C]: area means of the images, in [0, 1]."""
    n, height, width, n_channels = image_NHWC.shape
    if height % THUMBNAIL_PX == 0 and width % THUMBNAIL_PX == 0:
        step_y, step_x = height // THUMBNAIL_PX, width // THUMBNAIL_PX
        rows = image_NHWC.reshape(n, THUMBNAIL_PX, step_y, width * n_channels).sum(axis=2, dtype=np.uint32)
        sums = rows.reshape(n, THUMBNAIL_PX, THUMBNAIL_PX, step_x, n_channels).sum(axis=3)
        return (sums.reshape(n, -1) / np.float32(255 * step_y * step_x)).astype(np.float16)
    import torch

    batch = torch.from_numpy(np.ascontiguousarray(image_NHWC)).permute(0, 3, 1, 2).float() / 255
    small = torch.nn.functional.adaptive_avg_pool2d(batch, THUMBNAIL_PX)
    return small.permute(0, 2, 3, 1).reshape(n, -1).numpy().astype(np.float16)


def to_rgb(image_NHWC: np.ndarray, channels: Channels, extractor: Extractor) -> np.ndarray:
    """Return the RGB input of an extractor: H&E unchanged, the colour composite of fluorescence, or its negative."""
    shown = composite(image_NHWC, channels)
    return 255 - shown if extractor.bright_field and not is_rgb(channels) else shown


def describe_images(
    read: ReadImages,
    indices: np.ndarray,
    extractor: Extractor,
    *,
    channels: Channels = RGB,
    morphometry: Morphometry | None = None,
    with_thumbnails: bool = False,
    stored: RowStore | None = None,
    progress: Progress | None = None,
    stage: str = "images",
) -> ImageDescriptors:
    """Describe the images that `read(indices)` returns, batch by batch.

    Parameters
    ----------
    read
        Maps int64 [n] to uint8 [n, P, P, C].
    channels
        Names of the C channels; see `to_rgb`.
    morphometry
        Statistics of each image, when given.
    stored
        Features that are known already, by index; those that are not are added.
    """
    stored = RowStore(None) if stored is None else stored
    features, tables, small = [], [], []
    for start in range(0, len(indices), BATCH):
        part = indices[start : start + BATCH]
        batch = read(part) if morphometry is not None or with_thumbnails else None

        def features_of(missing: np.ndarray, part: np.ndarray = part, batch: np.ndarray | None = batch) -> np.ndarray:
            images = read(part[missing]) if batch is None else batch[missing]
            return extractor(to_rgb(images, channels, extractor))

        features.append(stored.complete(part, features_of))
        if morphometry is not None and batch is not None:
            tables.append(morphometry(batch))
        if with_thumbnails and batch is not None:
            small.append(thumbnails(batch))
        if progress is not None:
            progress(stage, min(start + BATCH, len(indices)), len(indices))
    return ImageDescriptors(
        features_ND=np.concatenate(features) if features else np.empty((0, 0), np.float32),
        morphometry={name: np.concatenate([table[name] for table in tables]) for name in (tables[0] if tables else {})},
        thumbnails_NK=np.concatenate(small) if small else np.empty((0, 0), np.float16),
    )
