"""`sge2hist inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def inspect(
    path: Annotated[
        Path,
        typer.Argument(help="Instrument folder or file, paired dataset, model (or pretrained:NAME) or generated set."),
    ],
    image: Annotated[
        Path | None, typer.Option(help="H&E image, to compare its size with what the folder expects.")
    ] = None,
) -> None:
    """Say what something on disk is: technology, software, units, sizes, um per px and where each comes from.

    Nothing is changed, and counts are not loaded.

    Example: `sge2hist inspect outs --image he.btf`
    """
    from sge2hist.data.files import is_artifact
    from sge2hist.models.locate import is_shipped, model_folder

    if is_shipped(path):
        path = model_folder(path)
    if is_artifact(path) or (path / "training" / "run.json").is_file():
        from sge2hist.cli.inspect_artifact import artifact_facts

        facts = artifact_facts(path)
    else:
        from sge2hist.readers.describe import input_facts

        facts = input_facts(path, image=image)
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        typer.echo(f"{name:<{width}}  {value}")
