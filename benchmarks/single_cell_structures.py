"""Structures and stains of tiles: where a type of cell is read off the image, and stains beside a regression on the genes.

Tiles lie in the patches of `single_cell.py`. Real and generated images are read by the same classifier.
"""

from __future__ import annotations

import numpy as np
from cell_comparison import Compared
from cell_measures import PatchCells, label_image
from cell_patches import LAYOUT, OWN, POINTS, Setting
from cell_readers import Look
from cell_statistics import Statistic, r_of, r_squared, shown, table
from scipy.spatial import KDTree
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

MAP_UM, TILE_UM = 32.0, 27.2
MIN_IN_TILE = 3  # cells, for a share
STRUCTURES = {
    "islet": ("Islet",),
    "acinus": ("Acinus",),
    "duct": ("Duct", "Foveolar-like duct"),
    "tumour nest": ("Tumour", "Proliferating tumour"),
    "vessel": ("Endothelium", "Pericyte", "Smooth muscle"),
    "stroma": ("Fibroblast",),
    "T cells": ("T and NK cell",),
}
ALPHAS = (100.0, 300.0, 1000.0, 3000.0, 10000.0)


def shares_of_tiles(is_type_N: np.ndarray, cells: PatchCells, side_px: int, tile_px: float) -> np.ndarray:
    """Share of the cells of each tile (in the middle of patches) that are of a type, [B * tiles]; nan for fewer than three."""
    count = int(side_px // tile_px)
    tile = np.floor((cells.xy_px_N2 - (side_px - count * tile_px) / 2) / tile_px).astype(np.int64)
    inside = ((tile >= 0) & (tile < count)).all(1)
    n_patches = int(cells.patch_N.max()) + 1
    number = (cells.patch_N * count + tile[:, 1]) * count + tile[:, 0]
    every = np.bincount(number[inside], minlength=n_patches * count**2)
    own = np.bincount(number[inside], weights=is_type_N[inside], minlength=n_patches * count**2)
    return np.where(every >= MIN_IN_TILE, own / np.maximum(every, 1), np.nan)


def structures(compared: Compared) -> str:
    """Maps at 32 um of the share of cells that are read as a type: r against the same map of the real image."""
    setting, cells, rows = compared.setting, compared.real.cells, []
    side_px, tile_px = setting.bundle.config.patch_px, MAP_UM / setting.um
    types = setting.data.types
    tiles_per_patch = int(side_px // tile_px) ** 2
    by_tile = compared.resamples.of_items(np.repeat(np.arange(len(setting.centres)), tiles_per_patch))

    def shares(code_N: np.ndarray, codes: list[int]) -> np.ndarray:
        found = shares_of_tiles(np.isin(code_N, codes).astype(float), cells, side_px, tile_px)
        return np.pad(found, (0, by_tile.n - len(found)), constant_values=np.nan)

    for name, members in STRUCTURES.items():
        codes = [types.index(member) for member in members if member in types]
        truth, of_genes = shares(compared.real.types(), codes), shares(setting.data.type_of_cell[cells.row_N], codes)
        if not codes or not np.nanmax(truth) > 0:
            continue

        def agreement(look: Look, truth: np.ndarray = truth, codes: list[int] = codes) -> Statistic:
            return r_of(truth, shares(look.types(), codes))

        number = int((truth > 0).sum())
        row = compared.row(f"{name} ({number} tiles with some)", agreement, by_tile)
        rows.append([row[0], shown(by_tile.bootstrap(r_of(truth, of_genes))), *row[1:]])
    text = f"Tiles of {MAP_UM:g} um: share of cells that are read as the type, r against the real image:\n\n"
    return text + table(["structure", "types of the counts", *compared.head], rows)


def tiles(compared: Compared) -> str:
    """Stains of tiles: R2 and r of the mean over seeds, beside ridge regressions on the genes of the same tiles."""
    setting, tile_px = compared.setting, round(TILE_UM / compared.setting.um)
    y_train = tile_levels(setting.real(setting.train_centres), tile_px)
    y_test = tile_levels(compared.real.images, tile_px)
    genes, outlines = (
        [inputs(setting, centres, tile_px) for centres in (setting.train_centres, setting.centres)]
        for inputs in (tile_genes, tile_outlines)
    )
    both = [np.concatenate(pair, 1) for pair in zip(genes, outlines, strict=True)]
    columns = {"ridge, genes": ridge(*genes, y_train), "ridge, genes and outlines": ridge(*both, y_train)}
    for name, looks in compared.generated.items():
        columns[name] = np.mean([tile_levels(look.images, tile_px) for look in looks], 0)
    by_tile = compared.resamples.of_items(
        np.repeat(np.arange(len(setting.centres)), len(y_test) // len(setting.centres))
    )
    pairs = [
        (first, second)
        for first, second in ((OWN, "ridge, genes and outlines"), (POINTS, "ridge, genes"), (OWN, LAYOUT))
        if {first, second} <= set(columns)
    ]
    rows = []
    for channel, stain in enumerate(setting.data.channels):
        found = {
            name: by_tile.bootstrap(r_squared(y_test[:, channel], values[:, channel]))
            for name, values in columns.items()
        }
        differences = [shown(found[first].minus(found[second])) for first, second in pairs]
        rows.append([f"{stain}: R2", *map(shown, found.values()), *differences])
    seeds = len(next(iter(compared.generated.values())))
    text = f"Stains of tiles of {TILE_UM:g} um, mean of {seeds} seed(s):\n\n"
    return text + table(["stain", *columns, *(f"{first} less {second}" for first, second in pairs)], rows)


def ridge(x_train: np.ndarray, x_test: np.ndarray, y_train: np.ndarray) -> np.ndarray:
    """Predictions of a ridge regression whose penalty is chosen on the training tiles."""
    return make_pipeline(StandardScaler(), RidgeCV(ALPHAS)).fit(x_train, y_train).predict(x_test)


def tile_levels(images: np.ndarray, tile_px: int) -> np.ndarray:
    """Mean level of each tile, float64 [B * tiles, C]."""
    n, count = images.shape[0], images.shape[1] // tile_px
    cut = images[:, : count * tile_px, : count * tile_px].astype(np.float64)
    return cut.reshape(n, count, tile_px, count, tile_px, -1).mean((2, 4)).reshape(n * count * count, -1)


def cells_of_tiles(setting: Setting, centre: int, tile_px: int, tree: KDTree) -> list[list[np.ndarray]]:
    """Cells of each tile of a patch, and those within one more half tile around it."""
    count, um = setting.bundle.config.patch_px // tile_px, tile_px * setting.um
    start = -setting.bundle.config.patch_um / 2 + (np.arange(count) + 0.5) * um
    offsets = np.stack(np.meshgrid(start, start, indexing="ij")[::-1], -1).reshape(-1, 2)
    places = setting.xy_um_N2[centre] + offsets
    return [
        [np.sort(np.asarray(rows, np.int64)) for rows in tree.query_ball_point(places, reach, p=np.inf)]
        for reach in (um / 2, um)
    ]


def tile_genes(setting: Setting, centres: np.ndarray, tile_px: int) -> np.ndarray:
    """Log of the mean counts of the cells of each tile and of those around it, and their numbers."""
    tree, parts, n_genes = KDTree(setting.xy_um_N2), [], len(setting.data.genes)
    counts = setting.data.counts_in_memory()
    for centre in centres:
        columns = []
        for near in cells_of_tiles(setting, centre, tile_px, tree):
            sums = [counts[rows].sum(0) if len(rows) else np.zeros(n_genes) for rows in near]
            number = np.array([len(rows) for rows in near])
            columns += [np.log1p(np.array(sums) / np.maximum(number, 1)[:, None]), np.log1p(number)[:, None]]
        parts.append(np.concatenate(columns, 1))
    return np.concatenate(parts)


def tile_outlines(setting: Setting, centres: np.ndarray, tile_px: int) -> np.ndarray:
    """What outlines say of each tile: its share that cells cover, and the mean area of its cells and of those around it."""
    cells = setting.cells_of(centres, -30 / setting.um)
    side_px = setting.bundle.config.patch_px
    covered = np.stack([label_image(cells, b, side_px, 2 / setting.um) > 0 for b in range(len(centres))])
    columns = [tile_levels(covered[..., None], tile_px)]
    if setting.data.outline_um is not None:
        area_N, tree = polygon_areas(setting.data.outline_um), KDTree(setting.xy_um_N2)
        near = [cells_of_tiles(setting, centre, tile_px, tree) for centre in centres]
        for reach in range(2):
            means = [area_N[rows].mean() if len(rows) else 0.0 for one in near for rows in one[reach]]
            columns.append(np.log1p(np.array(means))[:, None])
    return np.concatenate(columns, 1)


def polygon_areas(outline_NV2: np.ndarray) -> np.ndarray:
    """Area of each polygon by the shoelace formula, [N]."""
    x, y = np.moveaxis(outline_NV2.astype(np.float64), -1, 0)
    return np.abs((x * np.roll(y, -1, 1) - y * np.roll(x, -1, 1)).sum(1)) / 2
