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
    guidance: Annotated[
        bool,
        typer.Option(
            "--guidance", help="Keep the steps, and learn the guidance that takes a second evaluation in some."
        ),
    ] = False,
    steps: Annotated[
        int | None, typer.Option(help="Training steps: 2000; with --guidance 1000.", show_default=False)
    ] = None,
    evaluations: Annotated[
        int | None, typer.Option(help="Network evaluations per image of the new model: 1.", show_default=False)
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Learning rate: 1e-4; with --guidance 4e-4.", show_default=False)
    ] = None,
    batch: Annotated[
        int | None, typer.Option(help="Patches per step: 64; with --guidance 24.", show_default=False)
    ] = None,
    leave_out: Annotated[
        Path | None, typer.Option(help="GeoJSON of areas that no image is learnt from, as in `sge2hist train`.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of batches and noise.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete an earlier model of this name.")] = False,
) -> None:
    """Make a model that draws in one evaluation, or a few, instead of a dozen (consistency tuning).

    With --guidance instead one that draws in the same steps, each a single evaluation, in two thirds of the time.
    The new model is used like its teacher; compare the two with `sge2hist evaluate`. Stopped, the same command goes on.

    Example: `sge2hist distill kidney.model --on kidney.paired -o kidney_fast.model`
    """
    from sge2hist.data.errors import InputError
    from sge2hist.data.paired import PairedDataset
    from sge2hist.training.finetune.consistency import DistillConfig
    from sge2hist.training.finetune.consistency import distill as run
    from sge2hist.training.finetune.guidance_distillation import OwnGuidanceConfig, learn_guidance

    asked = {"steps": steps, "learning_rate": learning_rate, "batch": batch, "evaluations": evaluations}
    settings = {name: value for name, value in asked.items() if value is not None}
    common = {"seed": seed, "leave_out": None if leave_out is None else str(leave_out)}
    if guidance and evaluations is not None:
        raise InputError(found="--guidance and --evaluations", expected="one of the two: --guidance keeps the steps")
    config = OwnGuidanceConfig(**settings, **common) if guidance else DistillConfig(**settings, **common)  # type: ignore[arg-type]
    teacher, data = load_trained(model, output), PairedDataset.open(paired)
    if isinstance(config, OwnGuidanceConfig):
        learn_guidance(teacher, data, output, config, overwrite=overwrite, say=typer.echo)
    else:
        run(teacher, data, output, config, overwrite=overwrite, say=typer.echo)


def load_trained(model: Path, output: Path) -> ModelBundle:
    """Load the model that is trained on; the one that is written must be another folder."""
    from sge2hist.cli.generate import load_model
    from sge2hist.data.errors import InputError

    if model.resolve() == output.resolve():
        raise InputError(found=f"-o {output}, the model itself", expected="another folder: the trained model stays")
    return load_model(model, "auto")
