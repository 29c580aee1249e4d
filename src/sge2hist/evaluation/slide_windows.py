"""A generated slide as a set of images: the windows at its held-out cells, as large as the real patches."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.data.generated import GeneratedSlide
from sge2hist.data.paired import PairedDataset
from sge2hist.evaluation.image_sets import ImageSet


def read_slide(path: Path, data: PairedDataset, name: str, split: str = "test") -> ImageSet:
    """The windows of a slide around the cells of a split, those that lie on it whole.

    Raises
    ------
    InputError
        If it is no slide of the dataset, or no such cell lies on it.
    """
    slide = GeneratedSlide.open(path)
    x, y, width, height = slide.region_um
    um = slide.um_per_px
    rows = data.rows(split)
    rows = rows[data.slide_of_cell[rows] == slide.slide_number(data)]
    centre_um_M2 = data.centre_xy_px[rows] * data.um_per_px - (x, y)
    half = data.patch_um / 2
    whole = ((centre_um_M2 >= half) & (centre_um_M2 <= np.array([width, height]) - half)).all(1)
    rows, centre_xy_px_M2 = rows[whole], centre_um_M2[whole] / um
    if len(rows) == 0:
        raise InputError(
            found=f"no cell of split {split} with a whole window of {data.patch_um:g} um",
            where=str(path),
            expected="a slide of held-out tissue",
            repair="draw a larger region, or use another --split",
        )
    side_px = round(data.patch_um / um)

    def read(indices: np.ndarray) -> np.ndarray:
        return np.stack([slide.image.read_patch(centre_xy_px_M2[i], data.patch_um, side_px, um) for i in indices])

    return ImageSet(
        name=name,
        path=path,
        files_M=[],
        row_M=rows,
        condition_row_M=rows,
        sample_M=np.zeros(len(rows), np.int64),
        seed_M=np.full(len(rows), slide.seed),
        type_M=data.obs["cell_type"].astype(str).to_numpy()[rows],
        manifest=slide.manifest,
        read=read,
        channels=data.channels,
    )
