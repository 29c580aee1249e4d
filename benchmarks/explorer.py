"""Latency of the explorer: from an edit to the preview and to the full image, over HTTP; memory over many edits.

    python benchmarks/explorer.py pretrained:kidney --data kidney.paired --edits 100

Prints the median and the 95 % quantile in seconds, of the clock and of the processor, with the load of the machine.
"""

from __future__ import annotations

import argparse
import os
import time

import numpy as np
import torch
from explorer_client import Client

import sge2hist
from sge2hist.data.paired import PairedDataset

COLUMNS = {
    "preview": "preview, clock s",
    "preview processor": "preview, processor s",
    "full": "full image, clock s",
    "full processor": "full image, processor s",
    "correlation": "correlation of both over 8 um",
}


def render(client: Client, target: dict, **options: object) -> dict[str, float]:
    """Seconds to each stage, of the clock and of the processor, and the correlation of the preview."""
    out, clock, processor = {}, time.perf_counter(), time.process_time()
    for line in client.lines("POST", f"{client.session}/render", {"target": target, **options}):
        stage = line["stage"]
        if stage == "error":
            raise SystemExit(line["error"]["message"])
        out.setdefault(stage, time.perf_counter() - clock)
        out.setdefault(f"{stage} processor", time.process_time() - processor)
        if line.get("preview_correlation") is not None:
            out["correlation"] = line["preview_correlation"]
    return out


def resident_mb() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def report(name: str, rows: list[dict[str, float]]) -> None:
    """Print a row of the table: medians, with the 95 % quantile of times and the 5 % quantile of correlations."""
    cells = []
    for key in COLUMNS:
        values = np.array([row[key] for row in rows if key in row])
        edge = np.quantile(values, 0.05 if key == "correlation" else 0.95)
        cells.append(f"{np.median(values):.2f} ({edge:.2f})")
    print(f"| {name} (n = {len(rows)}) | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", required=True)
    parser.add_argument("--edits", type=int, default=100)
    parser.add_argument("--regions", type=int, default=10)
    parser.add_argument("--region-um", type=float, default=256.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    dataset = PairedDataset.open(args.data)
    start = time.perf_counter(), time.process_time()
    explorer = sge2hist.explore(args.model, dataset)
    print(f"start: {time.perf_counter() - start[0]:.1f} s, processor {time.process_time() - start[1]:.1f} s")
    print(
        f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, {resident_mb():.0f} MB"
    )
    client, rng = Client(explorer.url), np.random.default_rng(args.seed)
    genes = [gene["symbol"] for gene in client("GET", "api/genes?limit=50")["genes"] if gene["in_model"]]
    xy = dataset.centre_xy_px * dataset.um_per_px
    side = args.region_um
    low, high = np.quantile(xy, 0.1, axis=0), np.quantile(xy, 0.9, axis=0) - side

    def edit(scope: dict) -> None:
        action = {"gene": str(rng.choice(genes)), "factor": round(float(rng.uniform(0, 4)), 2)}
        client("PUT", f"{client.session}/edits", {"edits": [{"scope": scope, "action": action}]})

    first, patches, regions, memory = [], [], [], [resident_mb()]
    for number in range(args.edits):
        if number % 10 == 0:  # a new cell: its image before edits is generated as well
            cell = str(rng.choice(dataset.obs.index))
            client("PUT", f"{client.session}/edits", {"edits": []})
            first.append(render(client, {"cell": cell}))
        edit({"cell": cell})
        patches.append(render(client, {"cell": cell}))
    print(f"| median (95 % of times, 5 % of correlations) | {' | '.join(COLUMNS.values())} |")
    print(f"{'|---' * (1 + len(COLUMNS))}|")
    report("patch before edits", first)
    report("patch after an edit", patches)
    memory.append(resident_mb())
    for number in range(args.regions):
        if number % 5 == 0:
            x, y = (float(v) for v in rng.uniform(low, high))
            client("PUT", f"{client.session}/edits", {"edits": []})
            render(client, {"region_um": [x, y, side, side]})
        edit({"rectangle_um": [x, y, side, side]})
        regions.append(render(client, {"region_um": [x, y, side, side]}))
    if regions:
        report(f"region of {side:g} um after an edit", regions)
    memory.append(resident_mb())
    print("\n| memory, MB | at the start | after the edits of patches | at the end |\n|---|---|---|---|")
    load = f"{torch.get_num_threads()} thread(s), load {os.getloadavg()[0]:.1f} at the end"
    print(f"| {load} | {' | '.join(f'{value:,.0f}' for value in memory)} |")
    explorer.close()


if __name__ == "__main__":
    main()
