"""Right anatomy? Stain, lumen and nuclei (of fluorescence: the light of each channel) of generated against real patches: as
distributions, and cell by cell.

For each statistic: `1 - KS` (1 = same distribution), W1 in the statistic's unit and in real standard deviations,
Pearson's correlation over cells between generated and real, the ratio of spreads (below 1: too uniform), and a
calibration curve (mean generated value in ten equal groups of the real one).

Shape letters: N cells, R resamples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from sge2hist.data.he_stain import stain_statistics
from sge2hist.data.slides.channels import Channels, is_rgb
from sge2hist.evaluation.features.descriptors import Morphometry
from sge2hist.evaluation.metrics.expression_recovery import gene_correlations
from sge2hist.evaluation.metrics.nuclei import NucleiSegmenter, nuclear_statistics
from sge2hist.evaluation.resampling import Estimate, Resampling, finite

CALIBRATION_GROUPS = 10
UNITS = {"nuclei_count": "per patch", "nuclear_area_um2": "um2", "lumen_fraction": "share of pixels"}


# Statistics of a patch that mean something to a person. Haematoxylin, eosin, lumen and nuclei have no meaning in
# fluorescence: the light of each channel replaces them there.


def fit_morphometry(train_NHWC: np.ndarray, um_per_px: float, channels: Channels) -> Morphometry:
    """Return what measures images of these channels; what has to be fitted is fitted to real training patches."""
    if not is_rgb(channels):
        return lambda image_NHWC: light_statistics(image_NHWC, channels)
    segmenter = NucleiSegmenter.fit(train_NHWC, um_per_px)
    return lambda image_NHWC: stain_statistics(image_NHWC) | nuclear_statistics(segmenter, image_NHWC)


def light_statistics(image_NHWC: np.ndarray, channels: Channels) -> dict[str, np.ndarray]:
    """Return mean and standard deviation of each channel over the pixels of each image, in grey levels: float64 [N] each.

    >>> light_statistics(np.full((1, 8, 8, 1), 7, np.uint8), ("DAPI",))
    {'DAPI light mean': array([7.]), 'DAPI light SD': array([0.])}
    """
    pixels = (1, 2)
    found = {}
    for number, name in enumerate(channels):
        found[f"{name} light mean"] = image_NHWC[..., number].mean(axis=pixels, dtype=np.float64)
        found[f"{name} light SD"] = image_NHWC[..., number].std(axis=pixels, dtype=np.float64)
    return found


def unit_of(name: str) -> str:
    """Return the unit of a statistic; stains are in optical density (natural logarithm)."""
    if name.startswith(("haematoxylin", "eosin")):
        return "optical density"
    return "grey levels" if " light " in name else UNITS.get(name, "")


def pearson_estimate(x_N: np.ndarray, y_N: np.ndarray, resampling: Resampling) -> Estimate:
    """Return Pearson's correlation over cells where both are known; 0 when one of them is constant (it carries no
    information).
    """
    known = np.isfinite(x_N) & np.isfinite(y_N)
    x, y = np.where(known, x_N, 0.0)[:, None], np.where(known, y_N, 0.0)[:, None]

    def statistic(weights_RN: np.ndarray) -> np.ndarray:
        weights = weights_RN * known
        weights = np.where(weights.sum(axis=1, keepdims=True) > 0, weights, 1e-300)
        return np.nan_to_num(gene_correlations(x, y, weights)[:, 0], nan=0.0)

    return resampling.bootstrap(statistic, int(known.sum()))


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """How far two samples of one statistic are apart."""

    one_minus_ks: float
    w1: float
    w1_in_sd: float
    spread_ratio: float


def compare_distributions(real_N: np.ndarray, other_N: np.ndarray) -> Distribution:
    """Return the distances between two samples of a statistic; nan is ignored, all nan when either is empty."""
    real, other = real_N[np.isfinite(real_N)], other_N[np.isfinite(other_N)]
    if len(real) == 0 or len(other) == 0:
        return Distribution(
            one_minus_ks=float("nan"), w1=float("nan"), w1_in_sd=float("nan"), spread_ratio=float("nan")
        )
    w1, sd = float(stats.wasserstein_distance(real, other)), float(real.std())
    return Distribution(
        one_minus_ks=1 - ks_distance(real, other),
        w1=w1,
        w1_in_sd=w1 / sd if sd > 0 else float("nan"),
        spread_ratio=float(other.std()) / sd if sd > 0 else float("nan"),
    )


def ks_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return the largest gap between two empirical distribution functions."""
    points = np.concatenate([a, b])
    a, b = np.sort(a), np.sort(b)
    return float(
        np.abs(np.searchsorted(a, points, "right") / len(a) - np.searchsorted(b, points, "right") / len(b)).max()
    )


def calibration(real_N: np.ndarray, generated_N: np.ndarray) -> list[dict[str, float | int | None]]:
    """Return, for ten groups of equal size by the real value: mean real, mean and SD of generated, n."""
    known = np.isfinite(real_N) & np.isfinite(generated_N)
    real, generated = real_N[known], generated_N[known]
    groups = np.array_split(np.argsort(real, kind="stable"), CALIBRATION_GROUPS)
    return [
        {
            "real_mean": finite(real[g].mean()),
            "generated_mean": finite(generated[g].mean()),
            "generated_sd": finite(generated[g].std()),
            "n": len(g),
        }
        for g in groups
        if len(g)
    ]


def morphometry_row(
    name: str,
    real_N: np.ndarray,
    generated_N: np.ndarray,
    shuffled_N: np.ndarray,
    floor_N: np.ndarray,
    resampling: Resampling,
) -> tuple[dict[str, Any], Estimate, Estimate]:
    """Return one statistic's entry of the report, and its matched and shuffled correlations.

    Parameters: the statistic of the real patch, of the generated image, of the image given to the wrong cell (all
        [N], same cells) and of other real patches.
    """
    matched, shuffled = (
        pearson_estimate(generated_N, real_N, resampling),
        pearson_estimate(shuffled_N, real_N, resampling),
    )
    entry = {
        "statistic": name,
        "unit": unit_of(name),
        "correlation": matched.as_dict(),
        "correlation_shuffled": shuffled.as_dict(),
        "conditioning_gain": matched.minus(shuffled).as_dict(),
        "distribution": {k: finite(v) for k, v in vars(compare_distributions(real_N, generated_N)).items()},
        "distribution_floor": {k: finite(v) for k, v in vars(compare_distributions(real_N, floor_N)).items()},
        "calibration": calibration(real_N, generated_N),
        "real_mean": finite(np.nanmean(real_N)) if np.isfinite(real_N).any() else None,
        "generated_mean": finite(np.nanmean(generated_N)) if np.isfinite(generated_N).any() else None,
    }
    return entry, matched, shuffled
