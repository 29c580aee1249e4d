"""`sge2hist`: one verb per step of the work. Nothing heavy is imported before a verb runs."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

from sge2hist import __version__
from sge2hist.cli.command import Verb, Verbs, with_running_options
from sge2hist.cli.demo import demo
from sge2hist.cli.evaluate import evaluate
from sge2hist.cli.explore import explore
from sge2hist.cli.fetch import fetch
from sge2hist.cli.finetune import distill, sharpen, train_detail, train_upsampler
from sge2hist.cli.generate import generate
from sge2hist.cli.generate_slide import generate_slide, merge, view
from sge2hist.cli.import_weights import import_weights
from sge2hist.cli.inspect import inspect
from sge2hist.cli.prepare import export, prepare
from sge2hist.cli.quiz import quiz
from sge2hist.cli.train import train
from sge2hist.cli.types import types
from sge2hist.data.errors import InputError

HELP = """Generate H&E histology images from spatially resolved single-cell gene expression.

Data goes one way, each step is a folder on disk:

- `prepare`: instrument folder and image to X.paired (look at X.paired/alignment.png)
- `train`: X.paired to X.model (the same command resumes)
- `generate`: X.model and expression to X.generated, patches from RNA or by cell type
- `generate-slide`: X.model and expression to X.generated, a whole section; `view` shows it
- `evaluate`: X.generated and X.paired to report/ (open report/report.html)

Start with `sge2hist demo`: all of it on a toy tissue, in minutes.
"""

app = typer.Typer(
    cls=Verbs, help=HELP, no_args_is_help=True, rich_markup_mode="markdown", pretty_exceptions_enable=False
)
PANELS = {
    "Data": (fetch, prepare, inspect, export),
    "Training": (train, sharpen, train_detail, distill, train_upsampler, types, import_weights),
    "Images": (generate, generate_slide, merge, view, explore, evaluate, quiz),
    "Example": (demo,),
}
AT_ONCE = (inspect, types)
"""Verbs that only read and print: they need neither --threads nor --quiet."""
for panel, verbs in PANELS.items():
    for verb in verbs:
        app.command(cls=Verb, rich_help_panel=panel)(verb if verb in AT_ONCE else with_running_options(verb))


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
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it finds wrong becomes our one error
    try:
        app()
    except InputError as error:
        typer.secho(f"error: {error}", fg=typer.colors.RED, err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(130)
