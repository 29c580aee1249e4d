"""A small synthetic tissue as a paired dataset on disk: expression and picture share their cause, so that every metric
has a right answer.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image
from scipy.sparse import csr_matrix

from sge2hist.data.paired import PairedDataset

SIDE_PX = 32
COLUMNS, ROWS = 40, 26
GENES = 30
EOSIN, HAEMATOXYLIN, GLASS = (225, 130, 180), (90, 60, 140), (244, 242, 243)


def render_patch(type_index: int, lumen: float, rng: np.random.Generator) -> np.ndarray:
    """Eosin ground, a lumen of a given radius (share of the side), and 3, 7 or 12 dark discs by type."""
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX] + 0.5
    patch = np.array(EOSIN) + rng.normal(0, 6, (SIDE_PX, SIDE_PX, 1)) + rng.normal(0, 8)
    centre = rng.uniform(10, 22, 2)
    patch = np.where(((x - centre[0]) ** 2 + (y - centre[1]) ** 2 < (lumen * SIDE_PX) ** 2)[..., None], GLASS, patch)
    for _ in range((3, 7, 12)[type_index]):
        cx, cy = rng.uniform(2, 30, 2)
        disc = (x - cx) ** 2 + (y - cy) ** 2 < rng.uniform(2.0, 3.0) ** 2
        patch = np.where(disc[..., None], np.array(HAEMATOXYLIN) + rng.normal(0, 8, 3), patch)
    return patch.clip(0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Tissue:
    """The dataset, and a function that renders new patches from a cell's own cause (a perfect generator)."""

    data: PairedDataset
    type_N: np.ndarray
    lumen: np.ndarray

    def fresh(self, rows: np.ndarray, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        return np.stack([render_patch(self.type_N[row], self.lumen[row], rng) for row in rows])

    def write(self, folder: Path, images: np.ndarray, rows: np.ndarray) -> Path:
        """Write images as a folder with a table."""
        folder.mkdir(parents=True)
        names = [f"{i:04d}.png" for i in range(len(images))]
        for name, image in zip(names, images, strict=True):
            Image.fromarray(image).save(folder / name)
        ids = self.data.obs.index[rows]
        pd.DataFrame({"image": names, "cell_id": ids}).to_csv(folder / "images.csv", index=False)
        return folder


@pytest.fixture(scope="session")
def tissue(tmp_path_factory: pytest.TempPathFactory) -> Tissue:
    rng = np.random.default_rng(3)
    n = COLUMNS * ROWS
    column, row = np.arange(n) % COLUMNS, np.arange(n) // COLUMNS
    type_N, lumen = rng.integers(0, 3, n), rng.uniform(0, 0.3, n)
    slide = np.zeros((ROWS * SIDE_PX, COLUMNS * SIDE_PX, 3), np.uint8)
    for i in range(n):
        at = (slice(row[i] * SIDE_PX, (row[i] + 1) * SIDE_PX), slice(column[i] * SIDE_PX, (column[i] + 1) * SIDE_PX))
        slide[at] = render_patch(type_N[i], lumen[i], rng)
    rate = np.full((n, GENES), 4.0)
    rate[np.arange(n), type_N] = 40.0
    rate[:, 3:10] += 120 * lumen[:, None]
    split = np.array(["train", "val", "test"])[np.searchsorted([22, 28], column, side="right")]
    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical([f"type {k}" for k in type_N]),
            "split": pd.Categorical(split),
            "slide": pd.Categorical(["s"] * n),
        },
        index=[f"cell{i}" for i in range(n)],
    )
    genes = [f"G{i}" for i in range(GENES)]
    cells = anndata.AnnData(
        csr_matrix(rng.poisson(rate).astype(np.int32)), obs=obs, var=pd.DataFrame({"symbol": genes}, index=genes)
    )
    cells.obsm["spatial"] = np.column_stack([column + 0.5, row + 0.5]) * SIDE_PX
    folder = tmp_path_factory.mktemp("tissue") / "tissue.paired"
    folder.mkdir()
    cells.write_h5ad(folder / "cells.h5ad")
    tifffile.imwrite(folder / "slide.ome.tif", slide, photometric="rgb", tile=(128, 128))
    manifest = {
        "kind": "paired",
        "format_version": 1,
        "um_per_px": 1.0,
        "patch_um": float(SIDE_PX),
        "patch_px": SIDE_PX,
        "fingerprint": "0123456789abcdef",
        "slides": [{"id": "s", "file": "slide.ome.tif"}],
        "technology": "none",
        "observation": "cell",
        "types": {"source": "truth"},
        "toy": True,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return Tissue(PairedDataset.open(folder), type_N, lumen)
