"""Evidence for a model of single cells: what its patches show at the place of each cell, on held-out blocks.

    python benchmarks/single_cell.py pancreas.model --data pancreas.paired -n 48 --seeds 3

Patches of 256 px (or `--patch-px`) that do not overlap are generated around held-out cells, of each type in turn, under several
conditions (`cell_patches.py`): own, points, centre cells only, layout alone, within type, shuffled.

Then: stains inside cells, nuclei, types and genes that are read off the images by models fitted on real training patches, nuclei
against those of the real image and their arrangement (`single_cell_nuclei.py`), structures and the stains of tiles beside a ridge
regression on the genes (`single_cell_structures.py`), Frechet distances over their floor, and cost. Figures are means over seeds,
intervals of 200 resamples of patches, and the last column is the paired difference of *own* and *layout alone*.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from cell_comparison import Compared, compare
from cell_measures import SHAPES, CellNuclei
from cell_patches import CONDITIONS, LAYOUT, OWN, SHUFFLED, Setting, distances_um, far_places, generate_patches, prepare
from cell_readers import WINDOWS_PX, Look, log_counts
from cell_statistics import (
    MIN_OF_TYPE,
    Statistic,
    confusion,
    level_over,
    likeness,
    macro_f1,
    mean_of,
    r_of,
    r_over_types,
    ratio,
    table,
)
from single_cell_nuclei import arrangement, overlap
from single_cell_structures import structures, tiles

from sge2hist.api import SGE2Hist
from sge2hist.data.paired import PairedDataset
from sge2hist.data.slides.channels import is_rgb
from sge2hist.evaluation.config import EvaluateConfig
from sge2hist.evaluation.evaluate import evaluate
from sge2hist.evaluation.metrics.expression_recovery import gene_correlations
from sge2hist.generation.patches import generate
from sge2hist.generation.requests import request_from_paired

MIN_GENE_R = 0.1  # genes that are read off real images at least so well count


def stains_in_cells(compared: Compared) -> str:
    """Mean level of each stain inside each cell."""
    truth, resampling, rows = compared.real.stains, compared.of_cells, []
    for channel, name in enumerate(compared.setting.data.channels):
        x = truth[:, channel]
        rows.append(compared.row(f"{name}: r", lambda look, x=x, c=channel: r_of(x, look.stains[:, c]), resampling))
        rows.append(
            compared.row(
                f"{name}: mean over real", lambda look, x=x, c=channel: level_over(x, look.stains[:, c]), resampling
            )
        )
    return f"Mean level of each stain inside a cell, {len(truth):,} cells:\n\n" + table(["stain", *compared.head], rows)


def detection(nuclei: CellNuclei) -> Statistic:
    """F1 of nuclei found against cells placed, of all patches together."""
    matched, every = nuclei.n_matched_B, nuclei.n_found_B + nuclei.n_cells_B
    return lambda weights: 2 * (weights @ matched) / (weights @ every)


def nuclei_at_cells(compared: Compared) -> str:
    """Nuclei found at placed cells, and their shapes."""
    truth, by_cell, by_patch = compared.real.nuclei, compared.of_cells, compared.resamples.of_patches
    types, of_real = compared.setting.data.type_of_cell[compared.real.cells.row_N], detection(truth)
    rows = [
        compared.row(
            "nuclei found against cells placed, F1 over real",
            lambda look: ratio(detection(look.nuclei), of_real),
            by_patch,
        ),
        compared.row(
            "nuclei per patch, r",
            lambda look: r_of(truth.n_found_B.astype(float), look.nuclei.n_found_B.astype(float)),
            by_patch,
        ),
    ]
    for column, name in enumerate(SHAPES):
        x = truth.shape_N4[:, column]

        def y(look: Look, column: int = column) -> np.ndarray:
            return look.nuclei.shape_N4[:, column]

        rows.append(compared.row(f"{name}: r over cells", lambda look, x=x, y=y: r_of(x, y(look)), by_cell))
        rows.append(
            compared.row(f"{name}: r over types", lambda look, x=x, y=y: r_over_types(x, y(look), types), by_cell)
        )
        rows.append(compared.row(f"{name}: 1 - KS", lambda look, x=x, y=y: likeness(x, y(look), types), by_cell))
    head = (
        f"F1 of real patches: {truth.f1:.3f} ({truth.n_cells_B.sum():,} cells, {truth.n_found_B.sum():,} nuclei).\n\n"
    )
    return head + table(["nuclei", *compared.head], rows)


def read_off(compared: Compared) -> str:
    """Types and genes of each cell, by models that were fitted on real training patches."""
    data, cells, by_patch = compared.setting.data, compared.real.cells, compared.resamples.of_patches
    code, B, T = data.type_of_cell[cells.row_N], len(compared.setting.centres), len(data.types)
    known, rows = code >= 0, []
    for px in WINDOWS_PX:

        def score(look: Look, px: int = px) -> Statistic:
            return macro_f1(confusion(code[known], look.types(px)[known], cells.patch_N[known], B, T))

        of_real = score(compared.real)
        rows.append(compared.row(f"type from {px} px: macro-F1", score, by_patch, real=True))
        rows.append(
            compared.row(
                f"type from {px} px: over real",
                lambda look, score=score, of_real=of_real: ratio(score(look), of_real),
                by_patch,
                real=True,
            )
        )
    kept = int((np.bincount(code[known], minlength=T) >= MIN_OF_TYPE).sum())
    rows += gene_rows(compared)
    head = f"Macro-F1 of the {kept} types with at least {MIN_OF_TYPE} of these cells.\n\n"
    return head + table(["read off the image", "real", *compared.head], rows)


def gene_rows(compared: Compared) -> list[list[str]]:
    """How well genes are read off, and for how many the own expression is better than the layout alone."""
    genes, by_cell = compared.real.readers.gene_G, compared.of_cells
    measured = log_counts(compared.setting, compared.real.cells)[:, genes]

    def per_gene(look: Look) -> Statistic:
        return lambda weights: gene_correlations(look.genes, measured, weights)

    readable = per_gene(compared.real)(np.ones((1, len(measured))))[0] >= MIN_GENE_R

    def mean_r(look: Look) -> Statistic:
        return lambda weights: np.nanmean(per_gene(look)(weights)[:, readable], 1)

    of_real = mean_r(compared.real)
    name = f"genes: mean r of the {readable.sum()} of {len(genes)} with r >= {MIN_GENE_R} on real patches"
    rows = [
        compared.row(name, mean_r, by_cell, real=True),
        compared.row("genes: over real", lambda look: ratio(mean_r(look), of_real), by_cell, real=True),
    ]
    if {OWN, LAYOUT} <= set(compared.generated):
        own, other = (
            mean_of([per_gene(look) for look in compared.generated[name]])(by_cell.bootstrap_RN)
            for name in (OWN, LAYOUT)
        )
        low = np.percentile(np.nan_to_num(own - other), 2.5, axis=0)  # of a constant gene: 0
        row = f"genes read better from {OWN} than from {LAYOUT} (interval clear of zero)"
        rows.append([row, *["-"] * (len(compared.generated) + 1), f"{(low > 0).sum()} of {len(genes)}"])
    return rows


def distances(setting: Setting, sides: dict[int, int], seed: int) -> None:
    """Print Frechet distance over its floor, KID, precision, recall and copies, on the stains and as virtual H&E."""
    from evaluation import show

    for px, n in sides.items():
        bundle = setting.bundle.with_patch_px(px)
        rows = np.sort(np.random.default_rng(seed).permutation(setting.data.rows("test"))[:n])
        with tempfile.TemporaryDirectory() as folder:
            sets = []
            for condition in (OWN, SHUFFLED):
                request = request_from_paired(
                    bundle, setting.data, rows, seed=seed, shuffle_cells=condition == SHUFFLED
                )
                sets.append(generate(bundle, request, Path(folder) / f"{condition}.generated", seed=seed).path)
            report = evaluate(sets, setting.data, config=EvaluateConfig(umap=False, seed=seed))
        print(f"\n{px} px, {n} cells", flush=True)
        show(report)


def cost(setting: Setting) -> str:
    """Processor time of one patch, with the model's own sampler."""
    rows = []
    for px, n in ((64, 32), (256, 4)):
        bundle, centres = setting.bundle.with_patch_px(px), setting.centres[:n]
        start = time.process_time()
        generate_patches(setting, centres, OWN, 0, bundle)
        each = (time.process_time() - start) / len(centres)
        area = (px * setting.um / 1000) ** 2
        rows.append([f"{px} px", f"{each * 1e3:.0f} ms", f"{each / area:.0f} s"])
    return (
        "Processor time, of patches side by side: a slide needs margins around its windows, which are not in it.\n\n"
        + table(["patch", "one image", "1 mm2, without margins"], rows)
    )


def about(setting: Setting, n_seeds: int) -> str:
    """How many patches, cells and seeds, and how far the patches of *shuffled* are."""
    xy = setting.xy_um_N2[setting.centres]
    far = np.concatenate([distances_um(xy, far_places(xy, seed)) for seed in range(n_seeds)])
    return (
        f"{len(setting.centres)} held-out patches of {setting.bundle.config.patch_px} px with "
        f"{len(setting.cells.patch_N):,} cells, around cells of each type in turn; {n_seeds} seed(s); intervals (95 %): "
        f"patches resampled. *{SHUFFLED}* shows the cells of a patch {np.median(far):.0f} um away "
        f"(median; least {far.min():.0f}).\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, required=True, help="its paired dataset, of fluorescence")
    parser.add_argument("-n", type=int, default=48, help="held-out patches")
    parser.add_argument("--train", type=int, default=160, help="real training patches, for what is read off images")
    parser.add_argument("--patch-px", type=int, default=256)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--conditions", default=",".join(CONDITIONS))
    parser.add_argument("--parts", default="cells,cost", help="of cells, distances, cost")
    parser.add_argument("--distances", default="64:512,256:96", help="sides in px and numbers of patches")
    args = parser.parse_args()
    conditions, parts = args.conditions.split(","), args.parts.split(",")
    if unknown := [name for name in conditions if name not in CONDITIONS]:
        parser.error(f"condition {unknown[0]!r}; expected some of {', '.join(CONDITIONS)}")
    if args.n < 2 or args.seeds < 1:
        parser.error("-n is at least 2 and --seeds at least 1")
    bundle, data = (
        SGE2Hist.from_pretrained(args.model).bundle.with_patch_px(args.patch_px),
        PairedDataset.open(args.data),
    )
    if is_rgb(data.channels):
        parser.error(f"{args.data} holds RGB images; this benchmark reads fluorescence, nuclear stain first")
    setting = prepare(bundle, data, args.n, args.train, 0)
    if "cells" in parts:
        print(about(setting, args.seeds), flush=True)
        compared = compare(setting, conditions, args.seeds)
        for part in (stains_in_cells, nuclei_at_cells, overlap, arrangement, read_off, structures, tiles):
            start = time.process_time()
            print(part(compared), flush=True)
            print(f"{part.__name__}: {time.process_time() - start:.0f} s of processor", file=sys.stderr, flush=True)
    if "distances" in parts:
        distances(setting, dict(tuple(map(int, one.split(":"))) for one in args.distances.split(",")), 0)
    if "cost" in parts:
        print(cost(setting), flush=True)


if __name__ == "__main__":
    main()
