"""`sge2hist train-upsampler`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train_upsampler(
    paired: Annotated[Path, typer.Argument(help="Paired dataset whose slides are as fine as asked. No RNA is used.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write; an unfinished one is resumed.")],
    um_per_px: Annotated[
        float, typer.Option(help="Resolution of the fine images; models draw at FACTOR times that.")
    ] = 0.5,
    factor: Annotated[int, typer.Option(help="How much finer, along each side.")] = 4,
    hours: Annotated[float | None, typer.Option(help="Time budget, e.g. 0.5, instead of --steps.")] = None,
    steps: Annotated[int, typer.Option(help="Training steps.")] = 4000,
    batch: Annotated[int, typer.Option(help="Images per step.")] = 16,
    crop_px: Annotated[int, typer.Option(help="Side of a training image, fine pixels.")] = 128,
    evaluations: Annotated[
        int, typer.Option(help="Network evaluations per image; more than 1 draws texture too, after a long training.")
    ] = 1,
    leave_out: Annotated[
        Path | None, typer.Option(help="GeoJSON of areas that are not learnt from, as in `sge2hist train`.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of weights, batches and noise.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete an earlier upsampler of this name.")] = False,
) -> None:
    """Train a second stage that draws the fine detail of generated images: 64 px at 2 um/px become 256 px at 0.5.

    It learns from the pixels of the slides alone, so one may serve several models of the same stain and resolution.

    Example: `sge2hist train-upsampler breast.paired -o breast.upsampler --um-per-px 0.5 --hours 0.5`

    Then: `sge2hist generate kidney.model --types Podocyte --upsampler breast.upsampler -o fine.generated`
    """
    from sge2hist.data.paired import PairedDataset
    from sge2hist.training.finetune.upsampler import UpsamplerTraining
    from sge2hist.training.finetune.upsampler import train_upsampler as run

    config = UpsamplerTraining(
        um_per_px=um_per_px,
        factor=factor,
        hours=hours,
        steps=steps,
        batch=batch,
        crop_px=crop_px,
        evaluations=evaluations,
        seed=seed,
        leave_out=None if leave_out is None else str(leave_out),
    )
    run(PairedDataset.open(paired), output, config, overwrite=overwrite, say=typer.echo)
