"""The three sentences that open the report, from the scores, in plain words.

Every sentence names its numbers. Thresholds for the first word are fixed here, for every report.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sge2hist.data.slides.channels import RGB, is_rgb

# Times the floor. At the floor: 500 real patches in place of the generated ones lie between 0.9 and 1.15 times it, blurred by
# 1 px at 1.8 times (200 patches: 1.4), measured on the kidney.
BELOW_FLOOR, NEAR_FLOOR, FAR_FROM_FLOOR = 0.9, 1.25, 4.0
POOR_VARIETY = 0.5
COPY_FACTOR = 3.0
ROUNDING = 1e-12  # below it a number is a rounding error


@dataclass(frozen=True, kw_only=True)
class Sentence:
    """Question, one-word answer, sentence, and a tone for its mark ("good", "middle", "bad", "none")."""

    question: str
    answer: str
    text: str
    tone: str


def opening(report: dict[str, Any], name: str) -> list[Sentence]:
    """Return the three sentences about one set."""
    metrics = {metric["id"]: metric for metric in report["metrics"]}
    return [
        looks_real(metrics, name, comparison_problem(report), further_ratios(report, name)),
        follows_rna(metrics, name, of_stain=is_bright_field(report)),
        is_copy(metrics, name),
    ]


def is_bright_field(report: dict[str, Any]) -> bool:
    """Return whether the images are H&E; reports written before there were other channels say nothing."""
    return is_rgb(report.get("data", {}).get("channels") or RGB)


def comparison_problem(report: dict[str, Any]) -> str:
    """Return why the comparison patches do not show whether images look real, or ""."""
    return str(report.get("data", {}).get("comparison", {}).get("problem", ""))


def entry(metrics: dict[str, Any], metric_id: str, name: str) -> dict[str, Any] | None:
    """Return a set's entry of a metric, or None when it is missing or without value."""
    found = metrics.get(metric_id, {}).get("sets", {}).get(name)
    return found if found is not None and found["value"] is not None else None


def further_ratios(report: dict[str, Any], name: str) -> dict[str, float]:
    """Return the Frechet distance of a set over its floor by the name of each further extractor."""
    found = {}
    for extractor in report.get("further_extractors", []):
        metrics = {metric["id"]: metric for metric in extractor["metrics"]}
        own, floor = entry(metrics, "frechet", name), metrics.get("frechet", {}).get("real")
        if own is not None and floor and floor["value"]:
            found[extractor["name"]] = own["value"] / floor["value"]
    return found


def looks_real(
    metrics: dict[str, Any], name: str, problem: str = "", further: dict[str, float] | None = None
) -> Sentence:
    """Compare the Frechet distance with its floor, by every extractor: the farthest decides, and what is closer than real
    tissue to any is never called real.

    Parameters
    ----------
    problem
        Why the comparison patches cannot answer, or "".
    further
        The same ratio by further extractors.
    """
    question = "Does it look real?"
    found, floor = entry(metrics, "frechet", name), metrics.get("frechet", {}).get("real")
    if found is None or not floor or not floor["value"]:
        text = f"Cannot say: {problem}." if problem else "There are no other real patches to compare with."
        return Sentence(question=question, answer="Not measured", text=text, tone="none")
    ratio = found["value"] / floor["value"]
    text = (
        f"From real patches of other places, generated patches lie {ratio:.2f} times as far as the cells' own real patches do "
        f"(Frechet distance {number(found['value'])}, real {number(floor['value'])}, {found['n']:,} patches each)."
    )
    if further:
        text += f" Other extractors: {', '.join(f'{other} {value:.2f}' for other, value in further.items())} times."
    ratios = [ratio, *(further or {}).values()]
    if problem:
        return Sentence(question=question, answer="Cannot say", text=f"{text} Cannot say: {problem}.", tone="none")
    variety, whole = entry(metrics, "coverage", name), metrics.get("coverage", {}).get("real")
    if ratio <= FAR_FROM_FLOOR and variety is not None and whole and variety["value"] < POOR_VARIETY * whole["value"]:
        text += f" They cover {percent(variety['value'])} of the tissue's variety, real ones {percent(whole['value'])}."
        return Sentence(question=question, answer="Too uniform", text=text, tone="bad")
    if max(ratios) > NEAR_FLOOR:
        near = max(ratios) <= FAR_FROM_FLOOR
        answer, tone = ("Nearly", "middle") if near else ("Not yet", "bad")
        return Sentence(question=question, answer=answer, text=text, tone=tone)
    if min(ratios) < BELOW_FLOOR:
        text += (
            f" {'By one extractor or more that' if further else 'That'} is closer than real tissue is, which proves nothing: "
            "images may be too uniform or copied (see the other cards and coverage), or these features see too little."
        )
        return Sentence(question=question, answer="Closer than real tissue is", text=text, tone="none")
    answer = "Yes, to these extractors" if further else "Yes, to this extractor"
    return Sentence(question=question, answer=answer, text=text, tone="good")


def follows_rna(metrics: dict[str, Any], name: str, of_stain: bool = True) -> Sentence:
    """Compare matched with shuffled correlation of stain, lumen and nuclei, or of the light of the channels."""
    question = "Does it follow the RNA?"
    found = entry(metrics, "morphometry_correlation", name)
    if found is None or found["shuffled"] is None:
        text = "These images name no cell of their own, so there is no measured tissue to compare each one with."
        return Sentence(question=question, answer="Not measured", text=text, tone="none")
    gain = found["conditioning_gain"]
    certain = gain["low"] is not None and gain["low"] > 0
    between = "" if found["low"] is None else f", 95 % interval {found['low']:.2f} to {found['high']:.2f}"
    subject = "stain, lumen and nuclei" if of_stain else "the light of the channels"
    text = (
        f"In {subject}, generated patches and the cells' own tissue correlate with "
        f"{found['value']:.2f}{between}; with another cell's RNA it is {found['shuffled']['value']:.2f}."
    ).replace("-", "−")
    if not certain:
        return Sentence(question=question, answer="Not shown", text=text, tone="bad")
    return Sentence(
        question=question,
        answer="Yes" if gain["value"] >= 0.3 else "In part",
        text=text,
        tone="good" if gain["value"] >= 0.3 else "middle",
    )


def is_copy(metrics: dict[str, Any], name: str) -> Sentence:
    """Compare the share of near-copies with that of held-out real patches."""
    question = "Is it a copy?"
    found, floor = entry(metrics, "copied", name), metrics.get("copied", {}).get("real")
    if found is None or not floor:
        return Sentence(
            question=question,
            answer="Not measured",
            text="The evaluated cells are training cells: copies cannot be recognised.",
            tone="none",
        )
    text = (
        f"{percent(found['value'])} of generated patches lie suspiciously close to a training patch{between(found)}; "
        f"{percent(floor['value'])} of real patches never seen in training do ({found['n']:,} images)."
    )
    copied = found["low"] is not None and found["low"] > COPY_FACTOR * max(floor["value"], 0.01)
    if copied:
        return Sentence(
            question=question, answer="Yes, in part" if found["value"] < 0.5 else "Yes", text=text, tone="bad"
        )
    return Sentence(question=question, answer="No", text=text, tone="good")


def between(found: dict[str, Any]) -> str:
    """Return ", 95 % interval a to b" of a share, or nothing."""
    if found["low"] is None:
        return ""
    return f", 95 % interval {percent(found['low'])} to {percent(found['high'])}"


def percent(share: float | None) -> str:
    """Return a share in per cent, the only way in which the report shows shares.

    >>> percent(0.0075), percent(-0.2), percent(None)
    ('0.8 %', '−20.0 %', '–')
    """
    if share is None:
        return "–"
    text = f"{100 * share:.1f} %"
    return text.replace("-0.0 %", "0.0 %").replace("-", "−")


def shown(value: float | None, share: bool) -> str:
    """Return a number, or a share in per cent."""
    return percent(value) if share else number(value)


def number(value: float | None, digits: int = 3) -> str:
    """Return a number with about three significant digits and a true minus sign; a dash for none."""
    if value is None:
        return "–"
    if abs(value) < ROUNDING:
        return "0"
    if abs(value) >= 1000:
        text = f"{value:,.0f}"
    elif abs(value) < 0.001:
        text = f"{value:.1e}"
    else:
        text = f"{value:.{digits}g}"
        if abs(value) < 10 and "e" not in text:
            text = f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.3f}"
    return text.replace("-", "−")
