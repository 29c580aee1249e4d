"""`sge2hist prepare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from sge2hist.data.section import Section
    from sge2hist.pairing.cells import CellsConfig

_CELLS, _FILTERS, _SPLIT = "Cells and types", "Filters", "Split"


def prepare(
    outs: Annotated[
        list[Path],
        typer.Argument(
            help="What the instrument wrote: Space Ranger's outs/, a Xenium folder, .h5ad, .zarr, ... "
            "Several become one dataset with one slide each."
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write, e.g. kidney.paired.")],
    image: Annotated[
        list[Path] | None,
        typer.Option(
            help="The microscope image: H&E (TIFF, BTF, OME-TIFF, SVS, JPEG, PNG), one for each input, in the same "
            "order. Space Ranger never copies it into outs/."
        ),
    ] = None,
    format: Annotated[str, typer.Option(help="Format of the input; auto recognises it.")] = "auto",
    channels: Annotated[
        str | None,
        typer.Option(
            help='The image is fluorescence: channels to take, by name ("DAPI,Boundary"), or all. 16 bits become 8 by robust '
            "percentiles. Default: an RGB H&E."
        ),
    ] = None,
    bin_um: Annotated[
        int | None, typer.Option(help="Bins of this side as cells, e.g. 8 or 16; finer ones are summed. Visium HD.")
    ] = None,
    patch_um: Annotated[
        float,
        typer.Option(help="Side of the H&E patch: 64 shows a cell and its neighbours, 128 a tubule."),
    ] = 64.0,
    patch_px: Annotated[int, typer.Option(help="Pixels of that side. patch-um / patch-px is what a model sees.")] = 64,
    um_per_px: Annotated[
        float | None, typer.Option(help="Resolution of the stored slide; default: that of the image given.")
    ] = None,
    image_um_per_px: Annotated[
        float | None, typer.Option(help="Scale of the image given, where the format does not state it.")
    ] = None,
    shift_um: Annotated[
        list[str] | None,
        typer.Option(
            help="X,Y added to the positions (right, down), when alignment.png shows a shift; SLIDE=X,Y for one of several."
        ),
    ] = None,
    check_alignment: Annotated[bool, typer.Option(help="Measure the shift; refuse 50 um or more.")] = True,
    alignment: Annotated[Path | None, typer.Option(help="Xenium: csv that maps H&E to DAPI pixels.")] = None,
    genes: Annotated[Path | None, typer.Option(help="Published pickle: csv gene_id,symbol in its order.")] = None,
    layer: Annotated[str | None, typer.Option(help="AnnData, SpatialData: layer of the raw counts.")] = None,
    table: Annotated[str | None, typer.Option(help="SpatialData: table to read.")] = None,
    cells: Annotated[
        str,
        typer.Option(
            help="How 2 um bins become cells: segmentation (Space Ranger 4), nuclei (of the H&E), labels "
            "(yours), bins (no cells), auto (the first that is possible).",
            rich_help_panel=_CELLS,
        ),
    ] = "auto",
    labels: Annotated[
        Path | None, typer.Option(help="Label image or GeoJSON for --cells labels.", rich_help_panel=_CELLS)
    ] = None,
    expand_um: Annotated[
        float | None,
        typer.Option(help="Growth beyond the outline; default 8 for nuclei, else 0.", rich_help_panel=_CELLS),
    ] = None,
    volume_ratio: Annotated[
        float | None, typer.Option(help="Grow each nucleus to this ratio of volumes instead.", rich_help_panel=_CELLS)
    ] = None,
    destripe: Annotated[
        bool, typer.Option("--destripe", help="Add destriped totals of 2 um bins.", rich_help_panel=_CELLS)
    ] = False,
    segmenter: Annotated[
        str, typer.Option(help="network, classical, stardist, auto.", rich_help_panel=_CELLS)
    ] = "auto",
    types: Annotated[
        str,
        typer.Option(
            help="Cell types from: leiden | clusters (Space Ranger's) | markers:kidney | markers:FILE.csv "
            "(rows type,gene) | FILE.csv (rows cell,type; with several inputs SLIDE:cell) | a column of the cells | none.",
            rich_help_panel=_CELLS,
        ),
    ] = "leiden",
    resolution: Annotated[float, typer.Option(help="Of Leiden: more gives more types.", rich_help_panel=_CELLS)] = 1.0,
    marker_margin: Annotated[
        float,
        typer.Option(help="Lead of the best type; more gives more unknown.", rich_help_panel=_CELLS),
    ] = 0.3,
    min_counts: Annotated[int, typer.Option(help="UMI of a cell.", rich_help_panel=_FILTERS)] = 20,
    min_genes: Annotated[int, typer.Option(help="Genes of a cell.", rich_help_panel=_FILTERS)] = 10,
    min_cells: Annotated[int, typer.Option(help="Cells of a gene.", rich_help_panel=_FILTERS)] = 3,
    nucleus_um2: Annotated[
        str, typer.Option(help="Least,most area of the nucleus, where it is known.", rich_help_panel=_FILTERS)
    ] = "8,250",
    min_tissue: Annotated[float, typer.Option(help="Share of tissue in a patch.", rich_help_panel=_FILTERS)] = 0.1,
    keep_border: Annotated[
        bool, typer.Option("--keep-border", help="Keep patches that reach past the image.", rich_help_panel=_FILTERS)
    ] = False,
    fractions: Annotated[str, typer.Option(help="Of train,val,test.", rich_help_panel=_SPLIT)] = "0.7,0.1,0.2",
    split_block_um: Annotated[
        float | None,
        typer.Option(help="Side of the blocks; default 500, or 8 patch sides if more.", rich_help_panel=_SPLIT),
    ] = None,
    holdout_slide: Annotated[
        list[str] | None, typer.Option(help="This slide becomes the test set, whole.", rich_help_panel=_SPLIT)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the split and of Leiden.", rich_help_panel=_SPLIT)] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier dataset of this name.")] = False,
) -> None:
    """Pair gene expression with H&E or fluorescence: instrument folder and image -> paired dataset.

    Checks that the image is the right one, filters cells, splits the tissue into blocks for training and testing (with
    a gap, so that no picture shows both), names cell types, and writes OUTPUT: cells.h5ad, slide.ome.tif,
    manifest.json and **alignment.png, which you should look at**.

    Example: `sge2hist prepare run/outs --image he.tif --bin-um 16 -o kidney.paired`

    Fluorescence: `sge2hist prepare xenium --image morphology_focus_0000.ome.tif --channels all -o brain.paired`
    """
    from sge2hist.cli.progress import stages
    from sge2hist.data.artifacts import check_output
    from sge2hist.data.slides.channels import read_request
    from sge2hist.pairing.cells import CellsConfig
    from sge2hist.pairing.config import PrepareConfig
    from sge2hist.pairing.prepare import prepare as run

    check_output(output, overwrite=overwrite, kind="paired")
    shift, slide_shifts = _shifts(shift_um or [])
    nucleus = _numbers(nucleus_um2, 2, "--nucleus-um2", "least,most")
    shares = _numbers(fractions, 3, "--fractions", "train,val,test")
    config = PrepareConfig(
        patch_um=patch_um,
        patch_px=patch_px,
        um_per_px=um_per_px,
        shift_um=shift,
        slide_shifts_um=slide_shifts,
        nucleus_um2=(nucleus[0], nucleus[1]),
        min_counts=min_counts,
        min_genes=min_genes,
        min_cells_per_gene=min_cells,
        min_tissue_fraction=min_tissue,
        keep_border=keep_border,
        types=types,
        resolution=resolution,
        marker_margin=marker_margin,
        split_block_um=split_block_um,
        fractions=(shares[0], shares[1], shares[2]),
        holdout_slides=tuple(holdout_slide or ()),
        seed=seed,
        check_alignment=check_alignment,
    )
    how = CellsConfig(
        method=cells,
        labels=labels,
        segmenter=segmenter,
        expand_um=expand_um,
        volume_ratio=volume_ratio,
        destripe=destripe,
    )
    images = _one_image_each(outs, image or [])
    with stages() as progress:
        opened: list[Section] = []
        options = {
            "alignment": alignment,
            "genes": genes,
            "layer": layer,
            "table": table,
            "channels": read_request(channels),
        }
        for path, picture in zip(outs, images, strict=True):
            for section in _open(path, picture, format, bin_um, image_um_per_px, options, how):
                section = _named_apart(section, path, opened)
                typer.echo(section.describe())
                typer.echo(_scales(section))
                opened.append(_cells(section, path, how, config.shift_of(section.name), progress))
        dataset = run(opened, output, config=config, progress=progress, overwrite=overwrite)
    _tell(dataset.manifest, output)


def _numbers(text: str, count: int, option: str, expected: str) -> tuple[float, ...]:
    from sge2hist.data.errors import InputError

    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) != count:
        raise InputError(found=f"{option} {text}", expected=f"{expected}, {count} numbers with commas between")
    return values


def _shifts(given: list[str]) -> tuple[tuple[float, float], tuple[tuple[str, tuple[float, float]], ...]]:
    """`X,Y` for all slides and `SLIDE=X,Y` for some."""
    shift, of_slides = (0.0, 0.0), []
    for text in given:
        slide, _, numbers = text.rpartition("=")
        x, y = _numbers(numbers, 2, "--shift-um", "X,Y or SLIDE=X,Y")
        if slide:
            of_slides.append((slide, (x, y)))
        else:
            shift = (x, y)
    return shift, tuple(of_slides)


def _named_apart(section: Section, path: Path, opened: list[Section]) -> Section:
    """Instruments call every run "region_1": a name that is taken gets a number."""
    import dataclasses

    taken, name = {other.name for other in opened}, section.name
    if name not in taken:
        return section
    number = 2
    while f"{name}_{number}" in taken:
        number += 1
    typer.echo(f"{path} is called {name}_{number} here: an earlier input is {name} already")
    return dataclasses.replace(section, name=f"{name}_{number}")


def _one_image_each(outs: list[Path], images: list[Path]) -> list[Path | None]:
    from sge2hist.data.errors import InputError

    known = [path.resolve() for path in outs]
    if len(set(known)) < len(known):
        raise InputError(
            found="one input given twice", expected="each once: its cells would stand in training and test"
        )
    if not images:
        return [None] * len(outs)
    if len(images) != len(outs):
        raise InputError(
            found=f"{len(images)} images for {len(outs)} inputs", expected="one --image for each, in the same order"
        )
    return list(images)


def _open(
    path: Path,
    image: Path | None,
    format: str,
    bin_um: int | None,
    um_per_px: float | None,
    options: dict[str, Any],
    how: CellsConfig,
) -> list[Section]:
    """Open one input; Visium HD without --bin-um is read at 2 um when cells can be made of it.

    Where there are no 2 um bins but Space Ranger's own table of cells, that is read instead.
    """
    from sge2hist.readers import open_sections
    from sge2hist.readers.detect import detect_format
    from sge2hist.readers.tenx.visium_hd_segmented import find_segmented

    found = detect_format(path).format if format == "auto" else format
    wants_cells = how.method in ("segmentation", "nuclei", "labels") or (how.method == "auto" and bin_um is None)
    if found == "visium_hd" and wants_cells and bin_um is None:
        from sge2hist.pairing.cells import choose_method
        from sge2hist.readers.tenx.visium_hd_folder import find_squares

        if 2 in find_squares(path):
            fine = open_sections(path, format=found, image=image, bin_um=2, um_per_px=um_per_px, **options)
            if choose_method(fine[0], path, how) != "bins":
                return fine  # else the image is too coarse to show nuclei: bins of the usual side
        elif how.method in ("auto", "segmentation") and find_segmented(path) is not None:
            found = "visium_hd_segmented"
    return open_sections(path, format=found, image=image, bin_um=bin_um, um_per_px=um_per_px, **options)


def _scales(section: Section) -> str:
    stated = "; ".join(f"{value:.4g} ({name})" for name, value in section.um_per_px_sources.items())
    return f"  um per px: {stated}; positions in px of {section.image.path.name}, x = column, y = row"


def _cells(section: Section, path: Path, how: CellsConfig, shift_um: tuple[float, float], progress) -> Section:  # type: ignore[no-untyped-def]
    from sge2hist.pairing.cells import cells_of_section

    made = cells_of_section(
        section,
        config=how,
        folder=path,
        shift_um=shift_um,
        progress=lambda done, total: progress("finding nuclei", done, total),
    )
    if made is not section:
        typer.echo(made.notes[-1])
    return made


def _tell(manifest: dict, output: Path) -> None:  # type: ignore[type-arg]
    split, types = manifest["split"]["counts"], manifest["types"]
    typer.echo(f"{manifest['n_cells']:,} {manifest['observation']}s x {manifest['n_genes']:,} genes in {output}")
    typer.echo("split: " + ", ".join(f"{name} {count:,}" for name, count in split.items()))
    typer.echo(f"types ({types['source']}): {', '.join(types['names'])}; unknown {types['unknown']:,}")
    for record in manifest["alignment"]:
        for warning in record["warnings"]:
            typer.secho(f"warning: {record['slide']}: {warning}", fg=typer.colors.YELLOW, err=True)
    further = len(manifest["slides"]) - 1
    more = f" and, beside it, those of the other slides (up to alignment.{further}.png)" if further else ""
    typer.echo(f"now look at {output / 'alignment.png'}{more}")
