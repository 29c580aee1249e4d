"""Put the page together from report.json and pictures. Nothing is loaded from outside: style and images are inside
the file.
"""

from __future__ import annotations

from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np

from sge2hist.data.generated import APPLICABILITY, applicability_headline
from sge2hist.evaluation.report import charts, extractors, slides, tables
from sge2hist.evaluation.report.sentences import Sentence, number, opening, percent
from sge2hist.evaluation.resampling import percentiles

if TYPE_CHECKING:
    from sge2hist.evaluation.report.pictures import GalleryCell, Pictures, SlideMap

MAX_CARDS = 2


def build_page(report: dict[str, Any], pictures: Pictures) -> str:
    """Return the whole page."""
    sections = [
        ("Pictures", gallery_section(report, pictures)),
        ("Generated slides", slides.slide_section(report, pictures)),
        ("Every metric", metric_section(report)),
        ("Every extractor", extractors.extractor_section(report)),
        ("What small changes cost", extractors.sensitivity_section(report)),
        ("Differences between sets", difference_section(report)),
        ("Cell types", tables.type_table(report)),
        ("Anatomy, cell by cell", anatomy_section(report)),
        ("Over the slide", map_section(report, pictures)),
        ("Features in the plane", projection_section(report, pictures)),
        ("Spread over samples", tables.sample_table(report)),
        ("Latent space", latent_section(report, pictures)),
        ("How this was measured", notes(report) + tables.omissions(report) + definitions(report)),
    ]
    body = "".join(f"<section><h2>{escape(title)}</h2>{content}</section>" for title, content in sections if content)
    parts = files("sge2hist.evaluation.report")
    style, script = (parts.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    names = ", ".join(entry["name"] for entry in report["sets"])
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        'content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(names)} against {escape(report['data']['name'])}</title><style>{style}</style></head><body>"
        f"{header(report, names)}<main>{openings(report)}{body}</main>{footer(report)}<script>{script}</script></body></html>\n"
    )


def header(report: dict[str, Any], names: str) -> str:
    """Return title and marks."""
    data = report["data"]
    marks = ['<span class="mark">synthetic images</span>']
    if report["toy"]:
        marks.insert(0, '<span class="mark toy">TOY</span>')
    if look := report["data"].get("look"):
        marks.insert(0, f'<span class="mark">{escape(look)}</span>')
    toy = (
        '<p class="toybanner">TOY data: made by a simulator. These numbers are no evidence about real tissue.</p>'
        if report["toy"]
        else ""
    )
    n_centre, n_placed = (data.get(name, 0) for name in ("n_centre", "n_placed"))
    placed = f" of {n_centre:,} centre cells ({n_placed:,} placed)" if n_centre < n_placed else ""
    line = f"{data['n_cells']:,} cells{placed} · patches of {data['patch_um']:g} µm · features of {report['extractor']['name']}"
    return (
        f"<header>{toy}<div class=marks>{''.join(marks)}</div><h1>{escape(names)}</h1>"
        f"<p class=sub>against {escape(data['name'])} · {escape(line)}</p>{held_out_lines(report)}"
        f"{applicability_lines(report)}</header>"
    )


def held_out_lines(report: dict[str, Any]) -> str:
    """Return, for every set, how far the evaluated cells lie from those of its model's training."""
    texts = [(entry["name"], entry["held_out"]["text"]) for entry in report["sets"] if "held_out" in entry]
    if len({text for _, text in texts}) == 1:
        texts = [("", texts[0][1])]
    return "".join(f'<p class="sub held-out"><b>{escape(f"{n}: {t}" if n else t)}</b></p>' for n, t in texts)


def applicability_lines(report: dict[str, Any]) -> str:
    """Return, for every set, whether the model knows the cells that it was generated from; a banner where it does not."""
    lines = []
    for entry in report["sets"]:
        found = entry["manifest"].get(APPLICABILITY)
        headline = applicability_headline(found)
        if headline is None:
            continue
        banner = "sub" if found["verdict"] == "known" else "toybanner"
        name = f"{entry['name']}: " if len(report["sets"]) > 1 else ""
        lines.append(f'<p class="{banner} applicability {found["verdict"]}">{escape(name + headline)}</p>')
    return "".join(lines)


def openings(report: dict[str, Any]) -> str:
    """Return the three sentences: as cards for one or two sets, as a table for more."""
    found = {entry["name"]: opening(report, entry["name"]) for entry in report["sets"]}
    if len(found) > MAX_CARDS:
        return f"<section class=opening>{opening_table(found)}</section>"
    blocks = []
    for name, sentences in found.items():
        title = f"<h3>{escape(name)}</h3>" if len(found) > 1 else ""
        cards = "".join(
            f'<div class="card {s.tone}"><p class=question>{escape(s.question)}</p><p class=answer>'
            f"{escape(s.answer)}</p>"
            f"<p>{unbroken(s.text)}</p></div>"
            for s in sentences
        )
        blocks.append(f"{title}<div class=cards>{cards}</div>")
    return f"<section class=opening>{''.join(blocks)}</section>"


def opening_table(found: dict[str, list[Sentence]]) -> str:
    """Return the three sentences of many sets: a row per set."""
    questions = "".join(f"<th>{escape(s.question)}</th>" for s in next(iter(found.values())))
    rows = "".join(
        f"<tr><th>{escape(name)}</th>"
        + "".join(
            f'<td class="{s.tone}"><b class=answer>{escape(s.answer)}</b><small>{unbroken(s.text)}</small></td>'
            for s in sentences
        )
        + "</tr>"
        for name, sentences in found.items()
    )
    head = f"<thead><tr><td></td>{questions}</tr></thead>"
    return tables.scroll(f'<table class="openings">{head}<tbody>{rows}</tbody></table>')


def unbroken(text: str) -> str:
    """Return text as HTML in which a number keeps its per cent sign."""
    return escape(text).replace(" %", "&nbsp;%")


def notes(report: dict[str, Any]) -> str:
    """Return what a reader must know, if anything."""
    of_extractors = [extractor["note"] for extractor in extractors.every_extractor(report)]
    found = [note for note in [*of_extractors, *report["notes"]] if note]
    return "".join(f'<p class="note">{escape(note)}</p>' for note in found)


def definitions(report: dict[str, Any]) -> str:
    """Return how the report was made, and how images reach the extractors."""
    return tables.definition_list(report, extractors.preprocessing_facts(report))


def metric_section(report: dict[str, Any]) -> str:
    """Return the main table with its legend."""
    legend = (
        "Real tissue: the cells' own real patches in place of the generated ones, against real patches of other places "
        "(floor), or the cell's own real patch (ceiling). Shuffled: images made from, or given to, another cell. Gain: "
        f"matched minus shuffled. n = {report['data']['n_cells']:,} unless stated. Small print: 95 % intervals; hover for "
        "the method."
    )
    return f'<p class="lead">{legend}</p>{tables.metric_table(report)}'


def difference_section(report: dict[str, Any]) -> str:
    """Return the paired differences."""
    table = tables.difference_table(report)
    if not table:
        return ""
    return (
        f'<p class="lead">Minus {escape(report["differences"][0]["minus"])}, on the same cells, paired '
        f"intervals.</p>{table}"
    )


def gallery_section(report: dict[str, Any], pictures: Pictures) -> str:
    """Return all galleries."""
    patch = report["data"]["patch_um"]
    ranked = any(np.isfinite(cell.rank_share) for cells in pictures.galleries.values() for cell in cells)
    lead = f"Each patch is {patch:g} µm wide."
    if ranked:
        first = escape(report["sets"][0]["name"])
        lead += (
            f" Best, median and worst by the rank of the cell's own real patch among all "
            f"{report['data']['n_cells']:,} (of {first}): chosen by rule, not by eye."
        )
    parts = [f'<p class="lead">{lead}</p>']
    for title, cells in pictures.galleries.items():
        parts.append(f"<h3>{escape(title)}</h3>{gallery(cells)}")
    return "".join(parts)


def gallery(cells: list[GalleryCell]) -> str:
    """Return one gallery: a row per source, a column per cell."""
    rows = []
    for label in cells[0].images:
        images = "".join(f"<td>{charts.picture(cell.images[label], described(label, cell))}</td>" for cell in cells)
        rows.append(f"<tr><th>{escape(label)}</th>{images}</tr>")
    captions = "".join(f"<td>{caption(cell)}</td>" for cell in cells)
    rows.append(f"<tr class=captions><td></td>{captions}</tr>")
    return tables.scroll(f'<table class="gallery"><tbody>{"".join(rows)}</tbody></table>')


def described(label: str, cell: GalleryCell) -> str:
    """Return what one picture of a gallery shows."""
    return f"{label}, {cell.cell_type} {cell.cell_id}".rstrip()


def caption(cell: GalleryCell) -> str:
    """Return what stands under a column."""
    parts = [f"<b>{escape(cell.cell_type)}</b>"]
    if cell.cell_id:
        parts.append(f'<span class="id">{escape(cell.cell_id)}</span>')
    if np.isfinite(cell.rank_share):
        parts.append(f"rank {percent(cell.rank_share)}")
    if cell.seed >= 0:
        return f'<span title="seed {cell.seed}">{"<br>".join(parts)}</span>'
    return "<br>".join(parts)


def anatomy_section(report: dict[str, Any]) -> str:
    """Return the morphometry of every set: table and calibration."""
    parts = []
    for set_number, (name, entries) in enumerate(report["morphometry"].items()):
        if len(report["morphometry"]) > 1:
            parts.append(f"<h3>{escape(name)}</h3>")
        parts.append(tables.morphometry_table(entries))
        panels = "".join(
            f"<figure>{charts.calibration_chart(entry, set_number)}<figcaption>{escape(label(entry))}, "
            f"n = {sum(point['n'] for point in entry['calibration']):,}</figcaption>"
            f"</figure>"
            for entry in entries
        )
        parts.append(f'<div class="panels">{panels}</div>')
    if not parts:
        return ""
    legend = (
        "Bar: correlation of generated and real over cells, with interval; tick: the same with another cell's "
        "image. Calibration: cells in ten equal groups "
        "by the real value; dot: mean generated value, whisker: SD. Dots on the diagonal are right, a flat line "
        "means that the RNA is ignored."
    )
    return f'<p class="lead">{legend}</p>{"".join(parts)}'


def label(entry: dict[str, Any]) -> str:
    """Return a statistic's name with its unit."""
    name = entry["statistic"].removesuffix("_um2").replace("_", " ")
    return f"{name}, {entry['unit'].replace('um2', 'µm²')}" if entry["unit"] else name


def map_section(report: dict[str, Any], pictures: Pictures) -> str:
    """Return the maps: real next to each set."""
    return "".join(map_row(found) for found in pictures.maps)


def map_row(found: SlideMap) -> str:
    """Return one statistic's maps on a common colour scale (2nd to 98th percentile of the real values)."""
    low, high = percentiles(found.real, 2, 98)
    panels = "".join(
        f"<figure>{charts.picture(charts.map_png(found.centre_um, values, low, high), f'map of {name}', css='map')}"
        f"<figcaption>{escape(name)}</figcaption></figure>"
        for name, values in {"real": found.real, **found.sets}.items()
    )
    title = f"{found.statistic.replace('_', ' ')}, slide {found.slide}, n = {len(found.real):,} cells"
    return (
        f"<h3>{escape(title)}</h3><div class=maps>{panels}</div><p class=caption>"
        f"{charts.colour_scale(float(low), float(high))}</p>"
    )


def projection_section(report: dict[str, Any], pictures: Pictures) -> str:
    """Return the scatter of features."""
    if not pictures.projection:
        return ""
    keys = "".join(
        f'<span class="key"><i class="{"real" if i == 0 else f"s{i - 1}"}"></i>{escape(name)}</span>'
        for i, name in enumerate(pictures.projection)
    )
    n = len(next(iter(pictures.projection.values())))
    lead = (
        f"UMAP of the features of {n:,} real and as many generated patches. Where the "
        f"colours mix, the extractor cannot separate them; "
        "an island of one colour is missing or invented tissue."
    )
    lead += beyond(pictures.projection)
    return f'<p class="lead">{lead}</p><p class=keys>{keys}</p>{charts.scatter(pictures.projection)}'


def beyond(points: dict[str, np.ndarray]) -> str:
    """Return a sentence on the points that lie outside the frame, or nothing."""
    count = charts.points_beyond(points)
    return f" {count:,} outlying points are shown at the edge." if count else ""


def latent_section(report: dict[str, Any], pictures: Pictures) -> str:
    """Return the tables of latents and, where they are stored, their scatter."""
    found = "".join(tables.latent_table(name, entry) for name, entry in report["latent"].items())
    return found + type_plane_section(pictures)


def type_plane_section(pictures: Pictures) -> str:
    """Return the scatter of z1, coloured by cell type."""
    if not pictures.type_plane:
        return ""
    keys = "".join(
        f'<span class="key"><i style="background:{charts.type_colour(i)}"></i>{escape(name)} ({len(points):,})</span>'
        for i, (name, points) in enumerate(pictures.type_plane.items())
    )
    n = sum(len(points) for points in pictures.type_plane.values())
    lead = f"UMAP of z1, the cell-type part of the gene model's latent, of {n:,} cells, coloured by the dataset's cell types."
    lead += beyond(pictures.type_plane)
    return f'<p class="lead">{lead}</p><p class=keys>{keys}</p>{charts.type_scatter(pictures.type_plane)}'


def footer(report: dict[str, Any]) -> str:
    """Return the closing line."""
    seconds = f" in {number(report['seconds'])} s" if "seconds" in report else ""
    return (
        f"<footer>sge2hist {escape(report['sge2hist_version'])}{seconds}. Generated images are synthetic and "
        f"not for diagnosis.</footer>"
    )
