"""What a whole slide costs, whether memory stays flat, and how well a slide follows the real one.

    python benchmarks/slide.py cost  --mm2 0.5 1 2                    # synthetic sections, an untrained network of preset `demo`
    python benchmarks/slide.py cost  --mm2 1 10 100 --model X.model   # 100 mm2 hold a million cells
    python benchmarks/slide.py score A.generated [B.generated ...] --data X.paired [--patches Y.generated]

`cost` generates each section in a process of its own (10,000 cells per mm2, counts made when they are read) and prints seconds of
wall clock and of processor per mm2, the peak of memory over that of the loaded model, and the share of the time in the network.
`score` prints R2, correlation and spread of local haematoxylin, eosin and lumen (64 um and 16 um windows that hold held-out cells
alone): of maps predicted straight from expression, of a slide, of the mean of several (seeds), and shuffled; then the seam score.
With `--patches` (`generate` of the same cells without `--slide`) windows cut out of the slide stand beside single patches.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_array

CELLS_PER_MM2 = 10_000
N_GENES, GENES_PER_CELL = 500, 60
CHUNK = 1024


def synthetic_section(mm2: float, panel: Any, seed: int = 0) -> Any:
    """A square section of cells at random positions, with a panel of genes; counts of a cell depend on its number alone."""
    from sge2hist.generation.slide.source import SlideSource

    side_um, n = 1000 * mm2**0.5, round(mm2 * CELLS_PER_MM2)
    rng = np.random.default_rng(seed)

    def read_counts(positions: np.ndarray) -> csr_array:
        parts = []
        for chunk in np.unique(positions // CHUNK):
            rng_chunk = np.random.default_rng([seed, int(chunk)])
            genes = rng_chunk.integers(0, len(panel.ids), (CHUNK, GENES_PER_CELL))
            counts = 1 + rng_chunk.poisson(1.0, genes.shape)
            rows = np.repeat(np.arange(CHUNK), GENES_PER_CELL)
            whole = csr_array((counts.ravel(), (rows, genes.ravel())), shape=(CHUNK, len(panel.ids)))
            parts.append(whole[positions[positions // CHUNK == chunk] % CHUNK])
        from scipy.sparse import vstack

        return csr_array(vstack(parts, format="csr"))

    return SlideSource(
        xy_um_N2=rng.uniform(0, side_um, (n, 2)),
        id_N=np.arange(n).astype(str),
        type_N=None,
        genes=panel,
        read_counts=read_counts,
        bounds_um=(0.0, 0.0, side_um, side_um),
        slide="synthetic",
        um_per_edit_unit=1.0,
        manifest={"data_fingerprint": f"synthetic-{mm2}-{seed}", "toy": True},
    )


def untrained(preset: str) -> Any:
    """A model of a preset with random weights: no image, at the full cost."""
    import torch

    from sge2hist.data.gene_panel import GenePanel
    from sge2hist.models.bundle import ModelBundle
    from sge2hist.models.gene.cell_types import TypeRow, TypeTable
    from sge2hist.models.joint_model import JointModel
    from sge2hist.training.presets import model_config

    torch.manual_seed(0)
    config = model_config(
        preset, n_genes=N_GENES, n_types=8, um_per_px=2.0, patch_px=64, cell_spacing_um=16.0, n_slides=1
    )
    rows = [
        TypeRow(component=k, name="any", n_cells=1, n_labelled=0, purity=float("nan"), weight=1.0, markers=())
        for k in range(config.gene.n_components)
    ]
    genes = GenePanel([f"ENSG{g:011d}" for g in range(N_GENES)])
    return ModelBundle(model=JointModel(config).eval(), genes=genes, types=TypeTable(rows), fingerprint="untrained")


@contextmanager
def timed(*methods: tuple[Any, str]) -> Iterator[dict[str, float]]:
    """Add up the seconds spent in methods, given as (object, name)."""
    spent = {name: 0.0 for _, name in methods}

    def watched(plain: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            start = time.perf_counter()
            result = plain(*args, **options)
            spent[name] += time.perf_counter() - start
            return result

        return call

    for owner, name in methods:
        object.__setattr__(owner, name, watched(getattr(owner, name), name))
    try:
        yield spent
    finally:
        for owner, name in methods:
            object.__delattr__(owner, name)


def peak_mb() -> float:
    """Peak resident memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def generate_one(mm2: float, model: Path | None, preset: str, steps: int) -> dict[str, float]:
    """Generate one section in this process."""
    from sge2hist.generation.slide.render import SlideConfig, prepare_slide, render_slide
    from sge2hist.models.bundle import ModelBundle
    from sge2hist.models.image.samplers import SamplerConfig

    bundle = ModelBundle.load(model) if model else untrained(preset)
    image = bundle.model.image
    # a first small section: libraries and thread pools are loaded before memory is measured
    for size in (0.02, mm2):
        source = synthetic_section(size, bundle.genes)
        before = peak_mb()
        with (
            tempfile.TemporaryDirectory() as folder,
            timed((image, "encode_cells"), (image.unet, "forward"), (image, "to_image")) as spent,
        ):
            config = SlideConfig(sampler=SamplerConfig(n_steps=steps))
            start, start_cpu = time.perf_counter(), time.process_time()
            job = prepare_slide(bundle, source, Path(folder) / "s.generated", config)
            prepared = time.perf_counter() - start
            n_windows = job.n_windows
            render_slide(job, source, Path(folder) / "s.generated", config)
            wall, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    return {
        "mm2": mm2,
        "cells": len(source.xy_um_N2),
        "windows": n_windows,
        "wall_s_per_mm2": wall / mm2,
        "cpu_s_per_mm2": cpu / mm2,
        "prepare_share": prepared / wall,
        "network_share": sum(spent.values()) / wall,
        "model_mb": before,
        "peak_mb": peak_mb(),
        "over_model_mb": peak_mb() - before,
    }


def cost(args: argparse.Namespace) -> None:
    """Each size in a process of its own."""
    rows = []
    for mm2 in args.mm2:
        command = [
            sys.executable,
            __file__,
            "one",
            "--mm2",
            str(mm2),
            "--preset",
            args.preset,
            "--steps",
            str(args.steps),
        ]
        if args.model:
            command += ["--model", str(args.model)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        if len(rows) == 1:
            print(f"| {' | '.join(rows[0]).replace('_', ' ')} |\n{'|---' * len(rows[0])}|")
        print("| " + " | ".join(f"{value:,.3g}" for value in rows[-1].values()) + " |", flush=True)
    first, last = rows[0], rows[-1]
    print(
        f"memory over the model, {last['mm2']:g} mm2 against {first['mm2']:g} mm2: "
        f"{last['over_model_mb'] / max(first['over_model_mb'], 1e-9):.2f}; "
        f"processor time per mm2: {last['cpu_s_per_mm2'] / first['cpu_s_per_mm2']:.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for name in ("cost", "one"):
        verb = verbs.add_parser(name)
        verb.add_argument("--mm2", type=float, nargs="+" if name == "cost" else None, default=[0.5, 1, 2])
        verb.add_argument("--model", type=Path)
        verb.add_argument("--preset", default="demo")
        verb.add_argument("--steps", type=int, default=2)
    verb = verbs.add_parser("score")
    verb.add_argument("generated", type=Path, nargs="*", help="slides of one region; none: the regressions alone")
    verb.add_argument("--data", type=Path, required=True)
    verb.add_argument("--split", default="test")
    verb.add_argument("--patches", type=Path, help="a generated set of single patches of the same cells")
    verb.add_argument("--regression", action=argparse.BooleanOptionalAction, default=True)
    args = parser.parse_args()
    if args.verb == "score" and not args.generated and (args.patches or not args.regression):
        parser.error("without a slide there is nothing to score but the regressions")
    if args.verb == "one":
        print(json.dumps(generate_one(args.mm2, args.model, args.preset, args.steps)))
    elif args.verb == "cost":
        cost(args)
    else:
        from slide_score import score

        score(args)


if __name__ == "__main__":
    main()
