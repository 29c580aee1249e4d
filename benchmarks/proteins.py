"""Do proteins condition an image? Cells whose colour follows a protein and no gene; models of RNA, and of RNA and proteins.

    python benchmarks/proteins.py --folder /tmp/proteins --seed 0
    python benchmarks/proteins.py --table /tmp/proteins/*.json

The tissue is made up: cells of three types on a lattice with jitter, each a disc with a nucleus. Types have genes of their own,
and the shade of the nucleus follows the type. The cytoplasm is pink to pale by a number that is random in each cell: UMI of the
protein BLUSH follow it, no gene does. FOLLOWER follows type 0, NOISE nothing. Images are generated for cells of the test part,
among their neighbours, and compared with the real ones: the correlation over cells of the redness of the cytoplasm and of the
brightness of the nucleus, and the mean absolute difference of patches, in grey levels.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from sge2hist.data.artifacts import atomic_directory, write_manifest
from sge2hist.data.paired import PairedDataset
from sge2hist.data.slides.slide_writer import write_slide
from sge2hist.data.table.proteins import PROTEIN_KEY, ProteinTable
from sge2hist.generation.patches import image_batches
from sge2hist.generation.requests import request_from_paired
from sge2hist.models.bundle import ModelBundle
from sge2hist.training.config import RNA, RNA_AND_PROTEIN, TrainConfig
from sge2hist.training.presets import PRESETS
from sge2hist.training.train import train

SIDE, SPACING_UM, PATCH_PX = 48, 14.0, 32
N_GENES, N_TYPES = 60, 3
CELL_UM, NUCLEUS_UM = 6.0, 2.5
PINK, PALE = np.array([205.0, 95.0, 150.0]), np.array([245.0, 215.0, 235.0])
NUCLEI = np.array([[70.0, 40.0, 110.0], [120.0, 80.0, 160.0], [95.0, 60.0, 90.0]])
BACKGROUND = np.array([240.0, 232.0, 240.0])
PRESETS["proteins"] = replace(
    PRESETS["tiny"], ae_steps=150, gene_steps=800, mixture_steps=200, joint_steps=300, batch=16
)
NAMES = ("BLUSH", "FOLLOWER", "NOISE")


def write_tissue(path: Path, seed: int) -> PairedDataset:
    """The paired dataset, at 1 um/px; by rows of cells train, dropped, val and test."""
    rng = np.random.default_rng(seed)
    row, column = np.divmod(np.arange(SIDE * SIDE), SIDE)
    xy = (np.stack([column, row], 1) + 0.5) * SPACING_UM + rng.uniform(-1.0, 1.0, (SIDE * SIDE, 2))
    type_N, blush_N = rng.integers(N_TYPES, size=SIDE * SIDE), rng.uniform(-1, 1, SIDE * SIDE)
    rate = np.full((N_TYPES, N_GENES), 0.5)
    for t in range(N_TYPES):
        rate[t, 10 * t : 10 * t + 10] = 5.0
    depth = rng.gamma(6, 1 / 6, (SIDE * SIDE, 1))
    counts = rng.poisson(rate[type_N] * depth)
    counts[:, -1] += 1  # no empty cell
    means = np.exp(3.0 + np.stack([1.2 * blush_N, 1.2 * (type_N == 0), np.zeros(SIDE * SIDE)], 1))
    proteins = pd.DataFrame(rng.poisson(means).astype(np.float32), columns=list(NAMES))
    split = np.select([row < 0.6 * SIDE, row < 0.66 * SIDE, row < 0.76 * SIDE], ["train", "dropped", "val"], "test")
    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical([f"type {t}" for t in type_N]),
            "split": pd.Categorical(split),
            "slide": pd.Categorical(["made_up"] * len(row)),
            "n_counts": counts.sum(1),
            "n_genes": (counts > 0).sum(1),
        },
        index=[f"cell_{i}" for i in range(len(row))],
    )
    proteins.index = obs.index
    names = [f"GENE{g}" for g in range(N_GENES)]
    table = anndata.AnnData(
        X=csr_matrix(counts.astype(np.int32)),
        obs=obs,
        var=pd.DataFrame({"symbol": names}, index=names),
        obsm={"spatial": xy, PROTEIN_KEY: proteins},
    )
    pixels = painted(xy, type_N, blush_N, rng)
    with atomic_directory(path) as partial:
        table.write_h5ad(partial / "cells.h5ad")
        digest = write_slide(partial / "slide.ome.tif", pixels, 1.0)
        height, width = pixels.shape[:2]
        slide = {"id": "made_up", "file": "slide.ome.tif", "um_per_px": 1.0, "width_px": width, "height_px": height}
        write_manifest(
            partial,
            "paired",
            slides=[slide | {"source": "made up", "sha256": digest}],
            um_per_px=1.0,
            observation="cell",
            patch_um=float(PATCH_PX),
            patch_px=PATCH_PX,
            n_cells=len(row),
            n_genes=N_GENES,
            technology="made up",
            toy=True,
            seed=seed,
            protein={"names": list(NAMES), "unit": "UMI"},
            fingerprint=f"proteins-{seed}",
        )
    return PairedDataset.open(path)


def painted(xy: np.ndarray, type_N: np.ndarray, blush_N: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The image at 1 um/px, uint8 [H, W, 3]."""
    side = int(SIDE * SPACING_UM)
    image = np.tile(BACKGROUND, (side, side, 1))
    y, x = np.mgrid[:side, :side] + 0.5
    for centre, of_type, blush in zip(xy, type_N, blush_N, strict=True):
        left, top = np.maximum(np.floor(centre - CELL_UM - 1), 0).astype(int)
        part = np.s_[top : top + 16, left : left + 16]
        radius = np.hypot(x[part] - centre[0], y[part] - centre[1])
        share = (blush + 1) / 2
        image[part][radius < CELL_UM] = share * PINK + (1 - share) * PALE
        image[part][radius < NUCLEUS_UM] = NUCLEI[of_type]
    return (image + rng.normal(0, 4, image.shape)).clip(0, 255).astype(np.uint8)


def colours(patches: np.ndarray) -> np.ndarray:
    """Greenness (low is pink) of the cytoplasm of the centre cell, and brightness of its nucleus, float [n, 2]."""
    y, x = np.mgrid[:PATCH_PX, :PATCH_PX] + 0.5 - PATCH_PX / 2
    radius = np.hypot(x, y)
    ring, core = (radius > NUCLEUS_UM + 1) & (radius < CELL_UM - 1), radius < NUCLEUS_UM - 0.5
    values = patches.astype(np.float64)
    return np.stack([values[:, ring, 1].mean(1), values[:, core].mean((1, 2))], 1)


def agreement(bundle: ModelBundle, data: PairedDataset, rows: np.ndarray) -> dict[str, float]:
    """How images of some cells agree with the real ones."""
    request = request_from_paired(bundle, data, rows, seed=1)
    images = np.concatenate(list(image_batches(bundle, request)))
    real = data.patches(rows)
    made, own = colours(images), colours(real)
    return {
        "cytoplasm": float(np.corrcoef(made[:, 0], own[:, 0])[0, 1]),
        "nucleus": float(np.corrcoef(made[:, 1], own[:, 1])[0, 1]),
        "difference": float(np.abs(images.astype(float) - real.astype(float)).mean()),
    }


def with_proteins(path: Path, table: ProteinTable | None) -> PairedDataset:
    """The dataset with other proteins, or none."""
    data = PairedDataset.open(path)
    data.__dict__["proteins"] = table
    return data


def measure(folder: Path, seed: int, steps: int, n: int) -> None:
    """Train both models, generate, and write the numbers."""
    path = folder / f"{seed}.paired"
    data = PairedDataset.open(path) if path.is_dir() else write_tissue(path, seed)
    rows = np.sort(np.random.default_rng(seed).permutation(data.rows("test"))[:n])
    found: dict[str, object] = {"seed": seed, "n": len(rows), "steps": steps}
    for features in (RNA, RNA_AND_PROTEIN):
        begun = time.process_time()
        config = TrainConfig(preset="proteins", steps=steps, seed=seed, features=features, mixed_precision="no")
        bundle = train(data, folder / f"{seed}.{features.replace(',', '_')}.model", config)
        seconds = time.process_time() - begun
        found[features] = agreement(bundle, data, rows) | {"training_cpu_s": seconds}
    assert data.proteins is not None
    order = np.random.default_rng([seed, 1]).permutation(len(data))
    shuffled = replace(data.proteins, value_NP=data.proteins.value_NP[order])
    found["shuffled"] = agreement(bundle, with_proteins(path, shuffled), rows)
    found["without"] = agreement(bundle, with_proteins(path, None), rows)
    (folder / f"{seed}.json").write_text(json.dumps(found, indent=1))


def print_table(paths: list[Path]) -> None:
    """Mean over seeds, and the range."""
    records = [json.loads(path.read_text()) for path in paths]
    arms = {
        RNA: "RNA",
        RNA_AND_PROTEIN: "RNA and proteins",
        "shuffled": "the same model, proteins shuffled among cells",
        "without": "the same model, a dataset without proteins",
    }
    print("| model | cytoplasm | nucleus | mean absolute difference |")
    print("| --- | --- | --- | --- |")
    for arm, name in arms.items():
        cells = []
        for key, digits in (("cytoplasm", 2), ("nucleus", 2), ("difference", 1)):
            values = [record[arm][key] for record in records]
            spread = f" ({min(values):.{digits}f} to {max(values):.{digits}f})" if len(values) > 1 else ""
            cells.append(f"{np.mean(values):.{digits}f}{spread}")
        print(f"| {name} | {' | '.join(cells)} |")


def main() -> None:
    """Measure one seed, or print the table of several."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("-n", type=int, default=200)
    parser.add_argument("--table", type=Path, nargs="*")
    given = parser.parse_args()
    if given.table:
        print_table(given.table)
    else:
        given.folder.mkdir(parents=True, exist_ok=True)
        measure(given.folder, given.seed, given.steps, given.n)


if __name__ == "__main__":
    main()
