"""Local stain maps predicted straight from expression: a baseline for a generated image, and the ceiling of its mean.

Expression of each bin as 32 components (log1p of counts per 10,000; singular vectors of the training bins), laid on a grid of
16 um. A ridge sees the window's own bins, a convolution of five layers 176 um of neighbourhood. Both are fitted on windows that
hold training cells alone; penalty and number of epochs are chosen on validation windows.
Shape letters: K components, R x C windows, S statistics.
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from sge2hist.data.paired import PairedDataset
from sge2hist.evaluation.metrics.slide_maps import STATISTICS, held_out_windows, statistic_maps

FINE_UM, COARSE_UM = 16.0, 64.0
CONVOLUTION = "convolution"  # name of the regression that reads the neighbouring bins
POOL = round(COARSE_UM / FINE_UM)
N_COMPONENTS = 32
CHANNELS, LAYERS = 64, 5
CROP, BATCH, PATIENCE, MAX_EPOCHS = 64, 8, 10, 120
PENALTIES = (1e-1, 1e1, 1e3, 1e5)
Maps = dict[str, np.ndarray]
Region = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A slide on windows of 16 um, whose edges fall on those of a region."""

    slide: int
    region_um: Region  # all of the slide, whole windows of 64 um

    @classmethod
    def aligned_to(cls, data: PairedDataset, slide: int, region_um: Region | None) -> Grid:
        """The grid of a slide, in step with a region."""
        stored = data.manifest["slides"][slide]
        width, height = stored["width_px"] * data.um_per_px, stored["height_px"] * data.um_per_px
        x, y = (value % COARSE_UM for value in region_um[:2]) if region_um else (0.0, 0.0)
        whole = ((width - x) // COARSE_UM * COARSE_UM, (height - y) // COARSE_UM * COARSE_UM)
        return cls(slide=slide, region_um=(x, y, *whole))

    def cut(self, values: np.ndarray, region_um: Region, window_um: float) -> np.ndarray:
        """The windows of a region, out of those of the slide."""
        left, top = (round((region_um[i] - self.region_um[i]) / window_um) for i in (0, 1))
        rows, columns = int(region_um[3] // window_um), int(region_um[2] // window_um)
        return values[top : top + rows, left : left + columns]

    def windows(self, data: PairedDataset, split: str, window_um: float = FINE_UM) -> np.ndarray:
        """bool [R, C]: windows that hold cells of the split alone."""
        return held_out_windows(data, self.slide, self.region_um, split, window_um)


def pooled(values_RC: np.ndarray) -> np.ndarray:
    """Means over 4 x 4 windows: 16 um -> 64 um. Further axes stay."""
    rows, columns = values_RC.shape[0] // POOL, values_RC.shape[1] // POOL
    cut = values_RC[: rows * POOL, : columns * POOL]
    return cut.reshape(rows, POOL, columns, POOL, *values_RC.shape[2:]).mean((1, 3))


def components(data: PairedDataset, seed: int = 0) -> np.ndarray:
    """Standardised components of every cell, float32 [N, K]; genes and directions are those of the training cells."""
    from sklearn.decomposition import TruncatedSVD

    counts = data.counts_in_memory()
    total = np.asarray(counts.sum(axis=1)).ravel()
    logs = counts.astype(np.float32)
    logs.data *= np.repeat(1e4 / np.maximum(total, 1), np.diff(logs.indptr)).astype(np.float32)
    np.log1p(logs.data, out=logs.data)
    train = data.rows("train")
    part = logs[train]
    mean = np.asarray(part.mean(axis=0)).ravel()
    variance = np.asarray(part.power(2).mean(axis=0)).ravel() - mean**2
    chosen = np.sort(np.argsort(-variance)[:2000])
    svd = TruncatedSVD(min(N_COMPONENTS, len(chosen)) - 1, random_state=seed).fit(part[:, chosen])
    found = np.column_stack([svd.transform(logs[:, chosen]), np.log1p(total)])  # depth is the 32nd
    return ((found - found[train].mean(0)) / found[train].std(0)).astype(np.float32)


def laid_out(data: PairedDataset, grid: Grid, values_NK: np.ndarray) -> np.ndarray:
    """Mean of the cells in each window, and a last channel that marks windows with cells: float32 [R, C, K + 1]."""
    x, y, width, height = grid.region_um
    rows, columns = round(height / FINE_UM), round(width / FINE_UM)
    own = data.slide_of_cell == grid.slide
    window = np.floor((data.centre_xy_px[own] * data.um_per_px - (x, y)) / FINE_UM).astype(np.int64)
    inside = ((window >= 0) & (window < (columns, rows))).all(1)
    number = window[inside, 1] * columns + window[inside, 0]
    n = np.bincount(number, minlength=rows * columns)
    out = np.zeros((rows * columns, values_NK.shape[1] + 1), np.float32)
    np.add.at(out[:, :-1], number, values_NK[own][inside])
    out[:, :-1] /= np.maximum(n, 1)[:, None]
    out[:, -1] = n > 0
    return out.reshape(rows, columns, -1)


def ridge(given: np.ndarray, real_RCS: np.ndarray, train: np.ndarray, val: np.ndarray) -> np.ndarray:
    """Linear map from a window's mean components to its statistics, [R, C, S]; the penalty is the best on `val`."""
    x, y = given[train].astype(np.float64), real_RCS[train]
    mean_x, mean_y = x.mean(0), y.mean(0)
    gram, cross = (x - mean_x).T @ (x - mean_x), (x - mean_x).T @ (y - mean_y)
    variance = np.maximum(y.var(0), 1e-12)
    chosen = val if val.any() else train
    best: tuple[float, np.ndarray] | None = None
    for penalty in PENALTIES:
        weights = np.linalg.solve(gram + penalty * np.eye(len(gram)), cross)
        predicted = (given - mean_x) @ weights + mean_y
        error = float((((predicted - real_RCS)[chosen]) ** 2 / variance).mean())
        if best is None or error < best[0]:
            best = (error, predicted)
    assert best is not None
    return best[1]


def convolution(
    given: np.ndarray, real_RCS: np.ndarray, train: np.ndarray, val: np.ndarray, seed: int = 0
) -> tuple[np.ndarray, dict[str, Any]]:
    """Five layers of 3 x 3 over the grid, [R, C, S], and how it was trained; stopped when `val` gets no better."""
    import torch
    from torch import nn

    torch.manual_seed(seed)
    rng, started = np.random.default_rng(seed), time.perf_counter()
    mean, std = real_RCS[train].mean(0), np.maximum(real_RCS[train].std(0), 1e-6)
    x = torch.from_numpy(given).permute(2, 0, 1)
    y = torch.from_numpy(((real_RCS - mean) / std).astype(np.float32)).permute(2, 0, 1)
    masks = {name: torch.from_numpy(mask.astype(np.float32)) for name, mask in (("train", train), ("val", val))}
    everything = torch.cat([x, y, masks["train"][None]])
    widths = [x.shape[0], *[CHANNELS] * (LAYERS - 1), y.shape[0]]
    layers: list[nn.Module] = []
    for a, b in pairwise(widths):
        layers += [nn.Conv2d(a, b, 3, padding=1), nn.GELU()]
    net = nn.Sequential(nn.Dropout2d(0.1), *layers[:-1])
    optimiser = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-2)
    windows, side = np.argwhere(train), min(CROP, *x.shape[1:])
    steps = -(-x.shape[1] * x.shape[2] // (side * side * BATCH))
    best, kept, since, n_epochs = float("inf"), copy.deepcopy(net.state_dict()), 0, 0
    while n_epochs < MAX_EPOCHS and since < PATIENCE:
        n_epochs += 1
        net.train()
        for _ in range(steps):
            at = windows[rng.integers(len(windows), size=BATCH)] - rng.integers(side, size=(BATCH, 2))
            at = at.clip(0, np.array(x.shape[1:]) - side)
            crops = [everything[:, i : i + side, j : j + side] for i, j in at]
            batch = torch.stack([_turned(crop, int(rng.integers(8))) for crop in crops])
            predicted = net(batch[:, : x.shape[0]])
            error = (predicted - batch[:, x.shape[0] : -1]) ** 2 * batch[:, -1:]
            loss = error.sum() / (batch[:, -1:].sum() * y.shape[0]).clamp_min(1)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        net.eval()
        with torch.no_grad():
            predicted = net(x[None])[0]
        now = float((((predicted - y) ** 2) * masks["val"]).sum() / (masks["val"].sum() * y.shape[0]))
        if now < best - 1e-4:
            best, kept, since = now, copy.deepcopy(net.state_dict()), 0
        else:
            since += 1
            if since == PATIENCE // 2:
                optimiser.param_groups[0]["lr"] *= 0.3
    net.load_state_dict(kept)
    with torch.no_grad():
        answer = net(x[None])[0].permute(1, 2, 0).numpy().astype(np.float64)
    return answer * std + mean, {"epochs": n_epochs, "val": best, "seconds": time.perf_counter() - started}


def _turned(crop: Any, number: int) -> Any:
    """One of the eight turns and reflections."""
    turned = crop.rot90(number % 4, (1, 2))
    return turned.flip(2) if number >= 4 else turned


def predicted_maps(
    data: PairedDataset, slide: int = 0, region_um: Region | None = None
) -> tuple[dict[str, dict[float, Maps]], dict[float, Maps], Grid]:
    """Maps of the whole slide by method and window size, the real ones, and the grid that they lie on."""
    grid = Grid.aligned_to(data, slide, region_um)
    given = laid_out(data, grid, components(data))
    found = statistic_maps(data.slides[slide], data.um_per_px, grid.region_um, data.um_per_px, FINE_UM)
    real = np.stack([found[name] for name in STATISTICS], -1)
    train, val = grid.windows(data, "train"), grid.windows(data, "val")
    coarse = pooled(given[..., :-1] * given[..., -1:])
    coarse /= np.maximum(pooled(given[..., -1:]), 1e-6)
    convolved, training = convolution(given, real, train, val)
    print(
        f"convolution: {training['epochs']} epochs, error on val {training['val']:.3f} of the variance, "
        f"{training['seconds']:.0f} s"
    )
    maps = {
        "ridge on the window's own bins": {
            FINE_UM: ridge(given[..., :-1], real, train, val),
            COARSE_UM: ridge(
                coarse, pooled(real), grid.windows(data, "train", COARSE_UM), grid.windows(data, "val", COARSE_UM)
            ),
        },
        CONVOLUTION: {FINE_UM: convolved, COARSE_UM: pooled(convolved)},
    }
    named = {method: {um: _named(values) for um, values in of.items()} for method, of in maps.items()}
    return named, {FINE_UM: _named(real), COARSE_UM: _named(pooled(real))}, grid


def _named(values_RCS: np.ndarray) -> Maps:
    return {name: values_RCS[..., number] for number, name in enumerate(STATISTICS)}
