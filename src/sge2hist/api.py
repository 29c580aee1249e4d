"""The trained model as an object: load or train it, generate images, embed cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sge2hist.data.artifacts import atomic_path, check_folder
from sge2hist.data.errors import InputError, as_path, refuse_wrong_arguments
from sge2hist.data.paired import PairedDataset, row_numbers
from sge2hist.data.slides.channels import describe_channels
from sge2hist.data.table.cell_table import CellTable, refuse_with_dataset
from sge2hist.device import usable_device
from sge2hist.generation.applicability import check_adata, check_dataset
from sge2hist.generation.edited_patches import edited_request
from sge2hist.generation.patches import image_batches
from sge2hist.generation.requests import GenerationRequest, request_from_adata, request_from_paired
from sge2hist.generation.slide.edits import Edit
from sge2hist.generation.type_requests import request_from_types
from sge2hist.models.bundle import ModelBundle, model_folder
from sge2hist.models.gene.cell_types import TypeTable
from sge2hist.models.image.samplers import SamplerConfig
from sge2hist.progress import bar

if TYPE_CHECKING:
    import anndata

    from sge2hist.training.config import TrainConfig


@dataclass(kw_only=True, repr=False)
class SGE2Hist:
    """A trained model.

    `sampler` arguments are a `SamplerConfig`, or the name of a sampler, with the model's other settings.
    `progress` shows a bar; None: in an interactive session only.

    Example
    -------
    >>> model = SGE2Hist.from_pretrained("pretrained:kidney")
    >>> model.generate_from_types("Podocyte", n=2, seed=0, sampler=SamplerConfig(n_steps=1)).shape
    (2, 64, 64, 3)
    """

    bundle: ModelBundle

    @classmethod
    def from_pretrained(cls, name: str | Path, *, device: str | torch.device = "cpu") -> SGE2Hist:
        """Load a model: a folder, "pretrained:kidney" (comes with the package), or "owner/name" on the hub.

        `device`: "cpu", "cuda", or "auto" (a GPU if there is one).

        Raises
        ------
        InputError
            If there is no such model, or torch cannot use the device.
        """
        if not isinstance(name, str | Path):
            raise _wrong_type("name", name, "a folder or a name", "SGE2Hist.from_pretrained('kidney.model')")
        found = usable_device(device)
        return cls(bundle=ModelBundle.load(model_folder(name), device=str(found)))

    @classmethod
    @refuse_wrong_arguments("overwrite", "log")
    def train(
        cls,
        dataset: PairedDataset,
        output: str | Path,
        config: TrainConfig | None = None,
        *,
        overwrite: bool = False,
        log: Callable[[str], None] = print,
    ) -> SGE2Hist:
        """Train on a paired dataset, write the model to `output`, and return it; the same call resumes a stopped run.

        `log` is called with lines of text: stages, losses, time left.
        """
        from sge2hist.training.config import TrainConfig
        from sge2hist.training.train import train

        _require_dataset("dataset", dataset)
        if config is not None and not isinstance(config, TrainConfig):
            raise _wrong_type("config", config, "a TrainConfig", "config=TrainConfig(preset='small')")
        return cls(bundle=train(dataset, output, config, overwrite=overwrite, log=log))

    def __repr__(self) -> str:
        config, toy = self.bundle.config, ", toy tissue" if self.bundle.is_toy else ""
        return (
            f"SGE2Hist(preset {config.preset!r}, {config.patch_px} px at {config.um_per_px:g} um/px, "
            f"{len(self.bundle.genes):,} genes, {len(self.types.names)} types, {self.device}{toy})"
        )

    def _repr_html_(self) -> str:
        """Facts and types, for notebooks."""
        from sge2hist.display import html_facts, html_table

        config, sampler = self.bundle.config, self.bundle.config.sampler
        facts = [
            ("preset", config.preset + (", trained on toy tissue" if self.bundle.is_toy else "")),
            ("images", f"{config.patch_px} px of {config.um_per_px:g} um, {describe_channels(config.channels)}"),
            ("genes", f"{len(self.bundle.genes):,}"),
            ("sampler", f"{sampler.sampler}, {sampler.n_steps} steps, guidance {sampler.guidance:g}"),
            ("parameters", f"{sum(p.numel() for p in self.bundle.model.parameters()) / 1e6:.1f} M"),
            ("device", str(self.device)),
        ]
        rows = [
            (row.name, str(row.component), f"{row.n_cells:,}", " ".join(row.markers))
            for row in sorted(self.types.rows, key=lambda row: -row.n_cells)
        ]
        return html_facts("SGE2Hist", facts) + html_table(("type", "component", "cells", "markers"), rows)

    @property
    def device(self) -> torch.device:
        """Where the model computes; can be set, to a name or a `torch.device`."""
        return next(self.bundle.model.parameters()).device

    @device.setter
    def device(self, device: str | torch.device) -> None:
        self.bundle.model.to(usable_device(device))

    def to(self, device: str | torch.device) -> SGE2Hist:
        """Move the model to a device, in place; returns it."""
        self.device = device
        return self

    @refuse_wrong_arguments("patch_px")
    def with_patch_px(self, patch_px: int) -> SGE2Hist:
        """The same model for patches of another side in px, at the same um/px; the weights are shared.

        Raises
        ------
        InputError
            If the networks cannot generate such patches.
        """
        return SGE2Hist(bundle=self.bundle.with_patch_px(patch_px))

    @refuse_wrong_arguments("half")
    def save_pretrained(self, path: str | Path, *, half: bool = False) -> None:
        """Write the model folder with its card; `half` stores the large weights in float16, for sharing."""
        from sge2hist.training.card import model_card

        folder = check_folder(as_path(path, "path"))
        self.bundle.save(folder, half=half)
        with atomic_path(folder / "README.md") as partial:
            partial.write_text(model_card(self.bundle), encoding="utf-8")

    @property
    def types(self) -> TypeTable:
        """Components of the mixture with their names, purity and markers."""
        return self.bundle.types

    @refuse_wrong_arguments("layer", "round_counts", "seed", "pool_um", "force")
    def embed(
        self,
        adata: anndata.AnnData,
        *,
        layer: str | None = None,
        round_counts: bool = False,
        seed: int = 0,
        pool_um: float | None = None,
        force: bool = False,
    ) -> str:
        """Write latents, types and a novelty flag of the cells into `adata`, in place; returns how its genes were found.

        Adds ``obsm["X_sge2hist_z1"]``, ``obsm["X_sge2hist_z2"]``, ``obs["sge2hist_type"]``, ``obs["sge2hist_novel"]`` and the
        component posteriors (see :func:`sge2hist.generation.embed.embed_adata`); ``uns["sge2hist"]`` says whether the model knows
        such cells, with the figures.

        Parameters
        ----------
        layer
            Layer of the raw counts, "X" or "raw/X"; default: found, in ``layers["counts"]``, X or raw.X.
        round_counts, seed
            Round counts with fractions (ambient RNA removed, destriped) at random, without bias, by this seed.
        pool_um
            Pool the posteriors of bins within this radius (um) when assigning types; needs ``obs["x_um"]`` and
            ``obs["y_um"]``. Default: as the model was trained.
        force
            Embed cells that the model does not know; types and latents of such cells mean nothing.

        Raises
        ------
        InputError
            If the model does not know such cells (see :mod:`sge2hist.generation.applicability`), or the counts are not raw.
        """
        from sge2hist.generation.embed import embed_adata

        _require_adata("adata", adata)
        cells = CellTable.of(adata, layer=layer, round_counts=round_counts, seed=seed)
        applicability = check_adata(self.bundle, cells, force=force)
        bundle, read = self.bundle, {"cells": cells, "pool_um": pool_um, "proteins": self.bundle.proteins}
        found = embed_adata(adata, bundle.model.gene, bundle.genes, bundle.types, **read)  # type: ignore[arg-type]
        figures = {figure.name: np.nan if figure.value is None else figure.value for figure in applicability.figures}
        adata.uns["sge2hist"] |= {"verdict": applicability.verdict, "figures": figures}
        return found.summary()

    @refuse_wrong_arguments("layer", "round_counts", "n_samples", "seed", "context", "edits", "force", "progress")
    def generate_from_genes(
        self,
        cells: anndata.AnnData | PairedDataset,
        *,
        rows: Sequence[int] | np.ndarray | None = None,
        layer: str | None = None,
        round_counts: bool = False,
        n_samples: int = 1,
        seed: int = 0,
        context: str | None = None,
        edits: Sequence[Edit] | str | Path = (),
        sampler: SamplerConfig | str | None = None,
        force: bool = False,
        progress: bool | None = None,
    ) -> np.ndarray:
        """Images of cells from their RNA, uint8 [cells, samples, H, W, C].

        Parameters
        ----------
        cells
            A `PairedDataset`, or an AnnData with raw counts.
        rows
            Numbers of cells from 0, or a mask of all cells; default: all.
        layer, round_counts
            Of an AnnData: where the raw counts are, and whether they are rounded by `seed`, as in `embed`.
        n_samples
            Images of each cell, with different noise.
        context
            "neighbours" (default of a dataset): with all cells of the patch at their positions. "homotypic" (default of an
            AnnData): with cells like it all over the patch. "single_cell": the cell alone.
        edits
            Changes of the cells of a dataset, or a GeoJSON file of them, as of `generate_slide`.
        force
            Generate from cells that the model does not know (see :mod:`sge2hist.generation.applicability`).

        Raises
        ------
        InputError
            If an argument is wrong, the model does not know such cells, or no gene is shared with the model.
        """
        _check_counts(n_samples=n_samples, seed=seed)
        if not isinstance(cells, PairedDataset):
            _require_adata("cells", cells)
        options: dict[str, Any] = {"n_samples": n_samples, "seed": seed}
        if isinstance(cells, PairedDataset):
            refuse_with_dataset(str(cells.path), layer, round_counts)
            chosen = cells.rows("all") if rows is None else row_numbers(rows, len(cells))
            options["applicability"] = check_dataset(self.bundle, cells, force=force)
            if edits:
                request = edited_request(self.bundle, cells, chosen, edits, context=context, **options)
            else:
                request = request_from_paired(self.bundle, cells, chosen, context=context or "neighbours", **options)
        elif edits:
            raise InputError(found="edits with an AnnData", expected="a PairedDataset")
        else:
            table = CellTable.of(cells, layer=layer, round_counts=round_counts, seed=seed)
            chosen = np.arange(table.n_obs) if rows is None else row_numbers(rows, table.n_obs)
            options["applicability"] = check_adata(self.bundle, table, force=force)
            request = request_from_adata(self.bundle, table, rows=chosen, context=context, **options)
        images = self._generate(request, self._sampler(sampler), progress)
        return images.reshape(-1, n_samples, *images.shape[1:])

    @refuse_wrong_arguments("n", "seed", "context", "progress")
    def generate_from_types(
        self,
        names: str | Sequence[str],
        *,
        n: int = 16,
        seed: int = 0,
        context: str | None = None,
        z2: str | np.ndarray = "type",
        sampler: SamplerConfig | str | None = None,
        progress: bool | None = None,
    ) -> np.ndarray:
        """Images of cell types by name, uint8 [types * n, H, W, C], one type after the other.

        Parameters
        ----------
        names
            One or several of `types.names`.
        context
            "niche" (default where the model has them): the cell among others as in the training section. "homotypic": cells of
            the type all over the patch. "single_cell": one cell of the type.
        z2
            The microenvironment: "type" (as among cells of the type), "prior" (N(0, I)), or a reference cell's, [n_micro].

        Raises
        ------
        InputError
            If an argument is wrong, or the model has no such type.
        """
        _check_counts(n=n, seed=seed)
        wanted = [names] if isinstance(names, str) else names
        if not isinstance(wanted, Sequence) or not all(isinstance(name, str) for name in wanted):
            raise _wrong_type("names", names, "names of cell types", "one of model.types.names")
        settings = self._sampler(sampler)
        request = request_from_types(self.bundle, list(wanted), n=n, seed=seed, z2=z2, context=context)
        return self._generate(request, settings, progress)

    @refuse_wrong_arguments("cell", "gene", "layer", "round_counts", "seed", "context", "force", "progress")
    def dose(
        self,
        cells: anndata.AnnData | PairedDataset,
        cell: str,
        gene: str | Sequence[str],
        factors: Sequence[float] = (0.0, 0.5, 1.0, 2.0),
        *,
        layer: str | None = None,
        round_counts: bool = False,
        seed: int = 0,
        context: str | None = None,
        sampler: SamplerConfig | str | None = None,
        force: bool = False,
        progress: bool | None = None,
    ) -> np.ndarray:
        """Images of one cell with the counts of a gene times each factor, under the same noise: uint8 [factors, H, W, C].

        Parameters
        ----------
        cells, cell
            A `PairedDataset` or an AnnData of raw counts, and the id of one of its cells.
        gene
            A symbol or id, or several that are scaled together.
        factors
            Numbers from 0 (knock-out) to 1,000; the image of 1 is that of the unchanged cell.
        layer, round_counts, context, force
            As in `generate_from_genes`.

        Raises
        ------
        InputError
            If the cell or a gene is unknown, the cell has no counts of it, or another argument is wrong.
        """
        from sge2hist.generation.dose import dose_request

        _check_counts(seed=seed)
        if not isinstance(cells, PairedDataset):
            _require_adata("cells", cells)
        request = dose_request(
            self.bundle,
            cells,
            cell,
            gene,
            factors,
            layer=layer,
            round_counts=round_counts,
            seed=seed,
            context=context,
            force=force,
        )
        return self._generate(request, self._sampler(sampler), progress)

    def _sampler(self, sampler: SamplerConfig | str | None) -> SamplerConfig:
        if sampler is None or isinstance(sampler, SamplerConfig):
            return sampler or self.bundle.config.sampler
        if not isinstance(sampler, str):
            repair = "sampler=SamplerConfig(sampler='heun', n_steps=12)"
            raise _wrong_type("sampler", sampler, "a SamplerConfig or the name of a sampler", repair)
        return replace(self.bundle.config.sampler, sampler=sampler)

    def _generate(self, request: GenerationRequest, sampler: SamplerConfig, progress: bool | None) -> np.ndarray:
        if len(request) == 0:
            raise InputError(found="no cell to generate", expected="at least one")
        batches = []
        with bar("generating", len(request), show=progress) as advance:
            for images in image_batches(self.bundle, request, sampler):
                batches.append(images)
                advance(len(images))
        return np.concatenate(batches)


def _require_dataset(name: str, value: object) -> None:
    if not isinstance(value, PairedDataset):
        path = str(value) if isinstance(value, str | Path) else "X.paired"
        raise _wrong_type(name, value, "a PairedDataset", f"PairedDataset.open({path!r})")


def _require_adata(name: str, value: object) -> None:
    import anndata

    if not isinstance(value, anndata.AnnData):
        path = str(value) if isinstance(value, str | Path) else "X.paired"
        opened = f"anndata.read_h5ad({path!r})" if path.endswith(".h5ad") else f"PairedDataset.open({path!r})"
        expected = "an AnnData" if name == "adata" else "a PairedDataset or an AnnData"
        raise _wrong_type(name, value, expected, f"anndata.read_h5ad({path!r})" if name == "adata" else opened)


def _wrong_type(name: str, value: object, expected: str, repair: str) -> InputError:
    shown = repr(value)
    short = shown if len(shown) <= 60 else f"{shown[:57]}..."
    return InputError(found=f"{name}={short} of type {type(value).__name__}", expected=expected, repair=repair)


def _check_counts(*, seed: int, **numbers: int) -> None:
    """Raise `InputError` for a seed below 0, or numbers of images below 1."""
    for name, value, minimum in [("seed", seed, 0), *((name, value, 1) for name, value in numbers.items())]:
        if value < minimum:
            raise InputError(found=f"{name}={value}", expected=f"a whole number of {minimum} or more")
