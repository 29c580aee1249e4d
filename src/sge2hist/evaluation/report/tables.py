"""Tables of the page: the metrics with their baselines, types, morphometry, latents, differences.

Every function takes plain values from report.json and returns HTML.
"""

from __future__ import annotations

from html import escape
from typing import Any

from sge2hist.evaluation.report.charts import gauge
from sge2hist.evaluation.report.sentences import number, shown

ARROWS = {"lower": "↓", "higher": "↑", "one": "→ 1"}
DIRECTIONS = {"lower": "lower is better", "higher": "higher is better", "one": "best at 1"}


def figure(entry: dict[str, Any] | None, strong: bool = False, share: bool = False) -> str:
    """Return a table cell: value, and its interval below; a share in per cent."""
    if entry is None or entry["value"] is None:
        return '<td class="n none">–</td>'
    value = shown(entry["value"], share)
    value = f"<b>{value}</b>" if strong else value
    between = ""
    if entry.get("low") is not None:
        between = f"<small>{shown(entry['low'], share)} … {shown(entry['high'], share)}</small>"
    return f'<td class="n" title="n = {entry["n"]:,}; {escape(entry["interval"])}">{value}{between}</td>'


def scroll(table: str) -> str:
    """Return a table that scrolls by itself on a narrow screen, by keyboard too."""
    return f'<div class="scroll" tabindex="0" role="group" aria-label="table">{table}</div>'


def metric_table(report: dict[str, Any]) -> str:
    """Return the main table: one group of rows per question."""
    names = [entry["name"] for entry in report["sets"]]
    head = "<tr><th>metric</th><th class=n>real tissue</th>"
    for name in names:
        head += f'<th class="n first">{escape(name)}</th><th class=n>shuffled</th><th class=n>gain</th>'
    rows, question = [], ""
    for metric in report["metrics"]:
        if metric["question"] != question:
            question = metric["question"]
            rows.append(f'<tr class="group"><th colspan="{2 + 3 * len(names)}">{escape(question)}</th></tr>')
        rows.append(metric_row(metric, names, report["data"]["n_cells"]))
    return scroll(f'<table class="metrics"><thead>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>')


def metric_row(metric: dict[str, Any], names: list[str], n_cells: int) -> str:
    """Return one metric's row; it names the number of images where that is not the number of evaluated cells."""
    share = bool(metric.get("share"))
    sizes = sorted({entry["n"] for entry in metric["sets"].values() if entry["value"] is not None} - {n_cells})
    size = "".join(f"; n = {n:,}" for n in sizes)
    arrow = f'<span class="arrow" title="{DIRECTIONS[metric["better"]]}">{ARROWS[metric["better"]]}</span>'
    cells = [
        f"<td><span class=name>{escape(metric['name'])}</span> {arrow}<small>"
        f"{escape(metric['definition'])}{size}</small></td>"
    ]
    real = figure(metric["real"], share=share)
    if metric["real"] is not None and metric["real"]["value"] is not None:
        real = real.replace("</td>", f"<small>{metric['real']['kind']}</small></td>")
    cells.append(real)
    for name in names:
        entry = metric["sets"].get(name)
        cells.append(figure(entry, strong=True, share=share).replace('class="n', 'class="n first', 1))
        cells.append(figure(entry and entry["shuffled"], share=share))
        cells.append(figure(entry and entry["conditioning_gain"], share=share))
    return f"<tr>{''.join(cells)}</tr>"


def type_table(report: dict[str, Any]) -> str:
    """Return one row per cell type, and the types without a row with the reason."""
    missing = types_omitted(report)
    if not report["per_type"]:
        return missing
    names = [entry["name"] for entry in report["sets"]]
    head = "<tr><th>cell type</th><th class=n>cells</th><th class=n>F1 real</th>"
    head += "<th class=n>KID floor</th><th class=n>Frechet floor</th>"
    head += "".join(
        f'<th class="n first">F1 {escape(name)}</th><td></td><th class=n>KID</th><th class=n>Frechet</th>'
        for name in names
    )
    rows = []
    for entry in report["per_type"]:
        cells = f"<td>{escape(entry['type'])}</td><td class=n>{entry['n']:,}</td>"
        cells += f"<td class=n>{number(entry['real']['f1'])}</td><td class=n>{number(entry['real']['kid'])}</td>"
        cells += f"<td class=n>{number(entry['real']['frechet'])}</td>"
        for name in names:
            found = entry["sets"][name]
            bar = gauge(found["f1"], entry["real"]["f1"], None, None)
            cells += f'<td class="n first"><b>{number(found["f1"])}</b></td><td class="gaugecell">{bar}</td>'
            cells += f"<td class=n>{number(found['kid'])}</td><td class=n>{number(found['frechet'])}</td>"
        rows.append(f"<tr>{cells}</tr>")
    caption = (
        "Bar: F1 of generated patches; tick: F1 of the same cells' real patches. KID and Frechet distance: against the "
        "comparison patches of the type, where there are 20."
    )
    return (
        scroll(f"<table><thead>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>")
        + f'<p class="caption">{caption}</p>{missing}'
    )


def types_omitted(report: dict[str, Any]) -> str:
    """Return the cell types without a row, by reason."""
    by_reason: dict[str, list[str]] = {}
    for entry in report["types_omitted"]:
        by_reason.setdefault(entry["reason"], []).append(f"{entry['type']} ({entry['n']:,})")
    return "".join(
        f'<p class="caption">Not in the table, {escape(reason)}: {escape(", ".join(names))}.</p>'
        for reason, names in by_reason.items()
    )


def omissions(report: dict[str, Any]) -> str:
    """Return what the report lacks, with the reasons."""
    return "".join(f'<p class="note">Omitted. {escape(sentence)}</p>' for sentence in report["omitted"])


def morphometry_table(entries: list[dict[str, Any]]) -> str:
    """Return one row per morphometric statistic of one set."""
    head = (
        "<tr><th>statistic</th><th class=n>real mean</th><th class=n>generated mean</th><th class=n>"
        "correlation</th><td></td><th class=n>shuffled</th>"
        "<th class=n>1 − KS</th><th class=n>floor</th><th class=n>W1, SD</th><th class=n>floor</th><th class=n>"
        "spread ratio</th></tr>"
    )
    rows = []
    for entry in entries:
        r, wrong = entry["correlation"], entry["correlation_shuffled"]
        of, floor = entry["distribution"], entry["distribution_floor"]
        name = entry["statistic"].removesuffix("_um2").replace("_", " ")
        rows.append(
            f"<tr><td>{escape(name)}<small>{escape(entry['unit'].replace('um2', 'µm²'))}; "
            f"n = {r['n']:,}</small></td><td class=n>"
            f"{number(entry['real_mean'])}</td>"
            f"<td class=n>{number(entry['generated_mean'])}</td>{figure(r, strong=True)}"
            f'<td class="gaugecell">{gauge(r["value"], wrong["value"], r["low"], r["high"])}</td>{figure(wrong)}'
            f"<td class=n>{number(of['one_minus_ks'])}</td><td class=n>{number(floor['one_minus_ks'])}</td>"
            f"<td class=n>{number(of['w1_in_sd'])}</td><td class=n>{number(floor['w1_in_sd'])}</td><td class=n>"
            f"{number(of['spread_ratio'])}</td></tr>"
        )
    return scroll(f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>")


def difference_table(report: dict[str, Any]) -> str:
    """Return the paired differences of the other sets to the first one."""
    if not report["differences"]:
        return ""
    names = [entry["name"] for entry in report["sets"]][1:]
    by_id = {metric["id"]: metric for metric in report["metrics"]}
    head = "<tr><th>metric</th>" + "".join(f"<th class=n>{escape(name)}</th>" for name in names) + "</tr>"
    rows = "".join(
        f"<tr><td>{escape(by_id[row['id']]['name'])} <span class=arrow>{ARROWS[by_id[row['id']]['better']]}</span></td>"
        + "".join(figure(row["sets"].get(name), share=bool(by_id[row["id"]].get("share"))) for name in names)
        + "</tr>"
        for row in report["differences"]
    )
    return scroll(f"<table class=narrow><thead>{head}</thead><tbody>{rows}</tbody></table>")


def plus_minus(sd: float | None) -> str:
    """Return the standard deviation as small print; nothing where there is none."""
    return "" if sd is None else f"<small>± {number(sd)}</small>"


def latent_table(name: str, entry: dict[str, Any]) -> str:
    """Return clustering and probes of one set's latents."""
    if "skipped" in entry:
        return f"<p>{escape(name)}: {escape(entry['skipped'])}</p>"

    def row(label: str, scores: dict[str, Any], extra: str = "") -> str:
        cells = "".join(
            f"<td class=n><b>{number(scores[k]['value'])}</b>{plus_minus(scores[k]['sd'])}</td>"
            for k in ("acc", "nmi", "ari")
        )
        return f"<tr><td>{label}</td>{cells}{extra or '<td></td><td></td><td></td>'}</tr>"

    rows = [row("z1, types by the mixture", entry["mixture"])] if "mixture" in entry else []
    for latent in ("z1", "z2"):
        if latent in entry:
            found = entry[latent]
            extra = (
                f"<td class=n>{found['active_units']} of {found['dims']}</td><td class=n>"
                f"{number(found['type_probe_balanced_accuracy'])}</td>"
                f"<td class=n>{number(found['neighbourhood_probe_r2'])}</td>"
            )
            rows.append(row(f"{latent}, k-means", found["clustering"], extra))
    rows.append(row("expression PCA, Leiden", entry["leiden_on_pca"]))
    head = (
        "<tr><th>clusters of</th><th class=n>ACC</th><th class=n>NMI</th><th class=n>ARI</th><th class=n>active "
        "units</th>"
        "<th class=n>type probe</th><th class=n>neighbourhood R²</th></tr>"
    )
    caption = (
        f"{escape(name)}: {entry['n']:,} cells, {entry['n_types']} types; ± SD over five seeds, none for the mixture, which is "
        f"fitted once. Type probe: "
        f"cross-validated balanced accuracy, "
        f"chance {number(entry['chance_balanced_accuracy'])}."
    )
    return (
        scroll(f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>")
        + f'<p class="caption">{caption}</p>'
    )


def sample_table(report: dict[str, Any]) -> str:
    """Return the spread over samples (independent noise) of the sets that hold several."""
    if not report["over_samples"]:
        return ""
    by_id = {metric["id"]: metric for metric in report["metrics"]}
    head = (
        "<tr><th>metric</th>" + "".join(f"<th class=n>{escape(name)}</th>" for name in report["over_samples"]) + "</tr>"
    )
    ids = [i for i in by_id if any(i in spread for spread in report["over_samples"].values())]
    rows = "".join(
        f"<tr><td>{escape(by_id[i]['name'])}</td>"
        + "".join(
            f"<td class=n>{shown(spread[i]['mean'], bool(by_id[i].get('share')))}<small>± "
            f"{shown(spread[i]['sd'], bool(by_id[i].get('share')))}, {spread[i]['n_samples']} samples</small></td>"
            if i in spread
            else "<td class=n>–</td>"
            for spread in report["over_samples"].values()
        )
        + "</tr>"
        for i in ids
    )
    return scroll(f"<table class=narrow><thead>{head}</thead><tbody>{rows}</tbody></table>")


def definition_list(report: dict[str, Any], more: dict[str, str] | None = None) -> str:
    """Return how the report was made: data, extractor, settings, and more facts by name."""
    data, extractor = report["data"], report["extractor"]
    facts = {
        "Dataset": f"{data['name']} ({data['technology']}, {data['observation']}), fingerprint "
        f"{data['fingerprint'][:16]}",
        "Evaluated": f"{data['n_cells']:,} cells of split '{data['split']}', patches of {data['patch_um']:g} µm "
        f"in {data['patch_px']} px",
        "Compared with": str(data["floor"]),
        "Reference classifiers fitted on": f"{data['n_train']:,} training patches, tuned on {data['n_val']:,} validation patches",
        "Intervals": f"95 %, resampling {data['resampled']}",
        "Features": f"{extractor['name']}: "
        + ", ".join(f"{k} {v}" for k, v in extractor.items() if k not in ("name", "note") and v is not None),
        **(more or {}),
        "Cell types from": str(data["types_source"]) or "unknown",
        "Seed": str(report["config"]["seed"]),
        "Made with": f"sge2hist {report['sge2hist_version']}",
    }
    if report["copies"]:
        copies = report["copies"]
        facts["Search for copies"] = (
            f"{copies['n_checked']:,} images against {copies['n_train_patches']:,} training patches, eight symmetries"
        )
    for entry in report["sets"]:
        made = ", ".join(f"{k} {v}" for k, v in entry["manifest"].items())
        facts[f"Set {entry['name']}"] = (
            f"{entry['n_images']:,} images of {entry['image_px']} px; shuffled: {entry['shuffled_baseline']}. {made}"
        )
    return "<dl>" + "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items()) + "</dl>"
