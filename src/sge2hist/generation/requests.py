"""What to generate: a table of images and, for any slice of it, the placed cells. One function per way of asking."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sge2hist.data.errors import InputError
from sge2hist.data.generated import LATENT_KEYS
from sge2hist.data.paired import UNKNOWN, PairedDataset
from sge2hist.data.slides.channels import require_same_channels
from sge2hist.data.spatial_index import CellIndex
from sge2hist.generation.embed import panel_of, raw_counts
from sge2hist.generation.encode import CellLatents, around_in, encode_cells
from sge2hist.generation.windows import Windows, cell_fields, image_seed, lone_cells, neighbourhoods
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.gene.mixture_prior import MixturePrior

if TYPE_CHECKING:
    import anndata
    import pandas as pd

CONTEXTS = ("neighbours", "field", "centre")
Z2_SOURCES = ("type", "prior")


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """N images to draw."""

    obs: pd.DataFrame  # one row per image: cell_id, row, condition_row, cell_type, sample, seed; from RNA sge2hist_type
    windows: Callable[[slice], Windows]  # placed cells of a slice of the images
    latents: dict[str, np.ndarray] = field(default_factory=dict)  # name -> [N, ...] of the centre cells, for obsm
    manifest: dict[str, Any] = field(default_factory=dict)  # how it was asked for
    report: str = ""  # one line about the genes, for people

    def __len__(self) -> int:
        return len(self.obs)


def request_from_paired(
    bundle: ModelBundle,
    dataset: PairedDataset,
    rows: np.ndarray,
    *,
    n_samples: int = 1,
    seed: int = 0,
    context: str = "neighbours",
    shuffle_cells: bool = False,
    resample: bool = False,
    progress: Callable[[int], None] = lambda n: None,
) -> GenerationRequest:
    """Images of cells of a paired dataset from their RNA.

    `context` "neighbours" places all cells around each cell, "field" cells like it on a lattice, z1 of each a draw from its
    posterior (tissue of such cells), "centre" the cell alone. `shuffle_cells` draws each image from
    the expression (and neighbourhood) of another of the cells: the baseline that ignores the RNA.

    Raises
    ------
    InputError
        If the dataset's images have other channels than the model's, or another resolution (by over 1 %, unless `resample`), or
        no gene is shared.
    """
    _check_context(context, CONTEXTS)
    require_same_channels(
        dataset.channels,
        bundle.config.channels,
        where=str(dataset.path),
        repair="use the model that was trained on such images",
    )
    _check_resolution(bundle, dataset, resample)
    rows = np.asarray(rows, np.int64)
    order = np.random.default_rng([seed, 77]).permutation(len(rows)) if shuffle_cells else np.arange(len(rows))
    condition_row = np.repeat(rows[order], n_samples)
    centre_um_N2 = dataset.centre_xy_px * dataset.um_per_px
    index = CellIndex(centre_um_N2, dataset.slide_of_cell)
    side_um, reach_um = bundle.config.patch_um, bundle.config.receptive_radius_um

    def place(rows_B: np.ndarray) -> tuple[np.ndarray, Windows]:
        return neighbourhoods(
            index, dataset.slide_of_cell[rows_B], centre_um_N2[rows_B], side_um=side_um, reach_um=reach_um, stain=0
        )

    needed = rows
    if context == "neighbours":
        needed = np.unique(np.concatenate([np.unique(place(rows[i : i + 512])[0]) for i in range(0, len(rows), 512)]))
    around = around_in(bundle, dataset.counts, dataset.genes, index)
    latents = encode_cells(bundle, dataset.counts, dataset.genes, needed, around=around, progress=progress)

    obs = _table(dataset.obs, rows, n_samples, seed, condition_row)

    def windows(part: slice) -> Windows:
        rows_B = condition_row[part]
        if context != "neighbours":
            at, seed_B = latents.find(rows_B), obs["seed"].to_numpy()[part]
            return _without_neighbours(bundle, *latents.take(at), seed_B, context)
        row_M, placed = place(rows_B)
        at = latents.find(row_M)
        return Windows(**{**vars(placed), "z_MZ": latents.mean_NZ[at], "depth_M": latents.depth_N[at]})

    return GenerationRequest(
        obs=obs.assign(sge2hist_type=_types_told(bundle, latents, condition_row)),
        windows=windows,
        latents=_centre_latents(bundle, latents, condition_row),
        manifest={
            "mode": "genes",
            "context": context,
            "shuffled": shuffle_cells,
            "data_path": str(dataset.path.resolve()),
            "data_fingerprint": dataset.fingerprint,
            "toy": bundle.is_toy or dataset.is_toy,
        },
        report=latents.alignment.summary(),
    )


def request_from_adata(
    bundle: ModelBundle,
    adata: anndata.AnnData,
    *,
    n_samples: int = 1,
    seed: int = 0,
    context: str | None = None,
    progress: Callable[[int], None] = lambda n: None,
) -> GenerationRequest:
    """Images of the cells of any AnnData with raw counts in X, whose surroundings are not known.

    `context` "field" fills the patch with cells like it, "centre" places it alone; None: as :func:`usual_context`.

    Counts are taken from ``layers["counts"]`` if there is one, else X. Genes are found by Ensembl id or symbol, in the usual
    columns of var or its names.

    Raises
    ------
    InputError
        If X is not raw counts, or no gene is shared.
    """
    context = context or usual_context(bundle)
    _check_context(context, CONTEXTS[1:])
    counts = raw_counts(adata)
    rows = np.arange(adata.n_obs)
    latents = encode_cells(bundle, lambda part: counts[part], panel_of(adata), rows, progress=progress)
    condition_row = np.repeat(rows, n_samples)

    obs = _table(adata.obs, rows, n_samples, seed, condition_row)
    obs["row"] = -1

    def windows(part: slice) -> Windows:
        at, seed_B = condition_row[part], obs["seed"].to_numpy()[part]
        return _without_neighbours(bundle, *latents.take(at), seed_B, context)

    return GenerationRequest(
        obs=obs.assign(sge2hist_type=_types_told(bundle, latents, condition_row)),
        windows=windows,
        latents=_centre_latents(bundle, latents, condition_row),
        manifest={"mode": "genes", "context": context, "shuffled": False, "toy": bundle.is_toy},
        report=latents.alignment.summary(),
    )


def request_from_types(
    bundle: ModelBundle,
    names: list[str],
    *,
    n: int = 16,
    seed: int = 0,
    z2: str | np.ndarray = "type",
    context: str | None = None,
) -> GenerationRequest:
    """`n` images of each named cell type: z1 from its mixture components, z2 as asked.

    `z2` is "type", drawn as among the training cells of the component; "prior", drawn from N(0, I) as published; or the
    microenvironment of a reference cell, [n_micro]. `context` "field" fills the patch with cells of the type on a lattice: z1 of
    each is its own draw from the component, z2 the mean of what was asked for: tissue of that type. "centre" places one cell,
    drawn, at the centre, and its surroundings are a draw. None: as :func:`usual_context`.

    Raises
    ------
    InputError
        If there is no name, one that is not the model's or one given twice, or `z2` is another word.
    """
    import pandas as pd

    if isinstance(z2, str) and z2 not in Z2_SOURCES:
        raise InputError(found=f"z2 {z2!r}", expected=f"one of {', '.join(Z2_SOURCES)}, or a reference cell's")
    n_micro = bundle.config.gene.n_latent - bundle.config.gene.n_type
    if not isinstance(z2, str) and np.shape(z2) != (n_micro,):
        raise InputError(found=f"z2 of shape {np.shape(z2)}", expected=f"({n_micro},), as a reference cell's")
    z2 = z2 if isinstance(z2, str) else np.asarray(z2, np.float32)
    context = context or usual_context(bundle)
    _check_context(context, CONTEXTS[1:])
    field = context == "field"
    gene = bundle.model.gene
    n_type = gene.config.n_type
    names = [bundle.type_called(name) for name in names]
    if len(names) == 0 or len(set(names)) < len(names):
        found = "no cell type" if len(names) == 0 else f"a cell type named twice in {', '.join(names)}"
        raise InputError(found=found, expected=f"each once, of: {', '.join(bundle.types.names)}")
    chosen = [bundle.components_of(name) for name in names]  # all names are checked before anything is drawn
    log_vars_KT = gene.mixture.log_vars_KT.detach().cpu().float().numpy()
    z, spread, records = [], [], []
    for name, (components, weights) in zip(names, chosen, strict=True):
        for sample in range(n):
            seed_i = image_seed(seed, f"type {name.casefold()}", sample)
            generator = torch.Generator().manual_seed(seed_i)
            pick = int(torch.multinomial(torch.from_numpy(weights), 1, generator=generator))
            z.append(_typed_latent(gene.mixture, int(components[pick]), z2, field, generator))
            spread.append(np.exp(0.5 * log_vars_KT[int(components[pick])]))
            records.append({"cell_id": f"{name} {sample}", "cell_type": name, "sample": sample, "seed": seed_i})
    z_NZ, spread_NT = np.stack(z), np.stack(spread)
    obs = pd.DataFrame(records).assign(row=-1, condition_row=-1)

    seed_N = obs["seed"].to_numpy()

    def windows(part: slice) -> Windows:
        depth_B = np.zeros(len(z_NZ[part]), np.float32)
        return _without_neighbours(bundle, z_NZ[part], spread_NT[part], depth_B, seed_N[part], context)

    return GenerationRequest(
        obs=obs,
        windows=windows,
        latents={LATENT_KEYS["z1"]: z_NZ[:, :n_type], LATENT_KEYS["z2"]: z_NZ[:, n_type:]},
        manifest={
            "mode": "types",
            "types": names,
            "context": context,
            "z2": z2 if isinstance(z2, str) else "reference cell",
            "toy": bundle.is_toy,
        },
    )


def _typed_latent(
    mixture: MixturePrior, component: int, z2: str | np.ndarray, at_mean: bool, generator: torch.Generator
) -> np.ndarray:
    """One cell of a component, [n_latent]; `at_mean` instead of a draw."""
    one = torch.tensor([component])
    n_micro = mixture.micro_means_KM.shape[1]
    if at_mean:
        z1 = mixture.means_KT[component].detach().cpu().float()
        usual = (
            mixture.micro_means_KM[component].cpu() if isinstance(z2, str) and z2 == "type" else torch.zeros(n_micro)
        )
    else:
        z1 = mixture.sample(one, generator)[0].cpu()
        draw_prior = isinstance(z2, str) and z2 == "prior"
        usual = (
            torch.randn(n_micro, generator=generator) if draw_prior else mixture.sample_micro(one, generator)[0].cpu()
        )
    chosen = usual if isinstance(z2, str) else torch.from_numpy(z2)
    return torch.cat([z1, chosen.float()]).numpy()


def usual_context(bundle: ModelBundle) -> str:
    """How a cell without known neighbours is drawn: in a field of its like; by the published network, which cannot, alone."""
    return "field" if bundle.config.image.condition.form == "map" else "centre"


def _without_neighbours(
    bundle: ModelBundle, z_BZ: np.ndarray, spread_BT: np.ndarray, depth_B: np.ndarray, seed_B: np.ndarray, context: str
) -> Windows:
    if context == "centre":
        return lone_cells(z_BZ, depth_B, bundle.config.patch_um)
    spacing_um = bundle.config.image.condition.splat_um
    return cell_fields(
        z_BZ,
        spread_BT,
        depth_B,
        seed_B,
        side_um=bundle.config.patch_um,
        reach_um=bundle.config.receptive_radius_um,
        spacing_um=spacing_um,
    )


def _check_context(context: str, known: tuple[str, ...]) -> None:
    if context not in known:
        raise InputError(found=f"context {context!r}", expected=f"one of {', '.join(known)}")


def _check_resolution(bundle: ModelBundle, dataset: PairedDataset, resample: bool) -> None:
    own, theirs = bundle.config.um_per_px, dataset.patch_um / dataset.patch_px
    if abs(theirs / own - 1) > 0.01 and not resample:
        raise InputError(
            found=f"patches of {theirs:g} um/px in the data and a model of {own:g} um/px",
            where=str(dataset.path),
            expected="the same resolution",
            repair=f"--resample generates at the model's {own:g} um/px all the same, or prepare the data with "
            f"--patch-um {bundle.config.patch_um:g} --patch-px {bundle.config.patch_px}",
        )


def _table(
    source: pd.DataFrame, rows: np.ndarray, n_samples: int, seed: int, condition_row: np.ndarray
) -> pd.DataFrame:
    import pandas as pd

    ids = source.index.astype(str).to_numpy()[rows]
    kinds = source["cell_type"].astype(str).to_numpy()[rows] if "cell_type" in source else np.full(len(rows), UNKNOWN)
    sample = np.tile(np.arange(n_samples), len(rows))
    repeated = np.repeat(ids, n_samples)
    return pd.DataFrame(
        {
            "cell_id": repeated,
            "row": np.repeat(rows, n_samples),
            "condition_row": condition_row,
            "cell_type": np.repeat(kinds, n_samples),
            "sample": sample,
            "seed": [image_seed(seed, key, int(s)) for key, s in zip(repeated, sample, strict=True)],
        }
    )


def _centre_latents(bundle: ModelBundle, latents: CellLatents, condition_row: np.ndarray) -> dict[str, np.ndarray]:
    z = latents.mean_NZ[latents.find(condition_row)]
    n_type = bundle.model.gene.config.n_type
    return {LATENT_KEYS["z1"]: z[:, :n_type], LATENT_KEYS["z2"]: z[:, n_type:]}


def _types_told(bundle: ModelBundle, latents: CellLatents, condition_row: np.ndarray) -> np.ndarray:
    return np.array(bundle.types.names, object)[latents.type_N[latents.find(condition_row)]]
