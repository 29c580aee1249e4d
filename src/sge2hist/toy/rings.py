"""Glands, vessels and immune aggregates: round outlines that do not touch each other.

Outline of one structure as a function of the angle theta:
`R(theta) = radius (1 + a2 cos 2(theta - t2) + a3 cos 3(theta - t3))`; a gland or vessel has its lumen inside R and a
wall of constant thickness outside it; an aggregate has no wall and is filled.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Outline:
    """One gland, vessel or aggregate. Lengths in um, angles in radians, x to the right and y down."""

    structure: str  # "gland", "vessel" or "aggregate"
    centre_xy_um: tuple[float, float]
    radius_um: float  # mean radius of the lumen (of the whole, for an aggregate)
    wall_um: float  # 0 for an aggregate
    a2: float
    t2: float
    a3: float
    t3: float

    @property
    def extent_um(self) -> float:
        """Largest distance of a point from the centre."""
        return self.radius_um * (1.0 + self.a2 + self.a3) + self.wall_um

    def radius_at(self, theta: np.ndarray) -> np.ndarray:
        """R(theta) in um."""
        wobble = self.a2 * np.cos(2.0 * (theta - self.t2)) + self.a3 * np.cos(3.0 * (theta - self.t3))
        return self.radius_um * (1.0 + wobble)


@dataclass(frozen=True, kw_only=True)
class OutlineDistribution:
    """Distribution of the outlines of one structure."""

    structure: str
    median_um: float  # of the radius
    spread: float  # standard deviation of log radius
    low_um: float
    high_um: float
    wall_um: tuple[float, float]  # range of the wall thickness
    a2: float  # largest elongation
    a3: float  # largest three-lobed deformation
    clearance_um: float  # distance to the next structure


DISTRIBUTIONS: dict[str, OutlineDistribution] = {
    "aggregate": OutlineDistribution(
        structure="aggregate",
        median_um=62.0,
        spread=0.35,
        low_um=34.0,
        high_um=110.0,
        wall_um=(0.0, 0.0),
        a2=0.30,
        a3=0.18,
        clearance_um=8.0,
    ),
    "gland": OutlineDistribution(
        structure="gland",
        median_um=15.0,
        spread=0.35,
        low_um=8.0,
        high_um=30.0,
        wall_um=(16.0, 19.0),
        a2=0.28,
        a3=0.12,
        clearance_um=5.0,
    ),
    "vessel": OutlineDistribution(
        structure="vessel",
        median_um=14.0,
        spread=0.40,
        low_um=8.0,
        high_um=34.0,
        wall_um=(7.0, 14.0),
        a2=0.20,
        a3=0.05,
        clearance_um=6.0,
    ),
}


def _sample_outline(rng: np.random.Generator, prior: OutlineDistribution, centre_xy_um: np.ndarray) -> Outline:
    radius = float(np.clip(prior.median_um * np.exp(prior.spread * rng.standard_normal()), prior.low_um, prior.high_um))
    return Outline(
        structure=prior.structure,
        centre_xy_um=(float(centre_xy_um[0]), float(centre_xy_um[1])),
        radius_um=radius,
        wall_um=float(rng.uniform(*prior.wall_um)),
        a2=float(rng.uniform(0.0, prior.a2)),
        t2=float(rng.uniform(0.0, np.pi)),
        a3=float(rng.uniform(0.0, prior.a3)),
        t3=float(rng.uniform(0.0, 2.0 * np.pi)),
    )


def place_outlines(
    rng: np.random.Generator, structure: str, n: int, candidates_xy_um: np.ndarray, placed: list[Outline]
) -> list[Outline]:
    """Place up to `n` structures on candidate centres, at a distance from those that are placed already.

    Parameters: `candidates_xy_um` [m, 2] in the order of preference (shuffled by the caller); `placed` is not changed.
    Returns the new outlines, fewer than `n` when the candidates run out.
    """
    prior = DISTRIBUTIONS[structure]
    taken_xyr = [(*other.centre_xy_um, other.extent_um) for other in placed]
    new: list[Outline] = []
    for centre in candidates_xy_um:
        if len(new) >= n:
            break
        outline = _sample_outline(rng, prior, centre)
        if taken_xyr:
            taken = np.asarray(taken_xyr)
            gap = np.hypot(*(taken[:, :2] - centre).T) - taken[:, 2] - outline.extent_um
            if gap.min() < prior.clearance_um:
                continue
        new.append(outline)
        taken_xyr.append((*outline.centre_xy_um, outline.extent_um))
    return new


def ring_cells(rng: np.random.Generator, outline: Outline, spacing_um: float) -> tuple[np.ndarray, np.ndarray]:
    """Nuclei along the wall of a gland or vessel.

    Gland: one row near the base, each nucleus pointing to the lumen. Vessel: a flat row along the lumen and, in thick
    walls, a second row. Returns `xy_um` [n, 2] and `orientation_rad` [n] of the major axes.
    """
    is_gland = outline.structure == "gland"
    rows = [0.60] if is_gland else ([0.30, 0.85] if outline.wall_um > 10.5 else [0.40])
    positions, orientations = [], []
    for depth in rows:
        perimeter = 2.0 * np.pi * (outline.radius_um + depth * outline.wall_um)
        n = max(3, round(perimeter / spacing_um))
        theta = 2.0 * np.pi * (np.arange(n) + rng.uniform() + 0.18 * rng.standard_normal(n)) / n
        jitter = rng.normal(0.0, 0.07 * outline.wall_um, n)
        distance = outline.radius_at(theta) + depth * outline.wall_um + jitter
        direction = np.stack([np.cos(theta), np.sin(theta)], axis=1)
        positions.append(np.asarray(outline.centre_xy_um) + distance[:, None] * direction)
        orientations.append(theta + (0.0 if is_gland else np.pi / 2.0) + rng.normal(0.0, 0.12, n))
    return np.concatenate(positions), np.concatenate(orientations)
