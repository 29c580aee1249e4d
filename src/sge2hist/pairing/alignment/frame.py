"""Which frame do positions lie in? Every frame is scored against the image, and px are taken only if no other fits better.

Evidence, for each frame: the share of observations inside the image and on its tissue, the overlap of tissue and occupied
area (Dice), how far observations lie on nuclei rather than beside them, the distance to the nearest neighbour against
what cells, bins and spots have, and the scale factors that the table states.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.data.position_frame import (
    FrameFacts,
    Spacing,
    agrees_with_facts,
    check_positions_option,
    factor_to_px,
    implausible_spacing,
    spacing_of,
    spacing_score,
)
from sge2hist.data.section import Section
from sge2hist.pairing.alignment.tissue import TissueMap

BLOCK_UM = 100.0  # area that one observation occupies, at least
BLOCK_SPACINGS = 3.0  # the same in distances to the nearest neighbour
DISPLACED_UM = (15.0, 30.0)  # distances at which an observation that lay on a nucleus lies beside it
N_DISPLACED = 16
MIN_NUCLEAR_Z = 6.0  # displaced positions differ among themselves by one standard deviation
FULL_NUCLEAR_CONTRAST = 0.4  # standard deviations of the nuclear map
BETTER = 0.25  # lead in score that makes another frame the right one
BETTER_SWAPPED = 0.2  # in score and share on tissue, for swapped axes: their distances are those of px
BETTER_UNNAMED = 0.4  # and for px of other images: they are many
SMALL_OVERLAP, DOUBT = 0.3, 0.1  # px that cover so little, and another frame so near in score, are in doubt
MIN_INSIDE = 0.5  # share of the observations inside the image in a frame that is possible
CLEARLY_ON_NUCLEI = 0.25  # difference of nuclear evidence that decides alone
MIN_OVERLAP = 0.6  # and it must explain the tissue
PYRAMID = (0.125, 0.25, 0.5, 2.0, 4.0, 8.0, 16.0, 32.0)  # px of another resolution level
PREVIEW_SIDES_PX = (600, 2000, 6000)  # longest side of Space Ranger's lowres and hires previews
ALIKE = 0.03  # factors this near each other are one frame
MAX_POINTS = 200_000


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How well positions fit the image in one frame."""

    inside: float  # share of the observations inside the image
    on_tissue: float  # share on tissue
    overlap: float  # Dice coefficient of tissue and occupied area
    filled: float  # share of the tissue that is occupied
    nuclear: float  # 0 to 1: observations lie on nuclei
    spacing_um: Spacing | None
    score: float

    def describe(self) -> str:
        """The figures, for messages."""
        near = "" if self.spacing_um is None else f"the nearest neighbours {self.spacing_um.nearest:.3g} um apart, "
        return f"{near}{self.on_tissue:.0%} on tissue, {self.filled:.0%} of the tissue covered"


def to_px(
    section: Section, tissue: TissueMap, positions: str = "auto", *, keep_inside: bool = False
) -> tuple[Section, list[str]]:
    """The section with positions in px of its image, and warnings; unchanged where the format states its frame.

    Parameters
    ----------
    positions
        A frame (`data.position_frame.FRAMES`), or "auto": px, unless they are implausible or another frame fits better.
    keep_inside
        Observations outside the image are expected and count for nothing.

    Raises
    ------
    InputError
        With "auto", naming the frame that fits and the option that states it.
    """
    check_positions_option(positions)
    facts = section.frame_facts
    if facts is None:
        return section, []
    factor, warnings = choose_factor(
        section.centre_xy_px,
        tissue,
        facts=facts,
        um_per_px=section.um_per_px,
        size_px=(section.image.width_px, section.image.height_px),
        positions=positions,
        keep_inside=keep_inside,
        cells=section.observation == "cell",
        what=f"positions of {section.observation}s",
        where=section.name,
    )
    section = dataclasses.replace(section, frame_facts=None)
    if positions not in ("auto", "px"):
        notes = [
            *section.notes,
            f"positions taken as {positions} (--positions): times {factor:.6g} are px of the image",
        ]
        section = dataclasses.replace(section.moved(lambda centre_xy_px: centre_xy_px * factor), notes=notes)
    return section, warnings


def choose_factor(
    xy_N2: np.ndarray,
    tissue: TissueMap,
    *,
    facts: FrameFacts,
    um_per_px: float,
    size_px: tuple[int, int],
    positions: str,
    what: str,
    where: str,
    keep_inside: bool = False,
    cells: bool = True,
) -> tuple[float, list[str]]:
    """px of the image per unit of the positions (float [N, 2]), and warnings; see `to_px`."""
    finite = xy_N2[np.isfinite(xy_N2).all(axis=1)]
    sample = finite[:: max(1, len(finite) // MAX_POINTS)]
    raw_spacing = spacing_of(finite)
    scorer = _Scorer(tissue, facts, um_per_px, size_px, keep_inside=keep_inside, cells=cells)
    named = _named_factors(facts, um_per_px)
    if positions != "auto":
        factor = factor_to_px(positions, facts, um_per_px, where)
        fit = scorer.fit(sample * factor, raw_spacing, factor)
        return factor, _warnings_of_stated(positions, fit, um_per_px)
    if len(sample) == 0:
        return 1.0, []
    as_px = scorer.fit(sample, raw_spacing, 1.0)
    reason = implausible_spacing(as_px.spacing_um)
    candidates = _candidates(scorer, sample, raw_spacing, named)
    better = [candidate for candidate in candidates if candidate.is_better_than(as_px)]
    if better:
        best = max(better, key=lambda candidate: candidate.fit.score - candidate.lead)
        raise InputError(
            found=f"{what} that look like {best.name}, not px: as px at {um_per_px:.4g} um/px {as_px.describe()}; "
            f"as {best.name} {best.fit.describe()}",
            where=where,
            expected="x, y in px of the image",
            repair=f"{best.repair} (or --positions px if they are px)",
        )
    if reason is not None:
        others = "".join(
            f"; as {candidate.name} they would be {candidate.fit.spacing_um.nearest:.3g} um"
            for candidate in candidates
            if candidate.name in named and candidate.fit.spacing_um
        )
        raise InputError(
            found=f"{what} in another unit than px: {reason} at {um_per_px:.4g} um/px{others}",
            where=where,
            expected="x, y in px of the image",
            repair="--positions um, hires or lowres states the unit; --positions px takes them as px; or correct "
            "--image-um-per-px",
        )
    return 1.0, _warnings_of_doubt(as_px, [candidate for candidate in candidates if candidate.name in named], um_per_px)


def _warnings_of_doubt(as_px: Fit, candidates: list[_Candidate], um_per_px: float) -> list[str]:
    """A small part of a section that lies on no nuclei fits in several frames."""
    if as_px.overlap >= SMALL_OVERLAP or as_px.nuclear >= CLEARLY_ON_NUCLEI:
        return []
    return [
        f"px or {candidate.name}? The positions cover a small part of the tissue and fit in both: as px at {um_per_px:.4g} "
        f"um/px {as_px.describe()}; as {candidate.name} {candidate.fit.describe()}. px were taken; --positions px or "
        f"{candidate.name} states the unit"
        for candidate in candidates
        if candidate.fit.inside >= MIN_INSIDE
        and implausible_spacing(candidate.fit.spacing_um) is None
        and candidate.fit.score >= as_px.score - DOUBT
    ][:1]


def _named_factors(facts: FrameFacts, um_per_px: float) -> dict[str, float]:
    """px per unit of the frames that an option states and that differ from px and from each other."""
    found: dict[str, float] = {}
    for name, factor in [("um", 1 / um_per_px), *((name, 1 / s) for name, s in facts.preview_scale.items())]:
        if not any(abs(factor / other - 1) <= ALIKE for other in (1.0, *found.values())):
            found[name] = factor
    return found


def _candidates(
    scorer: _Scorer, sample: np.ndarray, raw_spacing: Spacing | None, named: dict[str, float]
) -> list[_Candidate]:
    """Frames other than px: those that options state, then swapped axes and px of another resolution level."""
    found = [
        _Candidate(name, scorer.fit(sample * factor, raw_spacing, factor), f"--positions {name}", BETTER)
        for name, factor in named.items()
    ]
    for name, factor in {"": 1.0, **named}.items():
        fit = scorer.fit(sample[:, ::-1] * factor, raw_spacing, factor)
        option = f", and give --positions {name}" if name else ""
        repair = f"swap the columns: obsm['spatial'] = obsm['spatial'][:, ::-1]{option}"
        label = f"{name}, x and y swapped" if name else "x and y swapped"
        found.append(_Candidate(label, fit, repair, BETTER if name else BETTER_SWAPPED, swapped=True))
    previews = [float(scorer.size_px.max()) / side for side in PREVIEW_SIDES_PX]
    for factor in (*PYRAMID, *previews):
        if not any(abs(factor / other - 1) <= ALIKE for other in (1.0, *named.values())):
            size = f"an image of 1/{factor:.4g} the size" if factor > 1 else f"an image {1 / factor:.4g} times as large"
            fit = scorer.fit(sample * factor, raw_spacing, factor)
            repair = f"multiply the positions by {factor:.6g}, or give that image"
            found.append(_Candidate(f"px of {size}", fit, repair, BETTER_UNNAMED))
    return found


@dataclass(frozen=True)
class _Candidate:
    """A frame that the positions may lie in."""

    name: str
    fit: Fit
    repair: str
    lead: float  # in score over px that makes it the right one
    swapped: bool = False

    def is_better_than(self, as_px: Fit) -> bool:
        fit = self.fit
        if implausible_spacing(fit.spacing_um) is not None or fit.inside < MIN_INSIDE:
            return False
        gain = fit.score - as_px.score + (fit.on_tissue - as_px.on_tissue if self.swapped else 0.0)
        if gain < self.lead:
            return False
        on_nuclei = fit.nuclear > as_px.nuclear + CLEARLY_ON_NUCLEI
        if self.lead == BETTER and not self.swapped:
            if implausible_spacing(as_px.spacing_um) is not None or on_nuclei:
                return True
            by_distance = fit.score - fit.overlap >= as_px.score - as_px.overlap + self.lead
            return fit.overlap >= MIN_OVERLAP or (fit.overlap >= as_px.overlap and by_distance)
        return fit.overlap >= MIN_OVERLAP or on_nuclei


def _warnings_of_stated(positions: str, fit: Fit, um_per_px: float) -> list[str]:
    warnings = []
    reason = implausible_spacing(fit.spacing_um)
    if reason is not None:
        warnings.append(f"--positions {positions}: {reason} at {um_per_px:.4g} um/px")
    if fit.on_tissue < 0.3:
        warnings.append(f"--positions {positions}: only {fit.on_tissue:.0%} of the positions lie on tissue")
    return warnings


class _Scorer:
    """Scores positions in px against one image."""

    def __init__(
        self,
        tissue: TissueMap,
        facts: FrameFacts,
        um_per_px: float,
        size_px: tuple[int, int],
        *,
        keep_inside: bool,
        cells: bool,
    ) -> None:
        self.tissue, self.facts, self.um_per_px, self.size_px = tissue, facts, um_per_px, np.array(size_px)
        self.keep_inside = keep_inside
        self.nuclear = _relief(tissue) if cells else None

    def fit(self, xy_px_N2: np.ndarray, raw_spacing: Spacing | None, factor: float) -> Fit:
        inside = ((xy_px_N2 >= 0) & (xy_px_N2 < self.size_px)).all(axis=1)
        if self.keep_inside and inside.any():
            xy_px_N2, share = xy_px_N2[inside], 1.0
        else:
            share = float(inside.mean())
        spacing_px = None if raw_spacing is None else raw_spacing.scaled(factor)
        spacing_um = None if spacing_px is None else spacing_px.scaled(self.um_per_px)
        on_tissue = float(self._at(self.tissue.mask, xy_px_N2).mean())
        overlap, filled = self._overlap(xy_px_N2, spacing_um)
        nuclear = self._on_nuclei(xy_px_N2)
        facts = 1.0 if agrees_with_facts(spacing_px, self.facts, self.um_per_px) else 0.0
        score = overlap + nuclear + spacing_score(spacing_um) + facts
        return Fit(
            inside=share,
            on_tissue=on_tissue,
            overlap=overlap,
            filled=filled,
            nuclear=nuclear,
            spacing_um=spacing_um,
            score=score,
        )

    def _at(self, map_HW: np.ndarray, xy_px_N2: np.ndarray) -> np.ndarray:
        """Values of a map at positions; 0 outside."""
        column, row = np.floor(np.clip(xy_px_N2 / self.tissue.step_px, -1, 1e9)).astype(np.int64).T
        inside = (column >= 0) & (row >= 0) & (column < map_HW.shape[1]) & (row < map_HW.shape[0])
        return np.where(inside, map_HW[np.where(inside, row, 0), np.where(inside, column, 0)], 0)

    def _overlap(self, xy_px_N2: np.ndarray, spacing_um: Spacing | None) -> tuple[float, float]:
        """Dice coefficient of tissue and occupied blocks, and the share of the tissue in occupied blocks."""
        side_um = max(BLOCK_UM, BLOCK_SPACINGS * (spacing_um.nearest if spacing_um else 0.0))
        side = max(1, round(side_um / self.tissue.um_per_px))
        mask = self.tissue.mask
        tissue_area = np.add.reduceat(
            np.add.reduceat(mask.astype(np.int64), np.arange(0, mask.shape[0], side), axis=0),
            np.arange(0, mask.shape[1], side),
            axis=1,
        )
        block = np.floor(np.clip(xy_px_N2 / (self.tissue.step_px * side), -1e6, 1e6)).astype(np.int64)
        block = np.unique(block, axis=0)
        inside = ((block >= 0) & (block < tissue_area.shape[::-1])).all(axis=1)
        shared = int(tissue_area[block[inside, 1], block[inside, 0]].sum())
        total = int(mask.sum())
        # a block at the border of the tissue is occupied in part only: its tissue counts, and half of the rest
        area = tissue_area[block[inside, 1], block[inside, 0]]
        occupied = float(np.where(area > 0, (area + side * side) / 2, side * side).sum()) + float(
            (~inside).sum() * side * side
        )
        return (2 * shared / (total + occupied) if total + occupied else 0.0), (shared / total if total else 0.0)

    def _on_nuclei(self, xy_px_N2: np.ndarray) -> float:
        """0 to 1: how much more nuclear signal lies at the positions than 15 to 30 um beside them."""
        if self.nuclear is None or len(xy_px_N2) < 100:
            return 0.0
        here = float(self._at(self.nuclear, xy_px_N2).mean())
        angle = np.arange(N_DISPLACED) * 2 * np.pi * 0.381966  # spread evenly over directions
        length_px = np.linspace(*DISPLACED_UM, N_DISPLACED) / self.um_per_px
        beside = [
            float(self._at(self.nuclear, xy_px_N2 + np.array([a * np.cos(t), a * np.sin(t)])).mean())
            for a, t in zip(length_px, angle, strict=True)
        ]
        contrast = here - float(np.mean(beside))
        if contrast < MIN_NUCLEAR_Z * float(np.std(beside)):
            return 0.0
        return float(np.clip(contrast / FULL_NUCLEAR_CONTRAST, 0, 1))


def _relief(tissue: TissueMap) -> np.ndarray | None:
    """Nuclear signal above that of the 30 um around, in standard deviations over the tissue."""
    from scipy.ndimage import gaussian_filter

    relief = tissue.nuclear - gaussian_filter(tissue.nuclear, 30.0 / tissue.um_per_px)
    spread = float(relief[tissue.mask].std()) if tissue.mask.any() else 0.0
    return relief / spread if spread > 0 else None
