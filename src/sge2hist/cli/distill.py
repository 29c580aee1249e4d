"""`sge2hist distill`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sge2hist.models.bundle import ModelBundle


def distill(
    model: Annotated[Path, typer.Argument(help="Trained model folder, or pretrained:NAME: the teacher.")],
    paired: Annotated[Path, typer.Option("--on", help="Paired dataset that the teacher was trained on.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Model folder to write; an unfinished one is resumed.")
    ],
    steps: Annotated[int, typer.Option(help="Training steps.")] = 2000,
    evaluations: Annotated[int, typer.Option(help="Network evaluations per image of the new model.")] = 1,
    learning_rate: Annotated[float, typer.Option(help="Learning rate.")] = 1e-4,
    batch: Annotated[int, typer.Option(help="Patches per step.")] = 64,
    leave_out: Annotated[
        Path | None, typer.Option(help="GeoJSON of areas that no image is learnt from, as in `sge2hist train`.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of batches and noise.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete an earlier model of this name.")] = False,
) -> None:
    """Make a model that draws in one evaluation, or a few, instead of a dozen (consistency tuning).

    The new model is used like its teacher; compare the two with `sge2hist evaluate`. Stopped, the same command goes on.

    Example: `sge2hist distill kidney.model --on kidney.paired -o kidney_fast.model`
    """
    from sge2hist.data.paired import PairedDataset
    from sge2hist.training.distill import DistillConfig
    from sge2hist.training.distill import distill as run

    config = DistillConfig(
        steps=steps, evaluations=evaluations, learning_rate=learning_rate, batch=batch, seed=seed,
        leave_out=None if leave_out is None else str(leave_out),
    )  # fmt: skip
    run(load_trained(model, output), PairedDataset.open(paired), output, config, overwrite=overwrite, say=typer.echo)


def load_trained(model: Path, output: Path) -> ModelBundle:
    """Load the model that is trained on; the one that is written must be another folder."""
    from sge2hist.cli.generate import load_model
    from sge2hist.data.errors import InputError

    if model.resolve() == output.resolve():
        raise InputError(found=f"-o {output}, the model itself", expected="another folder: the trained model stays")
    return load_model(model, "auto")
