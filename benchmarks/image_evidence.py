"""One table of everything that a conditioned image model should show, with the models and baselines to compare."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from evaluation import show, write_set
from sge2hist.api import SGE2Hist
from sge2hist.data.paired import PairedDataset
from sge2hist.evaluation.config import EvaluateConfig
from sge2hist.evaluation.evaluate import evaluate
from sge2hist.generation.patches import image_batches
from sge2hist.generation.requests import request_from_paired
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.image.samplers import SamplerConfig

STATISTICS = ("haematoxylin_mean", "haematoxylin_sd", "eosin_mean", "eosin_sd", "lumen_fraction", "nuclei_count")


def evidence(
    bundle: ModelBundle, data: PairedDataset, split: str, n: int, seed: int, others: list[str], max_steps: int
) -> None:
    """Generate images of the same cells with every model (`others`: NAME=MODEL), shuffled and for the centre cell alone.

    Prints all scores.
    """
    rows = np.sort(np.random.default_rng(seed).permutation(data.rows(split))[:n])
    compared = {name: SGE2Hist.from_pretrained(model).bundle for name, _, model in (o.partition("=") for o in others)}
    own = bundle.config.sampler
    with tempfile.TemporaryDirectory() as folder:
        sets = [
            _draw(bundle, data, rows, seed, Path(folder) / "model", own),
            _draw(bundle, data, rows, seed, Path(folder) / "its shuffled", own, shuffle=True),
            _draw(bundle, data, rows, seed, Path(folder) / "its centre cell", own, context="single_cell"),
            *(
                _draw(other, data, rows, seed, Path(folder) / name, _affordable(other.config.sampler, max_steps))
                for name, other in compared.items()
            ),
        ]
        report = evaluate(sets, data, config=EvaluateConfig(split=split, umap=False, seed=seed))
    print()
    show(report)
    _show_statistics(report)


def _draw(
    bundle: ModelBundle,
    data: PairedDataset,
    rows: np.ndarray,
    seed: int,
    folder: Path,
    sampler: SamplerConfig,
    *,
    context: str = "neighbours",
    shuffle: bool = False,
) -> Path:
    """Generate one image per cell; prints the time."""
    job = request_from_paired(bundle, data, rows, seed=seed, context=context, shuffle_cells=shuffle)
    start = time.perf_counter()
    images = np.concatenate(list(image_batches(bundle, job, sampler)))
    each_ms = (time.perf_counter() - start) / len(rows) * 1e3
    print(f"{folder.name}: {sampler.sampler}, {sampler.n_steps} steps, {each_ms:.0f} ms per image", flush=True)
    return write_set(folder, data, rows, images)


def _affordable(own: SamplerConfig, max_steps: int) -> SamplerConfig:
    """The sampler, or another of `max_steps` where it takes more."""
    return own if own.n_steps <= max_steps else replace(own, sampler="dpmpp-2m", n_steps=max_steps)


def _show_statistics(report: dict[str, Any]) -> None:
    """Print how statistics of the patches follow the real ones."""
    names = [entry["name"] for entry in report["sets"]]
    print("\n| correlation with the real patch / SD over that of real patches | " + " | ".join(names) + " |")
    print("|" + " --- |" * (len(names) + 1))
    for statistic in STATISTICS:
        cells = []
        for name in names:
            found = next((row for row in report["morphometry"][name] if row["statistic"] == statistic), None)
            cells.append(
                "-"
                if found is None
                else f"{_number(found['correlation'])} / {_number(found['distribution']['spread_ratio'])}"
            )
        print(f"| {statistic} | " + " | ".join(cells) + " |")


def _number(figure: Any) -> str:
    value = figure["value"] if isinstance(figure, dict) else figure
    return "-" if value is None else f"{value:.2f}"
