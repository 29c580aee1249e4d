"""Do single cells follow a signature that is put into them, more than they follow the controls of the edit?

    python benchmarks/cell_edits.py pretrained:pancreas --data pancreas.paired -n 8 --picture edits.png

In patches around held-out cells of a type, every cell of that type gets counts of the genes of another type, on top of its own:
at dose 1 what cells of the other type have more, on average. Positions, outlines and noise stay. Controls: random sets of genes
matched in expression, which get the very same counts; the signatures of the other edits; the reverse, the genes removed from
cells of the other type.

The edited cells are read one by one by the readers of `single_cell.py`, which were fitted on real training patches: the
probability of the other type, and the expression of its markers. The unit is the difference between real held-out cells of the
two types: 1 is all the way. Intervals: 95 %, patches resampled, and control sets. An edit counts where it beats the random sets
and the strongest other signature, and its reverse acts the other way (`edit_controls.py`).

Then T cells are added to tumour nests, between the cells, against cells of other types at the same places. Prints Markdown.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from added_cells import AddedCells, added_table
from cell_measures import PatchCells, spread_patches
from cell_patches import Setting, prepare
from cell_readers import Look, Readers
from cell_statistics import PatchResamples, shown, table
from edit_controls import Verdict, beyond_other, beyond_random, matched_sets, verdict_of
from edits import MIN_STEP_SD, Change, Patches, Signature, addition, removal
from edits_picture import Scene, draw

from sge2hist.api import SGE2Hist
from sge2hist.data.errors import InputError
from sge2hist.data.paired import PairedDataset
from sge2hist.evaluation.metrics.expression_recovery import gene_correlations
from sge2hist.evaluation.resampling import Resampling
from sge2hist.models.bundle import ModelBundle

READOUTS = ("probability of the type", "marker expression")
N_GENES = 8  # of a signature that is not named
N_EXCLUDED = 20  # genes most specific of either type, which no random set may hold
N_MARKERS = 6  # genes whose expression is read off
MIN_GENE_R = 0.1  # on real held-out cells, for a marker to be read
MIN_LOG2_RATIO = 2.0  # of mean counts in the two types, for a marker that is not in the signature
N_REAL = 24  # real patches of each type, for the unit


@dataclass(frozen=True, kw_only=True)
class SignatureEdit:
    """Genes of the type `target` into cells of the type `start`; without `genes`, the most specific ones."""

    name: str
    start: str
    target: str
    genes: tuple[str, ...] = ()


EDITS = (
    SignatureEdit(name="islet genes into acini", start="Acinus", target="Islet"),
    SignatureEdit(name="acinar genes into ducts", start="Duct", target="Acinus"),
    SignatureEdit(name="T cell genes into tumour", start="Tumour", target="T and NK cell"),
    SignatureEdit(
        name="proliferation genes into ducts",
        start="Duct",
        target="Proliferating tumour",
        genes=("MKI67", "TOP2A", "CENPF", "CCNB2", "CDK1", "UBE2C", "PCNA"),
    ),
)


class Bench:
    """The model at the size of the patches, the readers, and real held-out cells of each type."""

    def __init__(self, bundle: ModelBundle, data: PairedDataset, args: argparse.Namespace) -> None:
        self.bundle, self.data, self.n, self.seed = bundle, data, args.n, args.seed
        self.setting: Setting = prepare(bundle, data, N_REAL, args.train, args.seed)
        self.readers = Readers.fit(self.setting)
        counts, rows = data.counts_in_memory(), data.rows("train")
        self.mean_G = np.asarray(counts[rows].mean(axis=0)).ravel()
        self.profiles = {
            code: np.asarray(counts[rows[data.type_of_cell[rows] == code]].mean(axis=0)).ravel()
            for code in range(len(data.types))
        }
        self._real: dict[int, Look] = {}
        held_out = Look(self.setting.real(self.setting.centres), self.setting.cells, self.readers)
        measured = np.log1p(counts[self.setting.cells.row_N].toarray())[:, self.readers.gene_G]
        r = gene_correlations(held_out.genes, measured, np.ones((1, len(measured))))[0]
        self.readable = np.nan_to_num(r, nan=-1) >= MIN_GENE_R

    def code(self, name: str) -> int:
        """Number of a type."""
        if name not in self.data.types:
            expected = f"one of {', '.join(self.data.types)}"
            raise InputError(found=f"no type {name!r}", where=str(self.data.path), expected=expected)
        return self.data.types.index(name)

    def centres(self, code: int, n: int) -> np.ndarray:
        """Held-out cells of a type whose patches do not overlap."""
        rows = self.data.rows("test")
        own = rows[self.data.type_of_cell[rows] == code]
        rng = np.random.default_rng([self.seed, code])
        found = spread_patches(self.setting.xy_um_N2, own, n, self.bundle.config.patch_um, rng)
        if len(found) < 2:
            raise InputError(found=f"{len(found)} patches of {self.data.types[code]}", expected="at least 2")
        return found

    def cells(self, centres: np.ndarray, code: int) -> PatchCells:
        """The cells of a type in patches, away from the edge."""
        cells = self.setting.cells_of(centres, self.setting.edge_px)
        return some_cells(cells, self.data.type_of_cell[cells.row_N] == code)

    def real(self, code: int) -> Look:
        """Real held-out cells of a type."""
        if code not in self._real:
            centres = self.centres(code, N_REAL)
            self._real[code] = Look(self.setting.real(centres), self.cells(centres, code), self.readers)
        return self._real[code]

    def markers(self, start: int, target: int, preferred: np.ndarray) -> np.ndarray:
        """Columns of `Look.genes` to read: genes of the signature that can be read, else the most specific that can."""
        genes = self.readers.gene_G
        ratio = np.log2((self.profiles[target][genes] + 0.02) / (self.profiles[start][genes] + 0.02))
        ratio = np.where(self.readable & (ratio > MIN_LOG2_RATIO), ratio, -np.inf) + 100 * np.isin(genes, preferred)
        order = np.argsort(-ratio)[:N_MARKERS]
        return order[np.isfinite(ratio[order])]

    def signature(self, edit: SignatureEdit, start: int) -> Signature:
        """The genes of an edit, and the counts to add to cells of a type at dose 1."""
        low, high = self.profiles[start], self.profiles[self.code(edit.target)]
        if not edit.genes:
            return Signature.of(low, high, N_GENES)
        columns = [self.data.genes.columns_called(gene)[0] for gene in edit.genes]
        return Signature(genes=np.array(columns), rate_S=np.maximum(high - low, 0)[columns])


def some_cells(cells: PatchCells, kept: np.ndarray) -> PatchCells:
    """The cells of a mask."""
    outline = None if cells.outline_px_NV2 is None else cells.outline_px_NV2[kept]
    return replace(
        cells,
        patch_N=cells.patch_N[kept],
        xy_px_N2=cells.xy_px_N2[kept],
        row_N=cells.row_N[kept],
        outline_px_NV2=outline,
    )


class EditedCells:
    """Patches around cells of a type, whose cells of that type are edited and read."""

    def __init__(self, bench: Bench, code: int) -> None:
        self.bench, centres = bench, bench.centres(code, bench.n)
        self.patches = Patches(bench.bundle, bench.data, centres, None)
        self.inside_N = bench.data.type_of_cell[self.patches.needed] == code
        self.cells = bench.cells(centres, code)
        self.resampling: Resampling = PatchResamples.of(len(centres)).of_items(self.cells.patch_N)

    def look(self, change: Change | None = None) -> Look:
        """The patches after a change."""
        return Look(self.patches.generate(change)[0], self.cells, self.bench.readers)


def readout(look: Look, code: int, markers: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """float64 [N, 2]: probability of a type, and mean expression of markers, each over its SD over real cells."""
    expression = (look.genes[:, markers] / scale).mean(1) if len(markers) else np.full(len(look.cells.row_N), np.nan)
    return np.stack([look.probability(code), expression], 1)


def rows_of_edit(bench: Bench, edit: SignatureEdit, args: argparse.Namespace) -> tuple[list[list[str]], Scene]:
    """One edit against its controls: rows of the table, and images of it."""
    start, target = bench.code(edit.start), bench.code(edit.target)
    signature, cells = bench.signature(edit, start), EditedCells(bench, start)
    markers = bench.markers(start, target, signature.genes)
    real = [bench.real(code) for code in (target, start)]
    scale = np.concatenate([look.genes[:, markers] for look in real]).std(0) + 1e-6

    def read(look: Look) -> np.ndarray:
        return readout(look, target, markers, scale)

    step = step_of(*map(read, real))
    before = cells.look()
    edited = {
        dose: cells.look(addition(signature.genes, dose * signature.rate_S, cells.inside_N)) for dose in args.doses
    }
    excluded = np.concatenate(
        [
            Signature.of(bench.profiles[a], bench.profiles[b], N_EXCLUDED).genes
            for a, b in ((start, target), (target, start))
        ]
    )
    rng = np.random.default_rng([args.seed, start, target])
    sets = matched_sets(bench.mean_G, signature.genes, excluded, args.sets, rng)
    random = [cells.look(addition(genes, signature.rate_S, cells.inside_N)) for genes in sets]
    others = {}
    for other in EDITS:
        if other.target not in (edit.start, edit.target):
            foreign = bench.signature(other, start)
            others[other.target] = cells.look(addition(foreign.genes, foreign.rate_S, cells.inside_N))
    back = EditedCells(bench, target)
    reverse = (back.look(), back.look(removal(signature.genes, back.inside_N)))
    symbols = " ".join(bench.data.genes.symbols[gene] for gene in signature.genes)
    shown_markers = " ".join(bench.data.genes.symbols[bench.readers.gene_G[marker]] for marker in markers) or "none"
    print(
        f"- *{edit.name}*: {symbols} ({signature.rate_S.sum():.1f} counts per cell at dose 1) into "
        f"{len(cells.cells.row_N)} cells of {len(cells.patches.cells)} patches; markers read: {shown_markers}.",
        flush=True,
    )
    rows = []
    for i, what in enumerate(READOUTS):
        if np.isnan(step[i]):
            rows.append([edit.name, what, *["-"] * (len(args.doses) + 4), "cannot say: real cells hardly differ"])
            continue

        def effect(after: Look, first: Look = before, i: int = i) -> np.ndarray:
            return (read(after) - read(first))[:, i] / step[i]

        own, random_KN = effect(edited[1.0]), np.stack([effect(look) for look in random])
        verdict = verdict_of(
            cells.resampling.mean(own),
            random_KN.mean(1),
            beyond_random(own, random_KN, cells.resampling, np.random.default_rng(args.seed)),
            beyond_other(own, {name: effect(look) for name, look in others.items()}, cells.resampling),
            back.resampling.mean(effect(reverse[1], reverse[0])),
        )
        doses = [shown(cells.resampling.mean(effect(edited[dose]))) for dose in args.doses]
        rows.append([edit.name, what, *doses, *control_cells(verdict)])
    pictured = {"before": before, "edited": edited[max(args.doses)], "random genes": random[0]}
    if max(args.doses) != 1.0:
        pictured["random genes"] = cells.look(addition(sets[0], max(args.doses) * signature.rate_S, cells.inside_N))
    return rows, Scene.of(f"{edit.name}, dose {max(args.doses):g}", pictured)


def step_of(target_N2: np.ndarray, start_N2: np.ndarray) -> np.ndarray:
    """Real cells of the one type less those of the other, in either readout; nan where it is under 0.3 SD."""
    step = target_N2.mean(0) - start_N2.mean(0)
    sd = np.sqrt((target_N2.var(0) + start_N2.var(0)) / 2)
    return np.where(step > MIN_STEP_SD * sd, step, np.nan)


def control_cells(verdict: Verdict) -> list[str]:
    """The controls of an effect, and whether it counts."""
    other, beyond = verdict.other
    random = f"{verdict.random_K.mean():.2f} ({verdict.random_K.min():.2f} to {verdict.random_K.max():.2f})"
    return [random, shown(verdict.beyond_random), f"{other}: {shown(beyond)}", shown(verdict.reverse), verdict.text]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, required=True, help="its paired dataset, of fluorescence")
    parser.add_argument("-n", type=int, default=8, help="patches of each edit")
    parser.add_argument("--train", type=int, default=240, help="real training patches, for the readers")
    parser.add_argument("--patch-px", type=int, default=128)
    parser.add_argument("--sets", type=int, default=5, help="random sets per signature")
    parser.add_argument("--doses", type=float, nargs="+", default=[1.0, 3.0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--picture", type=Path, help="PNG of each edit: before, edited, control; generated images alone"
    )
    args = parser.parse_args()
    if 1.0 not in args.doses:
        parser.error("dose 1 must be among --doses: controls are compared there")
    data = PairedDataset.open(args.data)
    bench = Bench(SGE2Hist.from_pretrained(args.model).bundle.with_patch_px(args.patch_px), data, args)
    rows, scenes = [], []
    for edit in EDITS:
        found, scene = rows_of_edit(bench, edit, args)
        rows += found
        scenes.append(scene)
        print(f"{edit.name}: done", file=sys.stderr, flush=True)
    doses = [f"dose {dose:g}" for dose in args.doses]
    controls = ["random sets: mean (range)", "beyond random sets", "beyond the strongest other signature"]
    print("\n" + table(["edit", "readout", *doses, *controls, "removed from the type", "counts"], rows), flush=True)
    added = AddedCells(bench, "T and NK cell", "Tumour")
    print(added_table(added))
    scenes.append(added.scene())
    if args.picture:
        draw(scenes, bench.data, args.picture)


if __name__ == "__main__":
    main()
