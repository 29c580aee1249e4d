"""`sge2hist view`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def view(
    generated: Annotated[Path, typer.Argument(help="Slide made by `sge2hist generate MODEL --slide`.")],
    against: Annotated[
        Path | None,
        typer.Option("--against", help="Paired dataset with the real section; found by itself if it can be."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder to write; default: `view` inside the slide's folder.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier viewer.")] = False,
) -> None:
    """Write a page that shows a slide in a browser: real, generated, cell types and uncertainty, zoomed together.

    `sge2hist view kidney.generated --against kidney.paired` and open kidney.generated/view/slide.html
    """
    from sge2hist.cli.progress import bar
    from sge2hist.data.artifacts import read_manifest
    from sge2hist.data.paired import PairedDataset
    from sge2hist.viewer.build import build_viewer, n_tiles, open_layers

    manifest = read_manifest(generated, "generated")
    if against is None and Path(manifest.get("data_path") or "/nowhere", "manifest.json").is_file():
        against = Path(manifest["data_path"])
    dataset = None if against is None else PairedDataset.open(against)
    layers, _, _ = open_layers(generated, dataset)
    with bar("tiles", n_tiles(layers)) as progress:
        page = build_viewer(
            generated, output or generated / "view", against=dataset, overwrite=overwrite, progress=progress
        )
    typer.echo(f"open {page} in a browser ({', '.join(layer.title.lower() for layer in layers)})")
