"""The model, the section and what is computed of them once: everything that all sessions share and none changes.

N cells of the slide, G genes of the data.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sge2hist import __version__
from sge2hist.data.errors import InputError
from sge2hist.data.generated import NOTE, GeneratedSlide, applicability_headline
from sge2hist.data.paired import PairedDataset
from sge2hist.data.slides.channels import require_same_channels
from sge2hist.data.spatial_index import CellIndex
from sge2hist.explorer.edit_list import parsed_edits
from sge2hist.explorer.limits import LIMITS
from sge2hist.explorer.tiles import TileCache, open_tiles
from sge2hist.generation.applicability import Warn, check_dataset, warn_user
from sge2hist.generation.edited_patches import EditedPatch
from sge2hist.generation.embed import Embedding, embed_counts
from sge2hist.generation.encode import protein_reader
from sge2hist.generation.footprints import AUTO
from sge2hist.generation.look import transform_of
from sge2hist.generation.requests import check_resolution
from sge2hist.generation.slide.edited_source import EditedSource
from sge2hist.generation.slide.edits import Edit
from sge2hist.generation.slide.request import with_footprints
from sge2hist.generation.slide.source import SlideSource, source_from_paired
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.image.samplers import SamplerConfig
from sge2hist.viewer.colours import colours_of
from sge2hist.viewer.layers import UNKNOWN_RGB, type_colours

if TYPE_CHECKING:
    from scipy.sparse import csr_array

MAX_KEPT = 8  # edited sources; 4 times as many genes and patches
COUNTS_PER = 10_000.0


class Tissue:
    """A model and one slide of a paired dataset, with the slide generated from it if there is one.

    Raises
    ------
    InputError
        If the model takes no positions, other channels or another resolution, does not know such cells (unless `force`), or the
        generated slide is of other data.
    """

    def __init__(
        self,
        bundle: ModelBundle,
        dataset: PairedDataset,
        *,
        model_name: str,
        slide: int = 0,
        generated: GeneratedSlide | None = None,
        force: bool = False,
        warn: Warn = warn_user,
    ) -> None:
        if bundle.config.image.condition.form != "map":
            raise InputError(
                found=f"a model of preset {bundle.config.preset}, which is conditioned on one cell without positions",
                expected="a model of placed cells",
            )
        require_same_channels(dataset.channels, bundle.config.channels, where=str(dataset.path))
        check_resolution(bundle, dataset, False)
        if generated is not None and generated.manifest.get("data_fingerprint") != dataset.fingerprint:
            raise InputError(
                found="a slide that was generated from another dataset",
                where=str(generated.path),
                expected=f"one made with --data {dataset.path}",
            )
        self.applicability = check_dataset(bundle, dataset, force=force, warn=warn)
        self.force = force
        self.bundle, self.dataset, self.slide, self.model_name = bundle, dataset, slide, model_name
        self.generated = generated
        self.threads = torch.get_num_threads()  # as the command line has
        section = source_from_paired(dataset, slide)
        self.outline_um_NV2 = section.outline_um_NV2  # vertices from each cell's centre, for display; None: unknown
        self.source: SlideSource = with_footprints(bundle, section, AUTO)
        self.proteins = protein_reader(bundle, self.source)
        self.rows = np.flatnonzero(dataset.slide_of_cell == slide)  # in the dataset
        self.match = bundle.genes.align(dataset.genes)
        self.counts = dataset.counts_in_memory()
        self.library_N = np.asarray(self.counts.sum(1)).ravel()[self.rows].astype(np.float64)
        self.mean_G = np.asarray(self.counts.sum(0)).ravel() / max(1, len(dataset))  # counts per cell
        self.index = CellIndex(self.source.xy_um_N2, np.zeros(len(self.rows), np.int64))
        self.colours = colours_of(bundle.config.channels, transform_of(bundle), generated)  # of images of the model
        self.tiles = TileCache(open_tiles(dataset, slide, generated))
        self.type_names = [*dataset.types, *(name for name in bundle.types.names if name not in dataset.types)]
        self.type_N = dataset.type_of_cell[self.rows]
        self.rank_N = np.random.default_rng(0).permutation(
            len(self.rows)
        )  # the first ones are an even part of the cells
        self._edited: OrderedDict[tuple[str, ...], EditedSource] = OrderedDict()
        self._patches: OrderedDict[tuple[Any, ...], EditedPatch] = OrderedDict()
        self._genes: OrderedDict[int, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of a new session."""
        sampler = self.bundle.config.sampler
        return {"seed": 0, "n_steps": sampler.n_steps, "guidance": sampler.guidance}

    def sampler(self, settings: dict[str, Any]) -> SamplerConfig:
        """The model's sampler with the settings of a session."""
        own = self.bundle.config.sampler
        return replace(own, n_steps=settings["n_steps"], guidance=settings["guidance"])

    def edits(self, edits: Sequence[dict[str, Any]]) -> list[Edit]:
        """Enabled edits of a session as the generator reads them."""
        return parsed_edits(edits, self.source.um_per_edit_unit)

    def edited(self, edits: Sequence[Edit]) -> EditedSource:
        """The cells after edits; the last few results are kept."""
        key = tuple(edit.fingerprint() for edit in edits)
        with self._lock:
            if key in self._edited:
                self._edited.move_to_end(key)
                return self._edited[key]
        made = EditedSource(self.source, edits)
        with self._lock:
            self._edited[key] = made
            while len(self._edited) > MAX_KEPT:
                self._edited.popitem(last=False)
        return made

    def patch(self, number: int, edits: Sequence[Edit]) -> EditedPatch:
        """The encoded cells of the patch of a cell; the last few results are kept."""
        key = (number, *(edit.fingerprint() for edit in edits))
        with self._lock:
            if key in self._patches:
                self._patches.move_to_end(key)
                return self._patches[key]
        made = EditedPatch(self.bundle, self.edited(edits), number)
        with self._lock:
            self._patches[key] = made
            while len(self._patches) > 4 * MAX_KEPT:
                self._patches.popitem(last=False)
        return made

    def count_cells(self, edit: dict[str, Any]) -> int:
        """Cells that a checked edit changes; `InputError` for one without effect."""
        edits = parsed_edits([edit | {"enabled": True}], self.source.um_per_edit_unit)
        made = EditedSource(self.source, edits)
        made.check(self.bundle)
        n_added = sum(len(xy) for _, xy in made.added)
        if n_added > LIMITS.added_cells:
            raise InputError(found=f"{n_added:,} added cells", expected=f"at most {LIMITS.added_cells:,}")
        return len(made.rows[0]) + n_added

    def embed(self, counts: csr_array, numbers: np.ndarray) -> Embedding:
        """The embedding of some cells from their counts, as edited, and their proteins, which no edit changes."""
        bundle = self.bundle
        gathered, observed = bundle.genes.gather(counts, self.match)
        protein_NP = None if self.proteins is None else self.proteins(numbers)
        return embed_counts(bundle.model.gene, bundle.types, gathered, observed, protein_NP=protein_NP)

    def gene_column(self, name: str) -> int:
        """Column of a gene of the data by symbol or id."""
        columns = self.dataset.genes.columns_called(name)
        if not columns:
            raise InputError(found=f"gene {name!r}", expected="a symbol or id that the cells have counts of")
        return columns[0]

    def gene_counts(self, column: int) -> np.ndarray:
        """Counts of a gene in the N cells, float32."""
        with self._lock:
            if column in self._genes:
                self._genes.move_to_end(column)
                return self._genes[column]
        at = np.flatnonzero(self.counts.indices == column)
        out = np.zeros(self.counts.shape[0], np.float32)
        out[np.searchsorted(self.counts.indptr, at, side="right") - 1] = self.counts.data[at]
        out = out[self.rows]
        with self._lock:
            self._genes[column] = out
            while len(self._genes) > 4 * MAX_KEPT:
                self._genes.popitem(last=False)
        return out

    @cached_property
    def uncertainty_N(self) -> np.ndarray | None:
        """Spread over seeds at each cell in grey levels, nan outside the generated region; None where it was not stored."""
        if self.generated is None or self.generated.uncertainty is None:
            return None
        pixels = self.generated.uncertainty.as_array()[..., 0]
        x, y, _, _ = self.generated.region_um
        at = np.floor((self.source.xy_um_N2 - (x, y)) / self.generated.um_per_px).astype(np.int64)
        inside = ((at >= 0) & (at < pixels.shape[::-1])).all(1)
        out = np.full(len(at), np.nan)
        scale = float(self.generated.manifest["uncertainty_scale"])
        out[inside] = pixels[at[inside, 1], at[inside, 0]] / scale
        return out

    def facts(self, saving: bool) -> dict[str, Any]:
        """The answer to `GET api/info`."""
        config, dataset = self.bundle.config, self.dataset
        _, _, width, height = self.source.bounds_um
        found = self.applicability.as_dict()
        colours = type_colours(self.type_names)
        n_of_type = np.bincount(self.type_N + 1, minlength=len(self.type_names) + 1)[1:]
        known = {name.casefold() for name in self.bundle.types.names}
        return {
            "protocol": 1,
            "version": __version__,
            "mark": NOTE,
            "model": {
                "name": self.model_name,
                "preset": config.preset,
                "toy": self.bundle.is_toy,
                "um_per_px": config.um_per_px,
                "patch_um": config.patch_um,
                "patch_px": config.patch_px,
                "n_genes": len(self.bundle.genes),
                "types": self.bundle.types.names,
                "sampler": {
                    "name": config.sampler.sampler,
                    "n_steps": config.sampler.n_steps,
                    "guidance": config.sampler.guidance,
                },
            },
            "data": {
                "name": dataset.path.name,
                "slide": self.source.slide,
                "toy": dataset.is_toy,
                "n_cells": len(self.rows),
                "n_genes": len(dataset.genes),
                "width_um": width,
                "height_um": height,
                "um_per_px": dataset.um_per_px,
                "cell_spacing_um": self.index.spacing_um(),
                "outlines": self.outline_um_NV2 is not None,
                "channels": list(dataset.channels),
            },
            "types": [
                {
                    "name": name,
                    "colour": "#{:02x}{:02x}{:02x}".format(*colours[number]),
                    "n": int(n_of_type[number]) if number < len(n_of_type) else 0,
                    "in_model": name.casefold() in known,
                }
                for number, name in enumerate(self.type_names)
            ],
            "unknown_colour": "#{:02x}{:02x}{:02x}".format(*UNKNOWN_RGB),
            "layers": [layer.facts() for layer in self.tiles.layers.values()],
            "colours": [
                "type",
                "gene",
                "novelty",
                "posterior",
                *([] if self.uncertainty_N is None else ["uncertainty"]),
            ],
            "applicability": {"verdict": found["verdict"], "headline": applicability_headline(found) or ""},
            "saving": saving,
            "limits": LIMITS.as_dict(),
        }

    def find_genes(self, query: str, limit: int) -> list[dict[str, Any]]:
        """Genes whose symbol or id holds a text: exact first, then by beginning, then the others; by counts within each."""
        symbols, ids = self._folded
        wanted = query.strip().casefold()
        ranked = []
        for column, (symbol, gene_id) in enumerate(zip(symbols, ids, strict=True)):
            if wanted not in symbol and wanted not in gene_id:
                continue
            exact = wanted in (symbol, gene_id)
            ranked.append((not exact, not symbol.startswith(wanted), -self.mean_G[column], column))
        if not wanted:
            ranked = [(not self._in_model[c], False, -self.mean_G[c], c) for c in range(len(symbols))]
        columns = [entry[-1] for entry in sorted(ranked)[:limit]]
        genes = self.dataset.genes
        return [
            {
                "symbol": genes.symbols[c],
                "id": genes.ids[c],
                "in_model": bool(self._in_model[c]),
                "mean": round(float(self.mean_G[c]), 5),
            }
            for c in columns
        ]

    @cached_property
    def _folded(self) -> tuple[list[str], list[str]]:
        genes = self.dataset.genes
        return [name.casefold() for name in genes.symbols], [name.casefold() for name in genes.ids]

    @cached_property
    def _in_model(self) -> np.ndarray:
        out = np.zeros(len(self.dataset.genes), bool)
        out[self.match.columns[self.match.columns >= 0]] = True
        return out
