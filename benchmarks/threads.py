"""What waiting threads cost: the thread settings of this package against those of OpenMP, on idle and on busy cores.

    python benchmarks/threads.py --rounds 5

Each setting runs in a process of its own, because OpenMP reads its settings once. The processes take turns, so that other load
hits all of them; medians of all rounds are shown. Busy: one endless loop on each core beside it. Work: one patch of the
shipped model, and training steps of its image network on `--batch` patches.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import numpy as np

import sge2hist  # before torch: it sets what OpenMP reads
from sge2hist.threads import available_threads

SETTINGS = {
    "of this package": {},
    "OpenMP's own": {"GOMP_SPINCOUNT": "300000"},  # the default of GNU OpenMP
}
VARIABLES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
WORKS = {"one patch": "s", "training step": "s"}


def work(batch: int) -> dict[str, Callable[[], object]]:
    """The two pieces of work, each of them once before it is returned."""
    import torch
    from image_model import lattice_cells

    from sge2hist.devices import fast_arithmetic

    bundle, device = sge2hist.SGE2Hist.from_pretrained("pretrained:kidney", device="cpu").bundle, torch.device("cpu")
    model, config = bundle.model.image, bundle.config
    side = config.patch_px // model.downsampling
    one, many = (lattice_cells(model, n, config.patch_um) for n in (1, batch))
    latent = torch.randn(batch, model.latent_channels, side, side)

    def patch() -> None:
        with torch.inference_mode(), fast_arithmetic(device):
            model.sample(one, [0], (side, side), config.sampler)

    optimizer = torch.optim.AdamW(model.unet.parameters(), lr=1e-6)

    def step() -> None:
        with fast_arithmetic(device):
            loss = model.loss(latent, many, torch.Generator().manual_seed(0)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    works = dict(zip(WORKS, (patch, step), strict=True))
    for call in works.values():
        call()
    return works


def answer(batch: int, seconds: float) -> None:
    """A process of one setting: for each line "work" on standard input, print mean wall and processor time of a call."""
    import torch

    works = work(batch)
    print(json.dumps({"threads": torch.get_num_threads(), **{n: os.environ.get(n) for n in VARIABLES}}), flush=True)
    for line in sys.stdin:
        call, n = works[line.strip()], 0
        wall, cpu = time.perf_counter(), time.process_time()
        while time.perf_counter() - wall < seconds:
            call()
            n += 1
        print(json.dumps([(time.perf_counter() - wall) / n, (time.process_time() - cpu) / n]), flush=True)


@contextmanager
def busy_cores(n: int) -> Iterator[None]:
    """An endless loop on each of n cores."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def worker(stack: ExitStack, setting: dict[str, str], arguments: argparse.Namespace) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES} | setting
    command = [sys.executable, __file__, "--answer", "--batch", arguments.batch, "--seconds", arguments.seconds]
    process = subprocess.Popen(
        list(map(str, command)), env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    stack.callback(process.kill)
    return process


def measure(arguments: argparse.Namespace) -> None:
    """Print a table of medians, and the ratios of the two settings in each round."""
    times: dict[tuple[str, str, str], list[list[float]]] = {}
    with ExitStack() as stack:
        workers = {name: worker(stack, setting, arguments) for name, setting in SETTINGS.items()}
        for name, process in workers.items():
            print(f"{name}: {process.stdout.readline().strip()}")
        for _ in range(arguments.rounds):
            for load in ("idle", "busy"):
                with busy_cores(available_threads() if load == "busy" else 0):
                    for kind in WORKS:
                        for name, process in workers.items():
                            process.stdin.write(kind + "\n")
                            process.stdin.flush()
                            times.setdefault((kind, load, name), []).append(json.loads(process.stdout.readline()))
    print(f"\nload of the machine at the end {os.getloadavg()[0]:.1f}; {arguments.rounds} rounds\n")
    print("| | cores | setting | s each: least | median | processor s, median | speed over OpenMP's own, median |")
    print("|---" * 7 + "|")
    for (kind, load, name), pairs in times.items():
        wall, cpu = np.array(pairs).T
        ratio = np.median(np.array(times[kind, load, "OpenMP's own"])[:, 0] / wall)
        print(
            f"| {kind} | {load} | {name} | {wall.min():.3g} | {np.median(wall):.3g} | {np.median(cpu):.3g} | {ratio:.2f} |"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of one measurement")
    parser.add_argument("--batch", type=int, default=32, help="patches of a training step")
    parser.add_argument("--answer", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.answer:
        answer(given.batch, given.seconds)
    else:
        measure(given)
