"""Tables of the results pages: made from what a step left, and put between their marks on a page.

A table stands between ``<!-- table NAME -->`` and ``<!-- end -->``; everything between is replaced.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sge2hist.data.errors import InputError

MARKS = re.compile(r"<!-- table (?P<name>[a-z0-9_-]+) -->\n(?P<content>.*?)<!-- end -->", re.DOTALL)
Make = Callable[[Path], str]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of a page.

    Attributes:
        name: of its marks; page: file name in docs/results.
        make: what a step left -> Markdown.
    """

    name: str
    page: str
    make: Make


def printed(path: Path) -> str:
    """Return every Markdown table that a benchmark printed, and the lines between them."""
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = [i for i, line in enumerate(lines) if line.startswith("|")]
    if not rows:
        raise InputError(found="no table", where=str(path), expected="the output of a benchmark")
    return "\n".join(lines[rows[0] : rows[-1] + 1]) + "\n"


def values(path: Path) -> str:
    """Return a printed table of scores without intervals, and without the columns of shuffled expression."""
    rows = [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in printed(path).splitlines()
        if line.startswith("|")
    ]
    kept = [i for i, head in enumerate(rows[0]) if not head.endswith(", shuffled")]
    return markdown([[re.sub(r" \[.*?\]", "", row[i]) for i in kept] for row in (rows[0], *rows[2:])])


def whole(path: Path) -> str:
    """Return everything that a benchmark printed, which is Markdown."""
    return path.read_text(encoding="utf-8").strip() + "\n"


def report(path: Path) -> dict[str, Any]:
    """Return the content of report.json of a report folder."""
    found: dict[str, Any] = json.loads((path / "report.json").read_text(encoding="utf-8"))
    return found


def figure(entry: dict[str, Any] | None) -> str:
    """Return a figure with its interval; a dash for none."""
    if entry is None or entry["value"] is None:
        return "-"
    between = "" if entry.get("low") is None else f" ({entry['low']:.3g} to {entry['high']:.3g})"
    return f"{entry['value']:.3g}{between}"


def markdown(rows: list[list[str]]) -> str:
    """Return rows as a Markdown table; the first one is the head."""
    lines = ["| " + " | ".join(cells) + " |" for cells in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]) + "\n"


def scores(path: Path) -> str:
    """Return every metric: real tissue, and each set from its own and from shuffled RNA."""
    found = report(path)
    names = [entry["name"] for entry in found["sets"]]
    rows = [["metric", "real: floor or ceiling", *(head for name in names for head in (name, f"{name}, shuffled"))]]
    for metric in found["metrics"]:
        cells = [metric["name"], figure(metric["real"])]
        for name in names:
            entry = metric["sets"].get(name)
            cells += [figure(entry), figure(entry and entry["shuffled"])]
        rows.append(cells)
    return markdown(rows)


def statistics(path: Path) -> str:
    """Return the statistics of each patch of the first set: correlation, shuffled, spread, distribution."""
    entries = next(iter(report(path)["morphometry"].values()))
    rows = [["per-patch statistic", "correlation, own RNA", "shuffled", "spread ratio", "1 - KS"]]
    for entry in entries:
        of = entry["distribution"]
        r = f"{entry['correlation_shuffled']['value']:.2f}"
        rows.append(
            [
                entry["statistic"].replace("_", " "),
                figure(entry["correlation"]),
                r,
                f"{of['spread_ratio']:.2f}",
                f"{of['one_minus_ks']:.2f}",
            ]
        )
    return markdown(rows)


def extractors(path: Path) -> str:
    """Return the realism of every extractor: floor, sets, and the distance over the floor."""
    found = report(path)
    names = [entry["name"] for entry in found["sets"]]
    rows = [["extractor", "metric", "real (floor)", *(h for name in names for h in (name, f"{name}, shuffled"))]]
    for extractor in [{**found["extractor"], "metrics": found["metrics"]}, *found["further_extractors"]]:
        by_id = {metric["id"]: metric for metric in extractor["metrics"]}
        for metric in (by_id[i] for i in ("frechet", "kid", "precision", "recall", "coverage") if i in by_id):
            cells = [extractor["name"], metric["name"], figure(metric["real"])]
            for name in names:
                entry = metric["sets"].get(name)
                cells += [figure(entry), figure(entry and entry["shuffled"])]
            rows.append(cells)
        rows.append(over_floor(extractor["name"], by_id["frechet"], names))
    return markdown(rows)


def over_floor(extractor: str, metric: dict[str, Any], names: list[str]) -> list[str]:
    """Return the row of Frechet distances over their floor."""
    floor = metric["real"]["value"]
    cells = [extractor, "Frechet distance over floor", "1"]
    for name in names:
        entry = metric["sets"][name]
        for value in (entry["value"], (entry["shuffled"] or {}).get("value")):
            cells.append("-" if value is None else f"**{value / floor:.2f}**")
    return cells


def sizes(path: Path) -> str:
    """Return distance and floor of the first set by the number of images; the other reports lie beside this one."""
    rows = [["images", "floor", "generated", "over the floor", "own patches"]]
    for name in ("report_500", "report_1000", "report"):
        by_id = {metric["id"]: metric for metric in report(path.parent / name)["metrics"]}
        floor = by_id["frechet"]["real"]["value"]
        (found, own) = (next(iter(by_id[i]["sets"].values())) for i in ("frechet", "frechet_own"))
        rows.append(
            [
                f"{own['n']:,}",
                f"{floor:.3g}",
                f"{found['value']:.3g}",
                f"**{found['value'] / floor:.2f}**",
                f"{own['value']:.3g}",
            ]
        )
    return markdown(rows)


def small_changes(path: Path) -> str:
    """Return what small changes of real patches cost, by extractor."""
    found = report(path)
    every = [{**found["extractor"], "sensitivity": found["sensitivity"]}, *found["further_extractors"]]
    heads = [h for one in every for h in (f"{one['name']}: over floor", "from unchanged patches")]
    rows = [["change of real patches", *heads]]
    for i, change in enumerate(row["change"] for row in found["sensitivity"]):
        cells = [change]
        for one in every:
            row = one["sensitivity"][i]
            cells += [f"{row['over_floor']:.2f}", f"{row['frechet_from_unchanged']:.3g}"]
        rows.append(cells)
    return markdown(rows)


def filters(path: Path) -> str:
    """Return what each filter of `prepare` left of the cells, from the manifest of a paired dataset."""
    rows = [["section", "filter", "removed", "left"]]
    found = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    for slide, steps in found["qc"]["cells"].items():
        rows.append([slide, f"{found['observation']}s read", "", f"{found['qc']['read'][slide]:,}"])
        rows += [["", step["filter"], f"{step['removed']:,}", f"{step['left']:,}"] for step in steps]
        rows.append(["", "placed: on the image", "", f"{found['qc']['placed'][slide]:,}"])
    return markdown(rows)


def clustering(path: Path) -> str:
    """Return the clustering of test cells by their latents."""

    def cells(scores: dict[str, Any]) -> list[str]:
        spreads = ("" if scores[k]["sd"] is None else f" ± {scores[k]['sd']:.2f}" for k in ("acc", "nmi", "ari"))
        return [f"{scores[k]['value']:.2f}{s}" for k, s in zip(("acc", "nmi", "ari"), spreads, strict=True)]

    entry = next(iter(report(path)["latent"].values()))
    rows = [["clustering of test cells", "ACC", "NMI", "ARI"]]
    if "mixture" in entry:
        rows.append(["types by the mixture of z1", *cells(entry["mixture"])])
    rows += [[f"{z}, k-means", *cells(entry[z]["clustering"])] for z in ("z1", "z2") if z in entry]
    rows.append(["Leiden on PCA", *cells(entry["leiden_on_pca"])])
    return markdown(rows)


def write_table(page: Path, name: str, content: str) -> None:
    """Replace what stands between the marks of a table; `InputError` when the page has no such marks."""
    text = page.read_text(encoding="utf-8")
    if name not in {match["name"] for match in MARKS.finditer(text)}:
        raise InputError(
            found=f"no table {name!r}",
            where=str(page),
            expected=f"<!-- table {name} --> and <!-- end --> on lines of their own",
        )

    def filled(match: re.Match[str]) -> str:
        return match[0] if match["name"] != name else f"<!-- table {name} -->\n{content.rstrip()}\n<!-- end -->"

    page.write_text(MARKS.sub(filled, text), encoding="utf-8")
