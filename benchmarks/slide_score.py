"""Scores of generated slides: stain maps against direct regressions, seams, and windows against single patches."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from slide_regression import COARSE_UM, CONVOLUTION, FINE_UM, Grid, Maps, Region, pooled, predicted_maps

from sge2hist.data.generated import GeneratedSlide
from sge2hist.data.paired import PairedDataset
from sge2hist.evaluation.metrics.slide_maps import (
    STATISTICS,
    compare_maps,
    score_slide,
    statistic_maps,
)

SHORT = {name: name.partition("_")[0] for name in STATISTICS}
SEAMS = {
    "seams": "generated, lines of windows against all others",
    "seams_alike": "generated, against lines that lie alike in the network's grid",
    "real_seams": "real section, the same lines",
}
Methods = dict[str, dict[float, Maps]]


def score(args: argparse.Namespace) -> None:
    """One table of maps, then seams, then windows against patches; without a slide the regressions alone."""
    data = PairedDataset.open(args.data)
    slide, region = 0, None
    if args.generated:
        generated = GeneratedSlide.open(args.generated[0])
        slide, region = generated.slide_number(data), generated.region_um
    if args.regression:
        methods, real, grid = predicted_maps(data, slide, region)
    else:
        grid = Grid.aligned_to(data, slide, region)
        methods, real = {}, real_maps(data, grid)
    if region is not None:
        region = whole_windows(grid, region)
        real = cut(grid, real, region)
        methods = {name: cut(grid, maps, region) for name, maps in methods.items()}
        methods |= generated_maps(args.generated, region)
    counts = {
        um: grid.cut(grid.windows(data, args.split, um), region or grid.region_um, um) for um in (COARSE_UM, FINE_UM)
    }
    print_table(methods, real, counts, args.split)
    if args.generated:
        print_seams(args.generated, data, args.split)
    if args.patches:
        print_patches(args.generated, args.patches, data, args.split)


def whole_windows(grid: Grid, region_um: Region) -> Region:
    """The part of a region that is whole windows of 64 um of the grid."""
    x, y, width, height = region_um
    right, bottom = grid.region_um[0] + grid.region_um[2], grid.region_um[1] + grid.region_um[3]
    sides = (min(width, right - x), min(height, bottom - y))
    return x, y, *(side // COARSE_UM * COARSE_UM for side in sides)


def real_maps(data: PairedDataset, grid: Grid) -> dict[float, Maps]:
    """Maps of the real slide on the grid."""
    fine = statistic_maps(data.slides[grid.slide], data.um_per_px, grid.region_um, data.um_per_px, FINE_UM)
    return both_sizes(fine)


def both_sizes(fine: Maps) -> dict[float, Maps]:
    """Maps of 16 um, and of 64 um: the statistics are means, so the larger windows are means of the smaller."""
    return {FINE_UM: fine, COARSE_UM: {name: pooled(values) for name, values in fine.items()}}


def cut(grid: Grid, maps: dict[float, Maps], region_um: Region) -> dict[float, Maps]:
    """The windows of a region."""
    return {um: {name: grid.cut(v, region_um, um) for name, v in of.items()} for um, of in maps.items()}


def generated_maps(paths: list[Path], region_um: Region) -> Methods:
    """Maps of the first slide, and of all of them the mean."""
    maps_by_seed = []
    for path in paths:
        slide = GeneratedSlide.open(path)
        um = slide.um_per_px
        area = (0.0, 0.0, region_um[2], region_um[3])
        maps_by_seed.append(both_sizes(statistic_maps(slide.image, um, area, um, FINE_UM)))
    found: Methods = {"generated, one seed": maps_by_seed[0]}
    if len(maps_by_seed) > 1:
        found[f"generated, mean of {len(maps_by_seed)} seeds"] = {
            um: {name: np.mean([maps[um][name] for maps in maps_by_seed], axis=0) for name in STATISTICS}
            for um in maps_by_seed[0]
        }
    return found


def print_table(methods: Methods, real: dict[float, Maps], counts: dict[float, np.ndarray], split: str) -> None:
    """Print a Markdown table for each size of window: R2, r and spread ratio of every method.

    Then the first generated slide (else the last method) shuffled, and by how much the R2 of the slides, or their mean, is above
    that of the convolution (95 % interval, blocks of 512 um resampled).
    """
    name = next((name for name in methods if name.startswith("generated")), list(methods)[-1])
    rng = np.random.default_rng(0)
    shuffled = {um: {key: shuffle(v, counts[um], rng) for key, v in methods[name][um].items()} for um in counts}
    for um, mask in counts.items():
        print_row(f"R2 / r / spread, {int(mask.sum()):,} windows of {um:g} um of split {split}", SHORT.values())
        print_row("---", ["---"] * len(SHORT))
        found = {
            method: compare_maps(real[um], maps[um], mask, window_um=um)
            for method, maps in {**methods, f"{name}, shuffled": shuffled}.items()
        }
        for method, scores in found.items():
            print_row(method, [f"{s.r2.value:.2f} / {s.correlation.value:.2f} / {s.spread_ratio:.2f}" for s in scores])
        last = list(methods)[-1]  # of several slides their mean
        if CONVOLUTION in found and last.startswith("generated"):
            apart = [a.r2.minus(b.r2) for a, b in zip(found[last], found[CONVOLUTION], strict=True)]
            cells = [f"{e.value:.2f} ({e.interval()[0]:.2f} to {e.interval()[1]:.2f})" for e in apart]
            print_row(f"R2, {last.removeprefix('generated, ')} less the convolution", cells)
        print()


def print_row(head: str, cells: Iterable[str]) -> None:
    """Print a row of a Markdown table."""
    print("| " + " | ".join([head, *cells]) + " |", flush=True)


def shuffle(values_RC: np.ndarray, counts_RC: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Every window that counts gets the value of another one."""
    out = values_RC.copy()
    out[counts_RC] = rng.permutation(values_RC[counts_RC])
    return out


def print_seams(paths: list[Path], data: PairedDataset, split: str) -> None:
    """Print the seam score of the first slide, against all lines and against those of the network's grid, and of the real one."""
    found = score_slide(list(paths[:1]), data, split=split).report
    print_row("seam score, 1: none", ["value"])
    print_row("---", ["---"])
    for name, title in SEAMS.items():
        if found[name]:
            print_row(title, [f"{found[name]['value']:.3f} ({found[name]['low']:.3f} to {found[name]['high']:.3f})"])
    print()


def print_patches(paths: list[Path], patches: Path, data: PairedDataset, split: str) -> None:
    """Print windows cut out of the first slide beside single patches of the same cells, both against the real patches."""
    from sge2hist.evaluation.config import EvaluateConfig
    from sge2hist.evaluation.evaluate import evaluate

    config = EvaluateConfig(split=split, max_samples=1, umap=False)
    report = evaluate([f"windows={paths[0]}", f"patches={patches}"], data, config=config)
    heads = ["real", "windows", "patches", "windows less patches"]
    print_row(f"{report['data']['n_cells']:,} cells, {report['extractor']['name']}", heads)
    print_row("---", ["---"] * len(heads))
    apart = {row["id"]: row["sets"].get("patches") for row in report["differences"]}
    for metric in report["metrics"]:
        values = (metric["real"], *(metric["sets"].get(name) for name in ("windows", "patches")))
        print_row(metric["name"], [*map(value_text, values), between(apart.get(metric["id"]))])
    rows = {name: {row["statistic"]: row for row in table} for name, table in report["morphometry"].items()}
    for statistic, row in rows["windows"].items():
        other = rows["patches"][statistic]
        means = (row["real_mean"], row["generated_mean"], other["generated_mean"])
        print_row(f"{statistic}: mean", [*map(plain, means), ""])
        for key, title in (("spread_ratio", "spread ratio"), ("one_minus_ks", "1 - KS")):
            values = (row["distribution_floor"][key], row["distribution"][key], other["distribution"][key])
            print_row(f"{statistic}: {title}", [*map(plain, values), ""])
        values = (None, row["correlation"]["value"], other["correlation"]["value"])
        print_row(f"{statistic}: correlation with the real patch", [*map(plain, values), ""])


def value_text(entry: dict[str, Any] | None) -> str:
    """The value of an estimate."""
    return plain(entry["value"] if entry else None)


def plain(value: float | None) -> str:
    """A number, or a dash."""
    return "-" if value is None else f"{value:.4g}"


def between(entry: dict[str, Any] | None) -> str:
    """Difference with its interval; the report has patches minus windows."""
    if entry is None or entry["value"] is None or entry.get("low") is None:
        return ""
    return f"{-entry['value']:.3g} ({-entry['high']:.3g} to {-entry['low']:.3g})"
