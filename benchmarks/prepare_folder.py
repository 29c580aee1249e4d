"""A synthetic Visium HD folder of any size: bins, counts, positions, polygons and a slide, in Space Ranger's layout."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sge2hist.data.slides.slide_writer import write_slide

FULL_SIDE = 3350  # bins along a side of the 2 um array
FULL_BINS, FULL_NONZEROS, FULL_CELLS = 6_300_000, 120_000_000, 60_000
N_GENES = 19_059
UM_PER_PX = 1.0
CELL_BINS = 6  # side of a square cell, in bins


def write_folder(folder: Path, scale: float, seed: int = 0) -> tuple[Path, Path]:
    """Write outs/ and he.tif with about `scale` times the full number of bins; returns both paths."""
    rng = np.random.default_rng(seed)
    side = int(FULL_SIDE * scale**0.5)
    square = folder / "outs" / "binned_outputs" / "square_002um"
    (square / "spatial").mkdir(parents=True)
    row, column = np.divmod(np.arange(side * side, dtype=np.int64), side)
    in_tissue = (row - side / 2) ** 2 + (column - side / 2) ** 2 < FULL_BINS / FULL_SIDE**2 / np.pi * side**2
    _write_positions(square / "spatial" / "tissue_positions.parquet", row, column, in_tissue)
    factors = {"spot_diameter_fullres": 2 / UM_PER_PX, "bin_size_um": 2.0, "microns_per_pixel": UM_PER_PX}
    (square / "spatial" / "scalefactors_json.json").write_text(json.dumps(factors))
    _write_matrix(square / "filtered_feature_bc_matrix.h5", row[in_tissue], column[in_tissue], rng)
    _write_polygons(folder / "outs" / "segmented_outputs" / "cell_segmentations.geojson", side, scale)
    pixels = rng.integers(120, 200, (2 * side, 2 * side, 3), dtype=np.uint8)
    write_slide(folder / "he.tif", pixels, UM_PER_PX)
    return folder / "outs", folder / "he.tif"


def barcode_bytes(row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """``s_002um_00001_00002-1`` for each bin, bytes [N]; digit by digit, since formatting millions takes minutes."""
    letters = np.tile(np.frombuffer(b"s_002um_00000_00000-1", np.uint8), (len(row), 1))
    for digit in range(5):
        letters[:, 12 - digit] += ((row // 10**digit) % 10).astype(np.uint8)
        letters[:, 18 - digit] += ((column // 10**digit) % 10).astype(np.uint8)
    return letters.view("S21").ravel()


def _write_positions(path: Path, row: np.ndarray, column: np.ndarray, in_tissue: np.ndarray) -> None:
    offsets = pa.array(np.arange(0, 21 * (len(row) + 1), 21, dtype=np.int32))
    letters = pa.py_buffer(barcode_bytes(row, column).tobytes())
    barcodes = pa.StringArray.from_buffers(len(row), offsets.buffers()[1], letters)
    table = pa.table(
        {
            "barcode": barcodes,
            "in_tissue": in_tissue.astype(np.uint8),
            "array_row": row.astype(np.uint32),
            "array_col": column.astype(np.uint32),
            "pxl_row_in_fullres": (row + 0.5) * 2 / UM_PER_PX,
            "pxl_col_in_fullres": (column + 0.5) * 2 / UM_PER_PX,
        }
    )
    pq.write_table(table, path)


def _write_matrix(path: Path, row: np.ndarray, column: np.ndarray, rng: np.random.Generator) -> None:
    n_bins = len(row)
    per_bin = rng.poisson(FULL_NONZEROS / FULL_BINS, n_bins)
    n_nonzero = int(per_bin.sum())
    options = {"compression": "gzip", "compression_opts": 1, "shuffle": True, "chunks": (80_000,)}
    with h5py.File(path, "w") as file:
        file.attrs.update({"filetype": "matrix", "version": 2, "software_version": "spaceranger-4.0.1"})
        matrix = file.create_group("matrix")
        matrix.create_dataset("barcodes", data=barcode_bytes(row, column), compression="gzip", compression_opts=1)
        matrix["indptr"] = np.concatenate([[0], np.cumsum(per_bin)])
        matrix["shape"] = np.array([N_GENES, n_bins], np.int32)
        data = matrix.create_dataset("data", (n_nonzero,), np.int32, **options)
        indices = matrix.create_dataset("indices", (n_nonzero,), np.int64, **options)
        for start in range(0, n_nonzero, 8_000_000):
            stop = min(start + 8_000_000, n_nonzero)
            data[start:stop] = 1 + rng.poisson(0.1, stop - start)
            # few genes carry most counts, as in tissue; the order within a bin does not matter to a reader
            indices[start:stop] = (N_GENES * rng.uniform(size=stop - start) ** 3).astype(np.int64)
        features = matrix.create_group("features")
        features["id"] = np.array([f"ENSG{gene:011d}" for gene in range(N_GENES)], "S")
        features["name"] = np.array([f"GENE{gene}" for gene in range(N_GENES)], "S")
        features["feature_type"] = np.array(["Gene Expression"] * N_GENES, "S")
        features["genome"] = np.array(["synthetic"] * N_GENES, "S")


def _write_polygons(path: Path, side: int, scale: float) -> None:
    path.parent.mkdir(parents=True)
    n_across = int((FULL_CELLS * scale) ** 0.5)
    first = (np.arange(n_across) * side / n_across).astype(int) + 1
    low, high = first * 2 / UM_PER_PX, (first + CELL_BINS) * 2 / UM_PER_PX
    features = []
    for i in range(n_across):
        for j in range(n_across):
            ring = [[low[j], low[i]], [high[j], low[i]], [high[j], high[i]], [low[j], high[i]], [low[j], low[i]]]
            features.append(
                {
                    "type": "Feature",
                    "geometry": {"type": "Polygon", "coordinates": [ring]},
                    "properties": {"cell_id": len(features) + 1},
                }
            )
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
