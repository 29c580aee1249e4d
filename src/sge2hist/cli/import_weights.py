"""`sge2hist import-weights`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sge2hist.cli.command import log


def import_weights(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint (.pt, .pth) of the published code.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write, for `train --warm-start`.")],
    genes: Annotated[
        Path | None,
        typer.Option(help="csv gene_id,symbol of its genes in the order of its training."),
    ] = None,
) -> None:
    """Convert weights of the published code to a start of `train --preset paper`.

    Both layouts are recognised: the pre-trained autoencoder and the whole model. What fits, what was converted and what is
    missing is printed. Nothing in the file is run: it may hold tensors in plain containers only.

    Example: `sge2hist import-weights pre_embryo.pt -o published.weights`
    """
    from sge2hist.training.published_weights import import_weights as convert

    convert(checkpoint, output, genes=genes, log=log)
