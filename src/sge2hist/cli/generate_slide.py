"""`sge2hist generate --slide`, and `sge2hist merge`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sge2hist.generation.slide.edits import Edit
    from sge2hist.generation.slide.source import Rectangle, SlideSource
    from sge2hist.models.bundle import ModelBundle
    from sge2hist.models.image.image_model import SamplerConfig


@dataclass(frozen=True, kw_only=True)
class SlideOptions:
    """Options of the command line that concern slides, as they were typed."""

    region: str | None
    seed: int
    seeds: int
    edit: Path | None
    gene: list[str]
    part: str | None
    batch: int
    workers: int


def generate_slide(
    bundle: ModelBundle,
    source: Path,
    output: Path,
    sampler: SamplerConfig,
    options: SlideOptions,
    *,
    overwrite: bool,
) -> None:
    """Draw a slide, or go on with one that was interrupted."""
    from sge2hist.cli.progress import bar
    from sge2hist.data.errors import InputError
    from sge2hist.generation.slide.job import REPORT
    from sge2hist.generation.slide.render import SlideConfig, prepare_slide, render_slide

    cells = _open(source)
    try:
        config = SlideConfig(
            region_um=_region(options.region),
            seed=options.seed,
            n_seeds=options.seeds,
            sampler=sampler,
            part=_part(options.part),
            edits=tuple(_edits(options, cells)),
            batch=options.batch,
            workers=options.workers,
        )
    except ValueError as error:
        raise InputError(found=f"options that do not work ({error})") from error
    with bar("reading and encoding cells", None) as progress:
        job = prepare_slide(bundle, cells, output, config, overwrite=overwrite, progress=progress)
    typer.echo((job.folder / REPORT).read_text().strip())
    with bar("windows", job.n_windows) as progress:
        path = render_slide(job, cells, output, config, overwrite=overwrite, progress=progress)
    typer.echo(f"wrote {path}; look at it with `sge2hist view {output}`")


def _open(source: Path) -> SlideSource:
    from sge2hist.cli.generate import read_h5ad
    from sge2hist.data.paired import PairedDataset
    from sge2hist.generation.slide.source import source_from_adata, source_from_paired

    if source.suffix == ".h5ad":
        return source_from_adata(read_h5ad(source), source.stem)
    return source_from_paired(PairedDataset.open(source))


def _region(text: str | None) -> Rectangle | None:
    from sge2hist.data.errors import InputError

    if text is None:
        return None
    try:
        x, y, width, height = (float(part) for part in text.split(","))
    except ValueError:
        raise InputError(found=f"--region {text}", expected="four numbers: x,y,width,height in um") from None
    return x, y, width, height


def name_of_part(output: Path, part: str | None) -> Path:
    """What a part of `output` is written to; the same where there are no parts."""
    numbers = _part(part)
    return (
        output if numbers is None else output.with_name(f"{output.stem}.part{numbers[0]}of{numbers[1]}{output.suffix}")
    )


def _part(text: str | None) -> tuple[int, int] | None:
    from sge2hist.data.errors import InputError

    if text is None:
        return None
    try:
        i, n = (int(number) for number in text.split("/"))
    except ValueError:
        i, n = 0, 0
    if not 1 <= i <= n:
        raise InputError(found=f"--part {text}", expected="i/n with i from 1 to n, e.g. 2/8")
    return i, n


def _edits(options: SlideOptions, cells: SlideSource) -> list[Edit]:
    from sge2hist.generation.slide.edits import gene_edit, read_edits

    drawn = [] if options.edit is None else read_edits(options.edit, cells.um_per_edit)
    return [*drawn, *(gene_edit(text) for text in options.gene)]


def merge(
    parts: Annotated[list[Path], typer.Argument(help="Parts written by `sge2hist generate --slide --part i/n`.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Generated set to write.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier generated set.")] = False,
) -> None:
    """Join the parts of a slide that were drawn apart; the result is that of one run.

    `sge2hist merge kidney.part*.generated -o kidney.generated`
    """
    from sge2hist.generation.slide.merge import merge_slides

    typer.echo(f"wrote {merge_slides([*parts], output, overwrite=overwrite)}")
