"""Answers about cells, as a session has edited them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from sge2hist.data.errors import InputError
from sge2hist.explorer.fields import not_found
from sge2hist.explorer.scores import SCORES, CellScores, value_scale
from sge2hist.explorer.tissue import COUNTS_PER, Tissue
from sge2hist.generation.embed import Embedding
from sge2hist.generation.slide.edited_source import EditedSource
from sge2hist.generation.slide.nearby_cells import inside_box

ADDED = "added_"
MAX_COMPARED = 20_000  # cells among which similar ones are looked for
CHUNK = 1_024
Rectangle = tuple[float, float, float, float]
TOP_GENES = 20
NEIGHBOURS_UM, MAX_NEIGHBOURS = 100.0, 32


class CellAnswers:
    """Reads cells of a tissue; what it computes of the unedited cells is kept for all sessions."""

    def __init__(self, tissue: Tissue) -> None:
        self.tissue = tissue
        self._tree = cKDTree(tissue.source.xy_um_N2)
        self.scores = CellScores(tissue)
        self._compared: np.ndarray | None = None  # numbers of cells
        self._latents: list[np.ndarray] = []
        self._lock = threading.Lock()

    # --- one cell --------------------------------------------------------------------------------------------------

    def number_of(self, cell: str) -> int:
        """Number of a cell of the data; `RequestError` if there is none."""
        try:
            found = self.tissue.source.ids.get_loc(cell)
        except KeyError:
            raise not_found(f"no cell {cell!r}") from None
        if not isinstance(found, int):
            raise InputError(found=f"several cells {cell!r}", expected="ids that are unique")
        return found

    def nearest(self, point_um: tuple[float, float]) -> tuple[str, float]:
        """Id of the cell of the data nearest to a place, and its distance in um."""
        distance, number = self._tree.query(point_um)
        return str(self.tissue.source.id_N[int(number)]), round(float(distance), 3)

    def position_of(self, edited: EditedSource, cell: str) -> tuple[np.ndarray, int]:
        """Position in um, and number (-1 - i: added by edit i)."""
        if cell.startswith(ADDED) and cell[len(ADDED) :].isdecimal() and len(cell) < 16:
            position = int(cell[len(ADDED) :])
            for number, xy in edited.added:
                if position < len(xy):
                    return xy[position], -1 - number
                position -= len(xy)
        number = self.number_of(cell)
        return edited.xy_um_N2[number], number

    def describe(self, edited: EditedSource, cell: str, asked: Sequence[str] = ()) -> dict[str, Any]:
        """One cell."""
        tissue = self.tissue
        xy, number = self.position_of(edited, cell)
        facts: dict[str, Any] = {"id": cell, "x": float(xy[0]), "y": float(xy[1]), "added": number < 0}
        facts["neighbours"] = self._neighbours(edited, xy, number)
        if number < 0:
            name = tissue.bundle.canonical_type_name(str(edited.edits[-1 - number].add_type))
            return facts | {
                "type": tissue.type_names.index(name),
                "edited": True,
                "predicted_type": name,
                "n_counts": 0,
                "n_genes": 0,
                "probabilities": [{"type": name, "p": 1.0}],
                "genes": [],
                "novelty": None,
            }
        at = np.array([number])
        counts, original = (read(at).toarray()[0] for read in (edited.read_counts, tissue.source.read_counts))
        found, before = self._embedded(counts, at), self._embedded(original, at)
        probability = tissue.bundle.types.type_probabilities(found.responsibilities_NK)[0]
        order = np.argsort(-probability)
        novelty = _novelty(found) | {"original": _novelty(before)}
        return facts | {
            "type": int(self._types(edited, at)[0]),
            "edited": bool(edited.is_edited(at)[0]),
            "removed": not bool(edited.kept_N[number]),
            "predicted_type": found.type_names[0],
            "n_counts": float(counts.sum()),
            "n_genes": int((counts > 0).sum()),
            "probabilities": [
                {"type": tissue.bundle.types.names[k], "p": round(float(probability[k]), 4)} for k in order
            ],
            "genes": self._genes(counts, original, asked),
            "novelty": novelty,
        }

    def novelty(self, edited: EditedSource, number: int) -> dict[str, Any]:
        """Novelty of the counts of one cell."""
        at = np.array([number])
        return _novelty(self._embedded(edited.read_counts(at).toarray()[0], at))

    def _embedded(self, counts_G: np.ndarray, number: np.ndarray) -> Embedding:
        from scipy.sparse import csr_array

        return self.tissue.embed(csr_array(counts_G[None]), number)

    def _genes(self, counts_G: np.ndarray, original_G: np.ndarray, asked: Sequence[str]) -> list[dict[str, Any]]:
        tissue = self.tissue
        top = np.argsort(-counts_G, kind="stable")[:TOP_GENES]
        columns = [int(c) for c in top if counts_G[c] > 0]
        columns += [c for c in map(tissue.gene_column, asked) if c not in columns]
        total, mean_total = max(float(counts_G.sum()), 1.0), max(float(tissue.mean_G.sum()), 1e-9)
        out = []
        for c in columns:
            share, usual = float(counts_G[c]) / total, float(tissue.mean_G[c]) / mean_total
            out.append(
                {
                    "symbol": tissue.dataset.genes.symbols[c],
                    "id": tissue.dataset.genes.ids[c],
                    "counts": float(counts_G[c]),
                    "original": float(original_G[c]),
                    "share": round(share, 6),
                    "fold": round(share / usual, 3) if usual else None,
                    "in_model": bool(tissue._in_model[c]),
                }
            )
        return out

    def _neighbours(self, edited: EditedSource, xy: np.ndarray, number: int) -> list[dict[str, Any]]:
        near = edited.kept_N & inside_box(edited.xy_um_N2, xy, np.full(2, NEIGHBOURS_UM))
        if number >= 0:
            near[number] = False
        rows = np.flatnonzero(near)
        distance = np.linalg.norm(edited.xy_um_N2[rows] - xy, axis=1)
        order = np.argsort(distance, kind="stable")[:MAX_NEIGHBOURS]
        order = order[distance[order] <= NEIGHBOURS_UM]
        rows, distance = rows[order], distance[order]
        types = self._types(edited, rows)
        return [
            {
                "id": str(self.tissue.source.id_N[row]),
                "x": float(edited.xy_um_N2[row, 0]),
                "y": float(edited.xy_um_N2[row, 1]),
                "type": int(code),
                "distance_um": round(float(d), 3),
            }
            for row, code, d in zip(rows, types, distance, strict=True)
        ]

    def _types(self, edited: EditedSource, numbers: np.ndarray) -> np.ndarray:
        """Indices into the type names of the protocol; -1 unknown."""
        names, codes = self.tissue.type_names, self.tissue.type_N[numbers].copy()
        for edit, rows in zip(edited.edits, edited.rows, strict=True):
            if edit.set_type is not None:
                codes[np.isin(numbers, rows)] = names.index(self.tissue.bundle.canonical_type_name(edit.set_type))
        return codes

    # --- many cells ------------------------------------------------------------------------------------------------

    def within(
        self, edited: EditedSource, rectangle: Rectangle, limit: int, colour: str, outlines: bool = False
    ) -> dict[str, Any]:
        """Cells in a rectangle (x, y, width, height), thinned to `limit`; edited and added ones come first."""
        x, y, width, height = rectangle
        half = np.array([width, height]) / 2
        centre, xy_N2 = np.array([x, y]) + half, edited.xy_um_N2
        rows = np.flatnonzero(edited.kept_N & inside_box(xy_N2, centre, half))
        added = [(n, p, inside_box(p, centre, half)) for n, p in edited.added]
        n = len(rows) + sum(int(inside.sum()) for _, _, inside in added)
        changed = edited.is_edited(rows)
        if len(rows) > limit:
            first = np.argsort(np.where(changed, -1, self.tissue.rank_N[rows]), kind="stable")[:limit]
            rows, changed = rows[np.sort(first)], changed[np.sort(first)]
        xy = [xy_N2[rows]]
        ids = [str(name) for name in self.tissue.source.id_N[rows]]
        codes = [int(code) for code in self._types(edited, rows)]
        offset = 0
        for number, p, inside in added:
            name = self.tissue.bundle.canonical_type_name(str(edited.edits[number].add_type))
            xy.append(p[inside])
            ids += [f"{ADDED}{offset + int(i)}" for i in np.flatnonzero(inside)]
            codes += [self.tissue.type_names.index(name)] * int(inside.sum())
            offset += len(p)
        positions = np.concatenate(xy).round(2)
        out: dict[str, Any] = {
            "n": n,
            "thinned": len(ids) < n,
            "id": ids,
            "x": positions[:, 0].tolist(),
            "y": positions[:, 1].tolist(),
            "type": codes,
            "edited": [*changed.astype(int).tolist(), *[1] * (len(ids) - len(rows))],
        }
        if outlines:
            lent = [self._lent_outlines(edited, n, p[inside]) for n, p, inside in added]
            out["outline"] = [*self._outlines(edited, rows), *(outline for some in lent for outline in some)]
        if colour != "type":
            if colour in SCORES:
                values, out["pending"] = self.scores.values(colour, edited, rows)
                out["scale"] = self.scores.scale(colour)
            else:
                values, out["scale"] = self._values(edited, rows, colour)
            shown = [None if not np.isfinite(v) else round(float(v), 4) for v in values]
            out["value"] = [*shown, *[None] * (len(ids) - len(rows))]
        return out

    def _outlines(self, edited: EditedSource, rows: np.ndarray) -> list[list[float] | None]:
        """x, y, x, y, ... of each outline in um; None where it is unknown."""
        known = self.tissue.outline_um_NV2
        if known is None:
            return [None] * len(rows)
        return _flat(known[rows] + edited.xy_um_N2[rows, None])

    def _lent_outlines(self, edited: EditedSource, number: int, xy_um_M2: np.ndarray) -> list[list[float] | None]:
        """The same of cells that an edit adds: those that condition the image."""
        if edited.source.outline_um_NV2 is None:
            return [None] * len(xy_um_M2)
        return _flat(edited.added_outlines(number, xy_um_M2) + xy_um_M2[:, None])

    def _values(self, edited: EditedSource, rows: np.ndarray, colour: str) -> tuple[np.ndarray, dict[str, Any]]:
        tissue = self.tissue
        if colour.startswith("gene:"):
            column = tissue.gene_column(colour.removeprefix("gene:"))
            of_all = np.log1p(tissue.gene_counts(column) / np.maximum(tissue.library_N, 1) * COUNTS_PER)
            values = of_all[rows].copy()
            changed = np.flatnonzero(edited.is_edited(rows))
            if len(changed):
                counts = edited.read_counts(rows[changed])
                library = np.maximum(np.asarray(counts.sum(1)).ravel(), 1)
                values[changed] = np.log1p(counts[:, [column]].toarray()[:, 0] / library * COUNTS_PER)
            return values, value_scale(of_all, "log1p of counts per 10,000")
        if tissue.uncertainty_N is None:
            raise not_found("no uncertainty: the generated slide has one seed, or none is given")
        return tissue.uncertainty_N[rows], value_scale(tissue.uncertainty_N, "grey levels")

    # --- cells like one --------------------------------------------------------------------------------------------

    def similar(self, edited: EditedSource, cell: str, n: int) -> dict[str, Any]:
        """Nearest cells in the latent space; every call encodes some of the cells that are compared until all are."""
        number = self.number_of(cell)
        source = self.tissue.source
        with self._lock:
            if self._compared is None:
                self._compared = np.sort(np.argsort(self.tissue.rank_N)[:MAX_COMPARED])
            done = sum(map(len, self._latents))
            if done < len(self._compared):
                part = self._compared[done : done + 4 * CHUNK]
                self._latents.append(self._latent(source.read_counts(part), part))
                return {"cells": [], "progress": round((done + len(part)) / len(self._compared), 3)}
            if len(self._latents) > 1:
                self._latents = [np.concatenate(self._latents)]
        at = np.array([number])
        (own,) = self._latent(edited.read_counts(at), at)
        distance, near = cKDTree(self._latents[0]).query(own, k=min(n + 1, len(self._latents[0])))
        numbers = self._compared[np.atleast_1d(near)]
        types = self._types(edited, numbers)
        found = [
            {
                "id": str(source.id_N[row]),
                "x": float(edited.xy_um_N2[row, 0]),
                "y": float(edited.xy_um_N2[row, 1]),
                "type": int(code),
                "distance": round(float(d), 4),
            }
            for row, code, d in zip(numbers, types, np.atleast_1d(distance), strict=True)
            if row != number
        ]
        return {"cells": found[:n], "progress": 1.0}

    def _latent(self, counts: Any, numbers: np.ndarray) -> np.ndarray:
        found = self.tissue.embed(counts, numbers)
        return np.concatenate([found.z1_NT, found.z2_NM], 1)


def _flat(outline_NV2: np.ndarray) -> list[list[float] | None]:
    """x, y, x, y, ... of each outline, without the vertices that are NaN; None where fewer than three are left."""
    outline_NV2 = outline_NV2.round(2)
    there_NV = np.isfinite(outline_NV2).all(2)
    flat = outline_NV2[there_NV].ravel().tolist()
    ends = 2 * there_NV.sum(1).cumsum()
    starts = [0, *ends[:-1].tolist()]
    return [flat[a:b] if b - a > 4 else None for a, b in zip(starts, ends.tolist(), strict=True)]


def _novelty(found: Embedding) -> dict[str, Any]:
    def share(value: float) -> float | None:
        return round(float(value), 4) if np.isfinite(value) else None

    return {
        "fit": share(found.fit_quantile_N[0]),
        "latent": share(found.latent_quantile_N[0]),
        "novel": bool(found.is_novel_N[0]),
    }
