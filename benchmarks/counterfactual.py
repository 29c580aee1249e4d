"""Does the image follow a gene? Podocyte genes raised in tubule cells, dose by dose, with the noise fixed.

    python benchmarks/counterfactual.py X.model --data X.paired --from "Proximal tubule" --to Podocyte -n 96

Test cells of the first type get counts of the second type's marker genes added (to the cell and to all its neighbours in the
patch, a share of what cells of the second type have; the cell's other counts stay). Every dose is generated with the same seeds.
Reported per dose: probability of the second type by a classifier of real training patches, the share of the way from start to
target patches covered by haematoxylin (1 - W1(edited, target) / W1(start, target)), the mean change of a pixel, and what the
edit does to the latents of the cells themselves: share of the way of their mean z1 from that of the start to that of real
cells of the second type, and the length of their mean z2 over that of real cells of the second type.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array

from sge2hist.api import SGE2Hist
from sge2hist.data.he_stain import stain_statistics
from sge2hist.data.paired import PairedDataset
from sge2hist.data.spatial_index import CellIndex
from sge2hist.evaluation.features.extractors import Extractor, resolve_extractor
from sge2hist.evaluation.metrics.counterfactual import covered_share
from sge2hist.generation.encode import encode_cells, neighbour_reader
from sge2hist.generation.windows import image_seed, neighbour_cells, sample_patches, with_latents
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.image.conditioning import PlacedCells

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
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--from", dest="start", default="Proximal tubule")
    parser.add_argument("--to", default="Podocyte")
    parser.add_argument("-n", type=int, default=96)
    parser.add_argument("--genes", type=int, default=30, help="marker genes that are raised")
    parser.add_argument("--picture", type=Path, help="PNG of the first cells, one row per dose (generated images only)")
    args = parser.parse_args()
    bundle, dataset = SGE2Hist.from_pretrained(args.model).bundle, PairedDataset.open(args.data)
    rng = np.random.default_rng(0)
    markers, added_G = counts_to_add(dataset, args.start, args.to, args.genes, rng)
    print("raised:", " ".join(dataset.genes.symbols[g] for g in markers))
    cells = sampled_cells(dataset, args.start, args.n, rng)
    edit = Edit.of(bundle, dataset, cells, markers, added_G)
    classify = fit_classifier(dataset, resolve_extractor(), args.to, rng)
    targets = sampled_cells(dataset, args.to, args.n, rng)
    target = dataset.patches(targets)
    neighbours = neighbour_reader(bundle, dataset.counts, dataset.genes, edit.index)
    aimed = encode_cells(bundle, dataset.counts, dataset.genes, targets, neighbours=neighbours).mean_NZ.mean(0)
    start, first, rows = None, None, []
    print("| dose | probability of the target type | haematoxylin, way covered | mean pixel change | way of z1 | z2 |")
    print("|---|---|---|---|---|---|")
    for dose in DOSES:
        images, mean = edit.images(dose)
        if start is None or first is None:
            start, first = images, mean
        rows.append(images[:12])
        haematoxylin = [stain_statistics(x)["haematoxylin_mean"] for x in (start, images, target)]
        change = np.abs(images.astype(float) - start).mean()
        latents = latent_change(first, mean, aimed, bundle.config.gene.n_type)
        columns = (classify(images).mean(), covered_share(*haematoxylin), change, *latents)
        print(f"| {dose:g} | " + " | ".join(f"{value:.2f}" for value in columns) + " |", flush=True)
    real = classify(dataset.patches(cells)).mean(), classify(target).mean()
    print(f"real patches: {args.start} {real[0]:.3f}, {args.to} {real[1]:.3f}")
    if args.picture:
        write_picture(args.picture, rows)


def counts_to_add(
    dataset: PairedDataset, start: str, to: str, n_genes: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Marker genes of type `to` against `start`, and the mean counts of each gene to add, [G] (0 for other genes)."""
    low, high = (type_profile(dataset, name, rng) for name in (start, to))
    markers = np.argsort(-np.log2((high + 0.01) / (low + 0.01)) * (high > 0.05))[:n_genes]
    added_G = np.zeros(len(high))
    added_G[markers] = np.maximum(high - low, 0)[markers]
    return markers, added_G


def sampled_cells(dataset: PairedDataset, name: str, n: int, rng: np.random.Generator) -> np.ndarray:
    """At most n test cells of a type, at random."""
    test = dataset.rows("test")
    cells = test[dataset.type_of_cell[test] == dataset.types.index(name)]
    return np.sort(rng.choice(cells, min(n, len(cells)), replace=False))


@dataclass(frozen=True, kw_only=True)
class Edit:
    """The patches of some cells, in which marker genes of all cells are raised."""

    bundle: ModelBundle
    dataset: PairedDataset
    index: CellIndex  # of all cells
    cells: np.ndarray
    windows: PlacedCells  # without latents
    row_M: np.ndarray  # the cell of each entry of `windows`
    markers: np.ndarray
    added_G: np.ndarray

    @classmethod
    def of(
        cls,
        bundle: ModelBundle,
        dataset: PairedDataset,
        cells: np.ndarray,
        markers: np.ndarray,
        added_G: np.ndarray,
    ) -> Edit:
        """Find the neighbours of the cells."""
        centre_um = dataset.centre_xy_px * dataset.um_per_px
        index = CellIndex(centre_um, dataset.slide_of_cell)
        row_M, windows = neighbour_cells(
            index,
            dataset.slide_of_cell[cells],
            centre_um[cells],
            side_um=bundle.config.patch_um,
            receptive_radius_um=bundle.config.receptive_radius_um,
        )
        return cls(
            bundle=bundle,
            dataset=dataset,
            index=index,
            cells=cells,
            windows=windows,
            row_M=row_M,
            markers=markers,
            added_G=added_G,
        )

    def images(self, dose: float) -> tuple[np.ndarray, np.ndarray]:
        """Images of the cells at a dose, uint8 [n, P, P, C], and the mean of their latents, [Z]."""
        needed, at = np.unique(self.row_M, return_inverse=True)
        counts = self.dataset.counts(needed) + added(dose * self.added_G, self.markers, len(needed))
        read = counts.__getitem__
        index = CellIndex(self.index.centre_um_N2[needed], self.dataset.slide_of_cell[needed])
        neighbours = neighbour_reader(self.bundle, read, self.dataset.genes, index)
        latents = encode_cells(self.bundle, read, self.dataset.genes, np.arange(len(needed)), neighbours=neighbours)
        cells = with_latents(self.windows, latents.mean_NZ[at], latents.depth_N[at])
        seeds = np.array([image_seed(0, str(cell), 0) for cell in self.cells])
        batches = [
            sample_patches(
                self.bundle,
                part_of(cells, i, i + 32),
                seeds[i : i + 32],
                self.bundle.config.sampler,
            )
            for i in range(0, len(self.cells), 32)
        ]
        return np.concatenate(batches), latents.mean_NZ[np.searchsorted(needed, self.cells)].mean(0)


def write_picture(path: Path, rows: list[np.ndarray]) -> None:
    """Write rows of images as a PNG, enlarged twice."""
    from PIL import Image

    grid = np.concatenate([np.concatenate(list(row), axis=1) for row in rows])
    Image.fromarray(grid).resize((2 * grid.shape[1], 2 * grid.shape[0]), Image.Resampling.NEAREST).save(path)


def latent_change(first: np.ndarray, mean: np.ndarray, aimed: np.ndarray, n_type: int) -> tuple[float, float]:
    """Share of the way of z1 from `first` to `aimed`, and the length of z2 over that of `aimed`; z = (z1, z2), [Z] each."""
    whole = (aimed - first)[:n_type]
    way = (mean - first)[:n_type] @ whole / (whole @ whole)
    return float(way), float(np.linalg.norm(mean[n_type:]) / np.linalg.norm(aimed[n_type:]))


def added(rate_G: np.ndarray, markers: np.ndarray, n_cells: int) -> csr_array:
    """Poisson counts of the markers for n cells, [n, G]."""
    sampled = np.random.default_rng(1).poisson(rate_G[markers], (n_cells, len(markers)))
    row, column = np.nonzero(sampled)
    return csr_array((sampled[row, column], (row, markers[column])), shape=(n_cells, len(rate_G)))


def part_of(cells: PlacedCells, first: int, last: int) -> PlacedCells:
    """Images first..last of a batch."""
    inside = (cells.image_M >= first) & (cells.image_M < last)
    return replace(
        cells,
        z_MZ=cells.z_MZ[inside],
        depth_M=cells.depth_M[inside],
        xy_um_M2=cells.xy_um_M2[inside],
        image_M=cells.image_M[inside] - first,
        mode_B=cells.mode_B[first:last],
        slide_B=cells.slide_B[first:last],
    )


def fit_classifier(
    dataset: PairedDataset, extractor: Extractor, name: str, rng: np.random.Generator
) -> Callable[[np.ndarray], np.ndarray]:
    """Return images -> probability of type `name`, by a logistic regression on real training patches, half of them of it."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows = dataset.rows("train")
    types = dataset.type_of_cell[rows]
    wanted = dataset.types.index(name)
    own, rest = rows[types == wanted], rows[(types >= 0) & (types != wanted)]
    n = min(800, len(own))
    chosen = np.concatenate([rng.choice(own, n, replace=False), rng.choice(rest, n, replace=False)])
    features = extractor(dataset.patches(chosen))
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
    model.fit(features, np.arange(2 * n) < n)
    return lambda images: model.predict_proba(extractor(images))[:, 1]


if __name__ == "__main__":
    main()
