"""Run a nucleus segmenter over a slide of any size: tiles with a halo, several processes, bounded memory.

Each tile is read with a halo around it, so that nuclei on its border are complete; a nucleus belongs to the tile
that holds its centre of mass, so that it appears once. A tile returns runs (see `label_rle`), not pixels.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Protocol

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.data.slides.slide_image import SlideImage
from sge2hist.pairing.segmentation.label_rle import LabelRuns, Runs, join_runs, runs_of_labels
from sge2hist.threads import available_threads

Progress = Callable[[int, int], None]  # tiles done, tiles in all


class Segmenter(Protocol):
    """Finds nuclei in one image: uint8 [H, W, 3] at `um_per_px` -> int32 labels [H, W], 0 = none."""

    um_per_px: float
    parallel: bool  # may be sent to other processes

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Label the nuclei."""
        ...


@dataclass(frozen=True, kw_only=True)
class TilingConfig:
    """How a slide is cut for segmentation."""

    tile_px: int = 1024  # side of a tile, in px of the segmenter's resolution; sets the memory of each process
    halo_um: float = (
        32.0  # margin of a tile: more than the receptive radius of the segmenter and half of the largest nucleus
    )
    processes: int = 0  # 0 = one for each available thread; 1 = in this process
    white_level: int = 225  # a tile whose 1st percentile of green is brighter holds no tissue and is skipped

    def __post_init__(self) -> None:
        if self.tile_px < 64 or self.halo_um < 0 or self.processes < 0 or not 0 <= self.white_level <= 255:
            raise InputError(
                found=f"{self}",
                where="TilingConfig",
                expected="tile_px >= 64, halo_um >= 0, processes >= 0, white_level 0-255",
            )


@dataclass(frozen=True)
class _Tile:
    """A tile in px of the segmenter's resolution: the core [left, right) x [top, bottom) and the halo around it."""

    left: int
    top: int
    right: int
    bottom: int
    halo: int


def segment_slide(
    slide: SlideImage,
    um_per_px: float,
    segmenter: Segmenter,
    *,
    config: TilingConfig | None = None,
    progress: Progress | None = None,
) -> LabelRuns:
    """Find the nuclei of a whole slide.

    Parameters
    ----------
    slide
        The H&E image, in memory or read by tiles.
    um_per_px
        Pixel side of the slide in um; tiles are resampled to the segmenter's resolution.
    segmenter
        See `Segmenter`. With several processes a script that calls this needs the usual
        ``if __name__ == "__main__":`` guard then.
    config
        Tiles and processes.
    progress
        Called with (tiles done, tiles in all) from this process.

    Returns
    -------
    LabelRuns
        One label per nucleus, numbered along tiles in reading order; look up positions in slide px with `at`.
        The result does not depend on the number of processes.
    """
    config = config or TilingConfig()
    if not (np.isfinite(um_per_px) and um_per_px > 0):
        raise InputError(found=f"{um_per_px} um per px", where=str(slide.path), expected="a positive number")
    step = segmenter.um_per_px / um_per_px  # slide px per px of the segmenter
    width, height = max(1, round(slide.width_px / step)), max(1, round(slide.height_px / step))
    tiles = list(_tiles(width, height, config, halo=round(config.halo_um / segmenter.um_per_px)))
    n_processes = min(config.processes or available_threads(), len(tiles)) if segmenter.parallel else 1
    report = progress or (lambda done, n_tiles: None)
    parts: list[Runs] = []
    n_labels = 0
    for done, (runs, n_nuclei) in enumerate(_results(slide, step, tiles, segmenter, config, n_processes), start=1):
        row, start, stop, label = runs
        parts.append((row, start, stop, label + n_labels))
        n_labels += n_nuclei
        report(done, len(tiles))
    return join_runs(parts, width_px=width, height_px=height, n_labels=n_labels, image_px=step)


def _tiles(width: int, height: int, config: TilingConfig, *, halo: int) -> Iterator[_Tile]:
    for top in range(0, height, config.tile_px):
        for left in range(0, width, config.tile_px):
            yield _Tile(left, top, min(left + config.tile_px, width), min(top + config.tile_px, height), halo)


def _results(
    slide: SlideImage, step: float, tiles: list[_Tile], segmenter: Segmenter, config: TilingConfig, n_processes: int
) -> Iterator[tuple[Runs, int]]:
    """Segment tiles in order; this process reads, the others segment, and few tiles wait in between."""
    pixels = ((tile, _read(slide, step, tile)) for tile in tiles)
    if n_processes == 1:
        yield from (_segment_tile(image, tile, segmenter, config.white_level) for tile, image in pixels)
        return
    waiting: deque[Future[tuple[Runs, int]]] = deque()
    with ProcessPoolExecutor(n_processes, get_context("spawn")) as pool:
        for tile, image in pixels:
            waiting.append(pool.submit(_segment_in_worker, image, tile, segmenter, config.white_level))
            if len(waiting) > 2 * n_processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _read(slide: SlideImage, step: float, tile: _Tile) -> np.ndarray:
    left, top = tile.left - tile.halo, tile.top - tile.halo
    width, height = tile.right + tile.halo - left, tile.bottom + tile.halo - top
    if step == 1:
        return slide.read(left, top, width, height)
    return slide.read_window(left * step, top * step, width * step, height * step, width, height)


def _segment_in_worker(image: np.ndarray, tile: _Tile, segmenter: Segmenter, white_level: int) -> tuple[Runs, int]:
    """One tile in a worker process: one thread each, because the processes share the cores already."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    return _segment_tile(image, tile, segmenter, white_level)


def _segment_tile(image: np.ndarray, tile: _Tile, segmenter: Segmenter, white_level: int) -> tuple[Runs, int]:
    """Runs of the nuclei whose centre of mass lies in the core, in px of the whole slide, and their number."""
    if np.percentile(image[::4, ::4, 1], 1) > white_level:
        return (np.empty(0, np.int32),) * 4, 0
    row, start, stop, label = runs_of_labels(segmenter(image))
    row, start, stop = row + (tile.top - tile.halo), start + (tile.left - tile.halo), stop + (tile.left - tile.halo)
    n_labels = int(label.max(initial=-1)) + 1
    length = (stop - start).astype(float)
    area = np.bincount(label, length, minlength=n_labels)
    x = np.bincount(label, length * (start + stop) / 2, minlength=n_labels) / np.maximum(area, 1)
    y = np.bincount(label, length * (row + 0.5), minlength=n_labels) / np.maximum(area, 1)
    own = (x >= tile.left) & (x < tile.right) & (y >= tile.top) & (y < tile.bottom) & (area > 0)
    number = np.cumsum(own) - 1
    keep = own[label]
    columns = (row[keep], start[keep], stop[keep], number[label[keep]])
    return tuple(column.astype(np.int32) for column in columns), int(own.sum())  # type: ignore[return-value]
