"""`sge2hist generate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import anndata
    import numpy as np

    from sge2hist.generation.requests import GenerationRequest
    from sge2hist.models.bundle import ModelBundle
    from sge2hist.models.image.image_model import SamplerConfig
    from sge2hist.models.upsampler_bundle import UpsamplerBundle


def generate(
    model: Annotated[
        Path, typer.Argument(help="Model folder made by `sge2hist train`, or pretrained:NAME, which needs no data.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Generated set to write.")],
    source: Annotated[
        Path | None, typer.Option("--from", help="Cells whose RNA to draw: a paired dataset or an .h5ad of raw counts.")
    ] = None,
    split: Annotated[str, typer.Option(help="Cells of a paired dataset: test, val, train or all.")] = "test",
    types: Annotated[
        str | None,
        typer.Option(help='Cell types to draw by name, e.g. "Podocyte,Immune"; a name with a comma in quotes.'),
    ] = None,
    n: Annotated[
        int | None, typer.Option("-n", help="Images per type (16), or at most this many random cells.")
    ] = None,
    samples: Annotated[int, typer.Option(help="Images per cell, with different noise.")] = 1,
    like: Annotated[
        str | None, typer.Option(help="With --types: take the microenvironment z2 from this cell of --from.")
    ] = None,
    z2: Annotated[
        str,
        typer.Option(help="With --types: surroundings as among cells of the type (type) or from the prior (prior)."),
    ] = "type",
    context: Annotated[
        str | None,
        typer.Option(
            help="neighbours: all cells around each cell (with a paired dataset); field: cells like it all over the patch "
            "(with --types and .h5ad); centre: the cell alone."
        ),
    ] = None,
    shuffle_cells: Annotated[
        bool, typer.Option("--shuffle-cells", help="Baseline: draw each cell from another cell's RNA.")
    ] = False,
    slide: Annotated[
        bool, typer.Option("--slide", help="Draw the section of --from in one piece, as a pyramidal OME-TIFF.")
    ] = False,
    region: Annotated[str | None, typer.Option(help="With --slide: x,y,width,height in um instead of all.")] = None,
    seeds: Annotated[int, typer.Option(help="With --slide: draw so many seeds and write their spread too.")] = 1,
    edit: Annotated[
        Path | None, typer.Option(help="With --slide: GeoJSON polygons (from QuPath) whose class is the new cell type.")
    ] = None,
    gene: Annotated[
        list[str] | None, typer.Option(help="With --slide: GENE=FACTOR scales its counts; 0 knocks it out.")
    ] = None,
    part: Annotated[str | None, typer.Option(help="With --slide: i/n draws the i-th of n parts; see `merge`.")] = None,
    workers: Annotated[int, typer.Option(help="With --slide: processes; do not change the result.")] = 1,
    seed: Annotated[int, typer.Option(help="Every image's own seed is derived from this and its cell.")] = 0,
    steps: Annotated[int | None, typer.Option(help="Sampler steps; default: the model's.")] = None,
    sampler: Annotated[str | None, typer.Option(help="dpmpp-2m, heun, euler or ancestral.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance weight; 1 is the plain model.")] = None,
    guidance_levels: Annotated[
        str | None, typer.Option(help="Least and largest noise level at which guidance acts, e.g. 1.2,4.5.")
    ] = None,
    eta: Annotated[
        float | None, typer.Option(help="Fresh noise in every step of dpmpp-2m: 0 none, 1 as in the reverse SDE.")
    ] = None,
    upsampler: Annotated[
        Path | None, typer.Option(help="Draw finer detail with a folder made by `sge2hist train-upsampler`.")
    ] = None,
    resample: Annotated[
        bool, typer.Option("--resample", help="Accept data prepared at another um/px than the model's.")
    ] = False,
    batch: Annotated[int, typer.Option(help="Images drawn at once; does not change them.")] = 64,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier generated set.")] = False,
) -> None:
    """Draw H&E (or fluorescence) patches from RNA or by cell type.

    From RNA: `sge2hist generate kidney.model --from kidney.paired --split test -o kidney.generated`

    By type: `sge2hist generate kidney.model --types "Podocyte,Immune" -n 16 -o types.generated`

    A region of the slide: `sge2hist generate kidney.model --slide --from kidney.paired --region 0,0,1000,1000 -o s.generated`
    """
    given = dict(locals())
    from sge2hist.cli.generate_checks import check_options
    from sge2hist.cli.generate_slide import SlideOptions, generate_slide, name_of_part
    from sge2hist.cli.progress import bar
    from sge2hist.data.artifacts import check_output
    from sge2hist.data.generated import KIND
    from sge2hist.generation.patches import generate as run

    check_options(given)
    output = name_of_part(output, part)
    check_output(output, overwrite=overwrite, kind=KIND)
    bundle = load_model(model, device)
    finer = None if upsampler is None else load_upsampler(upsampler, bundle)
    config = sampler_config(bundle, sampler, steps, guidance, guidance_levels, eta)
    if bundle.is_toy:
        typer.echo("this model was trained on toy tissue: its images show no real tissue")
    if slide and source is not None:
        options = SlideOptions(
            region=region, seed=seed, seeds=seeds, edit=edit, gene=gene or [], part=part, batch=batch, workers=workers
        )
        generate_slide(bundle, source, output, config, options, overwrite=overwrite)
        return
    job = _job(bundle, source, split, types, n, samples, like, z2, context, shuffle_cells, seed, resample)
    if job.report:
        typer.echo(job.report)
    with bar("drawing", len(job)) as progress:
        run(
            bundle,
            job,
            output,
            sampler=config,
            upsampler=finer,
            seed=seed,
            batch=batch,
            overwrite=overwrite,
            progress=progress,
        )
    typer.echo(f"wrote {len(job):,} images to {output}")


def load_model(path: Path, device: str) -> ModelBundle:
    """Load a model onto a device; "auto" takes a GPU if there is one."""
    import torch

    from sge2hist.api import SGE2Hist
    from sge2hist.data.errors import InputError

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            found=f"--device {device}, which torch cannot use ({str(error).splitlines()[0]})",
            expected="cpu, cuda or auto",
        ) from error
    return SGE2Hist.from_pretrained(path, device=device).bundle


def load_upsampler(path: Path, bundle: ModelBundle) -> UpsamplerBundle:
    """Load an upsampler that fits a model onto the model's device."""
    from sge2hist.generation.upsample import check_upsampler
    from sge2hist.models.upsampler_bundle import UpsamplerBundle

    found = UpsamplerBundle.load(path, device=str(next(bundle.model.parameters()).device))
    check_upsampler(found, bundle)
    return found


def sampler_config(
    bundle: ModelBundle,
    sampler: str | None,
    steps: int | None,
    guidance: float | None,
    guidance_levels: str | None,
    eta: float | None,
) -> SamplerConfig:
    """Return the model's sampler settings with what the user changed."""
    from dataclasses import replace

    from sge2hist.data.errors import InputError

    wanted: dict[str, Any] = {"sampler": sampler, "n_steps": steps, "guidance": guidance, "eta": eta}
    if guidance_levels is not None:
        try:
            low, high = (float(part) for part in guidance_levels.split(","))
        except ValueError as error:
            raise InputError(found=f"--guidance-levels {guidance_levels!r}", expected="two numbers: 1.2,4.5") from error
        wanted["guidance_interval"] = (low, high)
    try:
        config = replace(bundle.config.sampler, **{k: v for k, v in wanted.items() if v is not None})
    except ValueError as error:
        raise InputError(found=f"sampler settings that do not work ({error})") from error
    if guidance_levels is not None and config.guidance == 1:
        raise InputError(found="--guidance-levels without guidance", expected="--guidance other than 1 as well")
    return config


def _job(
    bundle: ModelBundle,
    source: Path | None,
    split: str,
    types: str | None,
    n: int | None,
    samples: int,
    like: str | None,
    z2: str,
    context: str | None,
    shuffle_cells: bool,
    seed: int,
    resample: bool,
) -> GenerationRequest:
    from sge2hist.cli.generate_checks import type_names
    from sge2hist.cli.progress import bar
    from sge2hist.data.paired import PairedDataset
    from sge2hist.generation import requests as jobs
    from sge2hist.generation.encode import z2_of_cell

    if types is not None:
        names = type_names(types)
        like_z2 = None if like is None or source is None else z2_of_cell(bundle, PairedDataset.open(source), like)
        return jobs.request_from_types(
            bundle, names, n=n or 16, seed=seed, z2=z2 if like_z2 is None else like_z2, context=context
        )
    assert source is not None
    if source.suffix == ".h5ad":
        cells = read_h5ad(source)
        rows = choose(cells.n_obs, n, seed)
        with bar("encoding", len(rows)) as progress:
            return jobs.request_from_adata(
                bundle, cells[rows], n_samples=samples, seed=seed, context=context, progress=progress
            )
    dataset = PairedDataset.open(source)
    rows = dataset.rows(split)
    rows = rows[choose(len(rows), n, seed)]
    with bar("encoding", None) as progress:
        return jobs.request_from_paired(
            bundle,
            dataset,
            rows,
            n_samples=samples,
            seed=seed,
            context=context or "neighbours",
            shuffle_cells=shuffle_cells,
            resample=resample,
            progress=progress,
        )


def choose(n_all: int, n: int | None, seed: int) -> np.ndarray:
    """Return all of range(n_all), or `n` of them at random, in order."""
    import numpy as np

    if n is None or n >= n_all:
        return np.arange(n_all)
    return np.sort(np.random.default_rng([seed, 5]).permutation(n_all)[:n])  # fewer cells are a part of more


def read_h5ad(path: Path) -> anndata.AnnData:
    """Read an AnnData file, or raise `InputError`."""
    import anndata

    from sge2hist.data.errors import InputError

    if not path.is_file():
        raise InputError(found="no such file", where=str(path))
    try:
        return anndata.read_h5ad(path)
    except Exception as error:  # anndata wraps whatever h5py met in its own error types
        raise InputError(found=f"a file that cannot be read ({error})", where=str(path), expected="an .h5ad") from error
