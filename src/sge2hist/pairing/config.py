"""Everything that `prepare` can be told."""

from __future__ import annotations

from dataclasses import dataclass

from sge2hist.data.errors import Problems


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """Options of `prepare`; lengths in um."""

    patch_um: float = 64.0  # default side of the H&E patch around a cell
    patch_px: int = 64  # default pixels of that side
    um_per_px: float | None = None  # resolution of the stored slides; None = native (several slides: the coarsest)
    shift_um: tuple[float, float] = (0.0, 0.0)  # added to the positions: x to the right, y downwards
    slide_shifts_um: tuple[tuple[str, tuple[float, float]], ...] = ()  # (slide, shift) that goes before `shift_um`

    min_counts: int = 20  # a cell needs this many UMI
    min_genes: int = 10  # and this many genes with a count
    min_cells_per_gene: int = 3  # a gene must be seen in this many of the cells kept
    nucleus_um2: tuple[float, float] = (8.0, 250.0)  # area of the nucleus, where it is known: least and most
    min_tissue_fraction: float = 0.1  # share of a patch that must be tissue (holes up to 100 um count as tissue)
    keep_border: bool = False  # keep cells whose patch reaches past the image (filled with white)

    # leiden | clusters | markers:NAME | markers:FILE.csv | none | FILE.csv (cell, type) | a column of the cells
    types: str = "leiden"
    resolution: float = 1.0  # of Leiden: higher gives more clusters
    marker_margin: float = 0.3  # least difference of score between the best and the next type

    split_block_um: float | None = None  # side of the spatial blocks; None = 500, or 8 patch sides where that is more
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2)  # of train, val, test, before the gap is cut
    holdout_slides: tuple[str, ...] = ()  # these slides become the test set, whole
    seed: int = 0  # of the split and of Leiden

    check_alignment: bool = True  # estimate the shift between image and counts; refuse when it is gross and certain
    toy: bool = False  # made by this program: written into everything that comes of it

    def __post_init__(self) -> None:
        problems = Problems()
        for name in ("patch_um", "resolution"):
            if not getattr(self, name) > 0:
                problems.add(found=f"{name} = {getattr(self, name)}", expected="a positive number")
        for name in ("um_per_px", "split_block_um"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                problems.add(found=f"{name} = {value}", expected="a positive number")
        if not 4 <= self.patch_px <= 4096:
            problems.add(found=f"patch_px = {self.patch_px}", expected="4 to 4096")
        for name in ("min_counts", "min_genes", "min_cells_per_gene", "marker_margin"):
            if getattr(self, name) < 0:
                problems.add(found=f"{name} = {getattr(self, name)}", expected="0 or more")
        if not 0 <= self.nucleus_um2[0] < self.nucleus_um2[1]:
            problems.add(found=f"nucleus_um2 = {self.nucleus_um2}", expected="least and most, the first smaller")
        if not 0 <= self.min_tissue_fraction <= 1:
            problems.add(found=f"min_tissue_fraction = {self.min_tissue_fraction}", expected="0 to 1")
        if len(self.fractions) != 3 or min(self.fractions) < 0 or abs(sum(self.fractions) - 1) > 1e-6:
            problems.add(found=f"fractions {self.fractions}", expected="three shares (train, val, test) that sum to 1")
        problems.raise_if_any()

    def shift_of(self, slide: str) -> tuple[float, float]:
        """The shift for one slide: its own if it has one."""
        return dict(self.slide_shifts_um).get(slide, self.shift_um)

    @property
    def block_um(self) -> float:
        """Side of the split's blocks. The gap costs a share of about 4 patch sides / block side of what it borders."""
        return self.split_block_um or max(500.0, 8 * self.patch_um)
