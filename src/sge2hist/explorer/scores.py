"""Scores of cells by the gene model, computed as they are asked for: novelty, and the width of the posterior.

Both come from one pass of the encoder over a cell's own counts. One request computes them for a bounded number of new cells: an
even part of those asked for, so that a picture of the whole slide fills evenly.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from sge2hist.explorer.tissue import Tissue
from sge2hist.generation.slide.edited_source import EditedSource

NOVELTY, POSTERIOR = "novelty", "posterior"
SCORES = (NOVELTY, POSTERIOR)
MAX_NEW_SCORES = 4_096  # cells that one request encodes
N_OF_SCALE = 2_048  # cells of the slide whose quantiles make the scale of the posterior


@dataclass(frozen=True)
class _Known:
    """Scores of the N cells of the slide, as far as they are known."""

    known_N: np.ndarray  # bool
    score_2N: np.ndarray  # float32, rows as `SCORES`; nan where the model gives none

    @classmethod
    def none(cls, n_cells: int) -> _Known:
        return cls(np.zeros(n_cells, bool), np.full((len(SCORES), n_cells), np.nan, np.float32))


class CellScores:
    """Novelty and width of the posterior: of the cells of a tissue for all sessions, of edited ones while their edits are."""

    def __init__(self, tissue: Tissue) -> None:
        self.tissue = tissue
        self._of_data = _Known.none(len(tissue.rows))
        self._of_edits: WeakKeyDictionary[EditedSource, _Known] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def values(self, name: str, edited: EditedSource, numbers: np.ndarray) -> tuple[np.ndarray, int]:
        """A score of cells after edits, float32 [n], and how many of them must be asked for again: their values are nan."""
        with self._lock:
            of_edits = self._of_edits.setdefault(edited, _Known.none(len(self.tissue.rows)))
        changed = edited.is_edited(numbers)
        budget = self._learn(of_edits, edited, numbers[changed], MAX_NEW_SCORES)
        self._learn(self._of_data, self._unedited, numbers[~changed], budget)
        row = SCORES.index(name)
        known = np.where(changed, of_edits.known_N[numbers], self._of_data.known_N[numbers])
        values = np.where(changed, of_edits.score_2N[row, numbers], self._of_data.score_2N[row, numbers])
        return values, int((~known).sum())

    def scale(self, name: str) -> dict[str, Any]:
        """The scale of the protocol. Novelty is a quantile; the posterior is scaled by an even part of the slide."""
        if name == NOVELTY:
            return {"low": 0.0, "high": 1.0, "unit": "", "quantiles": [0.05, 0.25, 0.5, 0.75, 0.95]}
        sample = np.sort(np.argsort(self.tissue.rank_N)[:N_OF_SCALE])
        self._learn(self._of_data, self._unedited, sample, N_OF_SCALE)
        return value_scale(self._of_data.score_2N[SCORES.index(name), sample], "standard deviation")

    @cached_property
    def _unedited(self) -> EditedSource:
        return EditedSource(self.tissue.source)

    def _learn(self, into: _Known, edited: EditedSource, numbers: np.ndarray, budget: int) -> int:
        """Compute the scores of at most `budget` cells that have none yet; returns what is left of the budget."""
        new = numbers[~into.known_N[numbers]]
        new = np.sort(new[np.argsort(self.tissue.rank_N[new])][:budget])
        if len(new):
            found = self.tissue.embed(edited.read_counts(new), new)
            novelty_N = 1 - np.fmin(found.fit_quantile_N, found.latent_quantile_N)
            with self._lock:
                into.score_2N[:, new] = novelty_N, found.posterior_sd_N
                into.known_N[new] = True
        return budget - len(new)


def value_scale(values: np.ndarray, unit: str) -> dict[str, Any]:
    """The scale of the protocol: ends and quantiles of the finite values."""
    finite = values[np.isfinite(values)]
    if len(finite) == 0:
        return {"low": 0.0, "high": 1.0, "unit": unit, "quantiles": [0.0] * 5}
    quantiles = [round(float(q), 4) for q in np.quantile(finite, (0.05, 0.25, 0.5, 0.75, 0.95))]
    return {"low": float(finite.min()), "high": round(float(finite.max()), 4), "unit": unit, "quantiles": quantiles}
