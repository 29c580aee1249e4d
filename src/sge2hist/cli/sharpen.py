"""`sge2hist sharpen`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def sharpen(
    model: Annotated[Path, typer.Argument(help="Trained model folder, or pretrained:NAME.")],
    paired: Annotated[Path, typer.Option("--on", help="Paired dataset that the model was trained on.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Model folder to write; an unfinished one is resumed.")
    ],
    hours: Annotated[float | None, typer.Option(help="Time budget, e.g. 0.8.")] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps; default: 8000, or as long as --hours.")] = None,
    learning_rate: Annotated[float, typer.Option(help="Learning rate of the decoder.")] = 2e-4,
    grain: Annotated[
        bool,
        typer.Option("--grain", help="Teach a model that is sharp already to draw what latents leave to chance."),
    ] = False,
    leave_out: Annotated[
        Path | None, typer.Option(help="GeoJSON of areas that no image is learnt from, as in `sge2hist train`.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of critic, batches and noise.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete an earlier model of this name.")] = False,
) -> None:
    """Give the pictures of a trained model the detail of real ones (adversarial training of its decoder).

    Nuclei become crisp, and nearly as many as in real tissue. Only the decoder is trained: the same seed still draws the same
    tissue. Give it time: a quarter of an hour on a CPU makes pictures worse. Stopped, the same command goes on. A second one,
    `--grain --hours 0.3 --learning-rate 1e-4`, adds fine texture, which the image's seed decides.

    Example: `sge2hist sharpen kidney.model --on kidney.paired -o kidney_sharp.model --hours 0.8`
    """
    from sge2hist.cli.distill import load_trained
    from sge2hist.data.paired import PairedDataset
    from sge2hist.training.finetune.adversarial_decoder import GRAIN, SharpenConfig
    from sge2hist.training.finetune.adversarial_decoder import sharpen as run

    config = SharpenConfig(
        steps=steps,
        hours=hours,
        learning_rate=learning_rate,
        seed=seed,
        leave_out=None if leave_out is None else str(leave_out),
        **(GRAIN if grain else {}),
    )
    run(load_trained(model, output), PairedDataset.open(paired), output, config, overwrite=overwrite, say=typer.echo)
