"""Conditions side by side: what the patches of each show, statistic by statistic, with the difference of own and layout alone."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from cell_patches import LAYOUT, OWN, Setting, generate_patches
from cell_readers import Look, Readers
from cell_statistics import PatchResamples, Statistic, mean_of, shown

from sge2hist.evaluation.resampling import Estimate, Resampling


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Looks at real patches and, of each condition, at those of each seed."""

    setting: Setting
    real: Look
    generated: dict[str, list[Look]]
    resamples: PatchResamples

    @property
    def of_cells(self) -> Resampling:
        """Resamples of the measured cells."""
        return self.resamples.of_items(self.real.cells.patch_N)

    @property
    def head(self) -> list[str]:
        """Names of the columns of conditions, and of their difference."""
        return [*self.generated, *([f"{OWN} less {LAYOUT}"] if {OWN, LAYOUT} <= set(self.generated) else [])]

    def row(
        self, name: str, statistic: Callable[[Look], Statistic], resampling: Resampling, *, real: bool = False
    ) -> list[str]:
        """A statistic of each condition (mean over its seeds), and the difference; with `real`, first that of real patches."""
        found = {
            condition: resampling.bootstrap(mean_of([statistic(look) for look in looks]))
            for condition, looks in self.generated.items()
        }
        first = [shown(resampling.bootstrap(statistic(self.real)))] if real else []
        return [name, *first, *map(shown, found.values()), *self.difference(found)]

    def difference(self, found: dict[str, Estimate]) -> list[str]:
        """The cell of own less layout alone."""
        if len(self.head) == len(self.generated):
            return []
        return [shown(found[OWN].minus(found[LAYOUT]))]


def compare(setting: Setting, conditions: list[str], n_seeds: int) -> Compared:
    """Fit the readers and generate all patches."""
    start = time.process_time()
    readers = Readers.fit(setting)
    print(f"readers: {time.process_time() - start:.0f} s of processor", file=sys.stderr, flush=True)
    generated = {}
    for condition in conditions:
        start = time.process_time()
        generated[condition] = [
            Look(generate_patches(setting, setting.centres, condition, seed), setting.cells, readers)
            for seed in range(n_seeds)
        ]
        print(f"{condition}: {time.process_time() - start:.0f} s of processor", file=sys.stderr, flush=True)
    real = Look(setting.real(setting.centres), setting.cells, readers)
    resamples = PatchResamples.of(len(setting.centres))
    return Compared(setting=setting, real=real, generated=generated, resamples=resamples)
