"""The images that are evaluated, with the cell that each claims to show. Shape letters: M images, P pixels of the side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.data.generated import SLIDE_MODE, read_image
from sge2hist.data.slides.channels import RGB, Channels


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """Images with the cell that each claims to show.

    Attributes:
        name: as it appears in tables.
        path: folder, or table, that it was read from.
        files_M: image files; [] when `read` is given.
        row_M: int64 row of the cell in the paired dataset, -1 = none in particular.
        condition_row_M: row whose expression the image was generated from (equal to `row_M` unless shuffled on purpose).
        sample_M: number of the sample of that cell.
        seed_M: seed of the image, -1 = unknown.
        type_M: name of the requested cell type or of the cell, "" = unknown.
        manifest: content of manifest.json ({} for a folder).
        note: remark for the reader of the report, or "".
        channels: names of the C channels of the images.
        z1, z2: latent means [M, T], [M, Z], if stored.
        predicted_type_M: type that the model predicts for the cell whose expression was used, if stored.
        read: int64 [n] -> uint8 [n, P, P, 3], for images that are cut from a slide.
    """

    name: str
    path: Path
    files_M: list[Path]
    row_M: np.ndarray
    condition_row_M: np.ndarray
    sample_M: np.ndarray
    seed_M: np.ndarray
    type_M: np.ndarray
    manifest: dict[str, Any]
    channels: Channels = RGB
    z1: np.ndarray | None = None
    z2: np.ndarray | None = None
    predicted_type_M: np.ndarray | None = None
    note: str = ""
    read: Callable[[np.ndarray], np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.row_M)

    @property
    def is_slide(self) -> bool:
        """Whether the images are windows of a generated slide."""
        return self.manifest.get("mode") == SLIDE_MODE

    @property
    def model(self) -> str | None:
        """Fingerprint (or name) of the model that generated the images, where the manifest has one."""
        return self.manifest.get("model_fingerprint", self.manifest.get("model"))

    @property
    def is_toy(self) -> bool:
        """Whether the manifest marks it as toy data."""
        return bool(self.manifest.get("toy", False))

    @property
    def is_shuffled(self) -> bool:
        """Whether the images were made from other cells' expression on purpose."""
        paired = self.row_M >= 0
        return bool(paired.any() and (self.condition_row_M[paired] != self.row_M[paired]).mean() > 0.5)

    @property
    def names_cells(self) -> bool:
        """Whether every image belongs to a cell."""
        return bool((self.row_M >= 0).all())

    @cached_property
    def image_px(self) -> int:
        """Side of the images."""
        return len(read_image(self.files_M[0], self.channels) if self.read is None else self.read(np.array([0]))[0])

    def images(self, indices: np.ndarray) -> np.ndarray:
        """Return uint8 [n, P, P, C]; raises `InputError` for an image of another size."""
        if self.read is not None:
            return self.read(indices)
        out = np.empty((len(indices), self.image_px, self.image_px, len(self.channels)), np.uint8)
        for position, index in enumerate(indices):
            image = read_image(self.files_M[index], self.channels)
            if image.shape != out.shape[1:]:
                raise InputError(
                    found=f"an image of {image.shape[1]} x {image.shape[0]} px",
                    where=str(self.files_M[index]),
                    expected=f"{self.image_px} x {self.image_px} px, as the first one",
                )
            out[position] = image
        return out


def split_shuffled(sets: list[ImageSet]) -> tuple[list[ImageSet], dict[str, ImageSet]]:
    """Return the sets to evaluate, and by their name the shuffled set of the same model, where one was given."""
    evaluated = [images for images in sets if not images.is_shuffled]
    baseline: dict[str, ImageSet] = {}
    rest = []
    for images in sets:
        if not images.is_shuffled:
            continue
        partners = [p.name for p in evaluated if p.model and p.model == images.model and p.name not in baseline]
        if partners:
            baseline[partners[0]] = images
        else:
            rest.append(images)
    return evaluated + rest, baseline
