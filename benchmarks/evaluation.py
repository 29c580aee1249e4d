"""How the metrics respond to known degradations of real patches, generators of known fault, and the speed of a whole
report.

    python benchmarks/evaluation.py degradations kidney.paired --wrong breast.paired -n 1000
    python benchmarks/evaluation.py faults       kidney.paired -n 1000 --models ours=kidney.generated paper=paper.generated
    python benchmarks/evaluation.py speed        kidney.paired -n 10000

Prints Markdown tables. Nothing but the paired datasets is needed.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from scipy import ndimage
from scipy.spatial import KDTree

from sge2hist.data.paired import PairedDataset
from sge2hist.evaluation.config import EvaluateConfig
from sge2hist.evaluation.evaluate import evaluate
from sge2hist.evaluation.features.extractor import jpeg_compressed
from sge2hist.evaluation.features.extractors import resolve_extractor
from sge2hist.evaluation.metrics.frechet import frechet_of
from sge2hist.evaluation.metrics.kid import kid_of
from sge2hist.evaluation.metrics.prdc import prdc_scores
from sge2hist.evaluation.open_images import open_image_set

Change = Callable[[np.ndarray, float], np.ndarray]


def blur(images: np.ndarray, sigma_px: float) -> np.ndarray:
    return ndimage.gaussian_filter(images, sigma=(0, sigma_px, sigma_px, 0))


def noise(images: np.ndarray, sd: float) -> np.ndarray:
    added = np.random.default_rng(0).normal(0, sd, images.shape)
    return np.clip(images + added, 0, 255).astype(np.uint8)


def colour(images: np.ndarray, shift: float) -> np.ndarray:
    return np.clip(images + np.array([shift, 0, -shift]), 0, 255).astype(np.uint8)


def jpeg(images: np.ndarray, quality: float) -> np.ndarray:
    return jpeg_compressed(images, int(quality))


def collapse(images: np.ndarray, repeats: float) -> np.ndarray:
    kept = images[:: int(repeats)]
    return np.resize(kept, images.shape)


LADDERS: dict[str, tuple[Change, tuple[float, ...]]] = {
    "blur, SD px": (blur, (0.4, 0.7, 1.2, 2.0)),
    "noise, SD of 255": (noise, (3, 8, 20, 50)),
    "colour shift of 255": (colour, (4, 10, 20, 40)),
    "JPEG quality": (jpeg, (90, 70, 40, 10)),
    "repeats of each image": (collapse, (2, 5, 20, 100)),
}


def degradations(data: PairedDataset, wrong: PairedDataset | None, n: int, extractor: str) -> None:
    """Print Frechet distance, KID, precision, recall and coverage along every ladder."""
    extract = resolve_extractor(extractor)
    rng = np.random.default_rng(0)
    rows = rng.permutation(data.rows("test"))[: 3 * n]
    size = len(rows) // 3
    real, floor, changed = (data.patches(np.sort(rows[i * size : (i + 1) * size])) for i in range(3))
    features = extract(real)

    def line(what: str, images: np.ndarray) -> tuple[float, str]:
        other = extract(images)
        scores = prdc_scores(features, other)
        distance = frechet_of(features, other)
        shares = [scores.precision_N.mean(), scores.recall_N.mean(), scores.coverage_N.mean()]
        return distance, (f"| {what} | {distance:.3g} | {kid_of(features, other):.3g} | ") + " | ".join(
            f"{s:.2f}" for s in shares
        ) + " |"

    print(f"{extract.name}, {size} against {size} patches\n")
    print("| images | Frechet | KID | precision | recall | coverage |\n| --- | --- | --- | --- | --- | --- |")
    print(line("other real patches (floor)", floor)[1])
    for name, (change, steps) in LADDERS.items():
        found = [line(f"{name} {step:g}", change(changed, step)) for step in steps]
        rising = all(a[0] < b[0] for a, b in pairwise(found))
        print(
            "\n".join(text for _, text in found),
            f"\n| {name}: {'rises' if rising else 'DOES NOT RISE'} | | | | | |",
            flush=True,
        )
    if wrong is not None:
        others = rng.permutation(wrong.rows("all"))[:size]
        patches = wrong.patches(np.sort(others), side_um=data.patch_um, out_px=data.patch_px)
        print(line(f"wrong tissue ({wrong.path.name}, n = {len(others)})", patches)[1])


def write_set(folder: Path, data: PairedDataset, rows: np.ndarray, images: np.ndarray) -> Path:
    """Write images as another tool would: PNG files and a table."""
    folder.mkdir()
    names = [f"{i:06d}.png" for i in range(len(rows))]
    for name, image in zip(names, images, strict=True):
        Image.fromarray(image).save(folder / name, compress_level=1)
    pd.DataFrame({"image": names, "cell_id": data.obs.index[rows]}).to_csv(folder / "images.csv", index=False)
    return folder


def neighbours(data: PairedDataset, rows: np.ndarray, pool: np.ndarray) -> np.ndarray:
    """Return the nearest other cell in space: its patch is what a nearly perfect generator would give."""
    _, near = KDTree(data.centre_xy_px[pool]).query(data.centre_xy_px[rows])
    return pool[near]


def faulty_sets(data: PairedDataset, rows: np.ndarray, folder: Path) -> list[Path]:
    """Write generators of known fault."""
    rng = np.random.default_rng(1)
    train, test = data.rows("train"), np.setdiff1d(data.rows("test"), rows)
    near = neighbours(data, rows, test)
    types = data.type_of_cell
    typed = np.array([rng.choice(train[types[train] == types[row]]) for row in rows])
    sets = {
        "next-cell": data.patches(near),
        "next-cell-blurred": blur(data.patches(near), 1.0),
        "shuffled": data.patches(rng.permutation(near)),
        "copied": data.patches(typed),
        "collapsed": collapse(data.patches(near), 50),
    }
    return [write_set(folder / name, data, rows, images) for name, images in sets.items()]


def show(report: dict[str, Any]) -> None:
    """Print the metrics of a report as a Markdown table."""

    def text(entry: dict[str, Any] | None) -> str:
        if entry is None or entry["value"] is None:
            return "-"
        between = "" if entry["low"] is None else f" [{entry['low']:.3g}, {entry['high']:.3g}]"
        return f"{entry['value']:.3g}{between}"

    names = [entry["name"] for entry in report["sets"]]
    heads = [head for name in names for head in (name, f"{name}, shuffled")]
    print("| metric | real | " + " | ".join(heads) + " |\n|" + " --- |" * (len(heads) + 2))
    for metric in report["metrics"]:
        found = [metric["sets"].get(name) for name in names]
        cells = [text(entry) for of in found for entry in (of, of and of["shuffled"])]
        print(f"| {metric['name']} | {text(metric['real'])} | " + " | ".join(cells) + " |")


def faults(data: PairedDataset, n: int, extractor: str, models: list[str]) -> None:
    """Print the whole table for generated sets, on the cells that all of them show, and generators of known fault."""
    rows = data.rows("test")
    for given in models:
        shown = open_image_set(Path(given.split("=", 1)[-1]), data).row_M
        rows = np.intersect1d(rows, shown)
    rows = np.sort(np.random.default_rng(0).choice(rows, min(n, len(rows)), replace=False))
    with tempfile.TemporaryDirectory() as folder:
        paths: list[str | Path] = [*models, *faulty_sets(data, rows, Path(folder))]
        show(evaluate(paths, data, config=EvaluateConfig(extractor=extractor, umap=False)))


def speed(data: PairedDataset, n: int, extractor: str) -> None:
    """Print seconds and peak memory of a whole report on n cells."""
    rows = np.sort(np.random.default_rng(0).choice(data.rows("test"), n, replace=False))
    with tempfile.TemporaryDirectory() as folder:
        test = np.setdiff1d(data.rows("test"), rows)
        path = write_set(Path(folder) / "next-cell", data, rows, data.patches(neighbours(data, rows, test)))
        wall, cpu, last = time.perf_counter(), time.process_time(), ""
        marks: list[tuple[str, float, float]] = []

        def progress(what: str, done: int, of: int) -> None:
            nonlocal last
            if what != last:
                last = what
                marks.append((what, time.perf_counter() - wall, time.process_time() - cpu))

        evaluate([path], data, Path(folder) / "report", config=EvaluateConfig(extractor=extractor), progress=progress)
        marks.append(("end", time.perf_counter() - wall, time.process_time() - cpu))
    print("| part of the report | time | processor |\n| --- | --- | --- |")
    for (what, from_wall, from_cpu), (_, to_wall, to_cpu) in pairwise(marks):
        print(f"| {what} | {to_wall - from_wall:.1f} s | {to_cpu - from_cpu:.1f} CPU s |")
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"| all, {n} cells | {marks[-1][1]:.1f} s | {marks[-1][2]:.1f} CPU s, peak {peak_gb:.2f} GB |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("degradations", "faults", "speed"))
    parser.add_argument("data", type=Path)
    parser.add_argument("--wrong", type=Path, help="another tissue")
    parser.add_argument("--models", nargs="*", default=[], help="generated sets, NAME=PATH, to compare with the faults")
    parser.add_argument("-n", type=int, default=1000)
    parser.add_argument("--extractor", default="auto")
    given = parser.parse_args()
    data = PairedDataset.open(given.data)
    if given.what == "degradations":
        degradations(data, PairedDataset.open(given.wrong) if given.wrong else None, given.n, given.extractor)
    elif given.what == "faults":
        faults(data, given.n, given.extractor, given.models)
    else:
        speed(data, given.n, given.extractor)


if __name__ == "__main__":
    main()
