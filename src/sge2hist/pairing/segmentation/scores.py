"""Agreement of segmented nuclei with annotated ones: detection F1 and overlap."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class NucleiScores:
    """Agreement over one or more images; IoU = intersection over union of two outlines."""

    n_truth: int  # annotated nuclei
    n_found: int  # segmented nuclei
    n_matched: int  # pairs with IoU above the threshold (one to one when the threshold is at least 0.5)
    mean_iou: float  # over annotated nuclei, of the segmented one that overlaps best; 0 without overlap
    matched_iou: float  # over matched pairs only

    @property
    def f1(self) -> float:
        """2 matched / (annotated + segmented); 1 when both are 0."""
        total = self.n_truth + self.n_found
        return 2 * self.n_matched / total if total else 1.0

    @property
    def precision(self) -> float:
        """Share of segmented nuclei that match."""
        return self.n_matched / self.n_found if self.n_found else 0.0

    @property
    def recall(self) -> float:
        """Share of annotated nuclei that are matched."""
        return self.n_matched / self.n_truth if self.n_truth else 0.0


def score_nuclei(truth: np.ndarray, found: np.ndarray, *, iou: float = 0.5) -> NucleiScores:
    """Compare two label images [H, W] (0 = none) of the same field."""
    return score_images([(truth, found)], iou=iou)


def score_images(pairs: Iterable[tuple[np.ndarray, np.ndarray]], *, iou: float = 0.5) -> NucleiScores:
    """Pool (truth, found) label images; nuclei are counted over all of them, not averaged per image."""
    n_truth = n_found = n_matched = 0
    best, matched = [np.empty(0)], [np.empty(0)]
    for truth, found in pairs:
        overlap, n_truth_here, n_found_here = _overlaps(truth, found)
        best_of_truth = np.zeros(n_truth_here)
        np.maximum.at(best_of_truth, overlap[0], overlap[2])
        hit = overlap[2] > iou
        n_truth, n_found, n_matched = n_truth + n_truth_here, n_found + n_found_here, n_matched + int(hit.sum())
        best.append(best_of_truth)
        matched.append(overlap[2][hit])
    all_best, all_matched = np.concatenate(best), np.concatenate(matched)
    return NucleiScores(
        n_truth=n_truth,
        n_found=n_found,
        n_matched=n_matched,
        mean_iou=float(all_best.mean()) if n_truth else 0.0,
        matched_iou=float(all_matched.mean()) if n_matched else 0.0,
    )


def _overlaps(truth: np.ndarray, found: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], int, int]:
    """Pairs that overlap: index in truth, index in found, IoU; and the number of nuclei of each."""
    truth_ids, truth_flat = np.unique(np.append(truth.ravel(), 0), return_inverse=True)
    found_ids, found_flat = np.unique(np.append(found.ravel(), 0), return_inverse=True)
    n_columns = len(found_ids)  # the appended 0 makes sure that index 0 is the background of both
    table = np.bincount(truth_flat * n_columns + found_flat, minlength=len(truth_ids) * n_columns)
    table = table.reshape(len(truth_ids), n_columns)
    rows, columns = np.nonzero(table[1:, 1:])
    shared = table[1:, 1:][rows, columns]
    union = table.sum(1)[rows + 1] + table.sum(0)[columns + 1] - shared
    return (rows, columns, shared / union), len(truth_ids) - 1, n_columns - 1
