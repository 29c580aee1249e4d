"""`sge2hist evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sge2hist.cli.arguments import ADVANCED, Overwrite
from sge2hist.cli.command import log


def evaluate(
    generated: Annotated[
        list[str],
        typer.Argument(
            help="Generated sets or slides, or folders of PNG/TIFF with images.csv (image,cell_id); name=path names a set."
        ),
    ],
    data: Annotated[Path, typer.Option("--data", help="Paired dataset that the cells come from.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Report folder to write.")],
    split: Annotated[str, typer.Option(help="Split of the evaluated cells and of the real floor.")] = "test",
    n: Annotated[int, typer.Option("-n", help="At most this many cells, sampled at random.")] = 10_000,
    samples: Annotated[int, typer.Option(help="At most this many images per cell.")] = 3,
    extractor: Annotated[
        str,
        typer.Option(
            help="Image features: auto, densenet121-imagenet, texture-v1, module:callable, or a TorchScript file.",
            rich_help_panel=ADVANCED,
        ),
    ] = "auto",
    extractor_px: Annotated[
        int | None, typer.Option(help="Side of the extractor's input; default: its own.", rich_help_panel=ADVANCED)
    ] = None,
    bootstrap: Annotated[int, typer.Option(help="Resamples for intervals.", rich_help_panel=ADVANCED)] = 200,
    seed: Annotated[int, typer.Option(help="Seed of every random choice.", rich_help_panel=ADVANCED)] = 0,
    umap: Annotated[
        bool, typer.Option("--umap/--no-umap", help="Show a UMAP of the features.", rich_help_panel=ADVANCED)
    ] = True,
    overwrite: Overwrite = False,
) -> None:
    """Score generated images against real tissue: numbers with baselines, and a page to look at.

    Add a set made with `generate --shuffle-cells`: it becomes the baseline of the same model's other set.

    Example: `sge2hist evaluate kidney.generated --data kidney.paired -o report/`
    """
    from sge2hist.evaluation.config import EvaluateConfig
    from sge2hist.evaluation.evaluate import evaluate as run

    config = EvaluateConfig(
        extractor=extractor,
        extractor_input_px=extractor_px,
        split=split,
        max_cells=n,
        max_samples=samples,
        n_bootstrap=bootstrap,
        seed=seed,
        umap=umap,
    )
    report = run(list(generated), data, output, config=config, progress=True, overwrite=overwrite)
    for line in summary(report):
        log(line)
    typer.echo(f"wrote {output / 'report.html'}")


def summary(report: dict[str, Any]) -> list[str]:
    """Return one line per metric: value, real tissue, shuffled."""

    def number(entry: dict[str, Any] | None) -> str:
        return "-" if entry is None or entry["value"] is None else f"{entry['value']:.4g}"

    lines = [note for note in (report["extractor"]["note"], *report["notes"]) if note]
    names = [entry["name"] for entry in report["sets"]]
    lines.append(f"{'metric':<40}{'real':>10}" + "".join(f"{name[:18]:>20}{'shuffled':>10}" for name in names))
    for metric in report["metrics"]:
        cells = [metric["sets"].get(name) for name in names]
        columns = "".join(f"{number(cell):>20}{number(cell and cell['shuffled']):>10}" for cell in cells)
        lines.append(f"{metric['name']:<40}{number(metric['real']):>10}{columns}")
    for name, slide in report["slides"].items():
        maps = [f"{row['name']} {number(row['correlation'])} ({number(row['shuffled'])})" for row in slide["maps"]]
        lines.append(
            f"{name}, windows of {slide['window_um']:g} um, correlation (shuffled): {', '.join(maps)}; "
            f"seams {number(slide['seams'])}, real {number(slide['real_seams'])}"
        )
    return lines
