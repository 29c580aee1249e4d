"""Evidence for a model of single cells: what its patches show at the place of each cell, on held-out blocks.

    python benchmarks/single_cell.py pancreas.model --data pancreas.paired -n 48 --seeds 3

Patches of 256 px (or `--patch-px`) that do not overlap are generated around held-out cells, under several conditions:

- own: every cell with its own expression, over its own outline (where the model knows outlines);
- points: the same, without outlines: RNA and positions alone;
- layout alone: the same positions and outlines, expression dealt to other cells of these patches;
- within type: dealt among cells of one type;
- shuffled: the cells, expression and outlines of another patch.

Then: stains inside cells, nuclei, genes and types that are read off the images by models fitted on real training patches,
stains of tiles beside a ridge regression on the genes, Frechet distances over their floor, and cost. Intervals are of 200
resamples of patches.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from cell_measures import (
    SHAPES,
    CellNuclei,
    NucleusFinder,
    PatchCells,
    cell_features,
    cells_in_patches,
    nuclei_of_cells,
    spread_patches,
    stain_means,
)
from cell_statistics import correlation, distance_of_distributions, interval, table, type_means
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sge2hist.api import SGE2Hist
from sge2hist.data.paired import UNKNOWN, PairedDataset
from sge2hist.data.slides.channels import is_rgb
from sge2hist.data.spatial_index import CellIndex
from sge2hist.evaluation.config import EvaluateConfig
from sge2hist.evaluation.evaluate import evaluate
from sge2hist.generation.encode import CellLatents, encode_cells, neighbour_reader
from sge2hist.generation.footprints import outlines_to_use
from sge2hist.generation.patches import generate
from sge2hist.generation.requests import request_from_paired
from sge2hist.generation.windows import image_seed, neighbour_cells, sample_patches, with_latents
from sge2hist.models.bundle import ModelBundle

EDGE_UM = 8.0  # cells nearer to the edge of a patch are not measured
TILE_UM = 27.2
WINDOWS_PX = {28: 3.0, 64: 6.0}  # side of what a type classifier sees, in px: sigma of its widest filter
CONDITIONS = ("own", "points", "layout alone", "within type", "shuffled")
MIN_GENE_R = 0.1  # genes that are read off real images at least so well count
GENE_MIN_SHARE = 0.05  # of cells that express a gene


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The model at the size of the patches, the data, and the cells of the held-out and of the training patches."""

    bundle: ModelBundle
    data: PairedDataset
    xy_um_N2: np.ndarray
    latents: CellLatents
    centres: np.ndarray  # of the held-out patches
    cells: PatchCells
    train_centres: np.ndarray
    train_cells: PatchCells

    @property
    def um(self) -> float:
        """Resolution, um per px."""
        return self.bundle.config.um_per_px

    def real(self, centres: np.ndarray) -> np.ndarray:
        """Real patches around some cells, uint8 [B, P, P, C]."""
        return self.data.patches(centres, side_um=self.bundle.config.patch_um, out_px=self.bundle.config.patch_px)


def prepare(bundle: ModelBundle, data: PairedDataset, n: int, n_train: int, seed: int) -> Setting:
    """Choose patches and encode all cells."""
    xy_um, rng = data.centre_xy_px * data.um_per_px, np.random.default_rng(seed)
    side_um, px, um = bundle.config.patch_um, bundle.config.patch_px, bundle.config.um_per_px
    chosen = {
        split: spread_patches(xy_um, data.rows(split), count, side_um, rng)
        for split, count in (("test", n), ("train", n_train))
    }
    around = {
        split: cells_in_patches(xy_um, data.outline_um, centres, side_px=px, um_per_px=um, edge_px=EDGE_UM / um)
        for split, centres in chosen.items()
    }
    neighbours = neighbour_reader(bundle, data.counts, data.genes, CellIndex(xy_um, data.slide_of_cell))
    latents = encode_cells(bundle, data.counts, data.genes, np.arange(len(data)), neighbours=neighbours)
    return Setting(
        bundle=bundle,
        data=data,
        xy_um_N2=xy_um,
        latents=latents,
        centres=chosen["test"],
        cells=around["test"],
        train_centres=chosen["train"],
        train_cells=around["train"],
    )


def generate_patches(
    setting: Setting, centres: np.ndarray, condition: str, seed: int, bundle: ModelBundle | None = None
) -> np.ndarray:
    """Generate the patches around some cells under a condition, uint8 [B, P, P, C]."""
    bundle, data = bundle or setting.bundle, setting.data
    outlines = None if condition == "points" else outlines_to_use(bundle, data.outline_um)
    shown = np.roll(centres, 1) if condition == "shuffled" else centres
    row_M, placed = neighbour_cells(
        CellIndex(setting.xy_um_N2, data.slide_of_cell),
        data.slide_of_cell[shown],
        setting.xy_um_N2[shown],
        side_um=bundle.config.patch_um,
        receptive_radius_um=bundle.config.receptive_radius_um,
        outline_um_NV2=outlines,
    )
    at = setting.latents.find(dealt(data, row_M, condition, seed))
    placed = with_latents(placed, setting.latents.mean_NZ[at], setting.latents.depth_N[at])
    seeds = np.array([image_seed(seed, data.obs.index[row], 0) for row in centres])
    images = []
    for start in range(0, len(centres), 8):
        part = slice(start, start + 8)
        own = ((placed.image_M >= start) & (placed.image_M < start + 8)).nonzero()[:, 0]
        some = replace(
            placed,
            z_MZ=placed.z_MZ[own],
            depth_M=placed.depth_M[own],
            xy_um_M2=placed.xy_um_M2[own],
            image_M=placed.image_M[own] - start,
            mode_B=placed.mode_B[part],
            slide_B=placed.slide_B[part],
            outline_MV2=None if placed.outline_MV2 is None else placed.outline_MV2[own],
        )
        images.append(sample_patches(bundle, some, seeds[part], bundle.config.sampler))
    return np.concatenate(images)


def dealt(data: PairedDataset, row_M: np.ndarray, condition: str, seed: int) -> np.ndarray:
    """The cells whose expression the cells of some rows get."""
    if condition not in ("layout alone", "within type"):
        return row_M
    rng, known = np.random.default_rng([seed, 11]), np.unique(row_M)
    if condition == "layout alone":
        other = rng.permutation(known)
    else:
        other, types = known.copy(), data.type_of_cell[known]
        for name in np.unique(types):
            other[types == name] = rng.permutation(known[types == name])
    return other[np.searchsorted(known, row_M)]


# Tables. `generated`: condition -> images of each seed.


def stains_in_cells(setting: Setting, real: np.ndarray, generated: dict[str, list[np.ndarray]]) -> str:
    truth = stain_means(real, setting.cells, setting.um)
    rows: list[list[str]] = [[name] for name in setting.data.channels]
    for images in generated.values():
        found = [stain_means(one, setting.cells, setting.um) for one in images]
        for channel, row in enumerate(rows):
            r = np.mean([correlation(truth[:, channel], one[:, channel]) for one in found])
            low, high = interval(setting.cells.patch_N, truth[:, channel], found[0][:, channel])
            level = np.nanmean(found[0][:, channel]) / np.nanmean(truth[:, channel])
            row.append(f"{r:.2f} ({low:.2f} to {high:.2f}); {level:.2f}")
    n = len(truth)
    return f"Mean level of each stain inside a cell, r over {n:,} cells (95 % interval); mean over real:\n\n" + table(
        ["stain", *generated], rows
    )


def nuclei(setting: Setting, real: np.ndarray, generated: dict[str, list[np.ndarray]]) -> str:
    finder, edge_px = NucleusFinder.fit(setting.real(setting.train_centres), setting.um), EDGE_UM / setting.um
    truth = nuclei_of_cells(real, setting.cells, finder, edge_px)
    types = setting.data.type_of_cell[setting.cells.row_N]
    rows = [["nuclei found against cells placed, F1 over real"], ["nuclei per patch, r"]]
    rows += [[f"{name}: r over cells; over types; 1 - KS"] for name in SHAPES]
    for images in generated.values():
        found: list[CellNuclei] = [nuclei_of_cells(one, setting.cells, finder, edge_px) for one in images]
        rows[0].append(f"{np.mean([one.f1 for one in found]) / truth.f1:.2f}")
        rows[1].append(f"{np.mean([correlation(truth.n_found_B, one.n_found_B) for one in found]):.2f}")
        for column, row in enumerate(rows[2:]):
            x, ys = truth.shape_N4[:, column], [one.shape_N4[:, column] for one in found]
            over_cells = np.mean([correlation(x, y) for y in ys])
            both = np.isfinite(x) & np.isfinite(ys[0])
            over_types = correlation(type_means(x[both], types[both]), type_means(ys[0][both], types[both]))
            row.append(f"{over_cells:.2f}; {over_types:.2f}; {distance_of_distributions(x, ys[0], types):.2f}")
    head = (
        f"F1 of real patches: {truth.f1:.3f} ({truth.n_cells_B.sum():,} cells, {truth.n_found_B.sum():,} nuclei).\n\n"
    )
    return head + table(["nuclei", *generated], rows)


def read_off(setting: Setting, real: np.ndarray, generated: dict[str, list[np.ndarray]]) -> str:
    """Types and genes of each cell, by models that were fitted on real training patches."""
    data, train = setting.data, setting.train_cells
    train_images = setting.real(setting.train_centres)
    names = data.obs["cell_type"].astype(str).to_numpy()
    rows: list[list[str]] = []
    for px, sigma in WINDOWS_PX.items():
        labelled = names[train.row_N] != UNKNOWN
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300, class_weight="balanced"))
        model.fit(cell_features(train_images, train, max_sigma=sigma)[labelled], names[train.row_N][labelled])
        own = names[setting.cells.row_N] != UNKNOWN
        truth = names[setting.cells.row_N][own]

        def score(images: np.ndarray, model=model, sigma=sigma, own=own, truth=truth) -> float:
            found = model.predict(cell_features(images, setting.cells, max_sigma=sigma)[own])
            return float(f1_score(truth, found, average="macro"))

        of_real = score(real)
        row = [f"type from {px} px: macro-F1 (over real)", f"{of_real:.2f}"]
        for images in generated.values():
            of_generated = np.mean([score(one) for one in images])
            row.append(f"{of_generated:.2f} ({of_generated / of_real:.2f})")
        rows.append(row)
    rows.append(genes_row(setting, real, generated, train_images))
    return table(["read off the image", "real", *generated], rows)


def genes_row(
    setting: Setting, real: np.ndarray, generated: dict[str, list[np.ndarray]], train_images: np.ndarray
) -> list[str]:
    data, sigma = setting.data, 6.0
    logs = {rows_of: np.log1p(data.counts(np.unique(cells.row_N)).toarray()) for rows_of, cells in _both(setting)}
    y_train = logs["train"][np.searchsorted(np.unique(setting.train_cells.row_N), setting.train_cells.row_N)]
    y_test = logs["test"][np.searchsorted(np.unique(setting.cells.row_N), setting.cells.row_N)]
    common = (y_train > 0).mean(0) >= GENE_MIN_SHARE
    model = make_pipeline(StandardScaler(), Ridge(alpha=300.0))
    model.fit(cell_features(train_images, setting.train_cells, max_sigma=sigma), y_train[:, common])

    def per_gene(images: np.ndarray) -> np.ndarray:
        found = model.predict(cell_features(images, setting.cells, max_sigma=sigma))
        return np.array([correlation(found[:, g], y_test[:, common][:, g]) for g in range(common.sum())])

    of_real = per_gene(real)
    readable = of_real >= MIN_GENE_R
    row = [f"genes read off, of {common.sum()}: number with r >= {MIN_GENE_R}; mean r of these (over real)"]
    row.append(f"{readable.sum()}; {of_real[readable].mean():.3f}")
    for images in generated.values():
        found = np.mean([per_gene(one) for one in images], 0)
        mean = found[readable].mean()
        row.append(f"{(found >= MIN_GENE_R).sum()}; {mean:.3f} ({mean / of_real[readable].mean():.2f})")
    return row


def _both(setting: Setting) -> list[tuple[str, PatchCells]]:
    return [("train", setting.train_cells), ("test", setting.cells)]


def structures(setting: Setting, real: np.ndarray, generated: dict[str, list[np.ndarray]]) -> str:
    """Stains of tiles: R2 and r of the mean over seeds, beside a ridge regression on the genes of the same tiles."""
    tile_px = round(TILE_UM / setting.um)
    train_images = setting.real(setting.train_centres)
    x_train, y_train = tile_genes(setting, setting.train_centres, tile_px), tile_levels(train_images, tile_px)
    x_test, y_test = tile_genes(setting, setting.centres, tile_px), tile_levels(real, tile_px)
    ridge = make_pipeline(StandardScaler(), Ridge(alpha=1000.0)).fit(x_train, y_train)
    columns = {"ridge on genes": ridge.predict(x_test)}
    columns |= {name: np.mean([tile_levels(one, tile_px) for one in images], 0) for name, images in generated.items()}
    rows = []
    for channel, stain in enumerate(setting.data.channels):
        truth = y_test[:, channel]
        row = [stain]
        for found in columns.values():
            r2 = 1 - ((found[:, channel] - truth) ** 2).sum() / ((truth - truth.mean()) ** 2).sum()
            row.append(f"{r2:.2f}; {correlation(found[:, channel], truth):.2f}")
        rows.append(row)
    seeds = len(next(iter(generated.values())))
    return f"Tiles of {TILE_UM:g} um, mean of {seeds} seeds: R2; r:\n\n" + table(["stain", *columns], rows)


def tile_levels(images: np.ndarray, tile_px: int) -> np.ndarray:
    n, count = images.shape[0], images.shape[1] // tile_px
    cut = images[:, : count * tile_px, : count * tile_px].astype(np.float64)
    return cut.reshape(n, count, tile_px, count, tile_px, -1).mean((2, 4)).reshape(n * count * count, -1)


def tile_genes(setting: Setting, centres: np.ndarray, tile_px: int) -> np.ndarray:
    """Log of the mean counts of the cells of each tile and of those within one more half tile, and their numbers."""
    from scipy.spatial import KDTree

    tree, parts = KDTree(setting.xy_um_N2), []
    count = setting.bundle.config.patch_px // tile_px
    start = -setting.bundle.config.patch_um / 2 + (np.arange(count) + 0.5) * TILE_UM
    offsets = np.stack(np.meshgrid(start, start, indexing="ij")[::-1], -1).reshape(-1, 2)
    for centre in centres:
        places = setting.xy_um_N2[centre] + offsets
        columns = []
        for reach in (TILE_UM / 2, TILE_UM):
            near = tree.query_ball_point(places, reach, p=np.inf)
            sums = [
                setting.data.counts(np.sort(rows)).sum(0) if rows else np.zeros(len(setting.data.genes))
                for rows in near
            ]
            number = np.array([len(rows) for rows in near])
            columns += [np.log1p(np.array(sums) / np.maximum(number, 1)[:, None]), np.log1p(number)[:, None]]
        parts.append(np.concatenate(columns, 1))
    return np.concatenate(parts)


def distances(setting: Setting, sides: dict[int, int], seed: int) -> None:
    """Print Frechet distance over its floor, KID, precision, recall and copies, on the stains and as virtual H&E."""
    from evaluation import show

    for px, n in sides.items():
        bundle = setting.bundle.with_patch_px(px)
        rows = np.sort(np.random.default_rng(seed).permutation(setting.data.rows("test"))[:n])
        with tempfile.TemporaryDirectory() as folder:
            sets = []
            for condition in ("own", "shuffled"):
                request = request_from_paired(
                    bundle, setting.data, rows, seed=seed, shuffle_cells=condition == "shuffled"
                )
                sets.append(generate(bundle, request, Path(folder) / f"{condition}.generated", seed=seed).path)
            report = evaluate(sets, setting.data, config=EvaluateConfig(umap=False, seed=seed))
        print(f"\n{px} px, {n} cells", flush=True)
        show(report)


def cost(setting: Setting) -> str:
    """Processor time of one patch, with the model's own sampler."""
    rows = []
    for px, n in ((64, 32), (256, 8)):
        bundle = setting.bundle.with_patch_px(px)
        start = time.process_time()
        generate_patches(
            setting, setting.centres[:n] if n <= len(setting.centres) else setting.centres, "own", 0, bundle
        )
        each = (time.process_time() - start) / min(n, len(setting.centres))
        area = (px * setting.um / 1000) ** 2
        rows.append([f"{px} px", f"{each * 1e3:.0f} ms", f"{each / area:.0f} s"])
    return "Processor time:\n\n" + table(["patch", "one image", "1 mm2"], rows)


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
    bundle, data = (
        SGE2Hist.from_pretrained(args.model).bundle.with_patch_px(args.patch_px),
        PairedDataset.open(args.data),
    )
    if is_rgb(data.channels):
        parser.error(f"{args.data} holds RGB images; this benchmark reads fluorescence, nuclear stain first")
    setting, parts = prepare(bundle, data, args.n, args.train, 0), args.parts.split(",")
    print(
        f"{len(setting.centres)} held-out patches with {len(setting.cells.patch_N):,} cells",
        file=sys.stderr,
        flush=True,
    )
    if "cells" in parts:
        real, generated = setting.real(setting.centres), {}
        for condition in args.conditions.split(","):
            start = time.process_time()
            generated[condition] = [
                generate_patches(setting, setting.centres, condition, seed) for seed in range(args.seeds)
            ]
            print(f"{condition}: {time.process_time() - start:.0f} s of processor", file=sys.stderr, flush=True)
        for part in (stains_in_cells, nuclei, read_off, structures):
            print(part(setting, real, generated), flush=True)
    if "distances" in parts:
        distances(setting, dict(tuple(map(int, one.split(":"))) for one in args.distances.split(",")), 0)
    if "cost" in parts:
        print(cost(setting), flush=True)


if __name__ == "__main__":
    main()
