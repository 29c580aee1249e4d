"""Cells of a type added between the cells of another, against cells of other types at the same places.

Read at the places of the added cells, before and after, under the same noise; the reverse removes cells of the type.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from cell_measures import PatchCells
from cell_patches import EDGE_UM
from cell_readers import Look
from cell_statistics import PatchResamples, shown, table
from edits_picture import Scene
from scipy.spatial import KDTree

from sge2hist.evaluation.resampling import Resampling
from sge2hist.generation.edited_patches import EditedPatch, joined
from sge2hist.generation.slide.edited_source import EditedSource
from sge2hist.generation.slide.edits import Edit
from sge2hist.generation.slide.source import source_from_paired
from sge2hist.generation.windows import image_seed, sample_patches

if TYPE_CHECKING:
    from cell_edits import Bench

PER_PATCH = 4  # cells added to each patch
APART_UM = 14.0
CONTROLS = ("Fibroblast", "Macrophage")  # besides the type of the nest itself


def places_between(
    xy_um_N2: np.ndarray, centre_um_B2: np.ndarray, half_um: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A few places in each square window, the farthest from any cell among 400 random ones, apart from each other, um; and their
    window.
    """
    tree, places, window = KDTree(xy_um_N2), [], []
    for number, centre in enumerate(centre_um_B2):
        tried = centre + rng.uniform(-half_um, half_um, (400, 2))
        chosen: list[np.ndarray] = []
        for place in tried[np.argsort(-tree.query(tried)[0])]:
            if len(chosen) < PER_PATCH and all(np.linalg.norm(place - other) >= APART_UM for other in chosen):
                chosen.append(place)
        places += chosen
        window += [number] * len(chosen)
    return np.array(places), np.array(window, np.int64)


class AddedCells:
    """Cells of type `name` in patches around held-out cells of type `nest`."""

    def __init__(self, bench: Bench, name: str, nest: str) -> None:
        self.bench, self.name, self.nest = bench, name, nest
        self.centres = bench.centres(bench.code(nest), bench.n)
        self.source = source_from_paired(bench.data, 0)
        xy_um, half_um = bench.setting.xy_um_N2, bench.bundle.config.patch_um / 2 - EDGE_UM
        self.at_um, self.patch_N = places_between(
            xy_um, xy_um[self.centres], half_um, np.random.default_rng(bench.seed)
        )
        xy = self.at_um - xy_um[self.centres][self.patch_N]
        half_px = bench.bundle.config.patch_px / 2
        self.cells = PatchCells(
            patch_N=self.patch_N,
            xy_px_N2=xy / bench.setting.um + half_px,
            row_N=np.zeros(len(xy), np.int64),
            outline_px_NV2=None,
        )
        self.before = self.look([])
        types = (name, nest, *CONTROLS)
        self.after = {added: self.look([Edit(add_type=added, at_um=tuple(map(tuple, self.at_um)))]) for added in types}

    def images(self, centres: np.ndarray, edits: list[Edit]) -> np.ndarray:
        """Patches after edits, with the noise of each that does not depend on them."""
        edited = EditedSource(self.source, edits)
        placed = joined([EditedPatch(self.bench.bundle, edited, int(row)).placed for row in centres])
        seeds = np.array([image_seed(0, str(row), 0) for row in centres])
        return sample_patches(self.bench.bundle, placed, seeds, self.bench.bundle.config.sampler)

    def look(self, edits: list[Edit]) -> Look:
        """The places in the patches after edits."""
        return Look(self.images(self.centres, edits), self.cells, self.bench.readers)

    def removed(self) -> tuple[Look, Look, Resampling]:
        """Cells of the type in patches around them, before and after all of the type are removed; and their resamples."""
        code = self.bench.code(self.name)
        centres = self.bench.centres(code, self.bench.n)
        cells = self.bench.cells(centres, code)
        first, second = (self.images(centres, edits) for edits in ([], [Edit(of_type=self.name, remove=True)]))
        by_cell = PatchResamples.of(len(centres)).of_items(cells.patch_N)
        return Look(first, cells, self.bench.readers), Look(second, cells, self.bench.readers), by_cell

    def scene(self) -> Scene:
        """Before, with the cells, and with cells of the nest itself."""
        looks = {"before": self.before, self.name: self.after[self.name], self.nest: self.after[self.nest]}
        return Scene.of(f"{self.name} added to {self.nest}", looks)


def added_table(added: AddedCells) -> str:
    """Probability of the type at the places, in units of real cells of the type less real places between cells."""
    bench, code = added.bench, added.bench.code(added.name)
    real_places = Look(bench.setting.real(added.centres), added.cells, bench.readers).probability(code)
    step = bench.real(code).probability(code).mean() - real_places.mean()
    by_place = PatchResamples.of(len(added.centres)).of_items(added.patch_N)
    before = added.before.probability(code)
    effects = {name: (look.probability(code) - before) / step for name, look in added.after.items()}
    first, second, by_cell = added.removed()
    reverse = by_cell.mean((second.probability(code) - first.probability(code)) / step)
    strongest = max((name for name in effects if name != added.name), key=lambda name: effects[name].mean())
    effect, beyond = by_place.mean(effects[added.name]), by_place.mean(effects[added.name] - effects[strongest])
    lost = [
        name
        for name, beaten in {
            "nothing added": effect.interval()[0] > 0,
            "other types": beyond.interval()[0] > 0,
            "reverse": reverse.interval()[1] < 0,
        }.items()
        if not beaten
    ]
    others = "; ".join(f"{name} {shown(by_place.mean(effects[name]))}" for name in effects if name != added.name)
    row = [shown(effect), others, f"{strongest}: {shown(beyond)}", shown(reverse)]
    row.append("no: " + ", ".join(lost) if lost else "**yes**")
    head = (
        f"{len(added.at_um)} cells of type {added.name} added between the cells of {len(added.centres)} patches around "
        f"cells of type {added.nest}; probability of {added.name} at their places, 1: a real one ({step:.2f}).\n\n"
    )
    names = [f"{added.name} added", "other types added", "beyond the strongest", f"{added.name} removed", "counts"]
    return head + table(names, [row])
