"""`sge2hist train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sge2hist.cli.arguments import ADVANCED, RUNNING, Exclude
from sge2hist.cli.command import log, wrote_if_quiet

_LENGTH, _START, _MODEL = "Length", "Start from a trained model", "Model"


def train(
    paired: Annotated[Path, typer.Argument(help="Paired dataset made by `sge2hist prepare`.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Model folder to write; the same command resumes an unfinished one.")
    ],
    preset: Annotated[
        str,
        typer.Option(help="small (CPU), base (GPU), paper (the published configuration), demo, tiny (smoke test)."),
    ] = "small",
    hours: Annotated[
        float | None,
        typer.Option(help="Time for everything, from reading to writing, e.g. 1.5.", rich_help_panel=_LENGTH),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Steps of the joint stage instead of the preset's.", rich_help_panel=_LENGTH)
    ] = None,
    warm_start: Annotated[
        str | None,
        typer.Option(help="Start from its weights: a model folder or pretrained:NAME.", rich_help_panel=_START),
    ] = None,
    refit_genes: Annotated[
        bool,
        typer.Option(
            "--refit-genes",
            help="With --warm-start: train the gene model from scratch, keep the image networks.",
            rich_help_panel=_START,
        ),
    ] = False,
    patch_px: Annotated[
        int | None, typer.Option(help="Patch side in px; default: the dataset's.", rich_help_panel=_MODEL)
    ] = None,
    um_per_px: Annotated[
        float | None, typer.Option(help="Resolution of the images; default: the dataset's.", rich_help_panel=_MODEL)
    ] = None,
    type_labels: Annotated[
        bool,
        typer.Option(help="Use the cells' types as supervision for the mixture.", rich_help_panel=_MODEL),
    ] = True,
    pool_um: Annotated[
        float,
        typer.Option(
            help="For bins: pool the bins within this radius (um) when types are fitted and assigned; 24 for bins of 16 um.",
            rich_help_panel=_MODEL,
        ),
    ] = 0.0,
    features: Annotated[
        str,
        typer.Option(help="What of a cell conditions its image: rna, or rna,protein.", rich_help_panel=_MODEL),
    ] = "rna",
    exclude: Exclude = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Of the joint stage; default: the preset's.", rich_help_panel=ADVANCED)
    ] = None,
    batch: Annotated[
        int | None, typer.Option(help="Patches per joint step; default: the preset's.", rich_help_panel=ADVANCED)
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of weights, batches and noise.", rich_help_panel=ADVANCED)] = 0,
    mixed_precision: Annotated[str, typer.Option(help="auto, bf16 or no.", rich_help_panel=ADVANCED)] = "auto",
    preview_minutes: Annotated[
        float, typer.Option(help="Minutes between preview pictures.", rich_help_panel=ADVANCED)
    ] = 10.0,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Insist on resuming: an error if there is nothing to resume.", rich_help_panel=RUNNING
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete an earlier model of this name.", rich_help_panel=RUNNING)
    ] = False,
) -> None:
    """Train the gene model and the image model on a paired dataset.

    Stages: image autoencoder, gene model on expression alone, mixture of cell types, then both models jointly.
    Progress, a csv log and preview pictures (real above generated) are written to OUTPUT/training. A stopped run resumes
    from its last checkpoint with the same command. On several GPUs: `accelerate launch -m sge2hist train ...`.

    Example: `sge2hist train kidney.paired -o kidney.model --preset small --hours 1.5`
    """
    from sge2hist.training.budget import Clock

    clock = Clock()  # a time budget counts the imports too
    from sge2hist.data.errors import InputError
    from sge2hist.data.paired import PairedDataset
    from sge2hist.training.config import TrainConfig
    from sge2hist.training.train import train as run

    if resume and not (output / "training" / "run.json").is_file():
        raise InputError(found="nothing to resume", where=str(output), repair="omit --resume to start a new run")
    config = TrainConfig(
        preset=preset,
        hours=hours,
        steps=steps,
        seed=seed,
        patch_px=patch_px,
        um_per_px=um_per_px,
        learning_rate=learning_rate,
        batch=batch,
        warm_start=warm_start,
        refit_genes=refit_genes,
        use_labels=type_labels,
        pool_um=pool_um,
        features=features,
        exclude=None if exclude is None else str(exclude),
        preview_every_s=60 * preview_minutes,
        mixed_precision=mixed_precision,
    )
    run(PairedDataset.open(paired), output, config, overwrite=overwrite, log=log, clock=clock)
    wrote_if_quiet(output)
