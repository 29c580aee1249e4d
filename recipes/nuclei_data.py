"""The two public sets of labelled nuclei, brought to 0.5 um/px and split into training and held-out parts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import shapely
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from skimage.draw import polygon
from skimage.io import imread
from skimage.transform import resize

from sge2hist.pairing.segmentation.network_training import LabelledTile

# Median nucleus diameter at 0.5 um/px: 8.5 um, that of the histolytics images. The tiles of nuclei_he come without
# um/px and with magnifications that differ five times, so each source slide is scaled until its median nucleus has
# this size.
TYPICAL_DIAMETER_PX = 17.0


@dataclass(frozen=True)
class SplitTiles:
    """Training and held-out tiles of one set."""

    train: list[LabelledTile]
    held_out: list[LabelledTile]


def read_nuclei_he(folder: Path, *, held_out_share: float = 0.3, seed: int = 0) -> SplitTiles:
    """107 tiles of Data Science Bowl 2018; whole source slides are held out until they make up the share asked for."""
    paths = sorted(folder.glob("*_image.png"))
    images = [imread(path)[..., :3] for path in paths]
    labels = [imread(path.with_name(path.name.replace("_image", "_labels"))).astype(np.int32) for path in paths]
    slide_of_tile = neighbouring_tiles(np.stack(images))
    order = np.random.default_rng(seed).permutation(slide_of_tile.max() + 1)
    sizes = np.bincount(slide_of_tile)[order]
    held_out_slides = order[: np.searchsorted(np.cumsum(sizes), held_out_share * len(paths)) + 1]
    parts: dict[bool, list[LabelledTile]] = {True: [], False: []}
    for slide in np.unique(slide_of_tile):
        rows = np.flatnonzero(slide_of_tile == slide)
        areas = np.concatenate([np.bincount(labels[row].ravel())[1:] for row in rows])
        scale = TYPICAL_DIAMETER_PX / np.sqrt(4 / np.pi * np.median(areas[areas > 0]))
        for row in rows:
            parts[slide in held_out_slides].append(
                LabelledTile(_scaled(images[row], scale), _scaled_labels(labels[row], scale), f"slide {slide}")
            )
    return SplitTiles(parts[False], parts[True])


def neighbouring_tiles(images: np.ndarray, *, step: float = 0.95, uniqueness: float = 0.4) -> np.ndarray:
    """Source slide of each tile [N], found by tiles whose edges continue each other.

    Many tiles of this set are cut side by side from the same field. Two tiles belong together when the step over
    their common edge is smaller than the step between the last two rows (or columns) inside one of them, and the next
    best partner is far worse.
    """
    n_tiles, pixels = len(images), images.astype(np.float32)
    links = []
    for axis in (1, 2):
        last, before, first = (np.take(pixels, index, axis) for index in (-1, -2, 0))
        inside = np.abs(last - before).mean((1, 2))
        for tile in range(n_tiles):
            over = np.abs(last[tile] - first).mean((1, 2))
            over[tile] = np.inf
            best, second = np.partition(over, 1)[:2]
            if best < step * (inside[tile] + 0.5) and best < uniqueness * second:
                links.append((tile, int(over.argmin())))
    rows, columns = np.array(links).T
    graph = coo_array((np.ones(len(links)), (rows, columns)), shape=(n_tiles, n_tiles))
    return connected_components(graph, directed=False)[1]


def read_histolytics(folder: Path) -> SplitTiles:
    """Two H&E images of 1500 px at 0.5 um/px with 1,718 nuclei; the lower right quarter of each is held out."""
    train, held_out = [], []
    for image_name, nuclei_name in (
        ("hgsc_nest.jpg", "hgsc_nest.parquet"),
        ("hgsc_stromal_he.jpg", "hgsc_stromal_cells.parquet"),
    ):
        image = imread(folder / image_name)
        outlines = shapely.from_wkb(pq.read_table(folder / nuclei_name)["geometry"].to_pylist())
        labels = np.zeros(image.shape[:2], np.int32)
        for index, outline in enumerate(shapely.get_parts(outlines), start=1):
            x, y = np.asarray(outline.exterior.coords).T
            # vertices are given at pixel centres of the pixels with x, y in [0, side)
            labels[polygon(y, x, labels.shape)] = index
        middle = image.shape[0] // 2
        for rows, columns in ((0, 0), (0, 1), (1, 0), (1, 1)):
            part = np.s_[rows * middle : (rows + 1) * middle, columns * middle : (columns + 1) * middle]
            (held_out if rows and columns else train).append(
                LabelledTile(image[part], _renumbered(labels[part]), image_name)
            )
    return SplitTiles(train, held_out)


def _renumbered(labels: np.ndarray) -> np.ndarray:
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.int32)


def _scaled(image: np.ndarray, scale: float) -> np.ndarray:
    shape = [round(side * scale) for side in image.shape[:2]]
    return (resize(image, shape, order=1, anti_aliasing=scale < 1) * 255).round().astype(np.uint8)


def _scaled_labels(labels: np.ndarray, scale: float) -> np.ndarray:
    shape = [round(side * scale) for side in labels.shape]
    return _renumbered(resize(labels, shape, order=0, preserve_range=True, anti_aliasing=False).astype(np.int32))
