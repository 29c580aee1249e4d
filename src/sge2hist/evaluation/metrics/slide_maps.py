"""Right over the section? Local haematoxylin, eosin and lumen (or light of each channel) of a generated slide against the real
one, and its seams.

Both slides are cut into the same windows (64 um); a window counts when its cells are held-out ones alone. A shuffled
baseline gives each real window another window of the generated slide. Shape letters: R x C windows of a region, N
windows that count.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.data.generated import GeneratedSlide
from sge2hist.data.he_stain import stain_statistics
from sge2hist.data.paired import PairedDataset
from sge2hist.data.slides.channels import Channels, is_rgb
from sge2hist.data.slides.slide_image import SlideImage
from sge2hist.evaluation.metrics.morphometry import light_statistics, pearson_estimate
from sge2hist.evaluation.metrics.seams import seam_score
from sge2hist.evaluation.resampling import Estimate, Resampling, finite, make_resampling, spatial_blocks, weighted_mean

WINDOW_UM = 64.0
BLOCK_UM = 512.0  # windows are resampled in blocks of this side
STATISTICS = ("haematoxylin_mean", "eosin_mean", "lumen_fraction")
SEAM_REGIONS, SEAM_PX = 8, 1024


@dataclass(frozen=True, kw_only=True)
class MapScore:
    """How well one local statistic of a slide follows the real one."""

    name: str
    correlation: Estimate  # Pearson, over windows
    shuffled: Estimate
    r2: Estimate  # 1 - squared error / variance of the real map: a right pattern of wrong height scores low
    spread_ratio: float  # standard deviation, generated over real

    def as_dict(self) -> dict[str, Any]:
        """Return the entry of the report."""
        return {
            "name": self.name,
            "correlation": self.correlation.as_dict(),
            "shuffled": self.shuffled.as_dict(),
            "r2": finite(self.r2.value),
            "spread_ratio": finite(self.spread_ratio),
        }


def statistics_of(channels: Channels) -> tuple[str, ...]:
    """Return the names of the compared statistics."""
    return STATISTICS if is_rgb(channels) else tuple(f"{name} light mean" for name in channels)


def statistic_maps(
    slide: SlideImage,
    um_per_px: float,
    region_um: tuple[float, float, float, float],
    out_um_per_px: float,
    window_um: float = WINDOW_UM,
) -> dict[str, np.ndarray]:
    """Return local statistics of a region (x, y, width, height in um of the slide): name -> float64 [R, C], whole windows only.

    The slide is resampled to `out_um_per_px`, so that slides of two resolutions compare. Memory is that of a row of windows.
    """
    x, y, width, height = region_um
    rows, columns = int(height // window_um), int(width // window_um)
    side = max(1, round(window_um / out_um_per_px))
    names = statistics_of(slide.channels)
    out = {name: np.empty((rows, columns)) for name in names}
    for row in range(rows):
        strip = slide.read_window(
            x / um_per_px,
            (y + row * window_um) / um_per_px,
            columns * window_um / um_per_px,
            window_um / um_per_px,
            columns * side,
            side,
        )
        windows = strip.reshape(side, columns, side, len(slide.channels)).swapaxes(0, 1)
        found = stain_statistics(windows) if is_rgb(slide.channels) else light_statistics(windows, slide.channels)
        for name in names:
            out[name][row] = found[name]
    return out


def held_out_windows(
    data: PairedDataset,
    slide: int,
    region_um: tuple[float, float, float, float],
    split: str = "test",
    window_um: float = WINDOW_UM,
) -> np.ndarray:
    """Return bool [R, C]: windows that hold centre cells, all of them of the split ("all": any)."""
    x, y, width, height = region_um
    rows, columns = int(height // window_um), int(width // window_um)
    own = (data.slide_of_cell == slide) & data.is_centre
    window = np.floor((data.centre_xy_px[own] * data.um_per_px - (x, y)) / window_um).astype(np.int64)
    wanted = np.isin(np.flatnonzero(own), data.rows(split))
    inside = ((window >= 0) & (window < (columns, rows))).all(1)
    number = window[inside, 1] * columns + window[inside, 0]
    n_all = np.bincount(number, minlength=rows * columns)
    n_wanted = np.bincount(number[wanted[inside]], minlength=rows * columns)
    return ((n_all > 0) & (n_wanted == n_all)).reshape(rows, columns)


def compare_maps(
    real: dict[str, np.ndarray],
    generated: dict[str, np.ndarray],
    counts_RC: np.ndarray,
    *,
    window_um: float = WINDOW_UM,
    n_bootstrap: int = 200,
    seed: int = 0,
) -> list[MapScore]:
    """Return the scores of every statistic over the windows that count."""
    rng = np.random.default_rng(seed)
    window = np.argwhere(counts_RC)
    blocks = spatial_blocks(window[:, ::-1] * window_um, np.zeros(len(window), np.int64), BLOCK_UM)
    resampling = make_resampling(blocks, n_replicates=n_bootstrap, n_groups=20, rng=rng)
    order = rng.permutation(len(window))
    scores = []
    for name in real:
        r, g = real[name][counts_RC], generated[name][counts_RC]
        scores.append(
            MapScore(
                name=name,
                correlation=pearson_estimate(r, g, resampling),
                shuffled=pearson_estimate(r, g[order], resampling),
                r2=r2_estimate(r, g, resampling),
                spread_ratio=float(g.std() / r.std()) if r.std() > 0 else float("nan"),
            )
        )
    return scores


def r2_estimate(real_N: np.ndarray, generated_N: np.ndarray, resampling: Resampling) -> Estimate:
    """Return 1 - squared error / variance of the real values; nan where they are all equal."""
    centred_N = real_N - real_N.mean()

    def statistic(weights_RN: np.ndarray) -> np.ndarray:
        variance_R = weighted_mean(centred_N**2, weights_RN) - weighted_mean(centred_N, weights_RN) ** 2
        error_R = weighted_mean((real_N - generated_N) ** 2, weights_RN)
        return 1 - np.divide(error_R, variance_R, out=np.full_like(error_R, np.nan), where=variance_R > 0)

    return resampling.bootstrap(statistic)


def seams_of(
    slide: SlideImage, origin_xy_px: tuple[int, int], step_px: int, grid_px: int = 1, seed: int = 0
) -> Estimate | None:
    """Return the seam score over up to 8 regions of a slide, None when no window's edge crosses it.

    Windows meet every `step_px`, at `origin_xy_px` and multiples away from it; they are compared with lines every `grid_px`.
    """
    rng = np.random.default_rng(seed)
    side = min(SEAM_PX, slide.width_px, slide.height_px)
    images = []
    for _ in range(SEAM_REGIONS):
        # corners on the grid, so that all regions share it
        left, top = (
            int(rng.integers(0, max(1, (size - side) // step_px + 1))) * step_px
            for size in (slide.width_px, slide.height_px)
        )
        images.append(slide.read(left, top, side, side))
    try:
        origin = (origin_xy_px[0] % step_px, origin_xy_px[1] % step_px)
        return seam_score(images, step_px, origin, grid_px, seed=seed)
    except ValueError:
        return None


def _real_pixels(
    slide: SlideImage, um_per_px: float, region_um: tuple[float, float, float, float], out_um_per_px: float
) -> np.ndarray:
    """Return the first (at most) 4096 px of the real region, at the resolution of the generated slide."""
    x, y, width, height = region_um
    width, height = (min(side, 4096 * out_um_per_px) for side in (width, height))
    return slide.read_window(
        x / um_per_px,
        y / um_per_px,
        width / um_per_px,
        height / um_per_px,
        round(width / out_um_per_px),
        round(height / out_um_per_px),
    )


def slide_seams(generated: GeneratedSlide, data: PairedDataset, *, seed: int = 0) -> dict[str, Estimate | None]:
    """Return the seam scores of a generated slide: `seams`, `real_seams` of the real region, and `seams_alike`.

    `seams_alike` compares the borders with lines at the same phase of the network's own grid; None without such a grid.
    """
    x, y, width, height = generated.region_um
    um = generated.um_per_px
    step_px = max(2, round((generated.manifest.get("window_step_um") or data.patch_um / 2) / um))
    origin = (-round(x / um), -round(y / um))
    grid_px = int(generated.manifest.get("network_px", 1))
    pixels = _real_pixels(data.slides[generated.slide_number(data)], data.um_per_px, (x, y, width, height), um)
    return {
        "seams": seams_of(generated.image, origin, step_px, seed=seed),
        "real_seams": seams_of(SlideImage.from_array(pixels, channels=data.channels), origin, step_px, seed=seed),
        "seams_alike": seams_of(generated.image, origin, step_px, grid_px, seed) if 1 < grid_px < step_px else None,
    }


@dataclass(frozen=True, kw_only=True)
class SlideScores:
    """Scores of a slide as plain values of a report, and the maps [R, C] of every statistic."""

    report: dict[str, Any]
    real: dict[str, np.ndarray]
    generated: dict[str, np.ndarray]
    counts_RC: np.ndarray  # bool: windows that were scored


def score_slide(
    generated: list[str | Path],
    data: PairedDataset,
    *,
    split: str = "test",
    n_bootstrap: int = 200,
    seed: int = 0,
) -> SlideScores:
    """Score a generated slide; of several (seeds of one region) the mean of their maps.

    Seams are looked for every `window_step_um` of the manifest, else every half patch of the dataset. The report holds
    maps (name, correlation, shuffled, r2, spread_ratio), seams and real_seams, n_windows; seams_alike is the seam score
    against lines at the same phase of the network's own grid (`network_px` of the manifest).

    Raises
    ------
    InputError
        If a set is no slide of this dataset, they show different regions, or no window holds held-out cells alone.
    """
    slides = [GeneratedSlide.open(path) for path in generated]
    numbers = [slide.slide_number(data) for slide in slides]
    first, number = slides[0], numbers[0]
    if any(slide.region_um != first.region_um for slide in slides):
        raise InputError(found="slides of different regions", expected="several seeds of one region")
    x, y, width, height = first.region_um
    um = first.um_per_px
    counts = held_out_windows(data, number, (x, y, width, height), split)
    if counts.sum() < 3:
        raise InputError(
            found=f"{int(counts.sum())} windows of {WINDOW_UM:g} um with cells of split {split} alone",
            expected="at least 3",
            repair="generate a larger region of held-out tissue, or use another split",
        )
    maps = [statistic_maps(slide.image, um, (0.0, 0.0, width, height), um) for slide in slides]
    mean = {name: np.mean([single[name] for single in maps], axis=0) for name in maps[0]}
    real = statistic_maps(data.slides[number], data.um_per_px, (x, y, width, height), um)
    scores = compare_maps(real, mean, counts, n_bootstrap=n_bootstrap, seed=seed)
    report = {
        "slide": first.slide_id,
        "region_um": list(first.region_um),
        "n_windows": int(counts.sum()),
        "window_um": WINDOW_UM,
        "split": split,
        "n_slides": len(slides),
        "maps": [score.as_dict() for score in scores],
        **{name: seams and seams.as_dict() for name, seams in slide_seams(first, data, seed=seed).items()},
    }
    return SlideScores(report=report, real=real, generated=mean, counts_RC=counts)
