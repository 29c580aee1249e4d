"""Are generated patches useful? Predictors of type and expression, trained on generated patches, tested on real ones.

    python benchmarks/utility.py train.generated --data kidney.paired

`train.generated` holds images of *training* cells (`generate --split train`). Predictors are linear (ridge) on frozen features of
`--extractor`, ImageNet's by default: one for the type of the central cell, one for log expression of marker genes. They are
trained on generated patches alone, on 1, 5, 25 and 100 % of the real training patches, and on both; each without and with
ordinary augmentation (copies that are mirrored, turned, and scaled in optical density per channel). Penalties are chosen on real
validation patches, the same for every row. Test: real patches of held-out blocks, macro-F1 of the types and mean correlation over
genes. Mean over seeds, which choose the real and the generated patches. Intervals: 95 %, bootstrap over spatial blocks of test
cells and over seeds, the same resamples in all rows. Prints Markdown.

The generator itself was trained on all real training patches: this measures what its images add to few *labelled* patches, not
what they would add where no others exist.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from expression_network import as_tensor, augmented, marker_genes, pooled_expression

from sge2hist.data.errors import InputError
from sge2hist.data.paired import PairedDataset
from sge2hist.evaluation.features.extractors import Extractor, resolve_extractor
from sge2hist.evaluation.metrics.expression_recovery import gene_correlations
from sge2hist.evaluation.metrics.type_agreement import macro_f1
from sge2hist.evaluation.open_images import open_image_set
from sge2hist.evaluation.resampling import Estimate, Resampling, make_resampling, spatial_blocks

SHARES = (0.01, 0.05, 0.25, 1.0)
PENALTIES = (1e2, 1e3, 1e4)
PER_SEED = 0.8  # share of the pool, and of the generated patches, that a seed takes
MIN_PATCHES = 50
METRICS = ("macro-F1 of types", "mean r of marker genes")


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Patches with the truth of their central cells. C copies: the patch itself, then augmented ones."""

    features_CND: np.ndarray
    expression_NG: np.ndarray
    type_N: np.ndarray  # int64, known types alone

    def taken(self, chosen: np.ndarray, augment: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Features, expression and types of some patches, with their copies if asked for."""
        copies = self.features_CND[:, chosen] if augment else self.features_CND[:1, chosen]
        repeated = np.tile(chosen, len(copies))
        return copies.reshape(-1, copies.shape[-1]), self.expression_NG[repeated], self.type_N[repeated]

    def __len__(self) -> int:
        return len(self.type_N)


def copies_of(images_NPPC: np.ndarray, n_copies: int, seed: int) -> list[np.ndarray]:
    """The patches, and augmented copies of all, uint8."""
    generator = torch.Generator().manual_seed(seed)
    changed = [augmented(as_tensor(images_NPPC), generator) for _ in range(n_copies)]
    return [images_NPPC, *((x * 255).round().byte().permute(0, 2, 3, 1).numpy() for x in changed)]


def known_rows(dataset: PairedDataset, split: str, n: int, rng: np.random.Generator) -> np.ndarray:
    """At most n cells of known type of a split, at random."""
    rows = dataset.rows(split)
    rows = rows[dataset.type_of_cell[rows] >= 0]
    return np.sort(rng.choice(rows, min(n, len(rows)), replace=False))


def fit(
    train: tuple[np.ndarray, np.ndarray, np.ndarray], val: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Features -> expression [N, G] and type [N], by two ridges whose penalties are the best on `val`."""
    from sklearn.linear_model import Ridge, RidgeClassifier

    mean, sd = train[0].mean(0), train[0].std(0) + 1e-6
    x, x_val = (train[0] - mean) / sd, (val[0] - mean) / sd
    ones = np.ones((1, len(x_val)))
    expression, types = [], []
    for penalty in PENALTIES:
        regression = Ridge(alpha=penalty).fit(x, train[1])
        expression.append((_mean_r(regression.predict(x_val), val[1], ones)[0], len(expression), regression))
        classifier = _classifier(RidgeClassifier(alpha=penalty, class_weight="balanced"), x, train[2])
        types.append((macro_f1(val[2], classifier(x_val), ones)[0], len(types), classifier))
    best, best_type = max(expression)[2], max(types)[2]
    return lambda features: (best.predict((features - mean) / sd), best_type((features - mean) / sd))


def _classifier(model: object, x: np.ndarray, type_N: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """A fitted classifier; of a single type, that type."""
    if len(np.unique(type_N)) == 1:
        return lambda features: np.full(len(features), type_N[0])
    model.fit(x, type_N)  # type: ignore[attr-defined]
    return model.predict  # type: ignore[attr-defined]


def _mean_r(predicted_NG: np.ndarray, measured_NG: np.ndarray, weights_RN: np.ndarray) -> np.ndarray:
    """Mean correlation over genes, [R]; a constant prediction counts as 0."""
    return np.nan_to_num(gene_correlations(predicted_NG, measured_NG, weights_RN), nan=0.0).mean(1)


def over_seeds(value_S: np.ndarray, replicate_SR: np.ndarray, resampling: Resampling, seed: int = 0) -> Estimate:
    """Mean over seeds; each resample of the blocks also takes as many seeds with replacement, the same ones for every row."""
    chosen_SR = np.random.default_rng(seed).integers(0, len(value_S), replicate_SR.shape)
    replicates = np.take_along_axis(replicate_SR, chosen_SR, 0).mean(0)
    unit = f"{resampling.unit} and {len(value_S)} seeds"
    return Estimate(value=float(value_S.mean()), replicates=replicates, method="bootstrap", n=resampling.n, unit=unit)


class Trials:
    """Trains and tests, seed by seed."""

    def __init__(
        self, real: Labelled, generated: Labelled, val: Labelled, test: Labelled, resampling: Resampling, n_seeds: int
    ) -> None:
        self.real, self.generated, self.test, self.resampling, self.n_seeds = real, generated, test, resampling, n_seeds
        self.val = val.taken(np.arange(len(val)), False)
        self.n_real, self.n_generated = round(PER_SEED * len(real)), round(PER_SEED * len(generated))

    def n_of(self, share: float) -> int:
        """Real patches of a share, at least 5 unless it is 0."""
        return max(5, round(share * self.n_real)) if share else 0

    def score(self, share: float, with_generated: bool, augment: bool) -> list[Estimate]:
        """Both metrics of one row."""
        weights_RN = np.vstack([np.ones((1, self.resampling.n)), self.resampling.bootstrap_RN])
        values = []
        for seed in range(self.n_seeds):
            rng = np.random.default_rng(seed)
            real, generated = rng.permutation(len(self.real)), rng.permutation(len(self.generated))
            parts = [self.real.taken(real[: self.n_of(share)], augment)]
            if with_generated:
                parts.append(self.generated.taken(generated[: self.n_generated], augment))
            train = tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))
            expression, types = fit(train, self.val)(self.test.features_CND[0])  # type: ignore[arg-type]
            f1 = macro_f1(self.test.type_N, types, weights_RN)
            values.append((f1, _mean_r(expression, self.test.expression_NG, weights_RN)))
        found = np.array(values)  # [S, 2, 1 + R]
        print(f"{share:.0%} real, generated {with_generated}, augmented {augment}", file=sys.stderr, flush=True)
        return [over_seeds(found[:, i, 0], found[:, i, 1:], self.resampling) for i in range(2)]


def shown(estimate: Estimate) -> str:
    """Value and interval."""
    low, high = estimate.interval()
    return f"{estimate.value:.3f} ({low:.3f} to {high:.3f})"


def show(trials: Trials) -> None:
    """Print a table per metric."""
    alone = {augment: trials.score(0.0, True, augment) for augment in (False, True)}
    rows = {
        share: {key: trials.score(share, *key) for key in ((False, False), (False, True), (True, False), (True, True))}
        for share in SHARES
    }
    for i, metric in enumerate(METRICS):
        print(f"\n### {metric}\n")
        print(
            "| real patches | real alone | with augmentation | with generated | with both | generated less augmentation |"
        )
        print("|---|---|---|---|---|---|")
        ratio = [alone[a][i].combined(rows[1.0][False, a][i], np.divide) for a in (False, True)]
        print(f"| none | - | - | {shown(alone[False][i])} | {shown(alone[True][i])} | - |")
        for share, row in rows.items():
            cells = [shown(row[key][i]) for key in row] + [shown(row[True, False][i].minus(row[False, True][i]))]
            print(f"| {share:.0%} ({trials.n_of(share)}) | " + " | ".join(cells) + " |")
        print(f"\nGenerated alone over all real patches: {shown(ratio[0])}; both with augmentation: {shown(ratio[1])}.")


def labelled(
    dataset: PairedDataset,
    rows: np.ndarray,
    images: list[np.ndarray],
    genes: np.ndarray,
    pool_um: float,
    extract: Extractor,
) -> Labelled:
    """Features and truth of some patches."""
    print(f"{len(images)} x {len(rows)} patches", file=sys.stderr, flush=True)
    return Labelled(
        features_CND=np.stack([extract(copy) for copy in images]),
        expression_NG=pooled_expression(dataset, rows, genes, pool_um),
        type_N=dataset.type_of_cell[rows],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("generated", type=Path, help="images of training cells")
    parser.add_argument("--data", type=Path, required=True, help="its paired dataset")
    parser.add_argument("--extractor", default="auto")
    parser.add_argument(
        "--real", type=int, default=1500, help="real training patches; a seed takes four fifths, its 100 %%"
    )
    parser.add_argument("--test", type=int, default=800, help="real test patches")
    parser.add_argument("--val", type=int, default=400, help="real validation patches")
    parser.add_argument("--copies", type=int, default=2, help="augmented copies of each patch")
    parser.add_argument("--per-type", type=int, default=5, help="marker genes per type")
    parser.add_argument(
        "--pool-um", type=float, default=25.0, help="counts of cells so near are added; 0: the cell's own"
    )
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    dataset = PairedDataset.open(args.data)
    images = open_image_set(args.generated, dataset)
    rows = images.row_M
    if not np.isin(rows, dataset.rows("train")).all():
        raise InputError(
            found=f"images of {int((~np.isin(rows, dataset.rows('train'))).sum())} cells outside the training blocks",
            where=str(args.generated),
            expected="images of training cells, since the test is on held-out real patches",
            repair="sge2hist generate MODEL --data DATA --split train",
        )
    known = np.flatnonzero(dataset.type_of_cell[rows] >= 0)
    if len(known) < MIN_PATCHES or args.seeds < 2:
        raise InputError(
            found=f"{len(known)} images of known type, {args.seeds} seeds",
            expected=f"at least {MIN_PATCHES}, and 2 seeds",
        )
    rng, extract = np.random.default_rng(0), resolve_extractor(args.extractor)
    genes, _ = marker_genes(dataset, args.per_type, rng)

    def of(rows: np.ndarray, images: list[np.ndarray]) -> Labelled:
        return labelled(dataset, rows, images, genes, args.pool_um, extract)

    real, val, test = (
        known_rows(dataset, split, n, rng)
        for split, n in zip(("train", "val", "test"), (args.real, args.val, args.test), strict=True)
    )
    block_N = spatial_blocks(
        dataset.centre_xy_px[test] * dataset.um_per_px, dataset.slide_of_cell[test], 2 * dataset.patch_um
    )
    trials = Trials(
        of(real, copies_of(dataset.patches(real), args.copies, 0)),
        of(rows[known], copies_of(images.images(known), args.copies, 1)),
        of(val, [dataset.patches(val)]),
        of(test, [dataset.patches(test)]),
        make_resampling(block_N, n_replicates=500, n_groups=10, rng=np.random.default_rng(0)),
        args.seeds,
    )
    print(
        f"{extract.name}; {len(test)} test patches, {trials.resampling.unit}; {args.seeds} seeds; a seed takes "
        f"{trials.n_real} real patches (100 %) and {trials.n_generated} generated ones; {args.copies} augmented copies of each"
    )
    show(trials)


if __name__ == "__main__":
    main()
