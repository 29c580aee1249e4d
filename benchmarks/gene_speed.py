"""Speed and memory of pre-training on expression, and of scvi-tools in the same run.

    python benchmarks/gene_speed.py --threads 2

Counts are random: 19,059 genes, 2 % of them non-zero. Both models: batches of 256 cells, hidden layers as each has them by
default (ours 256 and 128; scvi-tools one of 128). Memory is what training needs on top of the data, for two numbers of cells
that are made when they are read, as if from disk.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from pathlib import Path

import numpy as np
import torch
from gene_methods import descend
from scipy.sparse import csr_array, csr_matrix, random_array

from sge2hist.models.gene.vae import GeneModelConfig
from sge2hist.training.gene.data import GeneData
from sge2hist.training.gene.stages import GeneStage, GeneStageConfig, build_gene_model

N_GENES, N_CELLS, DENSITY, BATCH = 19_059, 8192, 0.02, 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--steps", type=int, default=20, help="steps that are timed")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    counts = csr_array(
        random_array((N_CELLS, N_GENES), density=DENSITY, format="csr", rng=0, data_sampler=lambda size: np.ones(size))
    )
    found = {**memory(counts), **ours(counts, args.steps), **scvi(counts)}
    print(f"| {args.threads} thread(s) | |\n|---|---|")
    for name, value in found.items():
        print(f"| {name} | {value:,.0f} |")


def ours(counts: csr_array, n_steps: int) -> dict[str, float]:
    """Cells per second in float32 and in bfloat16."""
    data = GeneData.from_counts(counts)
    stage = GeneStage(
        build_gene_model(GeneModelConfig(n_genes=N_GENES, n_axes=32), data), data, GeneStageConfig(batch_size=BATCH)
    )
    result = {}
    for name, enabled in (("float32", False), ("bfloat16", True)):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            descend(stage, 3, 1e-3)
            started = time.perf_counter()
            descend(stage, n_steps, 1e-3)
        result[f"ours, {name}: cells per s"] = n_steps * BATCH / (time.perf_counter() - started)
    return result


def scvi(counts: csr_array) -> dict[str, float]:
    """Cells per second of scvi-tools' SCVI, the second of two epochs; empty where it is not installed."""
    if importlib.util.find_spec("scvi") is None:
        print("scvi-tools is not installed: skipped")
        return {}
    import anndata
    import scvi as scvi_tools

    adata = anndata.AnnData(csr_matrix(counts, dtype=np.float32))
    scvi_tools.model.SCVI.setup_anndata(adata)
    model = scvi_tools.model.SCVI(adata)
    options = {"accelerator": "cpu", "enable_progress_bar": False, "batch_size": BATCH, "train_size": 1.0}
    model.train(max_epochs=1, **options)
    started = time.perf_counter()
    model.train(max_epochs=2, **options)
    return {"scvi-tools, one hidden layer of 128: cells per s": 2 * N_CELLS / (time.perf_counter() - started)}


def memory(counts: csr_array, n_steps: int = 12) -> dict[str, float]:
    """Peak memory in MB over what was in use before, while training on 8,192 and then on 131,072 cells."""
    result = {}
    for n_cells in (N_CELLS, 16 * N_CELLS):
        data = GeneData(
            read=lambda rows: counts[rows % N_CELLS].astype(np.float32),
            n_cells=n_cells,
            n_genes=N_GENES,
            symbols=[str(g) for g in range(N_GENES)],
            type_N=np.full(n_cells, -1),
            type_names=[],
        )
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # Linux: this resets the peak
        before = _memory_mb("VmRSS")
        model = build_gene_model(GeneModelConfig(n_genes=N_GENES, n_axes=32), data)
        descend(GeneStage(model, data, GeneStageConfig(batch_size=BATCH)), n_steps, 1e-3)
        result[f"peak of training on {n_cells:,} cells over the data, MB"] = _memory_mb("VmHWM") - before
    return result


def _memory_mb(name: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name + ":")) / 1024


if __name__ == "__main__":
    main()
