"""Pixels of the files of a slide, from the output tiles of its work."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from sge2hist.data.generated import NOTE
from sge2hist.data.slides.slide_writer import TILE_PX
from sge2hist.generation.slide.job import SlideJob
from sge2hist.generation.slide.tile_store import TileIndex

UNCERTAINTY_SCALE = 4  # stored grey levels per grey level of spread


def written_tiles(job: SlideJob, read: Callable[[TileIndex], np.ndarray], n_channels: int) -> Iterator[np.ndarray]:
    """Tiles of the written slide, row-major, cut from output tiles: uint8 [TILE_PX, TILE_PX, C]."""
    x, y, width, height = job.spec.region_px
    size = job.lattice.output_tile_side * job.lattice.downsampling
    for top in range(y, y + height, TILE_PX):
        for left in range(x, x + width, TILE_PX):
            bottom, right = min(top + TILE_PX, y + height), min(left + TILE_PX, x + width)
            out = np.full((TILE_PX, TILE_PX, n_channels), 255, np.uint8)
            for i in range(top // size, -(-bottom // size)):
                for j in range(left // size, -(-right // size)):
                    y0, y1 = max(top, i * size), min(bottom, (i + 1) * size)
                    x0, x1 = max(left, j * size), min(right, (j + 1) * size)
                    pixels = read((i, j))[y0 - i * size : y1 - i * size, x0 - j * size : x1 - j * size]
                    out[y0 - top : y1 - top, x0 - left : x1 - left] = pixels
            yield out


def spread_over_seeds(job: SlideJob, tile: TileIndex) -> np.ndarray:
    """Standard deviation over seeds, mean of the channels, in UNCERTAINTY_SCALE steps per grey level; uint8 [P, P, 3]."""
    files = [job.worker(seed).output_file(tile) for seed in job.spec.seeds]
    spread = np.stack([np.load(file) for file in files]).astype(np.float32).std(axis=0, ddof=1).mean(axis=-1)
    grey = (spread * UNCERTAINTY_SCALE).round().clip(0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)


def uncertainty_note(n_seeds: int) -> str:
    """Description in the file of the uncertainty."""
    return f"spread over {n_seeds} seeds, {UNCERTAINTY_SCALE} per grey level; {NOTE}"
