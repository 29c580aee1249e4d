"""From figures to report.json: the table of metrics, differences between sets, types, morphometry, samples.

Shape letters: N evaluated cells.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sge2hist.evaluation.features.descriptors import ImageDescriptors
from sge2hist.evaluation.metrics import type_agreement as agreement
from sge2hist.evaluation.metrics.catalogue import CATALOGUE
from sge2hist.evaluation.metrics.frechet import frechet_of
from sge2hist.evaluation.metrics.morphometry import morphometry_row
from sge2hist.evaluation.reference import Reference
from sge2hist.evaluation.resampling import Estimate, finite
from sge2hist.evaluation.scores import Estimates, SetScores, type_kids


def metric_table(scores_of: dict[str, SetScores], real: Estimates, own_cells: bool) -> list[dict[str, Any]]:
    """Return one entry per metric of the catalogue that any set has, in the catalogue's order."""
    table = []
    for metric in CATALOGUE:
        having = {name: found for name, found in scores_of.items() if metric.id in found.matched}
        if not having:
            continue
        baseline = real.get(metric.id)
        entry: dict[str, Any] = {
            field: getattr(metric, field) for field in ("id", "question", "name", "better", "definition")
        }
        entry["real"] = None if baseline is None or not metric.real else {"kind": metric.real, **baseline.as_dict()}
        entry["sets"] = {name: set_entry(found, metric.id) for name, found in having.items()}
        table.append(entry)
    return table


def set_entry(found: SetScores, metric_id: str) -> dict[str, Any]:
    """Return matched, shuffled and their paired difference."""
    matched, shuffled = found.matched[metric_id], found.shuffled.get(metric_id)
    return {
        **matched.as_dict(),
        "shuffled": None if shuffled is None else shuffled.as_dict(),
        "conditioning_gain": None if shuffled is None else matched.minus(shuffled).as_dict(),
    }


def differences(scores_of: dict[str, SetScores]) -> list[dict[str, Any]]:
    """Return, for every metric, each set minus the first one, paired by cell."""
    names = list(scores_of)
    rows = []
    for metric in CATALOGUE:
        first = scores_of[names[0]].matched.get(metric.id)
        others = {
            name: scores_of[name].matched[metric.id] for name in names[1:] if metric.id in scores_of[name].matched
        }
        if first is not None and others:
            rows.append(
                {
                    "id": metric.id,
                    "minus": names[0],
                    "sets": {name: found.minus(first).as_dict() for name, found in others.items()},
                }
            )
    return rows


def per_type(reference: Reference, sets: dict[str, ImageDescriptors]) -> list[dict[str, Any]]:
    """Return, for every type with enough evaluated cells, F1 and KID of each set and of real patches."""
    types_N, real_ND = reference.types_N, reference.real.features_ND
    kids = {name: type_kids(real_ND, types_N, descriptors.features_ND, types_N) for name, descriptors in sets.items()}
    floor_types = reference.data.type_of_cell[reference.cells.floor_rows]
    floor = type_kids(real_ND, types_N, reference.floor.features_ND, floor_types) if len(reference.floor) else {}
    f1 = {}
    if reference.classifier is not None:
        everything = {"": reference.real, **sets}
        f1 = {
            name: f1_by_type(types_N, reference.predict_types(descriptors.features_ND))
            for name, descriptors in everything.items()
        }
    rows = []
    for type_index, count in zip(*np.unique(types_N[types_N >= 0], return_counts=True), strict=True):
        t = int(type_index)
        if count < reference.config.min_type:
            continue
        mine = types_N == t
        rows.append(
            {
                "type": reference.data.types[t],
                "n": int(count),
                "real": {"f1": f1.get("", {}).get(t), "kid": optional(floor.get(t))},
                "sets": {
                    name: {
                        "f1": f1.get(name, {}).get(t),
                        "kid": optional(kids[name].get(t)),
                        "frechet": finite(frechet_of(real_ND[mine], descriptors.features_ND[mine])),
                    }
                    for name, descriptors in sets.items()
                },
            }
        )
    return sorted(rows, key=lambda row: -row["n"])


def optional(value: float | None) -> float | None:
    """Return a JSON number or None."""
    return None if value is None else finite(value)


def f1_by_type(truth_N: np.ndarray, predicted_N: np.ndarray) -> dict[int, float | None]:
    """Return F1 of each type that occurs."""
    values = agreement.f1_per_type(truth_N, predicted_N, np.ones((1, len(truth_N))))[0]
    return {int(t): finite(value) for t, value in zip(np.unique(truth_N[truth_N >= 0]), values, strict=True)}


def morphometry_tables(
    reference: Reference, sets: dict[str, ImageDescriptors], shuffled: dict[str, ImageDescriptors]
) -> dict[str, list[dict[str, Any]]]:
    """Return, for each set, one entry per morphometric statistic."""
    tables: dict[str, list[dict[str, Any]]] = {}
    for name, descriptors in sets.items():
        wrong = shuffled.get(name) or descriptors.take(reference.cells.shuffle_N)
        tables[name] = [
            morphometry_row(
                statistic,
                real_N,
                descriptors.morphometry[statistic],
                wrong.morphometry[statistic],
                reference.floor.morphometry.get(statistic, np.empty(0)),
                reference.resampling,
            )[0]
            for statistic, real_N in reference.real.morphometry.items()
        ]
    return tables


def over_samples(samples: list[Estimates]) -> dict[str, dict[str, Any]]:
    """Return mean, SD and values of every metric over the samples of a set (independent seeds)."""
    found = {}
    for metric in CATALOGUE:
        values = [figures[metric.id].value for figures in samples if metric.id in figures]
        if len(values) > 1:
            found[metric.id] = {
                "n_samples": len(values),
                "mean": float(np.mean(values)),
                "sd": float(np.std(values, ddof=1)),
                "values": values,
            }
    return found


def over_slides(reference: Reference, scores_of: SetScores) -> dict[str, Any]:
    """Return the mean retrieval rank by slide: how evenly a set follows the expression over slides (and so donors)."""
    slide = reference.data.slide_of_cell[reference.cells.rows_N]
    shares = scores_of.rank_share_N
    return {
        reference.data.slide_ids[s]: {
            "n": int((slide == s).sum()),
            "mean_rank_share": finite(np.nanmean(shares[slide == s])),
        }
        for s in np.unique(slide)
        if np.isfinite(shares[slide == s]).any()
    }


def ratio_text(value: Estimate) -> str:
    """Return a figure with its interval in words."""
    low, high = value.interval()
    return f"{value.value:.3g} ({low:.3g} to {high:.3g})" if np.isfinite(low) else f"{value.value:.3g}"
