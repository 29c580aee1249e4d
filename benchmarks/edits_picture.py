"""One picture of several edits: before, edited and control of each, generated images alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cell_measures import PatchCells
from cell_readers import Look

from sge2hist.data.paired import PairedDataset
from sge2hist.data.slides.channels import composite
from sge2hist.data.virtual_he import choose_stains


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Images of one patch under several names, and where the edited cells are, px."""

    name: str
    images: dict[str, np.ndarray]
    cells: PatchCells
    patch: int

    @classmethod
    def of(cls, name: str, looks: dict[str, Look]) -> Scene:
        """The patch with most edited cells."""
        cells = next(iter(looks.values())).cells
        patch = int(np.bincount(cells.patch_N).argmax())
        return cls(name=name, images={key: look.images[patch] for key, look in looks.items()}, cells=cells, patch=patch)

    @property
    def own(self) -> np.ndarray:
        """Its cells."""
        return np.flatnonzero(self.cells.patch_N == self.patch)


def draw(scenes: list[Scene], data: PairedDataset, path: Path) -> None:
    """Write one row per scene: each image as virtual H&E, then as stains; edited cells outlined in the first."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    stains, _ = choose_stains(data.channels)
    n = max(len(scene.images) for scene in scenes)
    figure, axes = plt.subplots(len(scenes), 2 * n, figsize=(4 * n, 2.15 * len(scenes)), squeeze=False)
    for row, scene in zip(axes, scenes, strict=True):
        for column, (name, image) in enumerate(scene.images.items()):
            row[column].imshow(stains.render_levels(image, data.channels, data.stain_transform))
            row[n + column].imshow(composite(image, data.channels))
            for axis in (row[column], row[n + column]):
                axis.set_title(name, fontsize=8, pad=2)
        for cell in scene.own:
            if scene.cells.outline_px_NV2 is None:
                row[0].plot(*scene.cells.xy_px_N2[cell], "+", color="black", markersize=5)
            else:
                ring = scene.cells.outline_px_NV2[cell]
                row[0].plot(*np.concatenate([ring, ring[:1]]).T, color="black", linewidth=0.5)
        row[0].set_ylabel(scene.name, fontsize=7)
        for axis in row:
            axis.set(xticks=[], yticks=[])
            axis.set_xlim(0, image.shape[1])
            axis.set_ylim(image.shape[0], 0)
    figure.tight_layout(pad=0.3)
    figure.savefig(path, dpi=70, pil_kwargs={"optimize": True})
    plt.close(figure)
