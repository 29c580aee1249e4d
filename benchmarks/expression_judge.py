"""Does an independent network read the measured expression from generated patches as it does from real ones?

    python benchmarks/expression_judge.py kidney.generated --data kidney.paired --network kidney_network.pt

The network of `expression_network.py` (own layers, real training patches alone, other blocks than the evaluated cells) predicts
log expression of marker genes from the real patch of each evaluated cell, from its generated patch, and from the generated patch
of another cell (all patches dealt to other cells at random, mean of twenty deals). Genes are those with the highest correlation
in held-out training blocks. Per gene: correlation with the measured expression; slope and intercept of measured on predicted
(1 and 0 when calibrated); 1 - KS between predictions on real and on generated patches. Intervals: 95 %, bootstrap over spatial
blocks of twice the patch side, the same resamples for all columns. Prints Markdown. `--network` is read if it is there, else
trained and written.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from expression_network import Ensemble, fit_ensemble, pooled_expression

from sge2hist.data.errors import InputError
from sge2hist.data.paired import PairedDataset
from sge2hist.evaluation.metrics.expression_recovery import gene_correlations
from sge2hist.evaluation.open_images import open_image_set
from sge2hist.evaluation.resampling import Estimate, Resampling, make_resampling, spatial_blocks

N_DEALS = 20
MIN_CELLS = 20


def calibration(
    predicted_NG: np.ndarray, measured_NG: np.ndarray, weights_RN: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Slope and intercept of the weighted least-squares line of measured on predicted expression, [R, G] each."""
    w = weights_RN / weights_RN.sum(1, keepdims=True)
    x, y = predicted_NG.astype(np.float64), measured_NG.astype(np.float64)
    mean_x, mean_y = w @ x, w @ y
    var_x = w @ x**2 - mean_x**2
    with np.errstate(invalid="ignore", divide="ignore"):
        slope = np.where(var_x > 1e-12, (w @ (x * y) - mean_x * mean_y) / var_x, np.nan)
    return slope, mean_y - slope * mean_x


def ks_distance(a_NG: np.ndarray, b_NG: np.ndarray, weights_RN: np.ndarray) -> np.ndarray:
    """Weighted Kolmogorov-Smirnov distance of two values of the same cells, [R, G]."""
    w = weights_RN / weights_RN.sum(1, keepdims=True)
    out = np.empty((len(w), a_NG.shape[1]))
    for gene, values in enumerate(np.concatenate([a_NG, b_NG]).T):
        order = np.argsort(values, kind="stable")
        last = np.append(np.diff(values[order]) > 0, True)  # the step after all equal values
        out[:, gene] = np.abs(np.concatenate([w, -w], 1)[:, order].cumsum(1)[:, last]).max(1)
    return out


def deals(n: int, n_deals: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Permutations of n cells in which none keeps its place: a random order, moved on by a random number of places."""
    if n < 2:
        raise InputError(found=f"{n} cell", expected="at least 2, to exchange their patches")
    found = []
    for _ in range(n_deals):
        order, step = rng.permutation(n), int(rng.integers(1, n))
        dealt = np.empty(n, np.int64)
        dealt[order] = np.roll(order, step)
        found.append(dealt)
    return found


def shown(estimate: Estimate, digits: int = 2) -> str:
    """Value and interval."""
    low, high = estimate.interval()
    return f"{estimate.value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


class Scores:
    """Correlations of all genes under the same resamples. Statistics map weights [R, N] to [R, G]."""

    def __init__(
        self, measured_NG: np.ndarray, predicted: dict[str, np.ndarray], resampling: Resampling, seed: int
    ) -> None:
        self.measured_NG, self.predicted, self.resampling = measured_NG, predicted, resampling
        self.deals = deals(len(measured_NG), N_DEALS, np.random.default_rng(seed))

    def r(self, column: str) -> Callable[[np.ndarray], np.ndarray]:
        """Correlation with measured expression of "real", "generated" or "shuffled" patches."""
        if column != "shuffled":
            return lambda w: gene_correlations(self.predicted[column], self.measured_NG, w)
        of_deal = [self.predicted["generated"][dealt] for dealt in self.deals]
        return lambda w: np.mean([gene_correlations(x, self.measured_NG, w) for x in of_deal], axis=0)

    def line(self, column: str, part: int) -> Callable[[np.ndarray], np.ndarray]:
        """Slope (part 0) or intercept (part 1) of measured on predicted."""
        return lambda w: calibration(self.predicted[column], self.measured_NG, w)[part]

    def likeness(self, weights_RN: np.ndarray) -> np.ndarray:
        """1 - KS between predictions on real and on generated patches."""
        return 1 - ks_distance(self.predicted["real"], self.predicted["generated"], weights_RN)

    def per_gene(self, statistic: Callable[[np.ndarray], np.ndarray]) -> list[Estimate]:
        """An estimate per gene."""
        value_G, replicate_RG = statistic(np.ones((1, self.resampling.n)))[0], statistic(self.resampling.bootstrap_RN)
        return [
            Estimate(value=value, replicates=column, method="bootstrap", n=self.resampling.n, unit=self.resampling.unit)
            for value, column in zip(value_G, replicate_RG.T, strict=True)
        ]


def median_of(genes: Sequence[Estimate]) -> Estimate:
    """Median over genes, of the values and of each resample."""
    replicates = np.nanmedian([gene.replicates for gene in genes], axis=0)
    value = float(np.nanmedian([gene.value for gene in genes]))
    return Estimate(value=value, replicates=replicates, method="bootstrap", n=genes[0].n, unit=genes[0].unit)


def show_summary(found: dict[str, list[Estimate]]) -> None:
    """Medians over genes, and in how many genes generated patches beat those of other cells."""
    r = {column: median_of(found[column]) for column in ("real", "generated", "shuffled")}
    print("| median over genes | real | generated | shuffled |\n|---|---|---|---|")
    print("| r with measured expression | " + " | ".join(shown(r[column]) for column in r) + " |")
    ratio = r["generated"].combined(r["real"], np.divide)
    print(f"| ratio to real | 1 | {shown(ratio)} | {shown(r['shuffled'].combined(r['real'], np.divide))} |")
    for what in ("slope", "intercept"):
        cells = [shown(median_of(found[f"{what} {column}"])) for column in ("real", "generated")]
        print(f"| {what} of measured on predicted | " + " | ".join(cells) + " | - |")
    print(f"| 1 - KS of predictions, against real | 1 | {shown(median_of(found['likeness']))} | - |")
    pairs = list(zip(found["generated"], found["shuffled"], found["real"], strict=True))
    above = sum(generated.minus(shuffled).interval()[0] > 0 for generated, shuffled, _ in pairs)
    below = sum(generated.minus(real).interval()[1] < 0 for generated, _, real in pairs)
    print(
        f"\nr above shuffled (interval of the difference above 0): {above} of {len(pairs)} genes; below real: {below}.\n"
    )


def show_genes(dataset: PairedDataset, ensemble: Ensemble, best: np.ndarray, found: dict[str, list[Estimate]]) -> None:
    """One row per gene."""
    print(
        "| gene | marks | held-out r | r, real | r, generated | r, shuffled | slope, real | slope, generated | 1 - KS |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for i, position in enumerate(best):
        name = dataset.genes.symbols[ensemble.genes[position]]
        first = f"| {name} | {dataset.types[ensemble.gene_type[position]]} | {ensemble.held_out_r_G[position]:.2f} | "
        cells = [shown(found[column][i]) for column in ("real", "generated", "shuffled")]
        cells += [f"{found[column][i].value:.2f}" for column in ("slope real", "slope generated", "likeness")]
        print(first + " | ".join(cells) + " |")


def network_of(args: argparse.Namespace, dataset: PairedDataset) -> Ensemble:
    """The network of the file, or a new one, written there."""
    if args.network.is_file():
        return Ensemble.load(args.network, dataset)
    if not args.network.parent.is_dir():
        raise InputError(found="no such folder", where=str(args.network.parent), expected="where to write the network")
    ensemble = fit_ensemble(
        dataset,
        per_type=args.per_type,
        n_patches=args.patches,
        n_folds=args.folds,
        steps=args.steps,
        pool_um=args.pool_um,
        seed=args.seed,
    )
    ensemble.save(args.network)
    return ensemble


def add_network_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the network's training."""
    parser.add_argument("--network", type=Path, required=True, help="read if it is there, else trained and written")
    parser.add_argument("--per-type", type=int, default=12, help="candidate marker genes per type")
    parser.add_argument("--patches", type=int, default=30_000, help="real training patches at most")
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=500, help="of 64 patches, per fold")
    parser.add_argument(
        "--pool-um", type=float, default=25.0, help="counts of cells so near are added; 0: the cell's own"
    )
    parser.add_argument("--seed", type=int, default=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("generated", type=Path, help="what `generate` made of held-out cells")
    parser.add_argument("--data", type=Path, required=True, help="its paired dataset")
    parser.add_argument("--genes", type=int, default=30, help="genes of the table, best held-out correlation first")
    parser.add_argument("--resamples", type=int, default=1000)
    add_network_arguments(parser)
    args = parser.parse_args()
    dataset = PairedDataset.open(args.data)
    images = open_image_set(args.generated, dataset)
    rows, first = np.unique(images.row_M, return_index=True)
    held_out = np.isin(rows, dataset.rows("test"))
    rows, first = rows[held_out], first[held_out]
    if len(rows) < MIN_CELLS:
        raise InputError(
            found=f"images of {len(rows)} test cells",
            where=str(args.generated),
            expected=f"{MIN_CELLS}",
            repair="generate more",
        )
    ensemble = network_of(args, dataset)
    best = ensemble.best_genes(args.genes)
    if len(best) == 0:
        raise InputError(
            found="no gene with a held-out correlation of 0.1", expected="a longer training", repair="--steps"
        )
    predicted = {
        "real": ensemble.predict(dataset.patches(rows))[0][:, best],
        "generated": ensemble.predict(images.images(first))[0][:, best],
    }
    block_N = spatial_blocks(
        dataset.centre_xy_px[rows] * dataset.um_per_px, dataset.slide_of_cell[rows], 2 * dataset.patch_um
    )
    resampling = make_resampling(
        block_N, n_replicates=args.resamples, n_groups=10, rng=np.random.default_rng(args.seed)
    )
    measured = pooled_expression(dataset, rows, ensemble.genes[best], ensemble.pool_um)
    scores = Scores(measured, predicted, resampling, args.seed)
    found = {column: scores.per_gene(scores.r(column)) for column in ("real", "generated", "shuffled")}
    for column in ("real", "generated"):
        for part, name in enumerate(("slope", "intercept")):
            found[f"{name} {column}"] = scores.per_gene(scores.line(column, part))
    found["likeness"] = scores.per_gene(scores.likeness)
    print(f"{len(rows)} test cells, {resampling.unit}, {len(best)} of {len(ensemble.genes)} marker genes\n")
    show_summary(found)
    show_genes(dataset, ensemble, best, found)


if __name__ == "__main__":
    main()
