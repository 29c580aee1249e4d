"""The demo's last step: how much of the toy's known truth is found again in the generated images."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sge2hist.data.paired import PairedDataset
    from sge2hist.generation.set import GeneratedSet
    from sge2hist.toy.visium_hd_folder import ToyPaths


def recover_truth(
    dataset: PairedDataset, sets: dict[str, GeneratedSet], paths: ToyPaths, *, seed: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Compare generated images with the truth at their cells; says two tables and returns their numbers.

    Parameters: `sets` holds "genes", images of cells of `dataset`, and may hold "types", images asked for by name.
    """
    import numpy as np
    import pandas as pd

    from sge2hist.toy.patch_traits import PatchTraits, true_patches
    from sge2hist.toy.recovery import recover, recover_asked

    cells = pd.read_csv(paths.truth / "cells.csv")
    traits = {n: cells[n].to_numpy() for n in ("nucleus_area_um2", "nucleus_haematoxylin", "cytoplasm_eosin")}
    centre_xy_um = dataset.centre_xy_px * dataset.um_per_px

    def truth_at(rows: np.ndarray) -> PatchTraits:
        return true_patches(cells[["x_um", "y_um"]].to_numpy(), traits, centre_xy_um[rows], dataset.patch_um)

    train_rows = dataset.rows("train")
    train_rows = np.random.default_rng(seed).choice(train_rows, min(1500, len(train_rows)), replace=False)
    training_images, training_types = dataset.patches(train_rows), dataset.type_of_cell[train_rows]
    um_per_px = dataset.patch_um / dataset.patch_px
    rows = sets["genes"].obs["row"].to_numpy()
    from_genes = recover(
        generated=_images(sets["genes"]),
        real=dataset.patches(rows),
        truth=truth_at(rows),
        type_N=dataset.type_of_cell[rows],
        training_images=training_images,
        training_types=training_types,
        um_per_px=um_per_px,
        seed=seed,
    )
    recovered: dict[str, Any] = {"toy": True, "from_genes": from_genes.as_dict(), "from_types": None}
    lines = from_genes.lines()
    if "types" in sets:
        asked = sets["types"].obs["cell_type"].astype(str)
        from_types = recover_asked(
            generated=_images(sets["types"]),
            asked_N=np.array([dataset.types.index(name) for name in asked]),
            training_images=training_images,
            training_types=training_types,
            training_truth=truth_at(train_rows),
            um_per_px=um_per_px,
        )
        recovered["from_types"] = from_types.as_dict()
        lines += from_types.lines()
    for line in lines:
        say(line)
    return recovered


def _images(generated: GeneratedSet) -> Any:
    import numpy as np

    return np.stack([generated.image(i) for i in range(len(generated))])
