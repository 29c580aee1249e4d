"""Types of bins predicted from each bin alone and from its neighbours too, against the types of the dataset.

    python benchmarks/pooled_types.py pretrained:kidney --data kidney.paired

Cells of a split are embedded with each radius of `--pool-um` (0: each cell alone); neighbours are cells of the same split. Types
by marker scores were smoothed over neighbours, so agreement measures which structure a bin lies in: the lowest recall of a type
shows what pooling loses. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import anndata
import numpy as np
from sklearn.metrics import adjusted_rand_score, f1_score, normalized_mutual_info_score, recall_score

from sge2hist import SGE2Hist
from sge2hist.data.paired import PairedDataset

LABEL, PREDICTED = "cell_type", "sge2hist_type"


def scores(label_N: np.ndarray, predicted_N: np.ndarray, types: list[str]) -> list[str]:
    """ACC (of names), NMI, ARI, macro-F1, and the type with the lowest recall."""
    figures = [
        float((label_N == predicted_N).mean()),
        normalized_mutual_info_score(label_N, predicted_N),
        adjusted_rand_score(label_N, predicted_N),
        f1_score(label_N, predicted_N, labels=types, average="macro", zero_division=0),
    ]
    recall_T = recall_score(label_N, predicted_N, labels=types, average=None, zero_division=0)
    lowest = int(np.argmin(recall_T))
    return [*(f"{value:.2f}" for value in figures), f"{types[lowest]} {recall_T[lowest]:.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a folder, or pretrained:NAME")
    parser.add_argument("--data", type=Path, required=True, help="its paired dataset")
    parser.add_argument("--split", default="test")
    parser.add_argument("--pool-um", type=float, nargs="+", default=[0.0, 24.0, 33.0])
    given = parser.parse_args()
    data, model = PairedDataset.open(given.data), SGE2Hist.from_pretrained(given.model)
    rows = data.rows(given.split)
    cells = anndata.read_h5ad(given.data / "cells.h5ad")[data.obs.index[rows]].to_memory()
    cells.obs[["x_um", "y_um"]] = data.centre_xy_px[rows] * data.um_per_px
    label_N = cells.obs[LABEL].to_numpy(str)
    types = data.types
    known = np.isin(label_N, types)
    heads = ["ACC", "NMI", "ARI", "macro-F1", "lowest recall of a type"]
    print(f"| {int(known.sum()):,} labelled cells of split {given.split} | {' | '.join(heads)} |")
    print("| --- " * (len(heads) + 1) + "|")
    for pool_um in given.pool_um:
        model.embed(cells, pool_um=pool_um)
        predicted_N = cells.obs[PREDICTED].to_numpy(str)
        name = f"pooled within {pool_um:g} um" if pool_um else "each alone"
        print(f"| {name} | {' | '.join(scores(label_N[known], predicted_N[known], types))} |", flush=True)


if __name__ == "__main__":
    main()
