"""`sge2hist`: one verb per step, each in its own short file. Nothing heavy is imported before a verb runs."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

from sge2hist import __version__
from sge2hist.cli.demo import demo
from sge2hist.cli.distill import distill
from sge2hist.cli.evaluate import evaluate
from sge2hist.cli.export import export
from sge2hist.cli.generate import generate
from sge2hist.cli.generate_slide import merge
from sge2hist.cli.inspect import inspect
from sge2hist.cli.prepare import prepare
from sge2hist.cli.sharpen import sharpen
from sge2hist.cli.train import train
from sge2hist.cli.train_upsampler import train_upsampler
from sge2hist.cli.types import types
from sge2hist.cli.view import view
from sge2hist.data.errors import InputError

HELP = """Generate H&E histology images from spatially resolved single-cell gene expression.

Data goes one way, each step is a folder on disk:

  prepare   instrument folder + image ->  X.paired     (look at X.paired/alignment.png)

  train     X.paired                  ->  X.model      (the same command resumes)

  generate  X.model + expression      ->  X.generated  (from RNA, or by cell type)

  evaluate  X.generated + X.paired    ->  report/      (open report/report.html)

Start with `sge2hist demo`: all of it on a toy tissue, in minutes.
"""

app = typer.Typer(
    help=HELP, no_args_is_help=True, rich_markup_mode="markdown", pretty_exceptions_enable=False, add_completion=False
)
TRAINING = (train, sharpen, distill, train_upsampler)
for verb in (prepare, *TRAINING, generate, merge, view, types, evaluate, inspect, export, demo):
    app.command()(verb)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sge2hist {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and stop.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; a user's error is one message and exit code 2, an interruption 130."""
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it finds wrong comes back as our one error
    try:
        app()
    except InputError as error:
        typer.secho(f"error: {error}", fg=typer.colors.RED, err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(130)
