"""Preparation of a synthetic Visium HD run: ours against loading everything with scanpy.

    python benchmarks/prepare.py --scales 0.03 0.06 0.125     # full size: --scales 1 (6.3 M bins, 120 M non-zeros)

Each measurement runs in a process of its own; wall time, processor time and peak memory are its own. Processor time is
what to compare on a machine that does other things as well.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np


def ours_cells(outs: Path, image: Path, _scratch: Path) -> int:
    """2 um bins and polygons -> counts of cells, streamed."""
    from sge2hist.pairing.cells import cells_of_section
    from sge2hist.pairing.config import CellsConfig
    from sge2hist.readers import open_sections

    (section,) = open_sections(outs, image=image, bin_um=2)
    cells = cells_of_section(section, config=CellsConfig(method="segmentation"), folder=outs)
    return int(cells.read_counts(None, None).sum())


def ours_prepare(outs: Path, image: Path, scratch: Path) -> int:
    """The whole preparation with its alignment report, written to disk."""
    from sge2hist.pairing.config import CellsConfig, PrepareConfig
    from sge2hist.pairing.prepare import prepare

    cells = CellsConfig(method="segmentation")
    config = PrepareConfig(bin_um=2, cells=cells, types="none", min_counts=1, min_genes=1)
    return len(prepare(outs, scratch / "out.paired", config, images=image, log=lambda line: None))


def naive_cells(outs: Path, _image: Path, _scratch: Path) -> int:
    """Everything into memory with scanpy and pandas, polygons one by one, then one sparse product."""
    import pandas as pd
    import scanpy
    from scipy.sparse import csr_matrix
    from skimage.draw import polygon

    square = outs / "binned_outputs" / "square_002um"
    table = scanpy.read_10x_h5(square / "filtered_feature_bc_matrix.h5")
    positions = pd.read_parquet(square / "spatial" / "tissue_positions.parquet").set_index("barcode")
    positions = positions.loc[table.obs_names]
    shapes = json.loads((outs / "segmented_outputs" / "cell_segmentations.geojson").read_text())["features"]
    size = int(positions[["pxl_row_in_fullres", "pxl_col_in_fullres"]].to_numpy().max()) + 20
    label = np.zeros((size, size), np.int32)
    for shape in shapes:
        ring = np.array(shape["geometry"]["coordinates"][0])
        rows, columns = polygon(ring[:, 1] - 0.5, ring[:, 0] - 0.5, label.shape)
        label[rows, columns] = shape["properties"]["cell_id"]
    at = positions[["pxl_row_in_fullres", "pxl_col_in_fullres"]].to_numpy().astype(int)
    cell = label[at[:, 0], at[:, 1]]
    kept = np.flatnonzero(cell)
    summing = csr_matrix((np.ones(len(kept)), (cell[kept] - 1, kept)), shape=(len(shapes), table.n_obs))
    return int((summing @ table.X).sum())


WAYS = {
    "counts of cells with scanpy, all in memory": naive_cells,
    "counts of cells, streamed": ours_cells,
    "whole `prepare`": ours_prepare,
}


def measure(way: str, outs: Path, image: Path) -> dict[str, float]:
    """Run one way in a fresh process."""
    command = [sys.executable, __file__, "--child", way, str(outs), str(image)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def child(way: str, outs: Path, image: Path) -> None:
    """Print time, peak memory and the answer as JSON."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        answer = WAYS[way](outs, image, Path(scratch))
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(
        json.dumps(
            {
                "wall_s": time.perf_counter() - started,
                "cpu_s": usage.ru_utime + usage.ru_stime,
                "peak_gb": usage.ru_maxrss * 1024 / 1e9,
                "answer": answer,
            }
        )
    )


def main() -> None:
    """Print one row per way and size; `answer`: the sum of all counts, or the number of cells of the whole preparation."""
    from prepare_folder import FULL_BINS, FULL_NONZEROS, write_folder

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scales", type=float, nargs="+", default=[0.03, 0.06, 0.125], help="shares of the full size")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--folder", type=Path, help="where the synthetic run is written (a temporary folder)")
    arguments = parser.parse_args()
    print("| million bins | million values | way | CPU s | wall s | peak GB | answer |\n|---|---|---|---|---|---|---|")
    for scale in arguments.scales:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as root:
            outs, image = write_folder(Path(root), scale)
            results = {way: measure(way, outs, image) for way in arguments.ways}
        for way, r in results.items():
            size = f"{scale * FULL_BINS / 1e6:.2f} | {scale * FULL_NONZEROS / 1e6:.0f}"
            print(
                f"| {size} | {way} | {r['cpu_s']:.1f} | {r['wall_s']:.1f} | {r['peak_gb']:.2f} | {r['answer']:,} |",
                flush=True,
            )


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == "--child":
        child(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
    else:
        main()
