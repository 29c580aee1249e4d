"""Evidence for a map: tiles that took no part in fitting it are found where it says, much more often than by chance."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sge2hist.pairing.alignment.block_matching import (
    SEARCH_PX,
    TOLERANCE_PX,
    TileShifts,
    apply_map,
    fit_correction,
)

N_FOLDS = 5
MIN_TILES = 6
MIN_SHARE = 0.4  # of the tiles that must agree
MAX_LOG10_P = -6.0
MAX_UNCERTAINTY_UM = 5.0
MAX_TILE_UM = 6.0  # pixels that show nuclei or small groups of them: a serial section agrees on coarser ones
COARSER = 1.5  # than the finest pixels that the sources allow, where those are coarse (bins, spots, small images)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Cross-validation over tiles of the section; lengths in um."""

    n_tiles: int  # that show structure
    n_agreeing: int  # found within `tolerance_um` of where a map fitted to the other tiles says
    log10_chance: float  # probability that as many agree by chance
    residual_um: float  # median over agreeing tiles of the distance to where the map says: sets how exact one tile is
    residual_95_um: float  # 95 % quantile of the same
    uncertainty_um: float  # jackknife standard error of the map, the worst of all tiles
    tolerance_um: float
    correlation: float  # median over tiles
    tile_um: float  # side of the pixels on which tiles were compared
    finest_um: float  # the finest that image and cells allow

    @property
    def share(self) -> float:
        """Share of the tiles that agree."""
        return self.n_agreeing / self.n_tiles if self.n_tiles else 0.0

    @property
    def convincing(self) -> bool:
        """Whether the map is beyond doubt."""
        return self.objection() is None

    def objection(self) -> str | None:
        """Why the map is in doubt; None if it is not."""
        if self.n_tiles < MIN_TILES:
            return f"{self.n_tiles} pieces of tissue to compare, {MIN_TILES} are needed"
        if self.share < MIN_SHARE or self.log10_chance > MAX_LOG10_P:
            return f"{self.n_agreeing} of {self.n_tiles} pieces of tissue agree on the best map"
        if self.tile_um > max(MAX_TILE_UM, COARSER * self.finest_um):
            return f"only coarse structures agree (on pixels of {self.tile_um:.0f} um), single nuclei do not: another section?"
        if self.uncertainty_um > max(MAX_UNCERTAINTY_UM, self.tile_um):
            return f"the best map is uncertain by {self.uncertainty_um:.0f} um"
        return None

    def summary(self) -> dict[str, Any]:
        """The numbers, for a file."""
        return asdict(self)


def cross_validate(tiles: TileShifts, um_per_unit: float, *, finest_um: float = 0.0) -> Evidence:
    """Fit the correction to four fifths of the tiles, predict the last fifth, in turn."""
    from scipy.stats import binom

    n = len(tiles)
    fold = np.random.default_rng(0).permutation(n) % N_FOLDS
    found = tiles.centre_T2 + tiles.shift_T2
    residual, predicted = np.full(n, np.inf), []
    for k in range(N_FOLDS):
        correction = fit_correction(_subset(tiles, fold != k))
        if correction is None:
            continue
        at = apply_map(correction, tiles.centre_T2)
        residual[fold == k] = np.linalg.norm(at - found, axis=1)[fold == k]
        predicted.append(at)
    agree = residual <= TOLERANCE_PX * tiles.step
    chance = np.pi * TOLERANCE_PX**2 / (2 * SEARCH_PX) ** 2
    near = residual[agree] * um_per_unit
    return Evidence(
        n_tiles=n,
        n_agreeing=int(agree.sum()),
        log10_chance=float(binom.logsf(agree.sum() - 1, n, chance) / np.log(10)) if n else 0.0,
        residual_um=float(np.median(near)) if agree.any() else float("inf"),
        residual_95_um=float(np.quantile(near, 0.95)) if agree.any() else float("inf"),
        uncertainty_um=_jackknife(predicted) * um_per_unit,
        tolerance_um=TOLERANCE_PX * tiles.step * um_per_unit,
        correlation=float(np.median(tiles.peak_T)) if n else 0.0,
        tile_um=tiles.step * um_per_unit,
        finest_um=finest_um,
    )


def _subset(tiles: TileShifts, chosen: np.ndarray) -> TileShifts:
    return TileShifts(
        centre_T2=tiles.centre_T2[chosen],
        shift_T2=tiles.shift_T2[chosen],
        peak_T=tiles.peak_T[chosen],
        step=tiles.step,
    )


def _jackknife(predicted: list[np.ndarray]) -> float:
    """Standard error of predictions [T, 2], of one fit without each fold, at the worst tile; infinite where a fit failed."""
    if len(predicted) < N_FOLDS:
        return float("inf")
    stack = np.stack(predicted)
    spread = ((stack - stack.mean(axis=0)) ** 2).sum(axis=(0, 2)) * (N_FOLDS - 1) / N_FOLDS
    return float(np.sqrt(spread.max()))
