"""Choose which generated and which real patches are shown, so that only their look differs.

Each generated image has a real partner of the same cell type and split. No two shown patches overlap as long as there are
enough cells: tissue that appears twice would give one of them away.

Shape letters: N cells of the dataset, M images of the set, T pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.data.paired import UNKNOWN, PairedDataset
from sge2hist.evaluation.images import ImageSet
from sge2hist.quiz.config import MIN_IMAGES, QuizConfig

SPACINGS = (1.0, 0.5, 0.0)
"""Distance of the shown patches in sides of a patch: each is tried until no pair is found any more."""
NO_TYPE, ANY_TYPE = -1, -2  # a cell that the dataset names no type of; an image made for a type that it does not have


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """The shown images.

    Attributes:
        generated_T: int64, numbers of images of the set.
        real_T: int64, rows of real cells in the dataset; the t-th has the type of the t-th generated image.
        type_T: index of the type, -1 = cells without a type, -2 = any.
        overlap: whether some of the shown patches overlap, because there were too few cells.
    """

    generated_T: np.ndarray
    real_T: np.ndarray
    type_T: np.ndarray
    overlap: bool


class _Places:
    """Which cells lie too close to a shown patch."""

    def __init__(self, data: PairedDataset, patch_um: float) -> None:
        self._xy_um = data.centre_xy_px * data.um_per_px
        self._slide = data.slide_of_cell
        self._patch_um = patch_um
        self._shown: list[int] = []
        self.taken_N = np.zeros(len(data), bool)
        self._spacing = SPACINGS[0]

    def with_spacing(self, spacing: float) -> None:
        """Keep a distance of `spacing` sides of a patch from now on."""
        self._spacing = spacing
        self.taken_N[:] = False
        for row in self._shown:
            self._mark(row)

    def show(self, row: int) -> None:
        self._shown.append(row)
        self._mark(row)

    def withdraw(self) -> None:
        """Undo the last `show`."""
        self._shown.pop()
        self.with_spacing(self._spacing)

    def _mark(self, row: int) -> None:
        distance_um = np.abs(self._xy_um - self._xy_um[row]).max(1)
        near = (self._slide == self._slide[row]) & (distance_um < self._spacing * self._patch_um)
        near[row] = True
        self.taken_N |= near


def choose_pairs(images: ImageSet, data: PairedDataset, config: QuizConfig, patch_um: float) -> Pairs:
    """Return up to `config.n / 2` generated images, each with a real cell.

    Raises
    ------
    InputError
        If fewer than two pairs exist, or the own cells are asked for and the images have none.
    """
    rng = np.random.default_rng([config.seed, 1])
    pool = data.rows(config.split)
    types_M = types_of_images(images, data)
    candidates = rng.permutation(np.flatnonzero((images.row_M < 0) | np.isin(images.row_M, pool)))
    if config.match == "cell":
        if not images.names_cells:
            raise InputError(
                found="images that name no cell", where=str(images.path), expected="cells", repair="--match type"
            )
        types_M = data.type_of_cell[images.row_M]
    places, overlap = _Places(data, patch_um), False
    found: list[tuple[int, int]] = []
    for spacing in SPACINGS:
        places.with_spacing(spacing)
        used = {image for image, _ in found}
        for image in candidates:
            if len(found) == config.n // 2:
                break
            if image in used:
                continue
            real = _partner(images, int(image), int(types_M[image]), data, pool, places, config.match, rng)
            if real is not None:
                found.append((int(image), real))
                overlap |= spacing < 1
    if 2 * len(found) < MIN_IMAGES:
        raise InputError(
            found=f"{len(found)} generated images with a real cell of their type in split {config.split!r}",
            where=str(images.path),
            expected=f"at least {MIN_IMAGES // 2}",
            repair="give the split that the images were generated for as --split, or generate more",
        )
    chosen = np.array(found, np.int64)
    return Pairs(
        generated_T=chosen[:, 0], real_T=chosen[:, 1], type_T=types_M[chosen[:, 0]].astype(np.int64), overlap=overlap
    )


def types_of_images(images: ImageSet, data: PairedDataset) -> np.ndarray:
    """Return the type that each image was made for: of the cell whose expression was used, or the requested one; int64 [M]."""
    code = {name: number for number, name in enumerate(data.types)} | {UNKNOWN: NO_TYPE}
    requested = np.array([code.get(str(name), ANY_TYPE) for name in images.type_M], np.int64)
    known = images.condition_row_M >= 0
    return np.where(known, data.type_of_cell[np.where(known, images.condition_row_M, 0)], requested)


def _partner(
    images: ImageSet,
    image: int,
    type_index: int,
    data: PairedDataset,
    pool: np.ndarray,
    places: _Places,
    match: str,
    rng: np.random.Generator,
) -> int | None:
    """A real cell to show beside an image, and both marked as shown; None if one of them would lie too close to others."""
    row = int(images.row_M[image])
    if row >= 0:
        if places.taken_N[row]:
            return None
        places.show(row)
        if match == "cell":
            return row
    of_type = pool if type_index == ANY_TYPE else pool[data.type_of_cell[pool] == type_index]
    free = of_type[~places.taken_N[of_type]]
    if len(free) == 0:
        if row >= 0:
            places.withdraw()
        return None
    not_in_set = free[~np.isin(free, images.row_M)]  # cells of the set stay free for its own images
    real = int(rng.choice(not_in_set if len(not_in_set) else free))
    places.show(real)
    return real
