"""`sge2hist generate`: patches of cells from their RNA, or of cell types by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sge2hist.cli.arguments import (
    ADVANCED,
    Batch,
    Device,
    Eta,
    Footprints,
    Force,
    Guidance,
    GuidanceLevels,
    ImageSeed,
    Layer,
    Model,
    Overwrite,
    Render,
    RoundCounts,
    Sampler,
    StainRoles,
    Steps,
    dose_of,
    load_model,
    names,
    read_cells,
    sampler_config,
)
from sge2hist.cli.command import log, log_warning
from sge2hist.cli.contact_sheet import write_contact_sheet
from sge2hist.data.output_lock import locks_output

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from sge2hist.generation.requests import GenerationRequest
    from sge2hist.models.bundle import ModelBundle
    from sge2hist.models.upsampler_bundle import UpsamplerBundle

_CELLS, _TYPES, _CONDITION = "Cells, from their RNA", "Cell types, by name", "Conditioning"


@locks_output()
def generate(
    model: Model,
    output: Annotated[Path, typer.Option("-o", "--output", help="Generated set to write.")],
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Paired dataset, or .h5ad of raw counts.", rich_help_panel=_CELLS),
    ] = None,
    split: Annotated[
        str, typer.Option(help="Cells of a paired dataset: test, val, train or all.", rich_help_panel=_CELLS)
    ] = "test",
    cells: Annotated[
        str | None,
        typer.Option("--cells", "--cell", help="Only these cells, by id: ID,ID,...", rich_help_panel=_CELLS),
    ] = None,
    samples: Annotated[int, typer.Option(help="Images per cell, with different noise.", rich_help_panel=_CELLS)] = 1,
    types: Annotated[
        str | None,
        typer.Option(help='E.g. "Podocyte,Immune"; a name with a comma in quotes.', rich_help_panel=_TYPES),
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(help="Take the microenvironment z2 from this cell of --data.", rich_help_panel=_TYPES),
    ] = None,
    z2: Annotated[
        str,
        typer.Option(
            help="Microenvironment: as among cells of the type (type), or from the prior (prior).",
            rich_help_panel=_TYPES,
        ),
    ] = "type",
    n: Annotated[
        int | None, typer.Option("-n", help="Images per type (16), or at most this many random cells.")
    ] = None,
    context: Annotated[
        str | None,
        typer.Option(
            help="neighbours: all cells of the patch (paired dataset); niche: cells as around the type in training (types); "
            "homotypic: cells like it all over the patch (types, .h5ad); single_cell: the cell alone.",
            rich_help_panel=_CONDITION,
        ),
    ] = None,
    gene: Annotated[
        list[str] | None,
        typer.Option(
            help="With one --cell: GENE=FROM:TO:N, its counts times N factors under the same noise, e.g. UMOD=0:2:8.",
            rich_help_panel=_CONDITION,
        ),
    ] = None,
    edit: Annotated[
        Path | None,
        typer.Option(
            "--edit",
            "--edits",
            help="With --cells of a paired dataset: GeoJSON of edits, as of `generate-slide` or the explorer.",
            rich_help_panel=_CONDITION,
        ),
    ] = None,
    shuffle_cells: Annotated[
        bool,
        typer.Option(
            "--shuffle-cells", help="Baseline: each cell from another cell's RNA.", rich_help_panel=_CONDITION
        ),
    ] = False,
    seed: ImageSeed = 0,
    steps: Steps = None,
    sampler: Sampler = None,
    guidance: Guidance = None,
    upsampler: Annotated[
        Path | None, typer.Option(help="Add fine detail with a folder made by `sge2hist train-upsampler`.")
    ] = None,
    guidance_levels: GuidanceLevels = None,
    eta: Eta = None,
    render: Render = None,
    stain_roles: StainRoles = None,
    footprints: Footprints = "auto",
    patch_px: Annotated[
        int | None,
        typer.Option(
            "--patch-px",
            help="Side of the images in px, at the model's um/px: one canvas of any size. Default: as trained.",
            rich_help_panel=ADVANCED,
        ),
    ] = None,
    resample: Annotated[
        bool,
        typer.Option(
            "--resample", help="Accept data prepared at another um/px than the model's.", rich_help_panel=ADVANCED
        ),
    ] = False,
    layer: Layer = None,
    round_counts: RoundCounts = False,
    force: Force = False,
    batch: Batch = 64,
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Generate H&E (or fluorescence) patches from RNA or by cell type; OUTPUT/contact_sheet.png shows up to 64 of them.

    From RNA: `sge2hist generate kidney.model --data kidney.paired -o kidney.generated`

    Dose of a gene: `sge2hist generate kidney.model --data kidney.paired --cell ID --gene UMOD=0:2:8 -o dose.generated`

    By type: `sge2hist generate kidney.model --types "Podocyte,Immune" -n 16 -o types.generated`
    """
    given = dict(locals())
    from sge2hist.data.artifacts import check_output
    from sge2hist.data.generated import KIND
    from sge2hist.generation.look import look_of
    from sge2hist.generation.patches import generate as run
    from sge2hist.progress import bar

    check_options(given)
    check_output(output, overwrite=overwrite, kind=KIND)
    bundle = load_model(model, device).with_patch_px(patch_px)
    finer = None if upsampler is None else load_upsampler(upsampler, bundle)
    look_of(bundle, render, stain_roles)
    config = sampler_config(
        bundle, sampler=sampler, steps=steps, guidance=guidance, guidance_levels=guidance_levels, eta=eta
    )
    if bundle.is_toy:
        log("this model was trained on toy tissue: its images show no real tissue")
    request = _request(bundle, given)
    if request.report:
        log(request.report)
    with bar("generating", len(request)) as progress:
        generated = run(
            bundle,
            request,
            output,
            sampler=config,
            upsampler=finer,
            render=render,
            roles=stain_roles,
            seed=seed,
            batch=batch,
            overwrite=overwrite,
            progress=progress,
        )
    sheet = write_contact_sheet(generated)
    log(f"look at {sheet}")
    typer.echo(f"wrote {len(request):,} images to {output}")


# Which options go together, checked before anything is read.

NEEDS_H5AD = {"layer": None, "round_counts": False}
NEEDS_TYPES = {"like": None, "z2": "type"}
NEEDS_CELLS = {"split": "test", "cells": None, "samples": 1, "shuffle_cells": False, "gene": None, "edit": None}
NOT_WITH_GENE = {"samples": 1, "shuffle_cells": False, "edit": None}
NOT_WITH_EDIT = {"shuffle_cells": False, "context": None}
NEEDS_DATASET = {"split": "test", "shuffle_cells": False, "footprints": "auto", "edit": None}
MINIMA = {"n": 1, "samples": 1, "seed": 0}


def check_options(given: Mapping[str, Any]) -> None:
    """Raise `InputError` for options (by parameter name, with their defaults) that would have no effect or make no sense."""
    from sge2hist.data.errors import InputError

    for name, minimum in MINIMA.items():
        if given[name] is not None and given[name] < minimum:
            raise InputError(found=f"{_option(name)} {given[name]}", expected=f"{minimum} or more")
    data, types = given["data"], given["types"]
    if types is None:
        _refuse(given, NEEDS_TYPES, "cells of --data", expected="it with --types only")
    if (types is None) == (data is None) and given["like"] is None:
        raise InputError(
            found="both --data and --types" if types else "neither --data nor --types",
            expected="one of them (or --types with --data and --like CELL)",
        )
    if given["like"] is not None and data is None:
        raise InputError(found="--like without --data", repair="name the paired dataset that holds the cell")
    if types is not None:
        _refuse(given, {"footprints": "auto"}, "--types")
        if not names(types):
            raise InputError(found=f"--types {types!r}", expected='names of cell types, e.g. "Podocyte,Immune"')
        _refuse(given, NEEDS_CELLS | NEEDS_H5AD, "--types")
        return
    if Path(data).suffix == ".h5ad":
        _refuse(given, NEEDS_DATASET, "an .h5ad", expected="a paired dataset for that")
    else:
        _refuse(given, NEEDS_H5AD, "a paired dataset, whose counts are raw", expected="an .h5ad for that")
    if given["cells"] is not None:
        _refuse(given, {"split": "test", "n": None}, "--cells")
        if not names(given["cells"]):
            raise InputError(found=f"--cells {given['cells']!r}", expected="ids of cells, with commas between")
    if given["edit"] is not None:
        if given["cells"] is None:
            raise InputError(found="--edits without --cells", expected="--cells ID,ID, the cells to show")
        _refuse(given, NOT_WITH_EDIT, "--edits")
    if given["gene"]:
        if given["cells"] is None or len(names(given["cells"])) != 1:
            raise InputError(found="--gene without one --cell", expected="--cell ID, the cell whose counts are scaled")
        _refuse(given, NOT_WITH_GENE, "--gene")
        dose_of(given["gene"])


def _refuse(given: Mapping[str, Any], defaults: Mapping[str, Any], beside: str, expected: str = "one of them") -> None:
    """Raise `InputError` for the first option that was changed from its default."""
    from sge2hist.data.errors import InputError

    for name, default in defaults.items():
        if given[name] not in (default, []):  # typer gives [] for an option of several values
            raise InputError(found=f"{_option(name)} with {beside}", expected=expected)


def _option(name: str) -> str:
    return "-n" if name == "n" else "--" + name.replace("_", "-")


# From options to a request.


def _request(bundle: ModelBundle, given: Mapping[str, Any]) -> GenerationRequest:
    from sge2hist.data.paired import PairedDataset
    from sge2hist.generation import requests
    from sge2hist.generation.applicability import check_adata, check_dataset
    from sge2hist.generation.dose import dose_request
    from sge2hist.generation.encode import z2_of_cell
    from sge2hist.generation.type_requests import request_from_types
    from sge2hist.progress import bar

    data, n, samples, seed, context, force = (
        given[name] for name in ("data", "n", "samples", "seed", "context", "force")
    )
    if given["types"] is not None:
        z2 = given["z2"]
        if given["like"] is not None:
            dataset = PairedDataset.open(data)
            check_dataset(bundle, dataset, force=force, warn=log_warning)
            z2 = z2_of_cell(bundle, dataset, given["like"])
        return request_from_types(bundle, names(given["types"]), n=n or 16, seed=seed, z2=z2, context=context)
    wanted = None if given["cells"] is None else names(given["cells"])
    if given["gene"]:
        genes, factors = dose_of(given["gene"])
        source = (
            read_cells(data, given["layer"], given["round_counts"], seed)
            if data.suffix == ".h5ad"
            else PairedDataset.open(data)
        )
        cell, resample = str((wanted or [""])[0]), given["resample"]
        return dose_request(
            bundle,
            source,
            cell,
            genes,
            factors,
            seed=seed,
            context=context,
            resample=resample,
            footprints=given["footprints"],
            force=force,
            warn=log_warning,
        )
    if data.suffix == ".h5ad":
        cells = read_cells(data, given["layer"], given["round_counts"], seed)
        rows = choose(cells.n_obs, n, seed) if wanted is None else rows_of_cells(cells.obs.index, wanted, data)
        applicability = check_adata(bundle, cells, force=force, warn=log_warning)
        with bar("encoding", len(rows)) as progress:
            return requests.request_from_adata(
                bundle,
                cells,
                rows=rows,
                n_samples=samples,
                seed=seed,
                context=context,
                applicability=applicability,
                progress=progress,
            )
    dataset = PairedDataset.open(data)
    if wanted is None:
        rows = dataset.rows(given["split"])
        rows = rows[choose(len(rows), n, seed)]
    else:
        rows = rows_of_cells(dataset.obs.index, wanted, data)
    applicability = check_dataset(bundle, dataset, force=force, warn=log_warning)
    if given["edit"] is not None:
        from sge2hist.generation.edited_patches import edited_request

        options = {key: given[key] for key in ("seed", "resample", "footprints")} | {"n_samples": samples}
        return edited_request(bundle, dataset, rows, given["edit"], applicability=applicability, **options)
    with bar("encoding", None) as progress:
        return requests.request_from_paired(
            bundle,
            dataset,
            rows,
            n_samples=samples,
            seed=seed,
            context=context or "neighbours",
            shuffle_cells=given["shuffle_cells"],
            resample=given["resample"],
            footprints=given["footprints"],
            applicability=applicability,
            progress=progress,
        )


def load_upsampler(path: Path, bundle: ModelBundle) -> UpsamplerBundle:
    """Load an upsampler that fits a model onto the model's device."""
    from sge2hist.generation.upsample import check_upsampler
    from sge2hist.models.upsampler_bundle import UpsamplerBundle

    found = UpsamplerBundle.load(path, device=str(next(bundle.model.parameters()).device))
    check_upsampler(found, bundle)
    return found


def choose(n_all: int, n: int | None, seed: int) -> np.ndarray:
    """Return all of range(n_all), or `n` of them at random, in order."""
    import numpy as np

    if n is None or n >= n_all:
        return np.arange(n_all)
    return np.sort(np.random.default_rng([seed, 5]).permutation(n_all)[:n])  # fewer cells are a part of more


def rows_of_cells(known: pd.Index, wanted: list[str], path: Path) -> np.ndarray:
    """Row numbers of cells by their ids, in the order given, or `InputError`."""
    import numpy as np

    from sge2hist.data.errors import InputError
    from sge2hist.generation.encode import row_of_cell

    if len(set(wanted)) < len(wanted):
        raise InputError(found="a cell named twice in --cells", expected="each once; --samples gives several images")
    return np.array([row_of_cell(known, name, str(path)) for name in wanted], np.int64)
