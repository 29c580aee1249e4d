"""`sge2hist fetch`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sge2hist.cli.command import log


def fetch(
    name: Annotated[str | None, typer.Argument(help="Data set, by its name in --list.")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder to fill; the same command goes on where it stopped.")
    ] = None,
    show_list: Annotated[bool, typer.Option("--list", help="List the data sets and stop; needs no network.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Ask the server for names and sizes, and load nothing.")
    ] = False,
    mirror: Annotated[
        str | None, typer.Option(help="Address of another folder with the same files, e.g. of your institute.")
    ] = None,
) -> None:
    """Load a published data set from its vendor, verify it and unpack it for `prepare`.

    Sizes, licence and citation are shown first. A download that breaks off is resumed, what is there is not loaded again, and
    checksums are recorded in OUTPUT/fetch.json and compared at every later run.

    Example: `sge2hist fetch visium-hd-mouse-brain -o mouse_brain`
    """
    from sge2hist.data.errors import InputError
    from sge2hist.download.catalogue import CATALOGUE
    from sge2hist.download.fetch import fetch as load
    from sge2hist.download.fetch import published

    if show_list:
        for data in CATALOGUE:
            typer.echo(f"{data.name}\n  {data.title}\n  {data.address}\n  {data.licence}")
        return
    if name is None:
        raise InputError(found="no data set", expected="its name", repair="`sge2hist fetch --list` shows the names")
    data = published(name)
    if output is None:
        raise InputError(
            found="no -o", expected="a folder to fill", repair=f"sge2hist fetch {name} -o {name.replace('-', '_')}"
        )
    load(data, output, mirror=mirror, dry_run=dry_run, log=log)
