"""Write generated sets in the layout of format version 1, without the code that makes them."""

import json
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from PIL import Image
from scipy.sparse import csr_matrix


def write_generated(
    folder: Path, images: np.ndarray, obs: pd.DataFrame, latents: dict[str, np.ndarray] | None = None, **manifest
) -> Path:
    """Write a generated set in the layout of format version 1."""
    (folder / "images").mkdir(parents=True)
    names = [f"{i:06d}.png" for i in range(len(images))]
    for name, image in zip(names, images, strict=True):
        Image.fromarray(image).save(folder / "images" / name)
    cells = anndata.AnnData(
        csr_matrix((len(obs), 0), dtype=np.float32),
        obs=obs.assign(image=names).set_axis([str(i) for i in range(len(obs))]),
    )
    for key, values in (latents or {}).items():
        cells.obsm[key] = values
    cells.write_h5ad(folder / "cells.h5ad")
    header = {
        "kind": "generated",
        "format_version": 1,
        "synthetic": True,
        "patch_um": 32.0,
        "model_fingerprint": "m" * 16,
    }
    (folder / "manifest.json").write_text(json.dumps(header | manifest))
    return folder


def table_for(data, rows: np.ndarray, **columns) -> pd.DataFrame:
    return pd.DataFrame({"cell_id": data.obs.index[rows], "row": rows, "sample": 0, "seed": 7, **columns})
