"""The metrics of every slide's report as one table: rule `summary`."""

import csv
import json
from pathlib import Path

COLUMNS = ("slide", "metric", "name", "value", "low", "high", "n", "real")


def rows_of(folder: Path) -> list[dict[str, object]]:
    """One row for each metric of a report."""
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    rows = []
    for metric in report["metrics"]:
        for entry in metric["sets"].values():
            if entry is not None:
                row = {"slide": folder.name, "metric": metric["id"], "name": metric["name"], "real": metric["real"]}
                rows.append(row | {name: entry.get(name) for name in ("value", "low", "high", "n")})
    for row in rows:
        row["real"] = row["real"] and row["real"]["value"]
    return rows


def write_summary(folders: list[str], output: str) -> None:
    """Write the table of all reports."""
    with open(output, "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        for folder in folders:
            table.writerows(rows_of(Path(folder)))


if "snakemake" in globals():
    write_summary(snakemake.input, snakemake.output[0])  # type: ignore[name-defined]  # noqa: F821
