"""`sge2hist export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    paired: Annotated[Path, typer.Argument(help="Paired dataset made by `sge2hist prepare`.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="SpatialData store to write, NAME.zarr.")],
) -> None:
    """Write a paired dataset as a SpatialData store, for squidpy, napari-spatialdata and the other tools that open it.

    Every slide becomes a multiscale image with a coordinate system of its own, its cells become circles in px of the
    slide, and the counts become one table. The spatialdata package is not needed to write it.

    Example: `sge2hist export kidney.paired -o kidney.zarr`
    """
    from sge2hist.data.paired import PairedDataset
    from sge2hist.pairing.export_spatialdata import export_spatialdata

    dataset = PairedDataset.open(paired)
    export_spatialdata(dataset, output)
    typer.echo(f"{output}: {len(dataset):,} cells, {len(dataset.slide_ids)} slide(s), SpatialData 0.2 (zarr 3)")
