"""Does the picture follow a gene? Podocyte genes raised in tubule cells, dose by dose, with the noise fixed.

    python benchmarks/counterfactual.py X.model --against X.paired --from "Proximal tubule" --to Podocyte -n 96

Test cells of the first type get counts of the second type's marker genes added (to the cell and to all its neighbours in the
patch, a share of what cells of the second type have; the cell's other counts stay). Every dose is drawn with the same seeds.
Reported per dose: probability of the second type by a classifier of real training patches, the share of the way from start to
target patches covered by haematoxylin (1 - W1(edited, target) / W1(start, target)), the mean change of a pixel, and what the
edit does to the latents of the cells themselves: share of the way of their mean z1 from that of the start to that of real
cells of the second type, and the length of their mean z2 over that of real cells of the second type.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array

from sge2hist.api import SGE2Hist
from sge2hist.data.he_stain import stain_statistics
from sge2hist.data.paired import PairedDataset
from sge2hist.data.spatial_index import CellIndex
from sge2hist.evaluation.features.extractors import resolve_extractor
from sge2hist.evaluation.metrics.counterfactual import covered_share
from sge2hist.generation.encode import around_in, encode_cells
from sge2hist.generation.windows import Windows, draw, image_seed, neighbourhoods

DOSES = (0.0, 0.25, 0.5, 1.0, 2.0)


def type_profile(dataset: PairedDataset, name: str, rng: np.random.Generator) -> np.ndarray:
    """Mean counts per cell of a type's training cells, [G]."""
    rows = dataset.rows("train")
    rows = rows[dataset.type_of_cell[rows] == dataset.types.index(name)]
    rows = np.sort(rng.choice(rows, min(len(rows), 2000), replace=False))
    return np.asarray(dataset.counts(rows).mean(axis=0)).ravel()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a folder, or pretrained:NAME")
    parser.add_argument("--against", type=Path, required=True)
    parser.add_argument("--from", dest="start", default="Proximal tubule")
    parser.add_argument("--to", default="Podocyte")
    parser.add_argument("-n", type=int, default=96)
    parser.add_argument("--genes", type=int, default=30, help="marker genes that are raised")
    parser.add_argument("--picture", type=Path, help="PNG of the first cells, one row per dose (generated images only)")
    asked = parser.parse_args()
    bundle, dataset = SGE2Hist.from_pretrained(asked.model).bundle, PairedDataset.open(asked.against)
    rng = np.random.default_rng(0)
    low, high = (type_profile(dataset, name, rng) for name in (asked.start, asked.to))
    markers = np.argsort(-np.log2((high + 0.01) / (low + 0.01)) * (high > 0.05))[: asked.genes]
    print("raised:", " ".join(dataset.genes.symbols[g] for g in markers))
    added_G = np.zeros(len(high))
    added_G[markers] = np.maximum(high - low, 0)[markers]

    test = dataset.rows("test")
    cells = test[dataset.type_of_cell[test] == dataset.types.index(asked.start)]
    cells = np.sort(rng.choice(cells, min(asked.n, len(cells)), replace=False))
    centre_um = dataset.centre_xy_px * dataset.um_per_px
    index = CellIndex(centre_um, dataset.slide_of_cell)
    row_M, placed = neighbourhoods(
        index,
        dataset.slide_of_cell[cells],
        centre_um[cells],
        side_um=bundle.config.patch_um,
        reach_um=bundle.config.receptive_radius_um,
        stain=0,
    )
    needed = np.unique(row_M)
    places = CellIndex(centre_um[needed], dataset.slide_of_cell[needed])  # the cells of a patch are around each other
    own_counts = dataset.counts(needed)
    seeds = np.array([image_seed(0, str(c), 0) for c in cells])

    extractor = resolve_extractor()
    judge = fit_judge(dataset, extractor, asked.to, rng)
    targets = test[dataset.type_of_cell[test] == dataset.types.index(asked.to)]
    targets = np.sort(rng.choice(targets, min(asked.n, len(targets)), replace=False))
    target = dataset.patches(targets)
    around = around_in(bundle, dataset.counts, dataset.genes, index)
    aimed = encode_cells(bundle, dataset.counts, dataset.genes, targets, around=around).mean_NZ.mean(0)
    n_type, edited = bundle.config.gene.n_type, np.searchsorted(needed, cells)
    start, first, shown = None, None, []
    print("| dose | probability of the target type | haematoxylin, way covered | mean pixel change | way of z1 | z2 |")
    print("|---|---|---|---|---|---|")
    for dose in DOSES:
        counts = own_counts + added(dose * added_G, markers, len(needed))
        read = counts.__getitem__
        around = around_in(bundle, read, dataset.genes, places)
        latents = encode_cells(bundle, read, dataset.genes, np.arange(len(needed)), around=around)
        at = np.searchsorted(needed, row_M)
        images = np.concatenate(
            [
                draw(
                    bundle,
                    part_of(placed, latents.mean_NZ[at], latents.depth_N[at], i, i + 32),
                    seeds[i : i + 32],
                    bundle.config.sampler,
                )
                for i in range(0, len(cells), 32)
            ]
        )
        start = images if start is None else start
        shown.append(images[:12])
        blue = [stain_statistics(x)["haematoxylin_mean"] for x in (start, images, target)]
        change = np.abs(images.astype(float) - start).mean()
        probability = judge(images).mean()
        mean = latents.mean_NZ[edited].mean(0)
        first = mean if first is None else first
        columns = (probability, covered_share(*blue), change, *latent_change(first, mean, aimed, n_type))
        print(f"| {dose:g} | " + " | ".join(f"{value:.2f}" for value in columns) + " |", flush=True)
    print(
        f"real patches: {asked.start} {judge(dataset.patches(cells)).mean():.3f}, {asked.to} {judge(target).mean():.3f}"
    )
    if asked.picture:
        from PIL import Image

        grid = np.concatenate([np.concatenate(list(row), axis=1) for row in shown])
        Image.fromarray(grid).resize((2 * grid.shape[1], 2 * grid.shape[0]), Image.Resampling.NEAREST).save(
            asked.picture
        )


def latent_change(first: np.ndarray, mean: np.ndarray, aimed: np.ndarray, n_type: int) -> tuple[float, float]:
    """Share of the way of z1 from `first` to `aimed`, and the length of z2 over that of `aimed`; z = (z1, z2), [Z] each."""
    whole = (aimed - first)[:n_type]
    way = (mean - first)[:n_type] @ whole / (whole @ whole)
    return float(way), float(np.linalg.norm(mean[n_type:]) / np.linalg.norm(aimed[n_type:]))


def added(rate_G: np.ndarray, markers: np.ndarray, n_cells: int) -> csr_array:
    """Poisson counts of the markers for n cells, [n, G]."""
    drawn = np.random.default_rng(1).poisson(rate_G[markers], (n_cells, len(markers)))
    row, column = np.nonzero(drawn)
    return csr_array((drawn[row, column], (row, markers[column])), shape=(n_cells, len(rate_G)))


def part_of(placed: Windows, z_MZ: np.ndarray, depth_M: np.ndarray, first: int, last: int) -> Windows:
    """The windows first..last of a batch, with these latents."""
    own = (placed.image_M >= first) & (placed.image_M < last)
    values = vars(placed) | {
        "z_MZ": z_MZ[own],
        "depth_M": depth_M[own],
        "xy_um_M2": placed.xy_um_M2[own],
        "image_M": placed.image_M[own] - first,
        "mode_B": placed.mode_B[first:last],
        "slide_B": placed.slide_B[first:last],
    }
    return Windows(**values)


def fit_judge(dataset, extractor, name, rng):
    """Return images -> probability of type `name`, by a logistic regression on real training patches, half of them of it."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows = dataset.rows("train")
    kinds = dataset.type_of_cell[rows]
    wanted = dataset.types.index(name)
    own, rest = rows[kinds == wanted], rows[(kinds >= 0) & (kinds != wanted)]
    n = min(800, len(own))
    chosen = np.concatenate([rng.choice(own, n, replace=False), rng.choice(rest, n, replace=False)])
    features = extractor(dataset.patches(chosen))
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
    model.fit(features, np.arange(2 * n) < n)
    return lambda images: model.predict_proba(extractor(images))[:, 1]


if __name__ == "__main__":
    main()
