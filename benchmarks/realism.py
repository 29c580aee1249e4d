"""Can a classifier distinguish generated patches from real ones? Three unrelated looks, beside real patches of two areas.

    python benchmarks/realism.py kidney.generated --data kidney.paired --sheet giveaways.png

Classes are the generated patches and the real patches of the same cells. A linear classifier reads features of a photographic
network, another the energies of a block cosine transform, and a small network reads pixels; each is scored on spatial blocks of
held-out tissue whose pixels it has not seen: training patches that overlap one of a test block are excluded (area under the ROC
curve; 0.5: it cannot). The column "two areas" is what the same classifier makes of real
patches of two halves of the blocks, and bounds what is to be expected; a mean over several divisions. Full, half and quarter
resolution separate fine texture from structure. Fluorescence is read as virtual H&E.

Pixels of glass and lumens, and the spectrum, show where a difference comes from.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.fft import dctn
from scipy.spatial import KDTree
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from sge2hist.data.generated import GeneratedSet
from sge2hist.data.paired import PairedDataset
from sge2hist.data.slides.channels import is_rgb
from sge2hist.data.virtual_he import choose_stains
from sge2hist.evaluation.features.extractors import resolve_extractor
from sge2hist.evaluation.resampling import spatial_blocks

SCALES = (1, 2, 4)
N_FOLDS = 5
N_DIVISIONS = 4  # of the blocks into two areas
DCT_PX = 8
EPOCHS = 12
LUMEN_LEVEL = 215  # a neighbourhood brighter than this in every channel is glass or lumen

Folds = list[tuple[np.ndarray, np.ndarray]]
"""Positions of the images to train on, and of those to test: every image is tested once."""
Scores = Callable[[np.ndarray, np.ndarray, Folds], np.ndarray]
"""Images [N, H, W, 3], class [N] and folds -> score of each image by a classifier that did not see its place."""


def apart_folds(group_N: np.ndarray, centre_um_N2: np.ndarray, slide_N: np.ndarray, side_um: float) -> Folds:
    """Folds of whole groups; no training patch of side `side_um` shares a pixel with a test patch of its fold."""
    place_N3, folds = np.column_stack([centre_um_N2, slide_N * 1e9]), []
    for train, test in GroupKFold(N_FOLDS).split(group_N, groups=group_N):
        distance, _ = KDTree(place_N3[test]).query(place_N3[train], p=np.inf, distance_upper_bound=side_um)
        folds.append((train[distance >= side_um], test))
    return folds


def smaller(images: np.ndarray, factor: int) -> np.ndarray:
    """Mean over squares of `factor` px, uint8."""
    n, h, w, c = images.shape
    cut = images[:, : h // factor * factor, : w // factor * factor]
    mean = cut.reshape(n, h // factor, factor, w // factor, factor, c).mean((2, 4))
    return (mean + 0.5).astype(np.uint8)


def cosine_features(images: np.ndarray) -> np.ndarray:
    """Log mean square of each coefficient of the 8 x 8 cosine transform, of three colours: float64 [N, 192]."""
    n, h, w, c = images.shape
    rows, columns = h // DCT_PX, w // DCT_PX
    cut = images[:, : rows * DCT_PX, : columns * DCT_PX].astype(np.float64)
    blocks = cut.reshape(n, rows, DCT_PX, columns, DCT_PX, c).transpose(0, 1, 3, 5, 2, 4)
    energy = (dctn(blocks, axes=(4, 5), norm="ortho") ** 2).mean((1, 2))
    return np.log(energy + 1.0).reshape(n, -1)


def linear(features: Callable[[np.ndarray], np.ndarray]) -> Scores:
    """A linear classifier of features, out of fold."""

    def scores(images: np.ndarray, is_generated: np.ndarray, folds: Folds) -> np.ndarray:
        x, out = features(images), np.full(len(images), np.nan)
        for train, test in folds:
            model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
            out[test] = model.fit(x[train], is_generated[train]).decision_function(x[test])
        return out

    return scores


def pixel_network(images: np.ndarray, is_generated: np.ndarray, folds: Folds) -> np.ndarray:
    """A small convolutional network of pixels, out of fold; turned and mirrored at random."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    y, out = torch.from_numpy(is_generated.astype(np.float32)), np.full(len(images), np.nan)
    for fold, (train, test) in enumerate(folds):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(fold)
            network = _network()
            _fit(network, x[train], y[train])
        with torch.no_grad():
            out[test] = network(x[test])[:, 0].numpy()
    return out


def _network() -> nn.Module:
    layers: list[nn.Module] = []
    for width_in, width in ((3, 24), (24, 48), (48, 96)):
        layers += [nn.Conv2d(width_in, width, 3, padding=1), nn.GroupNorm(8, width), nn.SiLU()]
        layers += [nn.Conv2d(width, width, 3, stride=2, padding=1), nn.GroupNorm(8, width), nn.SiLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(96, 1)).eval()


def _fit(network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.05)
    network.train()
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x)).split(32):
            batch = torch.rot90(x[rows], int(torch.randint(4, ())), (2, 3))
            loss = F.binary_cross_entropy_with_logits(network(batch)[:, 0], y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    network.eval()


def area_under_curve(scores: Scores, generated: np.ndarray, real: np.ndarray, folds: Folds) -> tuple[float, np.ndarray]:
    """AUC of generated against real patches of the same places, and the score of each generated image."""
    images, n = np.concatenate([generated, real]), len(generated)
    y = np.repeat([True, False], n)
    both = [(np.concatenate([train, train + n]), np.concatenate([test, test + n])) for train, test in folds]
    found = scores(images, y, both)
    return float(roc_auc_score(y, found)), found[:n]


def two_areas(
    scores: Scores, real: np.ndarray, block: np.ndarray, centre_um_N2: np.ndarray, slide_N: np.ndarray, side_um: float
) -> float:
    """Mean AUC of one half of the blocks against the other, both real; a fold holds whole blocks of both."""
    names, found = np.unique(block), []
    for seed in range(N_DIVISIONS):
        rng = np.random.default_rng(seed)
        first = np.isin(block, rng.permutation(names)[: len(names) // 2])
        if not 0 < first.mean() < 1:
            continue
        folds = apart_folds(_paired_blocks(block, first, rng), centre_um_N2, slide_N, side_um)
        found.append(float(roc_auc_score(first, scores(real, first, folds))))
    return float(np.mean(found)) if found else float("nan")


def _paired_blocks(block: np.ndarray, first: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Groups of blocks that each hold some of both areas, as many as folds."""
    group = np.empty(len(block), np.int64)
    for area in (first, ~first):
        names = rng.permutation(np.unique(block[area]))
        number = {name: i % N_FOLDS for i, name in enumerate(names)}
        group[area] = [number[name] for name in block[area]]
    return group


def roughness(images: np.ndarray) -> float:
    """Median standard deviation of 5 x 5 px neighbourhoods in glass and lumens, grey levels."""
    n, h, w, _ = images.shape
    cut = images[:, : h // 5 * 5, : w // 5 * 5].astype(np.float64).reshape(n, h // 5, 5, w // 5, 5, 3)
    grey, bright = cut.mean(5), (cut.min((2, 4)) > LUMEN_LEVEL).all(-1)
    spread = grey.transpose(0, 1, 3, 2, 4).reshape(n, h // 5, w // 5, 25).std(-1)
    return float(np.median(spread[bright])) if bright.any() else float("nan")


def fine_power(images: np.ndarray) -> float:
    """Mean power above 0.25 cycles per px of the grey image.

    A Hann window keeps the jump between opposite edges, which is coarse structure, from counting as fine (Harris 1978).
    """
    grey = images.astype(np.float64).mean(3)
    _, h, w = grey.shape
    window = np.hanning(h)[:, None] * np.hanning(w)
    power = np.abs(np.fft.fft2((grey - grey.mean((1, 2), keepdims=True)) * window)) ** 2
    y, x = np.fft.fftfreq(h), np.fft.fftfreq(w)
    return float(power[:, np.hypot(y[:, None], x) > 0.25].mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("generated", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="paired dataset of its cells")
    parser.add_argument("-n", type=int, default=600, help="patches at most")
    parser.add_argument("--looks", default="network,cosine,pixels")
    parser.add_argument(
        "--sheet", type=Path, help="PNG of the generated patches that are recognised most and least surely"
    )
    args = parser.parse_args()
    made, data = GeneratedSet.open(args.generated), PairedDataset.open(args.data)
    rows = data.obs.index.get_indexer(made.obs["cell_id"].astype(str).to_numpy())
    if (rows < 0).any():
        parser.error(f"{args.generated} shows cells that {args.data} lacks")
    chosen = np.random.default_rng(0).permutation(np.flatnonzero(np.isin(rows, data.rows("test"))))[: args.n]
    if len(chosen) == 0:
        parser.error(f"{args.generated} shows no held-out cell; generate with --split test")
    rows = rows[chosen]
    generated = np.stack([made.image(int(i)) for i in chosen])
    side_um = float(made.manifest["patch_um"])
    real = data.patches(rows, side_um=side_um, out_px=generated.shape[1])
    if not is_rgb(made.channels):
        stains, _ = choose_stains(made.channels)
        generated, real = (stains.render_levels(x, made.channels, data.stain_transform) for x in (generated, real))
    centre_um, slide = data.centre_xy_px[rows] * data.um_per_px, data.slide_of_cell[rows]
    block = spatial_blocks(centre_um, slide, 2 * side_um)
    if len(np.unique(block)) < 2 * N_FOLDS:
        parser.error(f"{len(np.unique(block))} spatial blocks of {2 * side_um:g} um; at least {2 * N_FOLDS} are needed")
    folds = apart_folds(block, centre_um, slide, side_um)
    left = sum(len(rows) - len(train) - len(test) for train, test in folds) / len(folds)
    extractor = resolve_extractor()
    looks: dict[str, tuple[str, Scores]] = {
        "network": (f"linear, {extractor.name}", linear(extractor)),
        "cosine": ("linear, cosine transform", linear(cosine_features)),
        "pixels": ("small network, pixels", pixel_network),
    }
    print(f"{len(rows)} held-out patches of {generated.shape[1]} px in {len(np.unique(block))} blocks; ")
    print(f"{left:.0f} of them overlap the test patches of a fold, on average, and are not trained on there\n")
    print("| classifier | " + " | ".join(f"1/{s}: AUC | 1/{s}: two areas" for s in SCALES) + " |")
    print("| --- |" + " --- | --- |" * len(SCALES))
    surest: list[np.ndarray] = []
    for look in args.looks.split(","):
        name, scores = looks[look]
        cells = []
        for scale in SCALES:
            a, b = smaller(generated, scale), smaller(real, scale)
            value, of_generated = area_under_curve(scores, a, b, folds)
            cells += [f"{value:.3f}", f"{two_areas(scores, b, block, centre_um, slide, side_um):.3f}"]
            surest += [of_generated] if scale == 1 else []
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    print(
        f"\nroughness of glass and lumens, grey levels: {roughness(generated):.2f} generated, {roughness(real):.2f} real"
    )
    print(f"power above 0.25 cycles per px over that of real patches: {fine_power(generated) / fine_power(real):.2f}")
    if args.sheet:
        order = np.argsort(np.mean([s.argsort().argsort() for s in surest], 0))
        worst, best = generated[order[-16:]], generated[order[:16]]
        sheet = [np.concatenate(list(part[i : i + 8]), 1) for part in (worst, best) for i in (0, 8)]
        Image.fromarray(np.concatenate(sheet)).save(args.sheet)
        print(f"wrote {args.sheet}: above the patches recognised most surely, below those least surely")


if __name__ == "__main__":
    main()
