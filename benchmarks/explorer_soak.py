"""An hour at the explorer: random edits of every kind from two tabs, and the memory of the server by the minute.

    python benchmarks/explorer_soak.py pretrained:kidney --data kidney.paired --minutes 60 -o soak.csv

With `--held held.jsonl` the server also logs what holds its memory (`explorer_memory.py`), and the growth since minute
`--held-since` is printed line by line of its code; it is slower then.

The server is a process of its own. What it refuses (a gene that a cell has no counts of) is counted; a fault of it (500), an
image that ends in an error, or its end fails the benchmark. The last lines are the memory at 5, 20, 40 and 60 minutes.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import numpy as np
from explorer_client import Client, Refused
from explorer_memory import growth

from sge2hist.data.paired import PairedDataset

REPORTED_MINUTES = (5, 20, 40, 60)
MAX_EDITS = 25  # of a list: then it is emptied
RELOAD = 0.01  # share of actions that begin a new session, as a tab that is loaded again does
COLOURS = ("type", "novelty", "posterior", "gene:")


def memory_mb(pid: int) -> tuple[float, float]:
    """Resident memory of a process, and what of it is no file."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    total, own = (float(fields[name].split()[0]) * 1024 / 1e6 for name in ("VmRSS", "RssAnon"))
    return total, own


class Tab:
    """A person who does random things, one after the other."""

    def __init__(self, url: str, dataset: PairedDataset, rng: np.random.Generator) -> None:
        self.url, self.dataset, self.rng = url, dataset, rng
        self.client = Client(url)
        self.xy_um = dataset.centre_xy_px * dataset.um_per_px
        self.genes = [g["symbol"] for g in self.client("GET", "api/genes?limit=80")["genes"] if g["in_model"]]
        info = self.client("GET", "api/info")
        self.types: list[str] = info["model"]["types"]
        self.outlines = int(info["data"]["outlines"])
        self.colours = info["colours"]
        self.seconds: dict[str, list[float]] = {}
        self.refused: Counter[str] = Counter()
        self.faults: list[str] = []
        self.n_edits = self.n_actions = 0
        self._go_to_a_place()

    def _go_to_a_place(self) -> None:
        number = int(self.rng.integers(len(self.xy_um)))
        self.place = self.xy_um[number]
        self.near = np.flatnonzero((np.abs(self.xy_um - self.place) < 60).all(1))

    def act(self) -> None:
        """One random action."""
        self.n_actions += 1
        if self.rng.random() < 0.05:
            self._go_to_a_place()
        if self.rng.random() < RELOAD:
            self.client, self.n_edits = Client(self.url), 0
        do = self.rng.choice(self.ACTIONS, p=np.array(self.WEIGHTS) / sum(self.WEIGHTS))
        start = time.perf_counter()
        try:
            do(self)
        except Refused as error:
            self.refused[f"{do.__name__.strip('_')} {error.status}"] += 1
            if error.status >= 500:
                self.faults.append(str(error))
        self.seconds.setdefault(do.__name__.strip("_"), []).append(time.perf_counter() - start)

    # --- edits -----------------------------------------------------------------------------------------------------

    def _edit(self, scope: dict | None, action: dict) -> None:
        if self.n_edits >= MAX_EDITS:
            self.client("PUT", f"{self.client.session}/edits", {"edits": []})
        body = {"action": action} if scope is None else {"scope": scope, "action": action}
        self.n_edits = len(self.client("POST", f"{self.client.session}/edits", body)["edits"])

    def _cell(self) -> str:
        return str(self.dataset.obs.index[int(self.rng.choice(self.near))])

    def _area(self, side: float = 80.0) -> dict:
        x, y = (float(v) for v in self.place + self.rng.uniform(-20, 20, 2))
        if self.rng.random() < 0.5:
            return {"rectangle_um": [x - side / 2, y - side / 2, side, side]}
        angles = np.sort(self.rng.uniform(0, 2 * np.pi, int(self.rng.integers(3, 40))))
        radius = side / 2 * self.rng.uniform(0.6, 1.0, len(angles))
        ring = np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], 1).round(1)
        return {"polygon_um": ring.tolist()}

    def _gene(self) -> str:
        return str(self.rng.choice(self.genes))

    def _type(self) -> str:
        return str(self.rng.choice(self.types))

    def _drag_a_gene(self) -> None:
        """A slider: the first move adds an edit, the others are merged into it."""
        gene, scope = self._gene(), {"cell": self._cell()}
        self._edit(scope, {"gene": gene, "factor": 1.2})
        key = self.client("GET", self.client.session)["edits"][-1]["id"]
        for _ in range(3):
            action = {"gene": gene, "factor": round(float(self.rng.uniform(0, 4)), 2)}
            body = {"scope": scope, "action": action, "merge": True}
            self.client("PUT", f"{self.client.session}/edits/{key}", body)

    def _set_counts(self) -> None:
        self._edit(self._area(), {"gene": self._gene(), "counts": int(self.rng.integers(0, 50))})

    def _gene_everywhere(self) -> None:
        self._edit({"everywhere": True}, {"gene": self._gene(), "factor": float(self.rng.integers(0, 4))})

    def _set_type(self) -> None:
        scope = {"cell": self._cell()} if self.rng.random() < 0.5 else self._area()
        self._edit(scope, {"set_type": self._type()})

    def _remove(self) -> None:
        self._edit({"cells": list({self._cell() for _ in range(4)})}, {"remove": True})

    def _move(self) -> None:
        self._edit({"cell": self._cell()}, {"move_um": self.rng.uniform(-15, 15, 2).round(1).tolist()})

    def _add_cells(self) -> None:
        if self.rng.random() < 0.5:
            points = (self.place + self.rng.uniform(-30, 30, (3, 2))).round(1).tolist()
            self._edit(None, {"add_type": self._type(), "at_um": points})
        else:
            self._edit(self._area(), {"add_type": self._type(), "spacing_um": 14})

    def _undo(self) -> None:
        for _ in range(int(self.rng.integers(1, 4))):
            self.client("POST", f"{self.client.session}/undo", {})

    def _redo(self) -> None:
        self.client("POST", f"{self.client.session}/redo", {})

    def _settings(self) -> None:
        body = {"seed": int(self.rng.integers(5)), "guidance": float(self.rng.choice([1.0, 2.0]))}
        self.client("PUT", f"{self.client.session}/settings", body)

    def _disable(self) -> None:
        edits = self.client("GET", self.client.session)["edits"]
        if edits:
            edit = edits[int(self.rng.integers(len(edits)))]
            self.client("PUT", f"{self.client.session}/edits/{edit['id']}", edit | {"enabled": not edit["enabled"]})

    def _round_trip(self) -> None:
        """Edits out as GeoJSON and in again."""
        content = json.loads(self.client.bytes("GET", f"{self.client.session}/export/edits"))
        self.client("POST", f"{self.client.session}/import", content)

    # --- images ----------------------------------------------------------------------------------------------------

    def _stages(self, path: str, body: dict, most: int = 1000) -> None:
        start = time.perf_counter()
        for number, line in enumerate(self.client.lines("POST", f"{self.client.session}/{path}", body)):
            stage = line["stage"]
            if stage == "error" and line["error"]["code"] == "failed":
                self.faults.append(str(line["error"]))
            if path == "render" and "cell" in body["target"]:
                self.seconds.setdefault(f"stage {stage} of a patch", []).append(time.perf_counter() - start)
            if number + 1 == most:
                return

    def _patch(self) -> None:
        self._stages("render", {"target": {"cell": self._cell()}})

    def _region(self) -> None:
        side = float(self.rng.uniform(60, 200))
        x, y = np.maximum(self.place - side / 2, 0).round(1)
        self._stages("render", {"target": {"region_um": [float(x), float(y), side, side]}})

    def _left_early(self) -> None:
        """The connection is closed after the preview."""
        self._stages("render", {"target": {"cell": self._cell()}}, 1)

    def _overtaken(self) -> None:
        """A newer request of the slot ends the one under way."""
        first = threading.Thread(target=self._patch)
        first.start()
        time.sleep(float(self.rng.uniform(0, 0.4)))
        self._patch()
        first.join()

    def _samples(self) -> None:
        self._stages("samples", {"cell": self._cell(), "n": 2})

    def _dose(self) -> None:
        self._stages("dose", {"cell": self._cell(), "genes": [self._gene()], "factors": [0, 1, 2, 4]})

    def _export_image(self) -> None:
        form = str(self.rng.choice(["png", "ome-tiff"]))
        body = {"target": {"cell": self._cell()}, "format": form}
        self.client.bytes("POST", f"{self.client.session}/export/image", body)

    def _export_command(self) -> None:
        target = quote(json.dumps({"cell": self._cell()}))
        self.client("GET", f"{self.client.session}/export/command?target={target}")

    # --- looking ---------------------------------------------------------------------------------------------------

    def _cells(self) -> None:
        side = float(self.rng.choice([150, 800, 20_000]))
        x, y = (self.place - side / 2).round(1)
        colour = str(self.rng.choice([c for c in COLOURS if c.rstrip(":") in self.colours]))
        colour = colour + self._gene() if colour == "gene:" else colour
        query = f"x={x}&y={y}&width={side}&height={side}&limit=5000&colour={quote(colour)}&outlines={self.outlines}"
        self.client("GET", f"{self.client.session}/cells?{query}")

    def _look_at_a_cell(self) -> None:
        self.client("GET", f"{self.client.session}/cell?id={quote(self._cell())}")

    def _similar(self) -> None:
        self.client("GET", f"{self.client.session}/similar?id={quote(self._cell())}&n=8")

    def _tiles(self) -> None:
        x, y = self.place
        self.client.bytes("GET", f"api/real?x={x:.1f}&y={y:.1f}&side=100")
        layer = self.client("GET", "api/info")["layers"][0]
        level = int(self.rng.integers(layer["levels"]))
        step = layer["tile"] * 2 ** (layer["levels"] - 1 - level) * layer["width_um"] / layer["width"]
        self.client.bytes("GET", f"api/tiles/{layer['key']}/{level}/{int(x / step)}_{int(y / step)}.jpg")

    def _nonsense(self) -> None:
        edit = {"scope": {"cell": "no such cell"}, "action": {"gene": 5, "factor": "much"}}
        self.client("POST", f"{self.client.session}/edits", edit)

    ACTIONS: tuple[Callable[[Tab], None], ...] = (
        *(_drag_a_gene, _set_counts, _gene_everywhere, _set_type, _remove, _move, _add_cells),
        *(_undo, _redo, _settings, _disable, _round_trip),
        *(_patch, _region, _left_early, _overtaken, _samples, _dose, _export_image, _export_command),
        *(_cells, _look_at_a_cell, _similar, _tiles, _nonsense),
    )
    WEIGHTS = (*(6, 3, 1, 4, 3, 3, 3), *(3, 1, 1, 1, 1), *(12, 2, 4, 3, 2, 1, 1, 1), *(4, 4, 2, 4, 1))


def use(tab: Tab, until: float) -> None:
    """Act until a time; an answer that never comes, or makes no sense, is a fault too."""
    while time.monotonic() < until:
        try:
            tab.act()
        except Exception as error:
            tab.faults.append(f"{type(error).__name__}: {error}")
            return
        time.sleep(float(tab.rng.uniform(0, 0.2)))


def report(tabs: list[Tab], rows: list[tuple[float, float, float, int]]) -> None:
    """Print latencies, what was refused, and the memory at some times."""
    names = sorted({name for tab in tabs for name in tab.seconds})
    for name in names:
        values = np.array([s for tab in tabs for s in tab.seconds.get(name, ())])
        median, high = np.quantile(values, (0.5, 0.95))
        print(f"{name:26s} n {len(values):5d}  median {median:7.3f} s  95 % {high:7.3f} s")
    refused = sum((tab.refused for tab in tabs), Counter())
    print("refused:", ", ".join(f"{name} {n}" for name, n in sorted(refused.items())) or "nothing")
    for minutes in REPORTED_MINUTES:
        near = min(rows, key=lambda row: abs(row[0] - minutes))
        if abs(near[0] - minutes) < 1:
            print(f"{minutes:3d} min: {near[1]:.0f} MB resident, {near[2]:.0f} MB of it no file, {near[3]} actions")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", required=True)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, required=True, help="CSV of minutes, MB, MB of no file, actions")
    parser.add_argument("--held", type=Path, help="JSON lines of what holds the memory of the server")
    parser.add_argument("--held-since", type=float, default=5.0, help="minute from which its growth is printed")
    args = parser.parse_args()
    dataset = PairedDataset.open(args.data)
    program = ["-m", "sge2hist"]
    if args.held is not None:
        program = [str(Path(__file__).with_name("explorer_memory.py")), str(args.held)]
    command = [sys.executable, *program, "explore", args.model, "--data", args.data, "--no-browser"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        if not url:
            raise SystemExit("the server did not start")
        wait_until_it_answers(url)
        tabs = [Tab(url, dataset, np.random.default_rng([args.seed, number])) for number in range(2)]
        start = time.monotonic()
        until = start + 60 * args.minutes
        threads = [threading.Thread(target=use, args=(tab, until), daemon=True) for tab in tabs]
        for thread in threads:
            thread.start()
        rows: list[tuple[float, float, float, int]] = []
        with args.out.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["minutes", "resident_mb", "no_file_mb", "actions"])
            while server.poll() is None:
                actions = sum(tab.n_actions for tab in tabs)
                rows.append(((time.monotonic() - start) / 60, *memory_mb(server.pid), actions))
                writer.writerow([*(f"{value:.1f}" for value in rows[-1][:3]), actions])
                file.flush()
                if not any(thread.is_alive() for thread in threads) or time.monotonic() >= until:
                    break
                time.sleep(max(0.0, min(60.0, until - time.monotonic())))
        for thread in threads:
            thread.join()
        report(tabs, rows)
        if args.held is not None:
            print("\n".join(growth(args.held, args.held_since)))
        faults = [fault for tab in tabs for fault in tab.faults]
        if server.poll() is not None:
            faults.append(f"the server ended with {server.returncode}")
        if faults:
            raise SystemExit("\n".join(faults[:10]))
    finally:
        server.terminate()
        server.wait(30)


def wait_until_it_answers(url: str) -> None:
    """Wait for a server that has said its address."""
    for _ in range(300):
        try:
            Client(url)
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"no answer from {url}")


if __name__ == "__main__":
    main()
