"""Arguments and options that several verbs share, and the objects that they stand for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from sge2hist.data.table.cell_table import CellTable
    from sge2hist.models.bundle import ModelBundle
    from sge2hist.models.image.samplers import SamplerConfig

SAMPLER, RUNNING, ADVANCED = "Sampler", "Running", "Advanced"

Model = Annotated[
    Path, typer.Argument(help="Model folder made by `sge2hist train`, or pretrained:NAME, which needs no data.")
]
Exclude = Annotated[
    Path | None,
    typer.Option(help="GeoJSON of areas to exclude from training (pen, folds, deposits), outlined on slide.ome.tif."),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace an earlier output of this name.", rich_help_panel=RUNNING)
]
ImageSeed = Annotated[
    int, typer.Option(help="The seed of every image is derived from this and its cell.", rich_help_panel=SAMPLER)
]
Device = Annotated[str, typer.Option(help="cpu, cuda, or auto.", rich_help_panel=RUNNING)]
Batch = Annotated[
    int, typer.Option(min=1, help="Images generated at once; does not change them.", rich_help_panel=RUNNING)
]
Steps = Annotated[
    int | None, typer.Option(help="Sampler steps; default: the model's.", show_default=False, rich_help_panel=SAMPLER)
]
Sampler = Annotated[
    str | None,
    typer.Option(
        help="dpmpp-2m, heun, euler, ancestral or (distilled models) consistency; default: the model's.",
        show_default=False,
        rich_help_panel=SAMPLER,
    ),
]
Guidance = Annotated[
    float | None,
    typer.Option(
        help="Guidance weight; 1: no guidance. Default: the model's.", show_default=False, rich_help_panel=SAMPLER
    ),
]
GuidanceLevels = Annotated[
    str | None,
    typer.Option(help="Lowest and highest noise level of guidance, e.g. 1.2,4.5.", rich_help_panel=ADVANCED),
]
Force = Annotated[
    bool,
    typer.Option(
        "--force",
        help="Generate also from cells that the model does not know: another tissue, species, panel or size of cell.",
        rich_help_panel=ADVANCED,
    ),
]
Render = Annotated[
    str | None,
    typer.Option(help="Of a model of fluorescence: virtual-he writes its stains as H&E colours (marked as such)."),
]
StainRoles = Annotated[
    str | None,
    typer.Option(
        help='Of --render virtual-he: "DAPI=haematoxylin,18S=eosin:0.6" (weights). Default: by the names of the channels.',
    ),
]
Footprints = Annotated[
    str,
    typer.Option(
        help="How cells are placed: outline (from the segmentation of the image), point (positions alone), or auto: outlines "
        "where data and model have them.",
        rich_help_panel=ADVANCED,
    ),
]
Layer = Annotated[
    str | None,
    typer.Option(help="Of an .h5ad: layer of the raw counts, X or raw/X; default: found.", rich_help_panel=ADVANCED),
]
RoundCounts = Annotated[
    bool,
    typer.Option(
        "--round-counts",
        help="Round counts with fractions (ambient RNA removed, destriped) at random, without bias, by the seed.",
        rich_help_panel=ADVANCED,
    ),
]
Eta = Annotated[
    float | None,
    typer.Option(
        help="Fresh noise in every step of dpmpp-2m: 0 none, 1 as in the reverse SDE.", rich_help_panel=ADVANCED
    ),
]


MAX_FACTORS = 64


def dose_of(texts: list[str]) -> tuple[list[str], list[float]]:
    """Genes and factors of GENE=FROM:TO:N (or GENE=FACTOR,FACTOR); several genes are scaled together.

    >>> dose_of(["UMOD=0:2:5"])
    (['UMOD'], [0.0, 0.5, 1.0, 1.5, 2.0])
    """
    from sge2hist.data.errors import InputError

    genes, all_factors = [], []
    for text in texts:
        gene, _, dose = text.rpartition("=")
        try:
            if ":" in dose:
                first, last, n = dose.split(":")
                steps = int(n)
                factors = [float(first) + (float(last) - float(first)) * i / max(steps - 1, 1) for i in range(steps)]
            else:
                factors = [float(factor) for factor in dose.split(",")]
        except ValueError:
            factors = []
        if not gene or not 1 <= len(factors) <= MAX_FACTORS:
            raise InputError(
                found=f"--gene {text}",
                expected=f"GENE=FROM:TO:N with N from 1 to {MAX_FACTORS}, or GENE=FACTOR,FACTOR",
                repair="e.g. --gene UMOD=0:2:8",
            )
        genes.append(gene)
        all_factors.append(factors)
    if any(factors != all_factors[0] for factors in all_factors):
        raise InputError(found="other factors for each --gene", expected="the same: the genes are scaled together")
    return genes, all_factors[0]


def load_model(path: Path, device: str) -> ModelBundle:
    """Load a model onto a device; "auto" takes a GPU if there is one."""
    from sge2hist.api import SGE2Hist

    return SGE2Hist.from_pretrained(path, device=device).bundle


def load_teacher(model: Path, output: Path) -> ModelBundle:
    """Load the model that a fine-tuning starts from; the one that is written must be another folder."""
    from sge2hist.data.errors import InputError

    if model.resolve() == output.resolve():
        raise InputError(found=f"-o {output}, the model itself", expected="another folder: the trained model stays")
    return load_model(model, "auto")


def sampler_config(
    bundle: ModelBundle,
    *,
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
        low, high = numbers(guidance_levels, 2, "--guidance-levels", "two noise levels, e.g. 1.2,4.5")
        wanted["guidance_interval"] = (low, high)
    config = replace(bundle.config.sampler, **{k: v for k, v in wanted.items() if v is not None})
    if guidance_levels is not None and config.guidance == 1:
        raise InputError(found="--guidance-levels without guidance", expected="--guidance other than 1 as well")
    return config


def numbers(text: str, count: int, option: str, expected: str) -> tuple[float, ...]:
    """Return `count` numbers between commas, or raise `InputError`."""
    from sge2hist.data.errors import InputError

    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) != count:
        raise InputError(found=f"{option} {text}", expected=expected)
    return values


def names(text: str) -> list[str]:
    """Names between commas; one that holds a comma is quoted.

    >>> names('Podocyte, "Cell, injured",')
    ['Podocyte', 'Cell, injured']
    """
    import csv

    rows = csv.reader([text.replace("\n", " ")], skipinitialspace=True)
    return [name.strip() for row in rows for name in row if name.strip()]


def read_cells(path: Path, layer: str | None, round_counts: bool, seed: int) -> CellTable:
    """The cells of an .h5ad with their raw counts; where these were found is logged."""
    from sge2hist.cli.command import log
    from sge2hist.data.table.cell_table import CellTable

    cells = CellTable.of(path, layer=layer, round_counts=round_counts, seed=seed)
    log(cells.summary())
    return cells
