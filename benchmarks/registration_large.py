"""Automatic registration of an image of 450 megapixels to the cells of a Xenium folder: processor time and peak memory.

    python benchmarks/registration_large.py xenium_pancreas --side-px 21000 [--pyramid]

The image is a virtual H&E (`virtual_sections`), enlarged to the size asked for and written as a tiled OME-TIFF (JPEG) to a
temporary folder that is deleted afterwards; a process of its own registers it. Without --pyramid it has one level, and all of
it is decoded for a first look.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from virtual_sections import Truth, errors_um, virtual_image

TILE_PX = 1024
SIDE_UM = 4462.5  # 21,000 px of 0.2125 um
LEVELS = 6


def tiles(pixels_HWC: np.ndarray, side_px: int) -> Iterator[np.ndarray]:
    """Tiles of the image enlarged to `side_px` squared, nearest pixel, row by row."""
    at = np.minimum((np.arange(side_px) * (pixels_HWC.shape[0] / side_px)).astype(int), pixels_HWC.shape[0] - 1)
    for top in range(0, side_px, TILE_PX):
        for left in range(0, side_px, TILE_PX):
            yield pixels_HWC[at[top : top + TILE_PX][:, None], at[left : left + TILE_PX][None]]


def write(pixels_HWC: np.ndarray, side_px: int, um_per_px: float, path: Path, *, pyramid: bool) -> None:
    """The enlarged image as an OME-TIFF."""
    import tifffile

    options = {"tile": (TILE_PX, TILE_PX), "compression": "jpeg", "photometric": "rgb", "dtype": np.uint8}
    metadata = {"axes": "YXS", "PhysicalSizeX": um_per_px, "PhysicalSizeY": um_per_px}
    n_levels = LEVELS if pyramid else 1
    with tifffile.TiffWriter(path, bigtiff=True, ome=True) as tiff:
        for level in range(n_levels):
            side = side_px >> level
            more = {"subifds": n_levels - 1, "metadata": metadata} if level == 0 else {"subfiletype": 1}
            tiff.write(tiles(pixels_HWC, side), shape=(side, side, 3), **options, **more)


def register_file(path: Path, um_per_px: float, xy_um: np.ndarray) -> tuple[np.ndarray, dict[str, float]]:
    """The map, and what it took, in the process that calls it."""
    from sge2hist.data.slides.slide_image import SlideImage
    from sge2hist.pairing.alignment.automatic import register
    from sge2hist.pairing.alignment.nuclear_map import ImageNuclei, PointNuclei

    before, cpu, wall = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time(), time.perf_counter()
    cells = PointNuclei(xy_um, 1.0, sigma_um=3.0)
    image = ImageNuclei(SlideImage.open(path), um_per_px)
    found = register(cells, image, n_cells=len(xy_um), scale_is_stated=True, where=str(path))
    return found.matrix, {
        "cpu_s": time.process_time() - cpu,
        "wall_s": time.perf_counter() - wall,
        "peak_MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
        "peak_before_MB": before / 1e3,
    }


def measure(folder: Path, side_px: int, *, pyramid: bool, seed: int) -> dict[str, float]:
    """Write, register, compare with the truth."""
    truth = Truth(folder)
    image = virtual_image(truth, seed, size_um=(SIDE_UM, SIDE_UM), centre_um=truth.size_um / 2)
    enlarged = side_px / image.pixels_HWC.shape[0]
    with tempfile.TemporaryDirectory() as temporary, ProcessPoolExecutor(1, get_context("spawn")) as pool:
        path = Path(temporary) / "large.ome.tif"
        write(image.pixels_HWC, side_px, SIDE_UM / side_px, path, pyramid=pyramid)
        size = {"megapixels": side_px**2 / 1e6, "pyramid": pyramid, "file_MB": path.stat().st_size / 1e6}
        matrix, took = pool.submit(register_file, path, SIDE_UM / side_px, truth.xy_um).result()
    error, n = errors_um(np.diag([1 / enlarged, 1 / enlarged, 1]) @ matrix, image, truth)
    return {**size, **took, "median_um": float(np.median(error)), "max_um": float(error.max()), "cells": n}


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="Xenium folder with its morphology image")
    parser.add_argument("--side-px", type=int, default=21_000)
    parser.add_argument("--pyramid", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.folder, arguments.side_px, pyramid=arguments.pyramid, seed=arguments.seed)))


if __name__ == "__main__":
    main()
