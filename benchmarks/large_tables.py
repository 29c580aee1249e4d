"""Reading what large imaging runs write: a CosMx table of counts, and the mosaic of a MERSCOPE run.

    python benchmarks/large_tables.py table --cells 5000 20000 --genes 19000 --folder /tmp/large
    python benchmarks/large_tables.py mosaic --side 8192 20000 --folder /tmp/large

`table` writes a gzipped flat file of `--cells` x `--genes` counts, `--values` of them above zero in each cell, and reads it as
`prepare` does. `mosaic` writes a tiled 16-bit TIFF of `--side` px, dark but for a nucleus every 200 px, and reads all of it at
half its resolution, and 100 patches. Both print, for each size, processor seconds and the peak memory of reading, in a process of
its own.
"""

from __future__ import annotations

import argparse
import gzip
import multiprocessing
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

ROWS_AT_ONCE = 500
MEGABYTE = 1024


def write_table(path: Path, n_cells: int, n_genes: int, n_values: int) -> None:
    """One-digit counts: every row is as long as the next, so that a block of rows is written as one array."""
    rng = np.random.default_rng(0)
    header = ",".join(["fov", "cell_ID", *(f"GENE{gene}" for gene in range(n_genes))])
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(header.encode() + b"\n")
        for first in range(0, n_cells, ROWS_AT_ONCE):
            n_rows = min(ROWS_AT_ONCE, n_cells - first)
            rows = np.full((n_rows, 2 * n_genes), ord(","), np.uint8)
            rows[:, 1::2] = ord("0")
            column = rng.integers(0, n_genes, (n_rows, n_values))
            rows[np.arange(n_rows)[:, None], 1 + 2 * column] = rng.integers(ord("1"), ord("9") + 1, column.shape)
            for number, row in enumerate(rows, start=first):
                file.write(b"%d,%d" % (1 + number // 1000, 1 + number % 1000) + row.tobytes() + b"\n")


def read_table(path: Path, n_cells: int) -> str:
    """Read the counts of all cells, by group as `prepare` asks for them."""
    import pandas as pd

    from sge2hist.readers.dense_counts import DenseCounts
    from sge2hist.readers.nanostring.cosmx_tables import is_control, keys, keys_of

    number = np.arange(n_cells)
    key = pd.Index(keys(1 + number // 1000, 1 + number % 1000))
    table = DenseCounts.open(path, id_columns=("fov", "cell_ID"), is_control=is_control, n_ids=1)
    read = table.reader(lambda ids: key.get_indexer(pd.Index(keys_of(ids, path))), n_cells)
    counts = read(number, n_cells)
    return f"{counts.shape[0]:,} cells x {counts.shape[1]:,} genes, {counts.nnz:,} values"


def write_mosaic(path: Path, side: int) -> None:
    """Tiles of 1,024 px, as the instrument writes them."""
    import tifffile

    tile = np.zeros((1024, 1024), np.uint16)
    y, x = np.mgrid[:1024, :1024]
    tile[((x % 200 - 100) ** 2 + (y % 200 - 100) ** 2) < 900] = 4000
    n_tiles = (-(-side // 1024)) ** 2
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        file.write(
            (tile for _ in range(n_tiles)),
            shape=(side, side),
            dtype=np.uint16,
            tile=(1024, 1024),
            compression="deflate",
        )


def read_mosaic(path: Path, side: int) -> str:
    """All pixels once, and patches at random places."""
    from sge2hist.data.slides.slide_image import SlideImage

    slide = SlideImage.open(path, channels=("DAPI",))
    (height, width), tiles = slide.resampled_tiles(0.108, 0.216, 1024)
    total = sum(int(tile.size) for tile in tiles)
    rng = np.random.default_rng(0)
    for centre in rng.uniform(300, side - 300, (100, 2)):
        slide.read_patch(centre, 32.0, 64, 0.108)
    return f"{side:,} x {side:,} px to {width:,} x {height:,}, {total:,} levels, 100 patches"


def measured(read: Callable[[Path, int], str], path: Path, size: int) -> str:
    """A row of the table: processor seconds of reading, and the peak memory of this process, imports included."""
    begun, wall = time.process_time(), time.perf_counter()
    text = read(path, size)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MEGABYTE
    seconds, waited = time.process_time() - begun, time.perf_counter() - wall
    return f"| {text} | {path.stat().st_size / 1e6:,.0f} | {seconds:.1f} | {waited:.1f} | {peak:,.0f} |"


def main() -> None:
    """Write, then read."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("table", "mosaic"))
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--cells", type=int, nargs="+", default=[20_000])
    parser.add_argument("--genes", type=int, default=19_000)
    parser.add_argument("--values", type=int, default=300)
    parser.add_argument("--side", type=int, nargs="+", default=[20_000])
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    print("| read | file, MB | CPU s | clock, s | peak MB |\n|---|---|---|---|---|")
    for size in given.cells if given.what == "table" else given.side:
        if given.what == "table":
            path, read = given.folder / f"{size}_exprMat_file.csv.gz", read_table
            if not path.is_file():
                write_table(path, size, given.genes, given.values)
        else:
            path, read = given.folder / f"mosaic_{size}.tif", read_mosaic
            if not path.is_file():
                write_mosaic(path, size)
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as apart:
            print(apart.submit(measured, read, path, size).result(), flush=True)


if __name__ == "__main__":
    main()
