"""Latency of the explorer: from an edit to the preview and to the full image, over HTTP.

    python benchmarks/explorer.py pretrained:kidney --data kidney.paired --edits 100 --regions 10 --busy 1

Prints one table: patches and regions, on the machine as it is and, with `--busy 1`, beside a process that keeps a core busy.
About 5 minutes on two idle cores. The load that is printed says whether they were idle.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator

import numpy as np
import torch
from explorer_client import Client
from threads import busy_cores

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


def table_row(name: str, rows: list[dict[str, float]]) -> str:
    """Medians, with the 95 % quantile of times and the 5 % quantile of correlations."""
    cells = []
    for key in COLUMNS:
        values = [row[key] for row in rows if key in row]
        if values:
            median, edge = np.quantile(values, (0.5, 0.05 if key == "correlation" else 0.95))
        cells.append(f"{median:.2f} ({edge:.2f})" if values else "none")
    return f"| {name} (n = {len(rows)}) | {' | '.join(cells)} |"


class Person:
    """One tab in which cells and regions of random places are edited."""

    def __init__(self, client: Client, dataset: PairedDataset, rng: np.random.Generator) -> None:
        self.client, self.dataset, self.rng = client, dataset, rng
        self.genes = [gene["symbol"] for gene in client("GET", "api/genes?limit=50")["genes"] if gene["in_model"]]
        self.xy_um = dataset.centre_xy_px * dataset.um_per_px

    def _edits(self, *scopes: dict) -> None:
        edits = [
            {
                "scope": scope,
                "action": {"gene": str(self.rng.choice(self.genes)), "factor": round(float(self.rng.uniform(0, 4)), 2)},
            }
            for scope in scopes
        ]
        self.client("PUT", f"{self.client.session}/edits", {"edits": edits})

    def patches(self, n: int) -> Iterator[dict[str, float]]:
        """Ten edits of each cell; its image before edits is there."""
        for number in range(n):
            if number % 10 == 0:
                cell = str(self.rng.choice(self.dataset.obs.index))
                self._edits()
                render(self.client, {"cell": cell})
            self._edits({"cell": cell})
            yield render(self.client, {"cell": cell})

    def regions(self, n: int, side_um: float) -> Iterator[dict[str, float]]:
        """Five edits of all cells of each region."""
        low, high = np.quantile(self.xy_um, 0.1, axis=0), np.quantile(self.xy_um, 0.9, axis=0) - side_um
        for number in range(n):
            if number % 5 == 0:
                x, y = (float(v) for v in self.rng.uniform(low, high))
                self._edits()
                render(self.client, {"region_um": [x, y, side_um, side_um]})
            self._edits({"rectangle_um": [x, y, side_um, side_um]})
            yield render(self.client, {"region_um": [x, y, side_um, side_um]})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", required=True)
    parser.add_argument("--edits", type=int, default=100)
    parser.add_argument("--regions", type=int, default=10)
    parser.add_argument("--region-um", type=float, default=256.0)
    parser.add_argument(
        "--busy", type=int, default=0, help="once more beside so many processes that do nothing but run"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    dataset = PairedDataset.open(args.data)
    load, start = os.getloadavg()[0], (time.perf_counter(), time.process_time())
    explorer = sge2hist.explore(args.model, dataset)
    print(
        f"start: {time.perf_counter() - start[0]:.1f} s, processor {time.process_time() - start[1]:.1f} s", flush=True
    )
    rows, memory = [], {"at the start": resident_mb()}
    for busy in dict.fromkeys((0, args.busy)):
        beside = f", beside {busy} busy process" + "es" * (busy > 1) if busy else ""
        rng = np.random.default_rng([args.seed, busy])  # other edits: the server keeps its last images
        person = Person(Client(explorer.url), dataset, rng)
        with busy_cores(busy):
            for name, found in (
                ("patch after an edit", list(person.patches(args.edits))),
                (f"region of {args.region_um:g} um after an edit", list(person.regions(args.regions, args.region_um))),
            ):
                if found:
                    rows.append(table_row(name + beside, found))
        memory[f"after {len(rows)} rows of edits"] = resident_mb()
    explorer.close()
    print(f"| median (95 % of times, 5 % of correlations) | {' | '.join(COLUMNS.values())} |")
    print(f"{'|---' * (1 + len(COLUMNS))}|\n" + "\n".join(rows))
    print(f"\n| memory, MB | {' | '.join(memory)} |\n{'|---' * (1 + len(memory))}|")
    threads = f"load {load:.1f} before; patches 1 thread, regions {torch.get_num_threads()}"
    print(f"| {threads} | {' | '.join(f'{value:,.0f}' for value in memory.values())} |")


if __name__ == "__main__":
    main()
