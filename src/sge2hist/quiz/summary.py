"""The scores of a reader study in words: lines for a terminal, and a page with the ROC curves."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

HEADINGS = (
    "reader",
    "answers",
    "accuracy",
    "95 %",
    "real called real",
    "generated found",
    "AUC",
    "95 %",
    "s per image",
)
ALL = "all"


def conclusion(scores: dict[str, Any]) -> str:
    """Return in one sentence what the pooled accuracy means.

    >>> figure = {"value": 0.55, "low": 0.42, "high": 0.67, "n": 60}
    >>> conclusion({"pooled": {"accuracy": figure, "accuracy_clustered": None}})
    'Readers were right in 55 % of their answers (95 %: 42 to 67): compatible with guessing (50 %), and with 67 %.'
    """
    figure = scores["pooled"]["accuracy"]
    limits = scores["pooled"]["accuracy_clustered"] or figure
    low, high = (limits["low"], limits["high"]) if limits["low"] is not None else (figure["low"], figure["high"])
    start = (
        f"Readers were right in {per_cent(figure['value'])} of their answers (95 %: {_bare(low)} to {_bare(high)}): "
    )
    if low > 0.5:
        return start + "they see which patches are generated."
    if high < 0.5:
        return start + "worse than guessing (50 %): they see a difference, and take it for the other."
    return start + f"compatible with guessing (50 %), and with {per_cent(high)}."


def rows(scores: dict[str, Any]) -> list[list[str]]:
    """Return the table of readers as text, without headings; several readers have a last row for all."""
    found = [_row(one, one["reader"]) for one in scores["readers"]]
    if len(scores["readers"]) > 1:
        found.append(_row(scores["pooled"], ALL))
    return found


def _row(one: dict[str, Any], name: str) -> list[str]:
    accuracy = one["accuracy_clustered"] or one["accuracy"]
    return [
        name,
        str(one["n"]),
        per_cent(one["accuracy"]["value"]),
        _range(accuracy, per_cent=True),
        per_cent(one["real_called_real"]["value"]),
        per_cent(one["generated_called_generated"]["value"]),
        "-" if one["auc"]["value"] is None else f"{one['auc']['value']:.2f}",
        _range(one["auc"]),
        f"{one['seconds']['value']:.1f}",
    ]


def per_cent(share: float | None) -> str:
    """Return a share in per cent.

    >>> per_cent(0.503)
    '50 %'
    """
    return "-" if share is None else f"{_bare(share)} %"


def _bare(share: float) -> str:
    return f"{100 * share:.0f}"


def _range(figure: dict[str, Any], *, per_cent: bool = False) -> str:
    if figure["low"] is None:
        return "-"
    show = _bare if per_cent else "{:.2f}".format
    return f"{show(figure['low'])} to {show(figure['high'])}"


def agreement_lines(scores: dict[str, Any]) -> list[str]:
    """Return the agreement of readers, one line for each figure."""

    def kappa(entry: dict[str, Any]) -> str:
        value = "not defined (all answers alike)" if entry["kappa"] is None else f"{entry['kappa']:.2f}"
        return f"{value}, {entry['n']} images"

    found = scores["agreement"]
    lines = [f"Cohen's kappa of {' and '.join(one['readers'])}: {kappa(one)}" for one in found["cohen"]]
    if found["fleiss"] is not None and len(scores["readers"]) > 2:
        lines.append(f"Fleiss' kappa of all: {kappa(found['fleiss'])}")
    return lines


def type_lines(scores: dict[str, Any]) -> list[str]:
    """Return the accuracy by cell type, one line each."""
    return [
        f"{one['type']}: right in {per_cent(one['accuracy']['value'])} ({_range(one['accuracy'], per_cent=True)}) of "
        f"{one['accuracy']['n']} answers"
        for one in scores["types"]
    ]


def write_roc(path: Path, scores: dict[str, Any]) -> bytes:
    """Write the ROC curves of all readers and of their pooled answers as a PNG; returns its bytes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 4.6), layout="constrained")
    axes = figure.add_subplot(
        xlabel="real patches called generated", ylabel="generated patches called generated", aspect="equal"
    )
    axes.plot([0, 1], [0, 1], color="#999999", linestyle=":", label="guessing")
    several = len(scores["readers"]) > 1
    for one in scores["readers"]:
        if one["roc"]:
            x, y = zip(*one["roc"], strict=True)
            axes.plot(x, y, linewidth=1, alpha=0.7, label=f"{one['reader']}, AUC {one['auc']['value']:.2f}")
    if several and scores["pooled"]["roc"]:
        x, y = zip(*scores["pooled"]["roc"], strict=True)
        axes.plot(x, y, linewidth=2.5, color="#b0246f", label=f"{ALL}, AUC {scores['pooled']['auc']['value']:.2f}")
    axes.legend(loc="lower right", fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    path.write_bytes(buffer.getvalue())
    return buffer.getvalue()


def summary_html(scores: dict[str, Any], roc_png: bytes) -> str:
    """Return the page of the scores; nothing is loaded from outside."""
    title = f"{scores['generated']} against {scores['data']}: reader study"
    toy = '<header class="toy">TOY tissue: made by a simulator</header>' if scores["toy"] else ""
    head = "".join(f"<th>{escape(name)}</th>" for name in HEADINGS)
    body = "".join(
        f"<tr><th>{escape(first)}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in rest)}</tr>"
        for first, *rest in rows(scores)
    )
    uri = "data:image/png;base64," + base64.b64encode(roc_png).decode("ascii")
    comments = [f"image {one['image']}, {one['reader']}: {one['comment']}" for one in scores["comments"]]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f'<meta name="color-scheme" content="light dark"><title>{escape(title)}</title><style>{STYLE}</style></head><body>'
        f"{toy}<main><h1>{escape(title)}</h1><p><b>{escape(conclusion(scores))}</b></p>"
        f"<p>{scores['n_images']} images, {scores['n_real']} of them real, {len(scores['readers'])} reader(s).</p>"
        f'<div class="scroll" role="region" aria-label="scores of readers" tabindex="0"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>{_list('', scores['notes'])}"
        f'<h2>ROC</h2><img src="{uri}" alt="ROC curves of the readers" width="460">'
        "<p>Score: the confidence, counted down for <i>real</i> and up for <i>generated</i>. AUC 0.5 is guessing.</p>"
        f"{_list('Agreement', agreement_lines(scores))}{_list('Cell types', type_lines(scores))}"
        f"{_list('Comments', comments)}</main></body></html>\n"
    )


def _list(title: str, lines: Sequence[str]) -> str:
    if not lines:
        return ""
    heading = f"<h2>{escape(title)}</h2>" if title else ""
    return f"{heading}<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


STYLE = """
body { margin: 0; font: 15px/1.5 system-ui, sans-serif; background: #fbfaf8; color: #1d1b22; }
main { max-width: 900px; margin: 0 auto; padding: 24px; } h1 { font-size: 24px; line-height: 1.2; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin-top: 32px; } .scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 4px 12px; white-space: nowrap; border-bottom: 1px solid #8d8795; }
th:first-child { text-align: left; }
img { max-width: 100%; height: auto; } .toy { background: #ffd34d; color: #222; margin: 0; padding: 6px 24px; font-weight: 600; }
@media (prefers-color-scheme: dark) { body { background: #16151a; color: #ece9f0; } }
"""
