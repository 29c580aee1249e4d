"""The model as a notebook uses it: one object to load, train, and ask for images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sge2hist.data.artifacts import atomic_path
from sge2hist.data.errors import InputError
from sge2hist.data.paired import PairedDataset
from sge2hist.generation.patches import image_batches
from sge2hist.generation.requests import GenerationRequest, request_from_adata, request_from_paired, request_from_types
from sge2hist.models.bundle import ModelBundle, model_folder
from sge2hist.models.gene.cell_types import TypeTable
from sge2hist.models.image.image_model import SamplerConfig

if TYPE_CHECKING:
    import anndata

    from sge2hist.training.config import TrainConfig


@dataclass(kw_only=True)
class SGE2Hist:
    """A trained model.

    Example
    -------
    >>> model = SGE2Hist.from_pretrained("brain.model")  # doctest: +SKIP
    >>> model.generate_from_types("Podocyte", n=16, seed=0).shape  # doctest: +SKIP
    (16, 64, 64, 3)
    """

    bundle: ModelBundle

    @classmethod
    def from_pretrained(cls, name: str | Path, *, device: str = "cpu") -> SGE2Hist:
        """Load a model: a folder, "pretrained:kidney" (comes with the package), or "owner/name" on the hub.

        Raises
        ------
        InputError
            If there is no such model.
        """
        return cls(bundle=ModelBundle.load(model_folder(name), device=device))

    @classmethod
    def train(
        cls, dataset: PairedDataset, output: str | Path, config: TrainConfig | None = None, *, overwrite: bool = False
    ) -> SGE2Hist:
        """Train on a paired dataset, write the model to `output`, and return it; resumes a run that was stopped."""
        from sge2hist.training.train import train

        return cls(bundle=train(dataset, output, config, overwrite=overwrite))

    def save_pretrained(self, path: str | Path, *, half: bool = False) -> None:
        """Write the model folder with its card; `half` stores the large weights in float16, for a model handed on."""
        from sge2hist.training.card import model_card

        self.bundle.save(Path(path), half=half)
        with atomic_path(Path(path) / "README.md") as partial:
            partial.write_text(model_card(self.bundle), encoding="utf-8")

    @property
    def types(self) -> TypeTable:
        """Components of the mixture with their names, purity and markers."""
        return self.bundle.types

    def embed(self, adata: anndata.AnnData, *, layer: str | None = None, pool_um: float | None = None) -> str:
        """Write latents, types and a novelty flag of the cells into `adata`, in place; returns how its genes were found.

        Adds ``obsm["X_sge2hist_z1"]``, ``obsm["X_sge2hist_z2"]``, ``obs["sge2hist_type"]``, ``obs["sge2hist_novel"]`` and the
        responsibilities (see :func:`sge2hist.generation.embed.embed_adata`). `pool_um`: tell the types of bins from those within
        this distance as well; needs positions in um, ``obs["x_um"]`` and ``obs["y_um"]``. Default: as the model was trained.
        """
        from sge2hist.generation.embed import embed_adata

        model = self.bundle.model.gene
        found = embed_adata(adata, model, self.bundle.genes, self.bundle.types, layer=layer, pool_um=pool_um)
        return found.summary()

    def generate_from_genes(
        self,
        cells: anndata.AnnData | PairedDataset,
        *,
        rows: Sequence[int] | np.ndarray | None = None,
        n_samples: int = 1,
        seed: int = 0,
        context: str | None = None,
        sampler: SamplerConfig | None = None,
    ) -> np.ndarray:
        """Images of cells from their RNA, uint8 [cells, samples, H, W, C].

        Cells of a `PairedDataset` are drawn among their "neighbours", those of an AnnData (raw counts in X) each in a "field"
        of cells like itself, unless another `context` is asked for ("centre": the cell alone). `rows`: numbers of
        cells from 0, or a mask of all.
        """
        _check_counts(n_samples=n_samples, seed=seed)
        if isinstance(cells, PairedDataset):
            chosen = cells.rows("all") if rows is None else _row_numbers(rows, len(cells))
            job = request_from_paired(
                self.bundle, cells, chosen, n_samples=n_samples, seed=seed, context=context or "neighbours"
            )
        else:
            chosen_cells = cells if rows is None else cells[_row_numbers(rows, cells.n_obs)]
            job = request_from_adata(self.bundle, chosen_cells, n_samples=n_samples, seed=seed, context=context)
        images = self._draw(job, sampler)
        return images.reshape(-1, n_samples, *images.shape[1:])

    def generate_from_types(
        self,
        names: str | Sequence[str],
        *,
        n: int = 16,
        seed: int = 0,
        context: str | None = None,
        z2: str | np.ndarray = "type",
        sampler: SamplerConfig | None = None,
    ) -> np.ndarray:
        """Images of cell types by name, uint8 [types * n, H, W, C], one type after the other.

        `context` "field" (default) fills each patch with cells of the type, "centre" draws one cell and leaves the rest open.
        `z2`, the microenvironment: "type" (as among cells of the type), "prior" (N(0, I)), or a reference cell's, [n_micro].
        """
        _check_counts(n=n, seed=seed)
        wanted = [names] if isinstance(names, str) else list(names)
        return self._draw(request_from_types(self.bundle, wanted, n=n, seed=seed, z2=z2, context=context), sampler)

    def _draw(self, job: GenerationRequest, sampler: SamplerConfig | None) -> np.ndarray:
        if len(job) == 0:
            raise InputError(found="no cell to draw", expected="at least one")
        return np.concatenate(list(image_batches(self.bundle, job, sampler)))


def _row_numbers(rows: Sequence[int] | np.ndarray, n_cells: int) -> np.ndarray:
    """Row numbers, int64, from numbers or a mask; raises `InputError` for what is no row."""
    given = np.asarray(rows, np.int64) if np.size(rows) == 0 else np.asarray(rows)
    if given.dtype == bool and given.shape == (n_cells,):
        return np.flatnonzero(given)
    if given.ndim != 1 or len(given) == 0:
        raise InputError(found=f"rows of shape {given.shape}", expected="a list of row numbers, at least one")
    if given.dtype.kind not in "iu" or ((given < 0) | (given >= n_cells)).any():
        raise InputError(
            found=f"rows of kind {given.dtype}, or beyond the cells", expected=f"numbers from 0 to {n_cells - 1}"
        )
    return given.astype(np.int64)


def _check_counts(*, seed: int, **numbers: int) -> None:
    """Raise `InputError` for a seed below 0, or numbers of images that are not whole or below 1."""
    for name, value, least in [("seed", seed, 0), *((name, value, 1) for name, value in numbers.items())]:
        if not isinstance(value, (int, np.integer)) or value < least:
            raise InputError(found=f"{name}={value!r}", expected=f"a whole number of {least} or more")
