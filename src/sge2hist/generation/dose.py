"""Dose response: images of one cell with its counts of some genes times each of several factors, under the same noise."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from sge2hist.data.errors import InputError
from sge2hist.data.gene_panel import GenePanel
from sge2hist.data.paired import PairedDataset
from sge2hist.data.table.cell_table import CellTable, refuse_with_dataset
from sge2hist.generation.applicability import Warn, check_adata, check_dataset, warn_user
from sge2hist.generation.encode import protein_reader, row_of_cell
from sge2hist.generation.footprints import AUTO
from sge2hist.generation.requests import NEIGHBOURS, GenerationRequest, request_from_counts, request_from_paired
from sge2hist.generation.slide.edits import MAX_FACTOR, check_gene, scaled_counts
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.image.conditioning import PlacedCells

if TYPE_CHECKING:
    import anndata
    from scipy.sparse import csr_array


def dose_request(
    bundle: ModelBundle,
    data: PairedDataset | anndata.AnnData | CellTable,
    cell: str,
    genes: str | Sequence[str],
    factors: Sequence[float],
    *,
    layer: str | None = None,
    round_counts: bool = False,
    seed: int = 0,
    context: str | None = None,
    resample: bool = False,
    footprints: str = AUTO,
    force: bool = False,
    warn: Warn = warn_user,
) -> GenerationRequest:
    """One image per factor: the counts of `genes` in `cell` times the factor, all else and the noise unchanged.

    The image of factor 1 is that of the unchanged cell. Among "neighbours" the microenvironment of the cells around changes with
    the edited cell.

    Parameters
    ----------
    data, cell
        A paired dataset or an AnnData of raw counts, and the id of one of its cells.
    genes
        A symbol or id, or several that are scaled together.
    factors
        Numbers from 0 to 1,000, in any order.
    layer, round_counts
        As in :func:`~sge2hist.generation.requests.request_from_adata`; not with a paired dataset.
    context
        As in :func:`~sge2hist.generation.requests.request_from_paired`; default: "neighbours" for a paired dataset, else as in
        :func:`~sge2hist.generation.requests.request_from_adata`.
    footprints
        How cells of a paired dataset are placed, see :func:`~sge2hist.generation.footprints.outlines_to_use`.
    force, warn
        As in :func:`~sge2hist.generation.applicability.check_cells`.

    Raises
    ------
    InputError
        If the model does not know such cells, the cell or a gene is unknown, the cell has no counts of the genes, or a factor is
        out of range.

    Example
    -------
    .. code-block:: python

        request = dose_request(bundle, data, "cell_7", "UMOD", [0, 0.5, 1, 2])
        np.concatenate(list(image_batches(bundle, request))).shape  # (4, 64, 64, 3)
    """
    genes = _checked_genes(genes)
    factors = _checked_factors(factors)
    read_counts: Callable[[np.ndarray], csr_array]
    if isinstance(data, PairedDataset):
        refuse_with_dataset(str(data.path), layer, round_counts)
        read_counts, panel, where = data.counts, data.genes, str(data.path)
    else:
        data = CellTable.of(data, layer=layer, round_counts=round_counts, seed=seed)
        read_counts, panel, where = data.rows, data.genes, data.where
    row = row_of_cell(data.obs.index, cell, where)
    columns = _columns_of(bundle, panel, genes)
    if read_counts(np.array([row]))[:, columns].sum() == 0:
        raise InputError(
            found=f"no counts of {', '.join(genes)} in cell {cell!r}, so that no factor changes it",
            expected="a cell that expresses the gene",
        )
    if isinstance(data, PairedDataset):
        applicability = check_dataset(bundle, data, force=force, warn=warn)
    else:
        applicability = check_adata(bundle, data, force=force, warn=warn)

    proteins = protein_reader(bundle, data)

    def of_factor(factor: float) -> GenerationRequest:
        def scaled(rows: np.ndarray) -> csr_array:
            return scaled_counts(read_counts(rows), columns, factor, np.asarray(rows) == row)

        rows = np.array([row], np.int64)
        if isinstance(data, PairedDataset):
            return request_from_paired(
                bundle,
                data,
                rows,
                seed=seed,
                context=context or NEIGHBOURS,
                resample=resample,
                footprints=footprints,
                read_counts=scaled,
                applicability=applicability,
            )
        return request_from_counts(
            bundle,
            scaled,
            panel,
            data.obs,
            rows,
            seed=seed,
            context=context,
            counts=data.counts,
            proteins=proteins,
            applicability=applicability,
        )

    return _joined([of_factor(factor) for factor in factors], cell, genes, factors)


def _checked_genes(genes: str | Sequence[str]) -> list[str]:
    names = [genes] if isinstance(genes, str) else list(genes)
    if not all(isinstance(gene, str) for gene in names):
        raise InputError(found=f"gene={names!r}"[:200], expected="symbols or ids as text")
    if not names:
        raise InputError(found="no gene", expected="at least one symbol or id")
    return names


def _columns_of(bundle: ModelBundle, panel: GenePanel, genes: list[str]) -> np.ndarray:
    """Columns of the genes in the counts of the cells; `InputError` for a gene that the cells or the model lack."""
    for gene in genes:
        check_gene(gene, bundle, panel)
    return np.unique([column for gene in genes for column in panel.columns_called(gene)])


def _checked_factors(factors: Iterable[float]) -> list[float]:
    try:
        values = [float(factor) for factor in factors]
    except (TypeError, ValueError) as error:
        raise InputError(found=f"factors {factors!r}", expected="numbers, such as [0, 0.5, 1, 2]") from error
    if not values or not all(0 <= value <= MAX_FACTOR for value in values):
        raise InputError(found=f"factors {values}", expected=f"at least one number from 0 to {MAX_FACTOR:g}")
    return values


def _joined(requests: list[GenerationRequest], cell: str, genes: list[str], factors: list[float]) -> GenerationRequest:
    """The requests of one image each as one request."""
    import pandas as pd

    obs = pd.concat([request.obs for request in requests], ignore_index=True)

    def placed_cells(part: slice) -> PlacedCells:
        return _concatenated([request.placed_cells(slice(0, 1)) for request in requests[part]])

    latents = {name: np.concatenate([request.latents[name] for request in requests]) for name in requests[0].latents}
    return GenerationRequest(
        obs=obs.assign(gene="+".join(genes), factor=factors),
        placed_cells=placed_cells,
        latents=latents,
        manifest={**requests[0].manifest, "mode": "dose", "cell_id": cell, "genes": genes, "factors": factors},
        report=requests[0].report,
    )


def _concatenated(batches: list[PlacedCells]) -> PlacedCells:
    """The images of several batches as one batch."""
    first_image = np.cumsum([0, *(len(cells.mode_B) for cells in batches)])
    stacked = [name for name, value in vars(batches[0]).items() if value is not None]  # outlines: of all or of none
    fields = {name: torch.cat([getattr(cells, name) for cells in batches]) for name in stacked}
    image_M = [cells.image_M + int(first) for cells, first in zip(batches, first_image, strict=False)]
    return PlacedCells(**{**fields, "image_M": torch.cat(image_M)})
