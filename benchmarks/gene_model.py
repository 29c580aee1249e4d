"""Gene model side by side: ours, the published configuration, PCA + Leiden, PCA + Gaussian mixture, scvi-tools.

    python benchmarks/gene_model.py --sets toy pbmc --seeds 5 --steps 600 --output gene_model.json
    python benchmarks/gene_model.py --sets kidney.paired --methods ours pca-gmm --seeds 5

A set is "toy", "pbmc" or the path of a paired dataset with types. Types are never shown to a method; all methods look
for as many clusters as there are types. Scores are of test cells: mean and standard deviation over seeds. "scvi" needs
scvi-tools and is skipped, with a line that says so, where it is not installed. A run that was stopped goes on after the last
method that it finished, from OUTPUT.partial.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from pathlib import Path

import numpy as np
import torch
from gene_methods import METHODS
from gene_scores import clustering, deepest_quarter, panel_robustness, prediction, probes
from gene_sets import GeneSet, paired, pbmc, toy

from sge2hist.data.artifacts import atomic_path

Results = dict[str, dict[str, dict[str, list[float]]]]  # data set -> method -> score -> one value per seed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="*", default=["toy", "pbmc"], help="toy, pbmc, or paths of paired datasets")
    parser.add_argument(
        "--methods",
        nargs="*",
        default=list(METHODS),
        choices=list(METHODS),
        help="those that end in -neighbours are skipped for a set without positions",
    )
    parser.add_argument("--seeds", type=int, default=5, help="seeds per method")
    parser.add_argument(
        "--steps", type=int, default=600, help="pre-training steps of 128 cells; half as many with the mixture"
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--output", type=Path, help="JSON of every score of every seed")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    settings = {"seeds": arguments.seeds, "steps": arguments.steps}
    partial = arguments.output and arguments.output.with_name(arguments.output.name + ".partial")
    results: Results = finished(partial, settings) if partial else {}
    for name in arguments.sets:
        data = open_set(name)
        print(
            f"\n{data.name}: {data.train.n_cells:,} train and {data.test.n_cells:,} test cells, {data.train.n_genes:,} genes, "
            f"{data.n_types} types",
            flush=True,
        )
        scores = results.setdefault(data.name, {})
        for method in available(arguments.methods, data):
            if method in scores:
                print(f"  {method}: done before", flush=True)
                continue
            scores[method] = run(data, method, arguments)
            if partial:
                write_json(partial, {"settings": settings, "results": results})
    if partial:
        write_json(arguments.output, results)
        partial.unlink(missing_ok=True)


def write_json(path: Path, content: object) -> None:
    """Write a file that is whole or not there."""
    with atomic_path(path) as unfinished:
        unfinished.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def finished(partial: Path, settings: dict[str, int]) -> Results:
    """Return what a stopped run with the same settings has finished; nothing where there is none."""
    if not partial.is_file():
        return {}
    found = json.loads(partial.read_text(encoding="utf-8"))
    results: Results = found["results"]
    return results if found["settings"] == settings else {}


def open_set(name: str) -> GeneSet:
    return toy() if name == "toy" else pbmc() if name == "pbmc" else paired(name)


def available(methods: list[str], data: GeneSet) -> list[str]:
    if data.train.centre_um_N2 is None:
        methods = [method for method in methods if not method.endswith("-neighbours")]
    if "scvi" in methods and importlib.util.find_spec("scvi") is None:
        print("scvi-tools is not installed: skipped")
        return [method for method in methods if method != "scvi"]
    return methods


def run(data: GeneSet, method: str, arguments: argparse.Namespace) -> dict[str, list[float]]:
    scores: dict[str, list[float]] = {}
    for seed in range(arguments.seeds):
        fitted = METHODS[method](data, seed, arguments.steps)
        row = clustering(data.test.type_N, fitted.cluster_N) | deepest_quarter(data.test, fitted.cluster_N)
        row |= prediction(data, fitted) | {"seconds": fitted.seconds}
        row |= fitted.extra
        if fitted.model is not None:
            read = fitted.data or data
            row |= probes(read, fitted.model) | (panel_robustness(read, fitted.model, seed) if method == "ours" else {})
        for key, value in row.items():
            scores.setdefault(key, []).append(value)
    print(
        f"  {method}", *(f"{key} {np.mean(v):.3f}+-{np.std(v):.3f}" for key, v in scores.items()), sep="  ", flush=True
    )
    return scores


if __name__ == "__main__":
    main()
