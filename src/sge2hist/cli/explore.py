"""`sge2hist explore`: a page on which cells are edited and the tissue is generated again at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sge2hist.cli.arguments import Force, Model
from sge2hist.cli.command import log, log_warning


def explore(
    model: Model,
    data: Annotated[Path, typer.Option("--data", help="Paired dataset whose cells are edited.")],
    slide: Annotated[
        Path | None, typer.Option(help="Slide generated from it by `generate-slide`, shown beside the real one.")
    ] = None,
    section: Annotated[str | None, typer.Option(help="Take this one of several slides in --data.")] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on this machine; 0: any free one.")] = 0,
    save_to: Annotated[Path | None, typer.Option(help="Folder for saved lists of edits; made if missing.")] = None,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Print the address only; for an SSH tunnel.")
    ] = False,
    force: Force = False,
) -> None:
    """Edit cells of a section in the browser and see the tissue change: genes, types, cells added or removed.

    Example: `sge2hist explore pretrained:kidney --data kidney.paired`

    From another machine: `ssh -L 8765:127.0.0.1:8765 HOST` there, `--port 8765 --no-browser` here, and open the printed address.
    """
    from sge2hist.explorer.start import open_explorer, open_page_when_ready

    explorer = open_explorer(
        str(model), data, generated=slide, section=section, port=port, save_to=save_to, force=force, warn=log_warning
    )
    typer.echo(explorer.url)
    log("Ctrl-C ends it; edits that are not saved are lost")
    if not no_browser:
        open_page_when_ready(explorer)
    try:
        explorer.run()
    except KeyboardInterrupt:
        log("ended")
