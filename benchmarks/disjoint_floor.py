"""Frechet distance where real and real are from disjoint tissue: the split's blocks are halved, at random, many times.

    python benchmarks/disjoint_floor.py kidney.generated --data kidney.paired

Of a section's few blocks most patches overlap others, and a floor of patches that show the same tissue is lower than two pieces
of tissue are apart. Here A and B are halves of the spatial blocks, no patch of B shares a pixel with one of A, and as many of
each are taken. Printed, mean and standard deviation over halvings: real A against real B (the floor), against what was generated
for A, and against what was generated for B, which differs from A as the floor does.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from scipy.spatial import KDTree

from sge2hist.data.paired import PairedDataset
from sge2hist.evaluation.features.extractors import resolve_extractor
from sge2hist.evaluation.metrics.frechet import frechet_of
from sge2hist.evaluation.open_images import open_image_set


def halves(xy_um_N2: np.ndarray, block_N: np.ndarray, patch_um: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of as many patches in either half of the blocks, none of one half with a pixel of the other."""
    rng = np.random.default_rng(seed)
    blocks = rng.permutation(block_N.max() + 1)
    first = np.isin(block_N, blocks[: len(blocks) // 2])
    distance, _ = KDTree(xy_um_N2[first]).query(xy_um_N2[~first], p=np.inf)
    A, B = np.flatnonzero(first), np.flatnonzero(~first)[distance >= patch_um]
    n = min(len(A), len(B))
    return rng.permutation(A)[:n], rng.permutation(B)[:n]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("generated", type=Path, help="what `generate` made of cells of a split")
    parser.add_argument("--data", type=Path, required=True, help="its paired dataset")
    parser.add_argument("--block-um", type=float, default=1024.0, help="side of the squares that are put in halves")
    parser.add_argument("--halvings", type=int, default=20)
    args = parser.parse_args()
    data = PairedDataset.open(args.data)
    images, extractor = open_image_set(args.generated, data), resolve_extractor()
    rows = np.asarray(images.row_M)
    real, generated = extractor(data.patches(rows)), extractor(images.images(np.arange(len(rows))))
    xy_um_N2 = data.centre_xy_px[rows] * data.um_per_px
    block_N = np.unique(np.floor(xy_um_N2 / args.block_um), axis=0, return_inverse=True)[1].ravel()
    found = []
    for seed in range(args.halvings):
        A, B = halves(xy_um_N2, block_N, data.patch_um, seed)
        floor, own, other = (frechet_of(real[A], x) for x in (real[B], generated[A], generated[B]))
        found.append((len(A), floor, own, other, own / floor, other / floor))
    mean, sd = np.mean(found, axis=0), np.std(found, axis=0)
    print(f"{block_N.max() + 1} blocks, {args.halvings} halvings, {mean[0]:.0f} patches in a half; {extractor.name}\n")
    print("| | distance from real A | over the floor | largest |\n|---|---|---|---|")
    print(f"| real B | {mean[1]:.1f} ± {sd[1]:.1f} | 1 | 1 |")
    for name, at in (("generated for A", 2), ("generated for B", 3)):
        largest = max(row[at + 2] for row in found)
        print(f"| {name} | {mean[at]:.1f} ± {sd[at]:.1f} | {mean[at + 2]:.2f} ± {sd[at + 2]:.2f} | {largest:.2f} |")


if __name__ == "__main__":
    main()
