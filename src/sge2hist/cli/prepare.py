"""Verbs about paired datasets: `prepare`, which writes one, and `export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sge2hist.cli.arguments import ADVANCED, Overwrite, RoundCounts, numbers
from sge2hist.cli.command import log

if TYPE_CHECKING:
    from sge2hist.pairing.slide_table import SlideTable

_SCALE, _CELLS, _TYPES = "Patches and resolution", "Cells", "Cell types"
_FILTERS, _SPLIT, _ALIGNMENT = "Centre cells (others stay placed)", "Split", "Alignment"


def prepare(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write, e.g. kidney.paired.")],
    outs: Annotated[
        list[Path] | None,
        typer.Argument(
            help="What the instrument wrote: Space Ranger's outs/, a Xenium folder, .h5ad, .zarr, ... "
            "Several become one dataset with one slide each."
        ),
    ] = None,
    image: Annotated[
        list[Path] | None,
        typer.Option(
            help="The microscope image: H&E (TIFF, BTF, OME-TIFF, SVS, JPEG, PNG), one for each input, in the same "
            "order. Space Ranger never copies it into outs/. virtual-he: H&E colours computed from the stains of a Xenium run "
            "(virtual-he:FILE: from another fluorescence TIFF)."
        ),
    ] = None,
    slides: Annotated[
        Path | None,
        typer.Option(
            help="csv of the inputs instead of OUTS and --image: columns path[,image][,donor][,stain][,name], one row each."
        ),
    ] = None,
    channels: Annotated[
        str | None,
        typer.Option(
            help='The image is fluorescence: channels to take, by name ("DAPI,Boundary"), or all. 16 bits become 8 by robust '
            "percentiles. Default: an RGB H&E."
        ),
    ] = None,
    stain_transform: Annotated[
        str | None,
        typer.Option(
            help="Of fluorescence: sqrt (levels are the square root of light) or linear. Default: sqrt for 8 bits, "
            "linear for 16.",
            rich_help_panel=ADVANCED,
        ),
    ] = None,
    stain_roles: Annotated[
        str | None,
        typer.Option(
            help='Of virtual H&E: "DAPI=haematoxylin,18S=eosin:0.6" (weights). Default: by the names of the channels.',
            rich_help_panel=ADVANCED,
        ),
    ] = None,
    patch_um: Annotated[
        float,
        typer.Option(help="Side of a patch: 64 shows a cell and its neighbours, 128 a tubule.", rich_help_panel=_SCALE),
    ] = 64.0,
    patch_px: Annotated[
        int,
        typer.Option(
            help="Pixels of that side: the model's resolution is patch-um / patch-px.", rich_help_panel=_SCALE
        ),
    ] = 64,
    image_um_per_px: Annotated[
        float | None,
        typer.Option(
            help="INPUT: um per px of the image file, where its format or the instrument does not state it.",
            rich_help_panel=_SCALE,
        ),
    ] = None,
    um_per_px: Annotated[
        float | None,
        typer.Option(
            help="OUTPUT: um per px of the slide stored in the dataset; default: that of the image file.",
            rich_help_panel=_SCALE,
        ),
    ] = None,
    bin_um: Annotated[
        int | None,
        typer.Option(
            help="Visium HD, Stereo-seq: bins of this side as cells, e.g. 8 or 16; finer ones are summed.",
            rich_help_panel=_CELLS,
        ),
    ] = None,
    cells: Annotated[
        str,
        typer.Option(
            help="How 2 um bins become cells: segmentation (Space Ranger 4), nuclei (of the H&E), labels "
            "(yours), bins (no cells), auto (the first that is possible).",
            rich_help_panel=_CELLS,
        ),
    ] = "auto",
    labels: Annotated[
        Path | None,
        typer.Option(help="Your cells: label image or GeoJSON, for --cells labels.", rich_help_panel=_CELLS),
    ] = None,
    types: Annotated[
        str,
        typer.Option(
            help="Cell types from: leiden | clusters (Space Ranger's) | markers:kidney | markers:pancreas | markers:FILE.csv "
            "(rows type,gene) | FILE.csv (rows cell,type; with several inputs SLIDE:cell) | a column of the cells | none.",
            rich_help_panel=_TYPES,
        ),
    ] = "leiden",
    resolution: Annotated[float, typer.Option(help="Of Leiden: more gives more types.", rich_help_panel=_TYPES)] = 1.0,
    marker_margin: Annotated[
        float,
        typer.Option(help="Lead of the best type over the next; more gives more unknown.", rich_help_panel=_TYPES),
    ] = 0.3,
    min_counts: Annotated[
        int | None,
        typer.Option(help="UMI of a cell; default 20 for bins and spots, 5 for cells.", rich_help_panel=_FILTERS),
    ] = None,
    min_genes: Annotated[
        int | None,
        typer.Option(help="Genes of a cell; default 10 for bins and spots, 3 for cells.", rich_help_panel=_FILTERS),
    ] = None,
    min_cells: Annotated[int, typer.Option(help="Cells of a gene.", rich_help_panel=_FILTERS)] = 3,
    min_tissue: Annotated[
        float | None,
        typer.Option(
            help="Share of tissue in a patch; default 0.1 for bins and spots, 0 for cells.", rich_help_panel=_FILTERS
        ),
    ] = None,
    fractions: Annotated[str, typer.Option(help="Shares of train,val,test.", rich_help_panel=_SPLIT)] = "0.7,0.1,0.2",
    holdout_slide: Annotated[
        list[str] | None, typer.Option(help="This slide becomes the test set, whole.", rich_help_panel=_SPLIT)
    ] = None,
    holdout_donor: Annotated[
        list[str] | None,
        typer.Option(help="All slides of this donor become the test set (see --slides).", rich_help_panel=_SPLIT),
    ] = None,
    shift_um: Annotated[
        list[str] | None,
        typer.Option(
            help="X,Y added to the positions (right, down), when alignment.png shows a shift; SLIDE=X,Y for one of several.",
            rich_help_panel=_ALIGNMENT,
        ),
    ] = None,
    check_alignment: Annotated[
        bool, typer.Option(help="Measure the shift; refuse 50 um or more.", rich_help_panel=_ALIGNMENT)
    ] = True,
    alignment: Annotated[
        Path | None,
        typer.Option(
            help="Map from the image to the cells: auto finds it (any turn, mirror image, scale, crop), or refuses; or a file of "
            "Xenium Explorer, QuPath, Fiji or napari, or alignment.json; or identity.",
            rich_help_panel=_ALIGNMENT,
        ),
    ] = None,
    format: Annotated[
        str, typer.Option(help="Format of the input; auto recognises it.", rich_help_panel=ADVANCED)
    ] = "auto",
    layer: Annotated[
        str | None,
        typer.Option(
            help="AnnData, SpatialData: layer of the raw counts, X or raw/X; default: found.", rich_help_panel=ADVANCED
        ),
    ] = None,
    round_counts: RoundCounts = False,
    table: Annotated[str | None, typer.Option(help="SpatialData: table to read.", rich_help_panel=ADVANCED)] = None,
    positions: Annotated[
        str,
        typer.Option(
            help="Unit of the positions of an AnnData, or of the outlines of --labels: auto (px unless they do not fit), px, "
            "um, hires or lowres (px of Space Ranger's previews).",
            rich_help_panel=_ALIGNMENT,
        ),
    ] = "auto",
    section: Annotated[
        str | None, typer.Option(help="Take this one of several sections in the input.", rich_help_panel=_ALIGNMENT)
    ] = None,
    keep_inside: Annotated[
        bool,
        typer.Option(
            "--keep-inside",
            help="The image shows a part of the input, e.g. one of several sections: take the cells on it.",
            rich_help_panel=_ALIGNMENT,
        ),
    ] = False,
    genes: Annotated[
        Path | None,
        typer.Option(help="Published pickle: csv gene_id,symbol in its order.", rich_help_panel=ADVANCED),
    ] = None,
    segmenter: Annotated[
        str, typer.Option(help="Of --cells nuclei: network, classical, stardist, auto.", rich_help_panel=ADVANCED)
    ] = "auto",
    expand_um: Annotated[
        float | None,
        typer.Option(
            help="Growth of cells beyond the outline; default 8 for nuclei, else 0.", rich_help_panel=ADVANCED
        ),
    ] = None,
    volume_ratio: Annotated[
        float | None, typer.Option(help="Grow each nucleus to this ratio of volumes instead.", rich_help_panel=ADVANCED)
    ] = None,
    destripe: Annotated[
        bool, typer.Option("--destripe", help="Add destriped totals of 2 um bins.", rich_help_panel=ADVANCED)
    ] = False,
    nucleus_um2: Annotated[
        str, typer.Option(help="Min,max area of the nucleus, where it is known.", rich_help_panel=ADVANCED)
    ] = "8,250",
    keep_border: Annotated[
        bool, typer.Option("--keep-border", help="Keep patches that extend past the image.", rich_help_panel=ADVANCED)
    ] = False,
    split_block_um: Annotated[
        float | None,
        typer.Option(
            help="Side of the blocks of the split; default 500, or 8 patch sides if more.", rich_help_panel=ADVANCED
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the split, of Leiden and of rounding.", rich_help_panel=ADVANCED)] = 0,
    overwrite: Overwrite = False,
) -> None:
    """Pair gene expression with H&E or fluorescence: instrument folder and image -> paired dataset.

    Checks that the image is the right one, filters cells, splits the tissue into blocks for training and testing (with
    a gap, so that no patch shows both), names cell types, and writes OUTPUT: cells.h5ad, slide.ome.tif,
    manifest.json and **alignment.png, which you should look at**.

    Example: `sge2hist prepare run/outs --image he.tif --bin-um 16 -o kidney.paired`

    Fluorescence: `sge2hist prepare xenium --image morphology_focus_0000.ome.tif --channels all -o brain.paired`
    """
    from sge2hist.pairing.config import CellsConfig, PrepareConfig
    from sge2hist.pairing.prepare import prepare as run
    from sge2hist.progress import stages

    shift, slide_shifts = _shifts(shift_um or [])
    min_um2, max_um2 = numbers(nucleus_um2, 2, "--nucleus-um2", "min,max")
    train, val, test = numbers(fractions, 3, "--fractions", "train,val,test, three numbers with commas between")
    config = PrepareConfig(
        format=format,
        bin_um=bin_um,
        image_um_per_px=image_um_per_px,
        channels=channels,
        stain_transform=stain_transform,
        stain_roles=stain_roles,
        alignment=alignment,
        genes=genes,
        layer=layer,
        round_counts=round_counts,
        table=table,
        positions=positions,
        section=section,
        keep_inside=keep_inside,
        cells=CellsConfig(
            method=cells,
            labels=labels,
            segmenter=segmenter,
            expand_um=expand_um,
            volume_ratio=volume_ratio,
            destripe=destripe,
        ),
        patch_um=patch_um,
        patch_px=patch_px,
        um_per_px=um_per_px,
        shift_um=shift,
        slide_shifts_um=slide_shifts,
        check_alignment=check_alignment,
        min_counts=min_counts,
        min_genes=min_genes,
        min_cells_per_gene=min_cells,
        nucleus_um2=(min_um2, max_um2),
        min_tissue_fraction=min_tissue,
        keep_border=keep_border,
        types=types,
        resolution=resolution,
        marker_margin=marker_margin,
        split_block_um=split_block_um,
        fractions=(train, val, test),
        holdout_slides=tuple(holdout_slide or ()),
        holdout_donors=tuple(holdout_donor or ()),
        seed=seed,
    )
    inputs = _inputs(outs or [], image or [], slides)
    with stages() as progress:
        dataset = run(inputs, output, config, images=image or None, log=_log, progress=progress, overwrite=overwrite)
    _show_summary(dataset.manifest, output)


def _inputs(outs: list[Path], image: list[Path], slides: Path | None) -> list[Path] | SlideTable:
    """What is prepared: the inputs themselves, or a table of them."""
    from sge2hist.data.errors import InputError
    from sge2hist.pairing.slide_table import read_slide_table

    if slides is None and not outs:
        raise InputError(found="no input", expected="an instrument folder or file, or --slides TABLE.csv")
    if slides is not None and (outs or image):
        raise InputError(
            found="--slides beside OUTS or --image", expected="one of both", repair="name all of them in the table"
        )
    return outs if slides is None else read_slide_table(slides)


def _shifts(given: list[str]) -> tuple[tuple[float, float], dict[str, tuple[float, float]]]:
    """`X,Y` for all slides and `SLIDE=X,Y` for some."""
    shift, of_slides = (0.0, 0.0), {}
    for text in given:
        slide, _, shift_text = text.rpartition("=")
        x, y = numbers(shift_text, 2, "--shift-um", "X,Y or SLIDE=X,Y")
        if slide:
            of_slides[slide] = (x, y)
        else:
            shift = (x, y)
    return shift, of_slides


def _log(line: str) -> None:
    """Warnings go to standard error, with --quiet as well."""
    if line.startswith("warning: "):
        typer.secho(line, fg=typer.colors.YELLOW, err=True)
    else:
        log(line)


def _show_summary(manifest: dict[str, Any], output: Path) -> None:
    split, types = manifest["split"]["counts"], manifest["types"]
    n_centre, observation = manifest["n_centre"], manifest["observation"]
    log(f"{manifest['n_cells']:,} {observation}s x {manifest['n_genes']:,} genes in {output}")
    if proteins := manifest.get("protein"):
        log(f"{len(proteins['names']):,} proteins ({proteins['unit']}) kept apart from the genes, in obsm['protein']")
    if n_centre < manifest["n_cells"]:
        log(
            f"{n_centre:,} pass the filters: trained on and evaluated; the others stay placed in the images around them"
        )
    log("split: " + ", ".join(f"{name} {count:,}" for name, count in split.items()))
    log(f"types ({types['source']}): {', '.join(types['names'])}; unknown {types['unknown']:,}")
    further = len(manifest["slides"]) - 1
    more = f" and, beside it, those of the other slides (up to alignment.{further}.png)" if further else ""
    for record in manifest["alignment"]:
        log(f"{record['slide']}: {record['verdict']}")
    log(f"now look at {output / 'alignment.png'}{more}")
    typer.echo(f"wrote {output}")


def export(
    paired: Annotated[Path, typer.Argument(help="Paired dataset made by `sge2hist prepare`.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="SpatialData store to write, NAME.zarr.")],
) -> None:
    """Write a paired dataset as a SpatialData store, for squidpy, napari-spatialdata and the other tools that open it.

    Every slide becomes a multiscale image with a coordinate system of its own, its cells become circles in px of the
    slide, and the counts become one table. Needs `pip install "sge2hist[spatialdata]"`.

    Example: `sge2hist export kidney.paired -o kidney.zarr`
    """
    from sge2hist.data.paired import PairedDataset
    from sge2hist.pairing.export_spatialdata import export_spatialdata

    dataset = PairedDataset.open(paired)
    export_spatialdata(dataset, output)
    log(f"{len(dataset):,} cells, {len(dataset.slide_ids)} slide(s), SpatialData 0.2 (zarr 3)")
    typer.echo(f"wrote {output}")
