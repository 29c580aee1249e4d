"""Nuclei of generated patches against those of the real ones: outlines, direction, and how they are arranged.

Both are found by the same finder, so a perfect image would score 1; a second sample of a perfect model would not, since
chromatin, and nuclei out of the plane, are not in the counts. What two seeds of a condition have in common stands beside it.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from cell_comparison import Compared
from cell_measures import SHAPES, Nuclei
from cell_patches import EDGE_UM, OWN
from cell_readers import Look
from cell_statistics import Statistic, mean_of, r_of, shown, table
from spatial_statistics import (
    join_counts,
    ks_of_windows,
    nearest_neighbours,
    pair_sums,
    r_of_adjacency,
    r_of_joins,
    ripley_l,
)

from sge2hist.evaluation.resampling import weighted_mean
from sge2hist.pairing.segmentation.scores import score_nuclei

LONG = 0.75  # nuclei of a higher eccentricity have a direction
RADII_UM = (5.0, 10.0, 20.0)
NEIGHBOUR_UM = 15.0  # cells so near to each other are neighbours


def panoptic_counts(first: list[Nuclei], second: list[Nuclei]) -> np.ndarray:
    """By patch: sum of IoU of pairs that overlap by more than half, number of pairs, nuclei of both; [B, 3]."""
    scores = [score_nuclei(a.label_image, b.label_image) for a, b in zip(first, second, strict=True)]
    return np.array([[s.matched_iou * s.n_matched, s.n_matched, s.n_truth + s.n_found] for s in scores])


def panoptic_quality(counts_B3: np.ndarray) -> Statistic:
    """Sum of IoU / (TP + FP / 2 + FN / 2) (Kirillov et al. 2019), of all patches together."""
    return lambda weights: 2 * (weights @ counts_B3[:, 0]) / (weights @ counts_B3[:, 2])


def mean_iou(counts_B3: np.ndarray) -> Statistic:
    """Mean IoU of the pairs: the part of panoptic quality that is not detection; nan without pairs."""

    def statistic(weights: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return (weights @ counts_B3[:, 0]) / (weights @ counts_B3[:, 1])

    return statistic


def axial_r(first_N: np.ndarray, second_N: np.ndarray, kept_N: np.ndarray) -> Statistic:
    """Agreement of directions (radians, of axes): mean r of cos 2 theta and of sin 2 theta, over the items of a mask."""
    parts = []
    for part in (np.cos, np.sin):
        x, y = (np.where(kept_N, part(2 * angle), np.nan) for angle in (first_N, second_N))
        parts.append(r_of(x, y))
    return mean_of(parts)


def overlap(compared: Compared) -> str:
    """Panoptic quality, direction, and the cell's outline around the nucleus."""
    truth, by_patch, by_cell = compared.real.nuclei, compared.resamples.of_patches, compared.of_cells
    long = truth.shape_N4[:, SHAPES.index("eccentricity")] >= LONG
    rows = [
        compared.row(
            "panoptic quality", lambda look: panoptic_quality(panoptic_counts(truth.found, look.nuclei.found)), by_patch
        ),
        compared.row(
            "its part: mean IoU of matched nuclei",
            lambda look: mean_iou(panoptic_counts(truth.found, look.nuclei.found)),
            by_patch,
        ),
        compared.row(
            f"direction of long nuclei (eccentricity >= {LONG}), axial r",
            lambda look: axial_r(truth.angle_N, look.nuclei.angle_N, long),
            by_cell,
        ),
        compared.row(
            "share of a nucleus inside the outline of its cell",
            lambda look: lambda weights: weighted_mean(look.nuclei.within_N, weights),
            by_cell,
        ),
    ]
    inside = shown(by_cell.mean(truth.within_N))
    text = f"Nuclei of generated patches against those of the real ones ({int(long.sum())} long ones). "
    text += f"Share of a real nucleus inside the outline of its cell: {inside}. {two_seeds(compared)}\n\n"
    return text + table(["nuclei, against the real image", *compared.head], rows)


def two_seeds(compared: Compared) -> str:
    """Panoptic quality of one seed against the next, under the own expression."""
    looks = compared.generated.get(OWN, [])
    if len(looks) < 2:
        return ""
    pairs = [panoptic_counts(a.nuclei.found, b.nuclei.found) for a, b in pairwise(looks)]
    quality = compared.resamples.of_patches.bootstrap(mean_of([panoptic_quality(counts) for counts in pairs]))
    return f"Panoptic quality of two seeds of *{OWN}* against each other: {shown(quality)}."


def windows_of(look: Look) -> list[np.ndarray]:
    """Nuclei of each patch, um from the corner of the measured window."""
    um = look.readers.finder.um_per_px
    return [(found.xy_px_L2 - look.readers.edge_px) * um for found in look.nuclei.found]


def arrangement(compared: Compared) -> str:
    """Nearest neighbours and Ripley's L of nuclei, and which types of cell are neighbours."""
    by_patch, B = compared.resamples.of_patches, len(compared.setting.centres)
    side = compared.setting.bundle.config.patch_um - 2 * EDGE_UM
    real = nearest_neighbours(windows_of(compared.real))
    rows = [
        compared.row(
            "nearest nucleus, 1 - KS of distances",
            lambda look: ks_of_windows(real, nearest_neighbours(windows_of(look))),
            by_patch,
            real=True,
        )
    ]

    def l_of(look: Look, radius: float) -> Statistic:
        sums, pairs = pair_sums(windows_of(look), side, [radius])
        return ripley_l(sums[:, 0], pairs, side, radius)

    for radius in RADII_UM:
        name = f"L({radius:g} um) - {radius:g}, um"
        rows.append(compared.row(name, lambda look, radius=radius: l_of(look, radius), by_patch, real=True))
    cells, T = compared.real.cells, len(compared.setting.data.types)
    own = [np.flatnonzero(cells.patch_N == patch) for patch in range(B)]
    places = [cells.xy_px_N2[rows_of] * compared.setting.um for rows_of in own]

    def joins(look: Look) -> np.ndarray:
        code = look.types()
        return join_counts(places, [code[rows_of] for rows_of in own], NEIGHBOUR_UM, T)

    truth = joins(compared.real)
    rows.append(
        compared.row(
            "pairs of neighbours by type, r of their numbers",
            lambda look: r_of_joins(truth, joins(look)),
            by_patch,
            real=True,
        )
    )
    rows.append(
        compared.row(
            "the same over chance (log2), r", lambda look: r_of_adjacency(truth, joins(look)), by_patch, real=True
        )
    )
    text = (
        f"Arrangement of nuclei in windows of {side:.1f} um (below 0: they keep apart), and of types that are read off "
        f"each cell from 64 px (neighbours: within {NEIGHBOUR_UM:g} um):\n\n"
    )
    return text + table(["arrangement", "real", *compared.head], rows)
