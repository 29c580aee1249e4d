"""An extractor: a named map from images to features.

Every extractor takes uint8 images [N, P, P, 3] and returns float32 [N, D]; how images are resized and scaled is part of
the extractor and written into the report, because a Frechet distance cannot be interpreted without it.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from sge2hist.data.errors import InputError
from sge2hist.parallel import parallel_batches

BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Extractor:
    """A named map from images to features.

    Attributes:
        name: name, as reports show it.
        details: what determines the features: weights and their hash, input side, scaling, precision.
        compute: uint8 [n, P, P, 3] -> float [n, D].
        note: a message for the user, or "".
        bright_field: whether it expects bright-field images; fluorescence is then converted to a negative.
        is_torch: whether `compute` is a torch network: batches then run at once, one thread each.
        batch: images of one call of `compute`; fewer for large networks.
        jpeg_quality: quality of the JPEG that every image passes through first; None: none.
    """

    name: str
    compute: Callable[[np.ndarray], np.ndarray]
    details: dict[str, Any] = field(default_factory=dict)
    note: str = ""
    bright_field: bool = False
    is_torch: bool = False
    batch: int = BATCH
    jpeg_quality: int | None = None

    def __call__(self, image_NHWC: np.ndarray) -> np.ndarray:
        """Return float32 [N, D], batch by batch; raises `InputError` if the extractor returns something else."""
        check_images(image_NHWC)
        batches = self._batches(image_NHWC)
        features = np.concatenate([np.asarray(batch, dtype=np.float32).reshape(len(batch), -1) for batch in batches])
        finite = bool(np.isfinite(features).all())
        if len(features) != len(image_NHWC) or not finite:
            raise InputError(
                found=f"features of shape {features.shape} (finite: {finite}) for {len(image_NHWC)} images",
                where=f"extractor {self.name}",
                expected="one finite vector per image",
            )
        return features

    def _batches(self, image_NHWC: np.ndarray) -> Iterator[np.ndarray]:
        def compute(part: slice) -> np.ndarray:
            images = image_NHWC[part]
            return self.compute(images if self.jpeg_quality is None else jpeg_compressed(images, self.jpeg_quality))

        if self.is_torch:
            yield from parallel_batches(
                compute, len(image_NHWC), self.batch * torch.get_num_threads(), torch.device("cpu")
            )
        else:
            yield from (compute(slice(start, start + self.batch)) for start in range(0, len(image_NHWC), self.batch))

    def after_jpeg(self, quality: int) -> Extractor:
        """Return the same extractor that compresses every image first, real and generated alike."""
        return replace(self, jpeg_quality=quality, details={**self.details, "jpeg_quality": quality})


def check_images(image_NHWC: np.ndarray) -> None:
    """Raise `InputError` unless the images are uint8 RGB with at least 16 px a side."""
    shape = image_NHWC.shape
    if image_NHWC.dtype != np.uint8 or image_NHWC.ndim != 4 or shape[-1] != 3 or min(shape[1:3]) < 16 or shape[0] == 0:
        raise InputError(
            found=f"images {image_NHWC.dtype} of shape {shape}",
            where="extractor input",
            expected="uint8 [n, H, W, 3], at least one, sides of 16 px or more",
        )


def scaled_batch(image_NHWC: np.ndarray, side_px: int, mode: str = "bicubic") -> Tensor:
    """Return float32 [n, 3, side, side] in [0, 1]; resized with antialiasing (Parmar et al. 2022)."""
    batch = torch.from_numpy(np.ascontiguousarray(image_NHWC)).permute(0, 3, 1, 2).float() / 255
    if batch.shape[-2:] != (side_px, side_px):
        batch = functional.interpolate(batch, size=(side_px, side_px), mode=mode, antialias=True).clamp(0, 1)
    return batch


def resized(image_NHWC: np.ndarray, side_px: int) -> np.ndarray:
    """Return uint8 images resized with antialiasing."""
    return (scaled_batch(image_NHWC, side_px) * 255).round().byte().permute(0, 2, 3, 1).numpy()


def jpeg_compressed(image_NHWC: np.ndarray, quality: int) -> np.ndarray:
    """Return the images after JPEG compression (libjpeg, chroma at half the resolution), uint8 of the same shape."""
    out = np.empty_like(image_NHWC)
    for compressed, image in zip(out, image_NHWC, strict=True):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=quality)
        compressed[:] = np.asarray(Image.open(buffer))
    return out
