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
    split: Annotated[str, typer.Option(help="Split of the evaluated cells.")] = "test",
    n: Annotated[int, typer.Option("-n", help="At most this many cells, sampled at random.")] = 10_000,
    samples: Annotated[int, typer.Option(help="At most this many images per cell.")] = 3,
    extractor: Annotated[
        list[str] | None,
        typer.Option(
            help="Image features, once or several times (or separated by commas), the main one first: auto, "
            "densenet121-imagenet, texture-v1, UNI2-h, H0-mini, Virchow2, CONCH, inception, module:callable, or a "
            "TorchScript file.  [default: auto]",
            rich_help_panel=ADVANCED,
        ),
    ] = None,
    extractor_weights: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=FILE: weights of UNI2-h, H0-mini, Virchow2, CONCH (else from the hub) or inception.",
            metavar="NAME=FILE",
            rich_help_panel=ADVANCED,
        ),
    ] = None,
    extractor_px: Annotated[
        int | None, typer.Option(help="Side of the extractor's input; default: its own.", rich_help_panel=ADVANCED)
    ] = None,
    jpeg: Annotated[
        int | None,
        typer.Option(
            help="Compress real and generated images alike, at this quality, before the features are computed.",
            rich_help_panel=ADVANCED,
        ),
    ] = None,
    sensitivity: Annotated[
        int,
        typer.Option(
            help="Real patches on which it is measured what small changes cost (shift, JPEG, stain); 0 = none.",
            rich_help_panel=ADVANCED,
        ),
    ] = 300,
    bootstrap: Annotated[int, typer.Option(help="Resamples for intervals.", rich_help_panel=ADVANCED)] = 200,
    seed: Annotated[int, typer.Option(help="Seed of every random choice.", rich_help_panel=ADVANCED)] = 0,
    umap: Annotated[
        bool, typer.Option("--umap/--no-umap", help="Show a UMAP of the features.", rich_help_panel=ADVANCED)
    ] = True,
    cache: Annotated[
        bool,
        typer.Option(
            "--cache/--no-cache",
            help="Keep features of the real patches in X.paired/cache for the next evaluation.",
            rich_help_panel=ADVANCED,
        ),
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
        extractor=tuple(extractor or ["auto"]),
        extractor_weights=tuple(extractor_weights or []),
        extractor_input_px=extractor_px,
        jpeg_quality=jpeg,
        sensitivity_cells=sensitivity,
        split=split,
        max_cells=n,
        max_samples=samples,
        n_bootstrap=bootstrap,
        seed=seed,
        umap=umap,
        cache=cache,
    )
    report = run(list(generated), data, output, config=config, progress=True, overwrite=overwrite)
    for line in summary(report):
        log(line)
    typer.echo(f"wrote {output / 'report.html'}")


def summary(report: dict[str, Any]) -> list[str]:
    """Return one line per metric: value, real tissue, shuffled; and what the report lacks."""
    from sge2hist.evaluation.report.sentences import shown

    def text(entry: dict[str, Any] | None, share: bool = False) -> str:
        return shown(None if entry is None else entry["value"], share).replace("−", "-").replace("–", "-")

    every = [report["extractor"], *report.get("further_extractors", [])]
    lines = [note for note in (*(found["note"] for found in every), *report["notes"]) if note]
    lines += [f"{found['name']}: {found['licence']}" for found in every if found.get("licence")]
    lines += [f"{entry['name']}: {entry['held_out']['text']}" for entry in report["sets"] if "held_out" in entry]
    lines.append(f"compared with {report['data']['floor']}")
    names = [entry["name"] for entry in report["sets"]]
    table = [["metric", "real", *(heading for name in names for heading in (name, "shuffled"))]]

    def add_rows(metrics: list[dict[str, Any]], suffix: str = "") -> None:
        for metric in metrics:
            share = bool(metric["share"])
            cells = [metric["sets"].get(name) for name in names]
            found = [text(entry, share) for cell in cells for entry in (cell, cell and cell["shuffled"])]
            table.append([metric["name"] + suffix, text(metric["real"], share), *found])

    add_rows(report["metrics"])
    for extractor in every[1:]:
        add_rows(extractor["metrics"], f", {extractor['name']}")
    lines += columns(table)
    lines += small_changes(report["extractor"]["name"], report.get("sensitivity", []))
    for extractor in every[1:]:
        lines += small_changes(extractor["name"], extractor["sensitivity"])
    for name, slide in report["slides"].items():
        maps = [f"{row['name']} {text(row['correlation'])} ({text(row['shuffled'])})" for row in slide["maps"]]
        lines.append(
            f"{name}, windows of {slide['window_um']:g} um, correlation (shuffled): {', '.join(maps)}; "
            f"seams {text(slide['seams'])}, real {text(slide['real_seams'])}"
        )
    by_reason: dict[str, list[str]] = {}
    for entry in report["types_omitted"]:
        by_reason.setdefault(entry["reason"], []).append(f"{entry['type']} ({entry['n']})")
    lines += [f"not in the table of types, {reason}: {', '.join(types)}" for reason, types in by_reason.items()]
    return lines + [f"omitted: {sentence}" for sentence in report["omitted"]]


def small_changes(extractor: str, rows: list[dict[str, Any]]) -> list[str]:
    """Return one line on what small changes of real patches cost in an extractor's Frechet distance."""
    costs = [f"{row['change']} {row['over_floor']:.2f}" for row in rows[1:] if row["over_floor"] is not None]
    return [f"small changes of real patches, distance over floor, {extractor}: {', '.join(costs)}"] if costs else []


def columns(table: list[list[str]]) -> list[str]:
    """Return rows as lines of text: the first column flush left, the others right, two spaces apart or more.

    >>> columns([["metric", "a"], ["KID", "-0.01"]])
    ['metric      a', 'KID     -0.01']
    """
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in table
    ]
