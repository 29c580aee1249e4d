"""What every reader returns: one tissue section with its counts, positions, scale and lazily opened image.

Coordinates: ``x`` is the column and ``y`` the row, in pixels of the image; pixel (0, 0) covers ``[0, 1) x [0, 1)``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from sge2hist.data.errors import Problems
from sge2hist.data.position_frame import FrameFacts
from sge2hist.data.slides.slide_image import SlideImage

if TYPE_CHECKING:
    import pandas as pd
    from scipy.sparse import csr_array

OBSERVATIONS = ("bin", "cell", "spot")


@dataclass(frozen=True, kw_only=True)
class ImageReference:
    """The image that the positions were made for, as the instrument's folder states it; sizes are (width, height)."""

    size_px: tuple[float, float]  # of the full-resolution image: size of a preview / its scale factor
    source: str  # e.g. "tissue_hires_image.png"
    preview_sizes_px: dict[str, tuple[int, int]] = field(default_factory=dict)  # the small copies, by file name
    cytassist_size_px: tuple[int, int] | None = None  # of the instrument's own low-resolution image


@dataclass(frozen=True, kw_only=True)
class CountGrid:
    """Counts before they were assigned to cells, summed on a grid of M squares of the instrument's own array."""

    centre_xy_px: np.ndarray  # float64 [M, 2]
    n_counts: np.ndarray  # float64 [M]: UMI
    side_um: float


@dataclass(frozen=True, kw_only=True)
class Proteins:
    """P proteins measured beside the genes. ``read(None, None)`` gives float32 [N, P]; groups as in `Section.read_counts`."""

    names: list[str]  # unique
    unit: str  # "UMI" | "mean intensity"
    feature_type: str  # as the instrument calls it
    scaling_factor: float  # stored number / value: values are read divided by it
    read: Callable[[np.ndarray | None, int | None], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Section:
    """One section as the instrument wrote it; N observations, G genes.

    ``read_counts(None, None)`` gives int32 CSR [N, G]; ``read_counts(group_of_obs, n_groups)`` sums observations by
    group while streaming (int64 [N], -1 drops the observation) and gives int32 CSR [n_groups, G]. Memory stays bounded
    by the result and one chunk.

    Raises
    ------
    InputError
        If lengths disagree, ids repeat, a position is not finite, or um/px is not positive.
    """

    name: str  # slide id
    technology: str  # "Visium HD", "Xenium", ...
    software: str  # e.g. "Space Ranger 3.0.0"; "" if unknown
    donor: str = ""  # whom the tissue is of, as the user states it; "" if not stated
    staining: str = ""  # as the user states it
    observation: str  # "bin" | "cell" | "spot"
    observation_um: float | None  # bin side or spot diameter
    obs: pd.DataFrame  # index: barcode or cell id (str, unique); optional array_row, array_col, cell_type, cluster, ...
    centre_xy_px: np.ndarray  # float64 [N, 2]: x, y in px of `image`
    genes: pd.DataFrame  # index: Ensembl id (or symbol when there is no id), unique; column "symbol"
    image: SlideImage
    um_per_px: float  # the one used
    um_per_px_sources: dict[str, float]  # every source found, by name
    read_counts: Callable[[np.ndarray | None, int | None], csr_array]
    notes: list[str] = field(default_factory=list)
    reference: ImageReference | None = None  # what the image should look like; checked when pairing
    read_totals: Callable[[], np.ndarray] | None = (
        None  # UMI of each observation, int64 [N], where that is cheap to read
    )
    max_patch_um: float | None = None  # where each observation came with a picture of its own, cut out already
    frame_facts: FrameFacts | None = (
        None  # of a table that does not say what its positions count in; None: px, as stated
    )
    outline_px: np.ndarray | None = None
    """Outline of each observation, float32 [N, V, 2]: vertices (x, y) in px from its centre; NaN: unknown. None: of none."""
    needs_map: str | None = None
    """The frame of positions that are not in px of `image`, which was made apart from the run: `um_per_px` is that of the frame
    until a map (`--alignment`) puts them on the image. None: they are in px of the image."""
    count_grid: CountGrid | None = None  # for cells made of bins: counts that do not depend on outlines
    proteins: Proteins | None = None  # measured beside the genes, never among them

    def __post_init__(self) -> None:
        problems = Problems()
        if self.observation not in OBSERVATIONS:
            problems.add(found=f"observation {self.observation!r}", where=self.name, expected=str(OBSERVATIONS))
        if self.centre_xy_px.shape != (len(self.obs), 2):
            problems.add(
                found=f"{len(self.obs)} observations but positions of shape {self.centre_xy_px.shape}", where=self.name
            )
        elif not np.isfinite(self.centre_xy_px).all():
            n_bad = int((~np.isfinite(self.centre_xy_px)).any(axis=1).sum())
            problems.add(found=f"{n_bad} positions that are not finite", where=self.name, expected="x, y in px")
        for what, index in (("observation", self.obs.index), ("gene", self.genes.index)):
            # Arrow text is used for millions of bins, whose reader has compared them; here it would all become Python text
            if index.dtype == object and not index.is_unique:
                problems.add(found=f"repeated {what} id {index[index.duplicated()][0]!r}", where=self.name)
        if "symbol" not in self.genes.columns:
            problems.add(found="a gene table without a column 'symbol'", where=self.name)
        if not (np.isfinite(self.um_per_px) and self.um_per_px > 0):
            problems.add(found=f"{self.um_per_px} um per px", where=self.name, expected="a positive number")
        problems.raise_if_any()

    @property
    def n_obs(self) -> int:
        """Number of observations N."""
        return len(self.obs)

    def moved(self, move: Callable[[np.ndarray], np.ndarray]) -> Section:
        """The section with every position put through `move` (float64 [N, 2] px -> the same shape)."""
        count_grid = self.count_grid
        if count_grid is not None:
            count_grid = dataclasses.replace(count_grid, centre_xy_px=move(count_grid.centre_xy_px))
        centre_xy_px, outline_px = move(self.centre_xy_px), self.outline_px
        if outline_px is not None:
            vertices = self.centre_xy_px[:, None] + outline_px
            moved = move(vertices.reshape(-1, 2)).reshape(vertices.shape)
            outline_px = (moved - centre_xy_px[:, None]).astype(np.float32)
        return dataclasses.replace(self, centre_xy_px=centre_xy_px, outline_px=outline_px, count_grid=count_grid)

    def with_image(self, image: SlideImage, note: str) -> Section:
        """The section with the same pixels seen otherwise: another image of the same size and place, and a note about it."""
        return dataclasses.replace(self, image=image, notes=[*self.notes, note])

    def describe(self) -> str:
        """One line for people: technology, software, observation, size, scale."""
        side = f"{self.observation_um:g} um " if self.observation_um else ""
        software = f" ({self.software})" if self.software else ""
        proteins = f" and {len(self.proteins.names):,} proteins" if self.proteins is not None else ""
        return (
            f"{self.name}: {self.technology}{software}, {self.n_obs:,} {side}{self.observation}s x "
            f"{len(self.genes):,} genes{proteins}, image {self.image.width_px} x {self.image.height_px} px "
            f"at {self.um_per_px:.4g} um/px"
        )
