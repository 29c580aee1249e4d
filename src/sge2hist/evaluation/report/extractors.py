"""Tables of the page on extractors: the further ones beside the main one, and what small changes of real patches cost."""

from __future__ import annotations

from html import escape
from typing import Any

from sge2hist.evaluation.report.sentences import number
from sge2hist.evaluation.report.tables import figure, scroll

MAIN_ROWS = ("frechet", "kid", "precision", "recall", "coverage", "retrieval_top_10")


def every_extractor(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the main extractor, with its metrics and its small changes, and the further ones."""
    main = {**report["extractor"], "metrics": report["metrics"], "sensitivity": report.get("sensitivity", [])}
    return [main, *report.get("further_extractors", [])]


def extractor_section(report: dict[str, Any]) -> str:
    """Return the table of all extractors; nothing when there is one alone."""
    extractors = every_extractor(report)
    if len(extractors) < 2:
        return ""
    names = [entry["name"] for entry in report["sets"]]
    head = "<tr><th>extractor and metric</th><th class=n>real tissue</th>"
    head += "".join(f'<th class="n first">{escape(name)}</th><th class=n>shuffled</th>' for name in names)
    rows = "".join(extractor_rows(extractor, names) for extractor in extractors)
    lead = (
        "The same images and the same comparison patches, seen by each extractor. Distances of different extractors do not "
        "compare; each has its floor beside it, the cells' own real patches in place of the generated ones. A verdict holds "
        "where they agree."
    )
    table = scroll(f"<table class=narrow><thead>{head}</tr></thead><tbody>{rows}</tbody></table>")
    return f'<p class="lead">{lead}</p>{table}'


def extractor_rows(extractor: dict[str, Any], names: list[str]) -> str:
    """Return the rows of one extractor: what it is, then its metrics."""
    width = 2 + 2 * len(names)
    facts = ", ".join(
        f"{key.replace('_', ' ')} {extractor[key]}"
        for key in ("input_px", "embedding", "licence")
        if extractor.get(key) is not None
    )
    rows = [
        f'<tr class="group"><th colspan="{width}">{escape(extractor["name"])}<small>{escape(facts)}</small></th></tr>'
    ]
    for metric in extractor["metrics"]:
        if metric["id"] not in MAIN_ROWS:
            continue
        share = bool(metric.get("share"))
        cells = f"<td>{escape(metric['name'])}</td>{figure(metric['real'], share=share)}"
        for name in names:
            entry = metric["sets"].get(name)
            cells += figure(entry, strong=True, share=share).replace('class="n', 'class="n first', 1)
            cells += figure(entry and entry["shuffled"], share=share)
        rows.append(f"<tr>{cells}</tr>")
    return "".join(rows)


def sensitivity_section(report: dict[str, Any]) -> str:
    """Return what small changes of real patches cost, by extractor, beside the evaluated sets."""
    extractors = [extractor for extractor in every_extractor(report) if extractor["sensitivity"]]
    if not extractors:
        return ""
    head = "<tr><th>change of real patches</th>" + "".join(
        f'<th class="n first">{escape(extractor["name"])}, over floor</th><th class=n>from unchanged</th>'
        for extractor in extractors
    )
    changes = [row["change"] for row in extractors[0]["sensitivity"]]
    rows = ""
    for i, change in enumerate(changes):
        cells = f"<td>{escape(change)}</td>"
        for extractor in extractors:
            row = extractor["sensitivity"][i]
            cells += f'<td class="n first"><b>{number(row["over_floor"])}</b></td>'
            cells += f"<td class=n>{number(row['frechet_from_unchanged'])}</td>"
        rows += f"<tr>{cells}</tr>"
    n = extractors[0]["sensitivity"][0]["n"]
    lead = (
        f"Frechet distances of {n:,} real patches after changes that nobody would call wrong: from the comparison patches, over "
        "the floor of as many patches; and from the same patches unchanged. An advantage smaller than these costs is none."
    )
    table = scroll(f"<table class=narrow><thead>{head}</tr></thead><tbody>{rows}</tbody></table>")
    return f'<p class="lead">{lead}</p>{table}'


def preprocessing_facts(report: dict[str, Any]) -> dict[str, str]:
    """Return how real and generated images reach the extractors, by name of the fact."""
    found = report.get("preprocessing")
    if not found:
        return {}
    facts = {"Real patches": found["real"], "Both sides": found["both"]}
    return facts | {f"Images of {name}": text for name, text in found["sets"].items()}
