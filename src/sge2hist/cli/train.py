"""`sge2hist train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train(
    paired: Annotated[Path, typer.Argument(help="Paired dataset made by `sge2hist prepare`.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Model folder to write; an unfinished one is resumed.")
    ],
    preset: Annotated[
        str, typer.Option(help="small (CPU), base (GPU), paper (the published configuration), tiny (smoke test).")
    ] = "small",
    hours: Annotated[float | None, typer.Option(help="Time budget over all stages, e.g. 1.5.")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of the joint stage instead of the preset's.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Insist on resuming: an error if there is nothing to resume.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete an earlier model of this name.")] = False,
    start: Annotated[
        str | None,
        typer.Option(
            help="Start from a trained model's weights: a folder or pretrained:NAME. Trains on, or fine-tunes."
        ),
    ] = None,
    renew_genes: Annotated[
        bool, typer.Option("--renew-genes", help="With --start: train the gene model anew, keep the image networks.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of weights, batches and noise.")] = 0,
    patch_px: Annotated[int | None, typer.Option(help="Patch side in px; default: the dataset's.")] = None,
    um_per_px: Annotated[float | None, typer.Option(help="Resolution of the images; default: the dataset's.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of the joint stage; default: the preset's.")] = None,
    batch: Annotated[int | None, typer.Option(help="Patches per joint step; default: the preset's.")] = None,
    leave_out: Annotated[
        Path | None,
        typer.Option(
            help="GeoJSON of areas that no image is learnt from (pen, folds, deposits), drawn on PAIRED/slide.ome.tif."
        ),
    ] = None,
    labels: Annotated[bool, typer.Option(help="Let the cells' types inform the mixture.")] = True,
    pool_um: Annotated[
        float,
        typer.Option(
            help="For bins: fit and tell cell types from a bin and those within so many um together (24 for bins of 16 um)."
        ),
    ] = 0.0,
    preview_minutes: Annotated[float, typer.Option(help="Minutes between preview pictures.")] = 10.0,
    mixed_precision: Annotated[str, typer.Option(help="auto, bf16 or no.")] = "auto",
) -> None:
    """Train the gene model and the image model on a paired dataset.

    Stages: image autoencoder, gene model on expression alone, mixture of cell types, then both models jointly.
    Progress, a csv log and preview pictures (real above generated) are written to OUTPUT/training. When the run is
    stopped, even by force, the same command goes on from the last checkpoint. On several GPUs:
    `accelerate launch -m sge2hist train ...`.

    Example: `sge2hist train kidney.paired -o kidney.model --preset small --hours 1.5`

    Longer, from what there is: `sge2hist train kidney.paired -o better.model --start kidney.model --hours 3 --seed 1`
    """
    from sge2hist.data.errors import InputError
    from sge2hist.data.paired import PairedDataset
    from sge2hist.training.config import TrainConfig
    from sge2hist.training.train import train as run

    if resume and not (output / "training" / "run.json").is_file():
        raise InputError(found="nothing to resume", where=str(output), repair="leave out --resume to start a new run")
    config = TrainConfig(
        preset=preset,
        hours=hours,
        steps=steps,
        seed=seed,
        patch_px=patch_px,
        um_per_px=um_per_px,
        learning_rate=learning_rate,
        batch=batch,
        start=start,
        renew_genes=renew_genes,
        use_labels=labels,
        pool_um=pool_um,
        leave_out=None if leave_out is None else str(leave_out),
        preview_every_s=60 * preview_minutes,
        mixed_precision=mixed_precision,
    )
    run(PairedDataset.open(paired), output, config, overwrite=overwrite, say=typer.echo)
