"""Does the image follow a signature, and more than it follows the controls of the edit?

    python benchmarks/edits.py pretrained:kidney --data kidney.paired --network kidney_network.pt -n 24

Test cells of the type `--from`, and all cells of their patches, get counts of the signature of another type added: its marker
genes against `--from`, a share ("dose") of what cells of the type have. Controls, with the same noise:

- random sets of as many genes, each matched to a gene of the signature in mean expression and no marker of any type, which get
  the very same counts;
- the signatures of the other types of `--to`, at dose 1;
- the reverse: all counts of the signature removed from cells of the type and their neighbours.

The effect is the change that the network of `expression_network.py` sees, which was trained on real patches alone: of the
predicted expression of the type's marker genes, and of the probability of the type. Its unit is the difference between real test
patches of the type and of `--from`: 1 is all the way. Intervals: 95 %, bootstrap over blocks of cells, and over control sets. An
edit counts where it beats the random sets and the strongest other signature (interval of the difference above 0, and no random
set as strong) and its reverse acts in the reverse direction (interval below 0). Prints Markdown.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from edit_controls import Verdict, beyond_other, beyond_random, matched_sets, verdict_of
from expression_network import Ensemble, marker_genes, type_profile
from scipy.sparse import csr_array

from sge2hist.api import SGE2Hist
from sge2hist.data.errors import InputError
from sge2hist.data.he_stain import stain_statistics
from sge2hist.data.paired import PairedDataset
from sge2hist.data.spatial_index import CellIndex
from sge2hist.evaluation.resampling import Estimate, Resampling, make_resampling, spatial_blocks
from sge2hist.generation.encode import encode_cells, neighbour_reader
from sge2hist.generation.footprints import outlines_to_use
from sge2hist.generation.slide.edits import scaled_counts
from sge2hist.generation.windows import image_seed, neighbour_cells, sample_patches, with_latents
from sge2hist.models.bundle import ModelBundle

READOUTS = ("marker expression", "probability of the type")
STAINS = ("haematoxylin_mean", "eosin_mean", "lumen_fraction")
MARKERS_PER_TYPE = 100  # that no random set may hold
READ_GENES = 6  # of a type, whose predicted expression is averaged
N_REAL = 200  # real patches per type
MIN_STEP_SD = 0.3  # less between real patches of two types is nothing to measure an effect by
Change = Callable[[csr_array], csr_array]


# --- edits ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Signature:
    """Genes of a type against the start, and the mean counts of each to add per cell at dose 1."""

    genes: np.ndarray  # int64 [S]
    rate_S: np.ndarray

    @classmethod
    def of(cls, low_G: np.ndarray, high_G: np.ndarray, n_genes: int) -> Signature:
        """The genes with the highest ratio of two mean counts per cell."""
        genes = np.argsort(-np.log2((high_G + 0.01) / (low_G + 0.01)) * (high_G > 0.05))[:n_genes]
        return cls(genes=genes, rate_S=np.maximum(high_G - low_G, 0)[genes])


def addition(genes: np.ndarray, rate_S: np.ndarray, inside_N: np.ndarray | None = None) -> Change:
    """Add Poisson counts, to the cells of a mask alone; sets of genes of the same rates get the same counts."""

    def change(counts: csr_array) -> csr_array:
        sampled = np.random.default_rng(1).poisson(rate_S, (counts.shape[0], len(rate_S)))
        if inside_N is not None:
            sampled[~inside_N] = 0
        row, column = np.nonzero(sampled)
        return csr_array(counts + csr_array((sampled[row, column], (row, genes[column])), shape=counts.shape))

    return change


def removal(genes: np.ndarray, inside_N: np.ndarray | None = None) -> Change:
    """Remove all counts of some genes, from the cells of a mask alone."""

    def change(counts: csr_array) -> csr_array:
        return scaled_counts(counts, genes, 0.0, np.ones(counts.shape[0], bool) if inside_N is None else inside_N)

    return change


class Patches:
    """Patches of some cells, generated after a change of the counts of the cells in them; always the same noise.

    Rows of what a change gets are the cells `needed`.
    """

    def __init__(self, bundle: ModelBundle, dataset: PairedDataset, cells: np.ndarray, steps: int | None) -> None:
        self.bundle, self.dataset, self.cells = bundle, dataset, cells
        own = bundle.config.sampler
        self.sampler = own if steps is None else replace(own, n_steps=steps)
        centre_um = dataset.centre_xy_px * dataset.um_per_px
        row_M, self.windows = neighbour_cells(
            CellIndex(centre_um, dataset.slide_of_cell),
            dataset.slide_of_cell[cells],
            centre_um[cells],
            side_um=bundle.config.patch_um,
            receptive_radius_um=bundle.config.receptive_radius_um,
            outline_um_NV2=outlines_to_use(bundle, dataset.outline_um),
        )
        self.needed, self.at = np.unique(row_M, return_inverse=True)
        self.counts = dataset.counts(self.needed)
        self.index = CellIndex(centre_um[self.needed], dataset.slide_of_cell[self.needed])
        self.seeds = np.array([image_seed(0, str(cell), 0) for cell in cells])

    def generate(self, change: Change | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Images, uint8 [N, P, P, C], and the mean of the latents of the central cells, [Z]."""
        counts = self.counts if change is None else change(self.counts)
        genes, rows = self.dataset.genes, np.arange(len(self.needed))
        neighbours = neighbour_reader(self.bundle, counts.__getitem__, genes, self.index)
        latents = encode_cells(self.bundle, counts.__getitem__, genes, rows, neighbours=neighbours)
        placed = with_latents(self.windows, latents.mean_NZ[self.at], latents.depth_N[self.at])
        images = sample_patches(self.bundle, placed, self.seeds, self.sampler)
        return images, latents.mean_NZ[np.searchsorted(self.needed, self.cells)].mean(0)


def latent_change(first: np.ndarray, mean: np.ndarray, aimed: np.ndarray, n_type: int) -> tuple[float, float]:
    """Share of the way of z1 from `first` to `aimed`, and the length of z2 over that of `aimed`; z = (z1, z2), [Z] each."""
    whole = (aimed - first)[:n_type]
    way = (mean - first)[:n_type] @ whole / (whole @ whole)
    return float(way), float(np.linalg.norm(mean[n_type:]) / np.linalg.norm(aimed[n_type:]))


# --- what is measured -----------------------------------------------------------------------------------------------


class Readout:
    """What the network and the stains say about patches."""

    def __init__(self, network: Ensemble, types: list[str], targets: list[str]) -> None:
        self.network, self.targets = network, [types.index(name) for name in targets]
        self.genes = []
        for name, code in zip(targets, self.targets, strict=True):
            own = network.best_genes(len(network.genes))
            own = own[network.gene_type[own] == code][:READ_GENES]
            if len(own) == 0:
                raise InputError(
                    found=f"no marker gene of {name} that the network predicts",
                    expected="held-out r of at least 0.1 of one",
                )
            self.genes.append(own)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """float64 [N, targets, 2]: standardised predicted expression of the markers, and probability."""
        expression, probability = self.network.predict(images)
        scaled = (expression - self.network.mean_G) / self.network.sd_G
        markers = np.stack([scaled[:, own].mean(1) for own in self.genes], 1)
        return np.stack([markers, probability[:, self.targets]], 2).astype(np.float64)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Readouts of generated patches, [N, targets, 2], and stain means, [N, 3]."""

    readout: np.ndarray
    stain: np.ndarray
    latent: np.ndarray  # mean over cells, [Z]

    @classmethod
    def of(cls, patches: Patches, readout: Readout, change: Change | None = None) -> Measured:
        """Generate and read the patches."""
        images, latent = patches.generate(change)
        stain = np.stack([stain_statistics(images)[name] for name in STAINS], 1)
        return cls(readout=readout(images), stain=stain, latent=latent)


def held_out_cells(dataset: PairedDataset, name: str, n: int, rng: np.random.Generator) -> np.ndarray:
    """At most n test cells of a type, at random."""
    rows = dataset.rows("test")
    rows = rows[dataset.type_of_cell[rows] == dataset.types.index(name)]
    if min(n, len(rows)) < 2:
        raise InputError(
            found=f"{len(rows)} test cells of {name}, -n {n}", expected="at least 2 of each type, and -n 2"
        )
    return np.sort(rng.choice(rows, min(n, len(rows)), replace=False))


def resampling_of(dataset: PairedDataset, cells: np.ndarray, seed: int) -> Resampling:
    """Blocks of twice the patch side."""
    centre_um = dataset.centre_xy_px[cells] * dataset.um_per_px
    block_N = spatial_blocks(centre_um, dataset.slide_of_cell[cells], 2 * dataset.patch_um)
    return make_resampling(block_N, n_replicates=1000, n_groups=10, rng=np.random.default_rng(seed))


class Experiment:
    """All images of one start type, and their effects."""

    def __init__(self, args: argparse.Namespace, bundle: ModelBundle, dataset: PairedDataset, readout: Readout) -> None:
        self.args, self.bundle, self.dataset, self.readout = args, bundle, dataset, readout
        rng = np.random.default_rng(args.seed)
        self.mean_G = np.asarray(dataset.counts_in_memory()[dataset.rows("train")].mean(axis=0)).ravel()
        low_G = type_profile(dataset, args.start, rng)
        profiles = {name: type_profile(dataset, name, rng) for name in args.to}
        self.signatures = {name: Signature.of(low_G, high_G, args.genes) for name, high_G in profiles.items()}
        self.excluded = np.union1d(
            marker_genes(dataset, MARKERS_PER_TYPE, rng)[0], np.concatenate([s.genes for s in self.signatures.values()])
        )
        self.real = {
            name: readout(dataset.patches(held_out_cells(dataset, name, N_REAL, rng)))
            for name in (args.start, *args.to)
        }
        self.cells = held_out_cells(dataset, args.start, args.n, rng)
        self.of_type = {name: held_out_cells(dataset, name, args.n, rng) for name in args.to}
        self.rng = rng
        patches = Patches(bundle, dataset, self.cells, args.steps)
        self.start = Measured.of(patches, readout)
        self.edited = {
            (name, dose): Measured.of(patches, readout, addition(s.genes, dose * s.rate_S))
            for name, s in self.signatures.items()
            for dose in args.doses
        }
        print("signatures done", file=sys.stderr, flush=True)
        self.patches = patches

    def random_sets(self, name: str) -> list[Measured]:
        """The matched sets of a signature, with its counts."""
        signature = self.signatures[name]
        sets = matched_sets(self.mean_G, signature.genes, self.excluded, self.args.sets, self.rng)
        return [Measured.of(self.patches, self.readout, addition(genes, signature.rate_S)) for genes in sets]

    def reverse(self, name: str) -> tuple[Measured, Measured]:
        """Cells of the type, before and after the signature is removed."""
        patches = Patches(self.bundle, self.dataset, self.of_type[name], self.args.steps)
        change = removal(self.signatures[name].genes)
        return Measured.of(patches, self.readout), Measured.of(patches, self.readout, change)

    def step(self, name: str) -> np.ndarray:
        """Real patches of the type less real patches of the start, in either readout, [2]; nan where it is under 0.3 SD."""
        target = self.args.to.index(name)
        own, start = (self.real[which][:, target] for which in (name, self.args.start))
        step, sd = own.mean(0) - start.mean(0), np.sqrt((own.var(0) + start.var(0)) / 2)
        return np.where(step > MIN_STEP_SD * sd, step, np.nan)


# --- tables ---------------------------------------------------------------------------------------------------------


def shown(estimate: Estimate) -> str:
    """Value and interval."""
    low, high = estimate.interval()
    return "-" if np.isnan(estimate.value) else f"{estimate.value:.2f} ({low:.2f} to {high:.2f})"


def show_type(experiment: Experiment, name: str) -> list[str]:
    """Print the doses and stains of one edit; return its rows of the table of controls."""
    target, args = experiment.args.to.index(name), experiment.args
    start, step = experiment.start, experiment.step(name)
    by_cell = resampling_of(experiment.dataset, experiment.cells, args.seed)
    random = experiment.random_sets(name)
    before, after = experiment.reverse(name)
    signature = experiment.signatures[name]
    symbols = " ".join(experiment.dataset.genes.symbols[gene] for gene in signature.genes[:10])
    read = [
        experiment.dataset.genes.symbols[experiment.readout.network.genes[g]] for g in experiment.readout.genes[target]
    ]
    print(
        f"\n### {name}\n\nSignature: {symbols} ... ({signature.rate_S.sum():.0f} counts per cell at dose 1). "
        f"Read: {' '.join(read)}."
    )
    print(f"Real difference to {args.start}: {step[0]:.2f} SD in marker expression, {step[1]:.2f} in probability.\n")
    print("| dose | marker expression | probability | haematoxylin | eosin | lumen | z1, way | z2, norm |")
    print("|---|---|---|---|---|---|---|---|")
    for dose in args.doses:
        edited = experiment.edited[name, dose]
        effects = [shown(by_cell.mean((edited.readout - start.readout)[:, target, i] / step[i])) for i in (0, 1)]
        stains = [f"{value:+.3f}" for value in (edited.stain - start.stain).mean(0)]
        latents = latent_change(start.latent, edited.latent, before.latent, experiment.bundle.config.gene.n_type)
        print(f"| {dose:g} | " + " | ".join([*effects, *stains, *(f"{x:.2f}" for x in latents)]) + " |")
    show_stains(experiment.edited[name, 1.0], random, start, by_cell)
    return control_rows(experiment, name, random, (before, after))


def control_rows(
    experiment: Experiment, name: str, random: list[Measured], reverse: tuple[Measured, Measured]
) -> list[str]:
    """The edit at dose 1 against its controls, one row per readout."""
    target, args, step = experiment.args.to.index(name), experiment.args, experiment.step(name)
    by_cell = resampling_of(experiment.dataset, experiment.cells, args.seed)
    by_type = resampling_of(experiment.dataset, experiment.of_type[name], args.seed)
    rows = []
    for i, what in enumerate(READOUTS):
        if np.isnan(step[i]):
            rows.append(f"| {name} | {what} | - | - | - | - | - | cannot say: real patches hardly differ |")
            continue

        def effect(after: Measured, before: Measured = experiment.start, i: int = i) -> np.ndarray:
            return (after.readout - before.readout)[:, target, i] / step[i]

        own_N, random_KN = effect(experiment.edited[name, 1.0]), np.stack([effect(one) for one in random])
        others = {other: effect(experiment.edited[other, 1.0]) for other in args.to if other != name}
        verdict = verdict_of(
            by_cell.mean(own_N),
            random_KN.mean(1),
            beyond_random(own_N, random_KN, by_cell, np.random.default_rng(args.seed)),
            beyond_other(own_N, others, by_cell),
            by_type.mean(effect(reverse[1], reverse[0])),
        )
        rows.append(control_row(name, what, verdict))
    return rows


def control_row(name: str, what: str, verdict: Verdict) -> str:
    """One row of the table of controls."""
    random = f"{verdict.random_K.mean():.2f} ({verdict.random_K.min():.2f} to {verdict.random_K.max():.2f})"
    other, beyond = verdict.other
    cells = [
        shown(verdict.effect),
        random,
        shown(verdict.beyond_random),
        f"{other}: {shown(beyond)}",
        shown(verdict.reverse),
    ]
    return f"| {name} | {what} | " + " | ".join(cells) + f" | {verdict.text} |"


def show_stains(edited: Measured, random: list[Measured], start: Measured, resampling: Resampling) -> None:
    """Changes of the stain means against those by the random sets, in SD of the unedited patches."""
    sd = start.stain.std(0)
    print("\n| stain, SD of unedited patches | signature, dose 1 | random sets | difference |\n|---|---|---|---|")
    for i, name in enumerate(STAINS):
        own_N = (edited.stain - start.stain)[:, i] / sd[i]
        random_KN = np.stack([(m.stain - start.stain)[:, i] / sd[i] for m in random])
        beyond = beyond_random(own_N, random_KN, resampling, np.random.default_rng(0))
        columns = f"{shown(resampling.mean(own_N))} | {random_KN.mean():.2f} | {shown(beyond)}"
        print(f"| {name.replace('_', ' ')} | {columns} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a folder, or pretrained:NAME")
    parser.add_argument("--data", type=Path, required=True, help="its paired dataset")
    parser.add_argument("--network", type=Path, required=True, help="what expression_judge.py trained")
    parser.add_argument("--from", dest="start", default="Proximal tubule")
    parser.add_argument("--to", nargs="+", default=["Podocyte", "Thick limb", "Smooth muscle", "Immune"])
    parser.add_argument("-n", type=int, default=24, help="cells of each type")
    parser.add_argument("--genes", type=int, default=30, help="of a signature")
    parser.add_argument("--sets", type=int, default=10, help="random sets per signature")
    parser.add_argument("--doses", type=float, nargs="+", default=[0.5, 1.0, 2.0])
    parser.add_argument("--steps", type=int, help="of the sampler; default: the model's")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    dataset = PairedDataset.open(args.data)
    unknown = [name for name in (args.start, *args.to) if name not in dataset.types]
    if unknown:
        raise InputError(
            found=f"type {unknown[0]!r}", where=str(args.data), expected=f"one of {', '.join(dataset.types)}"
        )
    if len(set(args.to)) < 2 or args.start in args.to:
        raise InputError(
            found=f"--to {' '.join(args.to)}", expected="at least two types other than --from: each controls the others"
        )
    if 1.0 not in args.doses:
        raise InputError(found=f"doses {args.doses}", expected="dose 1 among them, at which controls are compared")
    readout = Readout(Ensemble.load(args.network, dataset), dataset.types, args.to)
    bundle = SGE2Hist.from_pretrained(args.model).bundle
    experiment = Experiment(args, bundle, dataset, readout)
    print(
        f"{len(experiment.cells)} test cells of {args.start}, {args.sets} random sets of {args.genes} genes per signature"
    )
    rows = [row for name in args.to for row in show_type(experiment, name)]
    print(
        "\n### Controls\n\n| signature | readout | effect, dose 1 | random sets: mean (range) | beyond random sets "
        "| beyond the strongest other signature | removed from the type | counts |\n|" + "---|" * 8
    )
    print("\n".join(rows))


if __name__ == "__main__":
    main()
