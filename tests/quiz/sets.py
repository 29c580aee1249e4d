"""A generated set whose images are known: the colour of each is its number in the set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from sge2hist.data.generated import generated_set_writer
from sge2hist.data.paired import PairedDataset


def write_set(folder: Path, data: PairedDataset, rows: np.ndarray, images: np.ndarray, **columns: object) -> Path:
    """Write images uint8 [n, P, P, 3] as a generated set of these cells."""
    obs = pd.DataFrame(
        {
            "cell_id": data.obs.index[rows],
            "row": rows,
            "condition_row": rows,
            "cell_type": np.array(data.types)[data.type_of_cell[rows]],
            "sample": 0,
            "seed": 1,
            **columns,
        }
    )
    manifest = {"patch_um": data.patch_um, "data_fingerprint": data.fingerprint, "toy": True}
    with generated_set_writer(folder, obs, {}, manifest, overwrite=False) as writer:
        writer.add(images)
    return folder


def numbered_images(n: int, side_px: int) -> np.ndarray:
    """Image i has the colour (i, 255 - i, 7) throughout."""
    colours = np.stack([np.arange(n), 255 - np.arange(n), np.full(n, 7)], 1).astype(np.uint8)
    return np.broadcast_to(colours[:, None, None], (n, side_px, side_px, 3)).copy()
