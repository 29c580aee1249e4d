"""Requests for images: a table with one row per image, and the cells that condition any slice of it.

A request is made from a paired dataset or an AnnData here, from names of cell types in `type_requests`. Three contexts place the
cells of a patch:
"neighbours" (the cell among all others around it), "homotypic" (cells like it all over the patch) and "single_cell".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.data.gene_panel import GenePanel
from sge2hist.data.generated import APPLICABILITY, LATENT_KEYS, PREDICTED_TYPE
from sge2hist.data.paired import UNKNOWN, PairedDataset
from sge2hist.data.slides.channels import require_same_channels
from sge2hist.data.spatial_index import CellIndex
from sge2hist.data.table.cell_table import CellTable
from sge2hist.generation.applicability import Applicability, check_adata, check_cells, check_dataset
from sge2hist.generation.encode import (
    CellLatents,
    ProteinReader,
    encode_cells,
    features_used,
    neighbour_reader,
    protein_reader,
)
from sge2hist.generation.footprints import AUTO, footprints_name, outlines_to_use
from sge2hist.generation.windows import homotypic_cells, image_seed, neighbour_cells, single_cells, with_latents
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.image.conditioning import PlacedCells

if TYPE_CHECKING:
    import anndata
    import pandas as pd
    from scipy.sparse import csr_array

NEIGHBOURS, HOMOTYPIC, SINGLE_CELL = "neighbours", "homotypic", "single_cell"
CONTEXTS = (NEIGHBOURS, HOMOTYPIC, SINGLE_CELL)
NICHE = "niche"  # of cell types alone
CONTEXTS_OF_0_1 = {"field": HOMOTYPIC, "centre": SINGLE_CELL}
"""Names of version 0.1, in its manifests and in scripts -> names of this one."""

SHUFFLE_STREAM = 77
MAX_RESOLUTION_DIFFERENCE = 0.01  # relative, between um/px of the data and of the model
CentreCells = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Latent means [B, Z], standard deviations of z1 [B, T] and depths [B] of the centre cells of B patches."""


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """N images to generate."""

    obs: pd.DataFrame  # one row per image: cell_id, row, condition_row, cell_type, sample, seed; from RNA sge2hist_type
    placed_cells: Callable[[slice], PlacedCells]  # cells of a slice of the images
    latents: dict[str, np.ndarray] = field(default_factory=dict)  # name -> [N, ...] of the centre cells, for obsm
    manifest: dict[str, Any] = field(default_factory=dict)  # fields for the manifest
    report: str = ""  # one line about the genes that cells and model share

    def __len__(self) -> int:
        return len(self.obs)


def known_context(context: str, allowed: tuple[str, ...] = CONTEXTS) -> str:
    """The current name of a context; `InputError` unless it is one of `allowed`."""
    current = CONTEXTS_OF_0_1.get(context, context)
    if current not in allowed:
        raise InputError(found=f"context {context!r}", expected=f"one of {', '.join(allowed)}")
    return current


def default_context(bundle: ModelBundle) -> str:
    """The context of a cell without known neighbours: homotypic; single_cell for the published network, which takes one cell."""
    return HOMOTYPIC if bundle.config.image.condition.form == "map" else SINGLE_CELL


# --- from RNA -------------------------------------------------------------------------------------------------------


def request_from_paired(
    bundle: ModelBundle,
    dataset: PairedDataset,
    rows: np.ndarray,
    *,
    n_samples: int = 1,
    seed: int = 0,
    context: str = NEIGHBOURS,
    shuffle_cells: bool = False,
    resample: bool = False,
    footprints: str = AUTO,
    read_counts: Callable[[np.ndarray], csr_array] | None = None,
    applicability: Applicability | None = None,
    progress: Callable[[int], None] = lambda n: None,
) -> GenerationRequest:
    """Images of cells of a paired dataset from their RNA.

    Parameters
    ----------
    rows
        Rows of the cells, int64.
    n_samples
        Images of each cell, with different noise.
    context
        "neighbours": all cells of the patch at their positions. "homotypic": cells like it on a lattice, z1 of each a sample of
        its posterior. "single_cell": the cell alone.
    shuffle_cells
        Baseline that ignores the RNA: generate each image from the expression (and neighbourhood) of another of the cells.
    resample
        Accept data of another um/px than the model's.
    footprints
        How neighbours are placed, see :func:`~sge2hist.generation.footprints.outlines_to_use`.
    read_counts
        Rising rows -> raw counts, CSR [n, G]; default: those of the dataset.
    applicability, progress
        What `check_dataset` found, e.g. by force (None: it is called here). `progress` counts encoded cells.

    Raises
    ------
    InputError
        If the dataset's images have other channels than the model's, or another resolution (by over 1 %, unless `resample`),
        the model does not know such cells, or no gene is shared.
    """
    context = known_context(context)
    require_same_channels(
        dataset.channels,
        bundle.config.channels,
        where=str(dataset.path),
        repair="use the model that was trained on such images",
    )
    check_resolution(bundle, dataset, resample)
    applicability = applicability or check_dataset(bundle, dataset)
    read_counts = read_counts or dataset.counts
    rows = np.asarray(rows, np.int64)
    shuffled = np.random.default_rng([seed, SHUFFLE_STREAM]).permutation(len(rows))
    condition_row = np.repeat(rows[shuffled] if shuffle_cells else rows, n_samples)
    obs = image_table(dataset.obs, rows, n_samples, seed, condition_row)
    centre_um_N2 = dataset.centre_xy_px * dataset.um_per_px
    index = CellIndex(centre_um_N2, dataset.slide_of_cell)
    outlines = outlines_to_use(bundle, dataset.outline_um, footprints, str(dataset.path))

    def among_neighbours(rows_B: np.ndarray) -> tuple[np.ndarray, PlacedCells]:
        side_um, radius_um = bundle.config.patch_um, bundle.config.receptive_radius_um
        slide_B, centre_um_B2 = dataset.slide_of_cell[rows_B], centre_um_N2[rows_B]
        return neighbour_cells(
            index,
            slide_B,
            centre_um_B2,
            side_um=side_um,
            receptive_radius_um=radius_um,
            outline_um_NV2=outlines,
        )

    needed = rows
    if context == NEIGHBOURS:
        parts = [np.unique(among_neighbours(rows[i : i + 512])[0]) for i in range(0, len(rows), 512)]
        needed = np.unique(np.concatenate(parts))
    proteins = protein_reader(bundle, dataset)
    latents = encode_cells(
        bundle,
        read_counts,
        dataset.genes,
        needed,
        neighbours=neighbour_reader(bundle, read_counts, dataset.genes, index),
        proteins=proteins,
        progress=progress,
    )

    def placed_cells(part: slice) -> PlacedCells:
        rows_B = condition_row[part]
        if context != NEIGHBOURS:
            centres = latents.take(latents.find(rows_B))
            return without_neighbours(bundle, centres, obs["seed"].to_numpy()[part], context)
        row_M, cells = among_neighbours(rows_B)
        at = latents.find(row_M)
        return with_latents(cells, latents.mean_NZ[at], latents.depth_N[at])

    return GenerationRequest(
        obs=obs.assign(**{PREDICTED_TYPE: _predicted_types(bundle, latents, condition_row)}),
        placed_cells=placed_cells,
        latents=centre_latents(bundle, latents.mean_NZ[latents.find(condition_row)]),
        manifest={
            "mode": "genes",
            "context": context,
            "footprints": footprints_name(outlines if context == NEIGHBOURS else None),
            "shuffled": shuffle_cells,
            "data_path": str(dataset.path.resolve()),
            "data_fingerprint": dataset.fingerprint,
            "toy": bundle.is_toy or dataset.is_toy,
            APPLICABILITY: applicability.as_dict(),
            **features_used(bundle, proteins),
        },
        report=latents.alignment.summary(),
    )


def request_from_adata(
    bundle: ModelBundle,
    cells: anndata.AnnData | CellTable,
    *,
    rows: np.ndarray | None = None,
    layer: str | None = None,
    round_counts: bool = False,
    n_samples: int = 1,
    seed: int = 0,
    context: str | None = None,
    applicability: Applicability | None = None,
    progress: Callable[[int], None] = lambda n: None,
) -> GenerationRequest:
    """Images of the cells of any AnnData with raw counts; their neighbours are taken as unknown.

    `rows`: int64 (None: all). `layer`, `round_counts`: where the raw counts are, and whether they are rounded, by `seed`.
    `context` is "homotypic" or "single_cell"; None: :func:`default_context`. `applicability`: what `check_adata` found, of
    these or of more cells; None: it is called here.

    Raises
    ------
    InputError
        If the values are not raw counts, the model does not know such cells, or no gene is shared.
    """
    table = CellTable.of(cells, layer=layer, round_counts=round_counts, seed=seed)
    rows = np.arange(table.n_obs) if rows is None else np.asarray(rows, np.int64)
    applicability = applicability or check_adata(bundle, table)
    options: dict[str, Any] = {"n_samples": n_samples, "seed": seed, "context": context, "counts": table.counts}
    options |= {"applicability": applicability, "progress": progress, "proteins": protein_reader(bundle, table)}
    return request_from_counts(bundle, table.rows, table.genes, table.obs, rows, **options)


def request_from_counts(
    bundle: ModelBundle,
    read_counts: Callable[[np.ndarray], csr_array],
    panel: GenePanel,
    cells: pd.DataFrame,
    rows: np.ndarray,
    *,
    n_samples: int = 1,
    seed: int = 0,
    context: str | None = None,
    counts: dict[str, Any] | None = None,
    proteins: ProteinReader | None = None,
    applicability: Applicability | None = None,
    progress: Callable[[int], None] = lambda n: None,
) -> GenerationRequest:
    """Images of some rows of `cells` (indexed by id) without neighbours; `read_counts` gives counts on the genes of `panel`.

    `counts`: where they were found and how they were rounded, for the manifest. `proteins`: of the cells, if any were measured.
    """
    context = known_context(context or default_context(bundle), CONTEXTS[1:])
    applicability = applicability or check_cells(bundle, read_counts, panel, len(cells), proteins=proteins)
    latents = encode_cells(bundle, read_counts, panel, rows, proteins=proteins, progress=progress)
    condition_row = np.repeat(rows, n_samples)
    obs = image_table(cells, rows, n_samples, seed, condition_row)
    obs["row"] = -1

    def placed_cells(part: slice) -> PlacedCells:
        centres = latents.take(latents.find(condition_row[part]))
        return without_neighbours(bundle, centres, obs["seed"].to_numpy()[part], context)

    return GenerationRequest(
        obs=obs.assign(**{PREDICTED_TYPE: _predicted_types(bundle, latents, condition_row)}),
        placed_cells=placed_cells,
        latents=centre_latents(bundle, latents.mean_NZ[latents.find(condition_row)]),
        manifest={"mode": "genes", "context": context, "shuffled": False, "toy": bundle.is_toy}
        | {APPLICABILITY: applicability.as_dict(), **features_used(bundle, proteins)}
        | ({} if counts is None else {"counts": counts}),
        report=latents.alignment.summary(),
    )


def check_resolution(bundle: ModelBundle, dataset: PairedDataset, resample: bool) -> None:
    """Raise `InputError` if a dataset has another resolution than a model, unless `resample`."""
    own, theirs = bundle.config.um_per_px, dataset.patch_um / dataset.patch_px
    if abs(theirs / own - 1) > MAX_RESOLUTION_DIFFERENCE and not resample:
        raise InputError(
            found=f"patches of {theirs:g} um/px in the data and a model of {own:g} um/px",
            where=str(dataset.path),
            expected="the same resolution",
            repair=f"--resample generates at the model's {own:g} um/px all the same, or prepare the data with "
            f"--patch-um {bundle.config.patch_um:g} --patch-px {bundle.config.patch_px}",
        )


def image_table(
    cells: pd.DataFrame, rows: np.ndarray, n_samples: int, seed: int, condition_row: np.ndarray
) -> pd.DataFrame:
    """`GenerationRequest.obs` of samples of some rows of a table of cells."""
    import pandas as pd

    ids = cells.index.astype(str).to_numpy()[rows]
    types = cells["cell_type"].astype(str).to_numpy()[rows] if "cell_type" in cells else np.full(len(rows), UNKNOWN)
    sample = np.tile(np.arange(n_samples), len(rows))
    repeated = np.repeat(ids, n_samples)
    return pd.DataFrame(
        {
            "cell_id": repeated,
            "row": np.repeat(rows, n_samples),
            "condition_row": condition_row,
            "cell_type": np.repeat(types, n_samples),
            "sample": sample,
            "seed": [image_seed(seed, key, int(s)) for key, s in zip(repeated, sample, strict=True)],
        }
    )


def _predicted_types(bundle: ModelBundle, latents: CellLatents, rows: np.ndarray) -> np.ndarray:
    return np.array(bundle.types.names, object)[latents.type_N[latents.find(rows)]]


# --- shared ---------------------------------------------------------------------------------------------------------


def without_neighbours(bundle: ModelBundle, centres: CentreCells, seed_B: np.ndarray, context: str) -> PlacedCells:
    """The cells of patches of context "single_cell" or "homotypic"."""
    z_BZ, z1_std_BT, depth_B = centres
    if context == SINGLE_CELL:
        return single_cells(z_BZ, depth_B, bundle.config.patch_um)
    return homotypic_cells(
        z_BZ,
        z1_std_BT,
        depth_B,
        seed_B,
        side_um=bundle.config.patch_um,
        receptive_radius_um=bundle.config.receptive_radius_um,
        spacing_um=bundle.config.image.condition.splat_um,
    )


def centre_latents(bundle: ModelBundle, z_NZ: np.ndarray) -> dict[str, np.ndarray]:
    """`GenerationRequest.latents` of latents [N, Z]."""
    n_type = bundle.model.gene.config.n_type
    return {LATENT_KEYS["z1"]: z_NZ[:, :n_type], LATENT_KEYS["z2"]: z_NZ[:, n_type:]}
