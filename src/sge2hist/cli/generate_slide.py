"""Verbs about whole slides: `generate-slide`, `merge` (of its parts) and `view`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sge2hist.cli.arguments import (
    ADVANCED,
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
    load_model,
    numbers,
    sampler_config,
)
from sge2hist.cli.command import log

if TYPE_CHECKING:
    from sge2hist.generation.slide.edits import Edit
    from sge2hist.generation.slide.source import SlideSource

_EDITS, _PARTS = "Virtual experiments", "In parts"


def generate_slide(
    model: Model,
    data: Annotated[
        Path,
        typer.Option(
            "--data",
            help="One section: a paired dataset, or .h5ad of raw counts with positions. Without counts: cell types at positions, "
            "as .csv (x_um, y_um, cell_type), GeoJSON (QuPath) or .h5ad.",
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Generated slide to write; resumes if interrupted.")],
    region: Annotated[
        str | None, typer.Option(help="Part of the section: x,y,width,height in um; default: all of it.")
    ] = None,
    section: Annotated[str | None, typer.Option(help="Take this one of several slides or sections in --data.")] = None,
    positions: Annotated[
        str,
        typer.Option(
            help="Unit of the positions of an .h5ad: auto (um unless they do not fit), um, px, hires or lowres.",
            rich_help_panel=ADVANCED,
        ),
    ] = "auto",
    image_um_per_px: Annotated[
        float | None,
        typer.Option(help="Um per px of positions in px, where the .h5ad does not state it.", rich_help_panel=ADVANCED),
    ] = None,
    layer: Layer = None,
    round_counts: RoundCounts = False,
    seeds: Annotated[
        int, typer.Option(min=1, help="Above 1: write the spread over so many seeds as uncertainty, too.")
    ] = 1,
    edit: Annotated[
        Path | None,
        typer.Option(
            "--edit",
            "--edits",
            help="GeoJSON polygons (from QuPath) whose class is the new cell type, or edits of the explorer.",
            rich_help_panel=_EDITS,
        ),
    ] = None,
    gene: Annotated[
        list[str] | None,
        typer.Option(help="GENE=FACTOR scales its counts; 0 knocks it out.", rich_help_panel=_EDITS),
    ] = None,
    seed: ImageSeed = 0,
    steps: Steps = None,
    sampler: Sampler = None,
    guidance: Guidance = None,
    stand_alone: Annotated[
        bool,
        typer.Option(
            "--stand-alone",
            help="The region as one canvas, in seconds; its pixels differ from those of the slide.",
            rich_help_panel=ADVANCED,
        ),
    ] = False,
    tile_px: Annotated[
        int | None,
        typer.Option(
            "--tile-px",
            help="Side of the tiles in px; default: the training patches'. Larger: a whole section sooner, a small region later.",
            rich_help_panel=ADVANCED,
        ),
    ] = None,
    part: Annotated[
        str | None,
        typer.Option(help="i/n: the i-th of n parts, for n machines; see `merge`.", rich_help_panel=_PARTS),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Processes; does not change the result.", rich_help_panel=_PARTS)
    ] = 1,
    guidance_levels: GuidanceLevels = None,
    eta: Eta = None,
    footprints: Footprints = "auto",
    batch: Annotated[
        int, typer.Option(min=1, help="Windows generated at once; does not change them.", rich_help_panel=ADVANCED)
    ] = 64,
    render: Render = None,
    stain_roles: StainRoles = None,
    force: Force = False,
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Generate a whole section, or a region of it, from RNA and positions as one pyramidal OME-TIFF.

    Example: `sge2hist generate-slide kidney.model --data kidney.paired --region 0,0,1000,1000 -o slide.generated`

    From types alone: `sge2hist generate-slide kidney.model --data layout.csv -o layout.generated`
    """
    from sge2hist.data.artifacts import check_output
    from sge2hist.data.generated import KIND, SLIDE_NAME
    from sge2hist.generation.slide.layout_source import open_cells
    from sge2hist.generation.slide.render import generate_slide as run

    numbered = _part(part)
    output = name_of_part(output, numbered)
    check_output(output, overwrite=overwrite, kind=KIND)
    bundle = load_model(model, device)
    settings = sampler_config(
        bundle, sampler=sampler, steps=steps, guidance=guidance, guidance_levels=guidance_levels, eta=eta
    )
    if bundle.is_toy:
        log("this model was trained on toy tissue: its images show no real tissue")
    cells = open_cells(
        bundle,
        data,
        section=section,
        positions=positions,
        um_per_px=image_um_per_px,
        layer=layer,
        round_counts=round_counts,
        seed=seed,
    )
    slide = run(
        bundle,
        cells,
        output,
        region_um=None if region is None else _region(region),
        seed=seed,
        n_seeds=seeds,
        edits=_edits(edit, gene or [], cells),
        sampler=settings,
        footprints=footprints,
        part=numbered,
        tile_px=tile_px,
        stand_alone=stand_alone,
        batch=batch,
        workers=workers,
        force=force,
        render=render,
        stain_roles=stain_roles,
        overwrite=overwrite,
        log=log,
        progress=True,
    )
    log(f"look at it with `sge2hist view {output}`")
    typer.echo(f"wrote {slide.path / SLIDE_NAME}")


def _region(text: str) -> tuple[float, float, float, float]:
    x, y, width, height = numbers(text, 4, "--region", "four numbers: x,y,width,height in um")
    return x, y, width, height


def _edits(polygons: Path | None, genes: list[str], cells: SlideSource) -> list[Edit]:
    from sge2hist.generation.slide.edits import gene_edit, read_edits

    outlined = [] if polygons is None else read_edits(polygons, cells.um_per_edit_unit)
    return [*outlined, *(gene_edit(text) for text in genes)]


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


def name_of_part(output: Path, part: tuple[int, int] | None) -> Path:
    """Folder of a part of `output`, NAME.part2of8.generated; `output` itself without parts."""
    return output if part is None else output.with_name(f"{output.stem}.part{part[0]}of{part[1]}{output.suffix}")


def merge(
    parts: Annotated[list[Path], typer.Argument(help="Parts written by `sge2hist generate-slide --part i/n`.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Generated slide to write.")],
    overwrite: Overwrite = False,
) -> None:
    """Join the parts of a slide that were generated apart; the result is that of one run.

    Example: `sge2hist merge kidney.part*.generated -o kidney.generated`
    """
    from sge2hist.generation.slide.merge import merge_slides

    typer.echo(f"wrote {merge_slides([*parts], output, overwrite=overwrite)}")


def view(
    slide: Annotated[Path, typer.Argument(help="Slide made by `sge2hist generate-slide`.")],
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Paired dataset with the real section; default: the one that the slide names."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder to write; default: `view` inside the slide's folder.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a page that shows a slide in a browser: real, generated, cell types and uncertainty, zoomed together.

    Example: `sge2hist view kidney.generated --data kidney.paired`, then open kidney.generated/view/slide.html
    """
    from sge2hist.data.generated import GeneratedSlide
    from sge2hist.data.paired import PairedDataset
    from sge2hist.progress import bar
    from sge2hist.viewer.build import build_viewer, n_tiles, open_layers

    manifest = GeneratedSlide.open(slide).manifest
    if data is None and Path(manifest.get("data_path") or "/nowhere", "manifest.json").is_file():
        data = Path(manifest["data_path"])
    dataset = None if data is None else PairedDataset.open(data)
    layers, *_ = open_layers(slide, dataset)
    with bar("tiles", n_tiles(layers)) as progress:
        page = build_viewer(slide, output or slide / "view", data=dataset, overwrite=overwrite, progress=progress)
    log(f"open it in a browser: {', '.join(layer.title.lower() for layer in layers)}")
    typer.echo(f"wrote {page}")
