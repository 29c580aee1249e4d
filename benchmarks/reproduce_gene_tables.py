"""Tables of the gene model, from what `gene_model.py --output` writes: data set -> method -> score -> one value per seed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from reproduce_tables import markdown

Scores = dict[str, list[float]]
METHODS = {
    "ours": "ours",
    "ours-labelled": "ours, with types as labels",
    "ours-neighbours": "ours, with the eight neighbouring bins",
    "paper": "published configuration",
    "pca-leiden": "PCA + Leiden",
    "pca-leiden-neighbours": "PCA + Leiden on components averaged over neighbours",
    "pca-gmm": "PCA + Gaussian mixture",
    "scvi": "scvi-tools",
}
PARTITION = ("acc", "nmi", "ari")
READ_FROM = {
    "z1": "z1",
    "z2": "z2",
    "z1_and_z2": "z1 and z2",
    "neighbourhood": "neighbours' expression",
    "type": "own type",
}
PROBED = {
    "type": "type",
    "component": "own component",
    "composition": "neighbour composition",
    "composition_within_type": "neighbour composition, within types",
}


def read(path: Path) -> dict[str, dict[str, Scores]]:
    """Return the scores of a file."""
    found: dict[str, dict[str, Scores]] = json.loads(path.read_text(encoding="utf-8"))
    return found


def shown(scores: Scores, name: str, digits: int = 3) -> str:
    """Return mean and standard deviation over seeds; nothing for a score that a method does not have."""
    if name not in scores:
        return ""
    spread = f" ± {np.std(scores[name]):.{digits}f}" if len(scores[name]) > 1 else ""
    return f"{np.mean(scores[name]):.{digits}f}{spread}"


def methods(path: Path) -> str:
    """Return every method on every data set."""
    heads = ["data", "method", "ACC", "NMI", "ARI", "log-likelihood per held-out count", "reconstruction r", "seconds"]
    rows = [heads]
    for data, by_method in read(path).items():
        for method, scores in by_method.items():
            figures = [shown(scores, name) for name in (*PARTITION, "log_likelihood_per_count", "reconstruction_r")]
            rows.append([data, METHODS[method], *figures, f"{np.mean(scores['seconds']):.1f}"])
    return markdown(rows)


def deepest(path: Path) -> str:
    """Return the clustering of the quarter of the labelled cells with the most counts."""
    rows = [["data", "method", "ACC", "NMI", "ARI"]]
    for data, by_method in read(path).items():
        for method, scores in by_method.items():
            rows.append([data, METHODS[method], *(shown(scores, f"{name}_deepest") for name in PARTITION)])
    return markdown(rows)


def blocks(path: Path) -> str:
    """Return what linear probes find in each block of the latent."""
    rows = [["data, method", "what is read", *READ_FROM.values()]]
    for data, by_method in read(path).items():
        for method, scores in by_method.items():
            for target, name in PROBED.items():
                cells = [shown(scores, f"{target}_from_{source}", 2) for source in READ_FROM]
                if any(cells):
                    chance = (
                        f" (chance {np.mean(scores[f'{target}_chance']):.2f})" if f"{target}_chance" in scores else ""
                    )
                    rows.append([f"{data}, {METHODS[method]}", name + chance, *cells])
    return markdown(rows)


def panel(path: Path) -> str:
    """Return the accuracy of types with a part of the genes."""
    found = {data: by_method["ours"] for data, by_method in read(path).items() if "ours" in by_method}
    names = [name for name in next(iter(found.values())) if name.startswith("type_acc_")]
    rows = [["share of the genes", *(name.split("_")[2].replace("%", " %") for name in names)]]
    rows += [[data, *(shown(scores, name, 2) for name in names)] for data, scores in found.items()]
    return markdown(rows)
