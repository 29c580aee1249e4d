"""The printed table of `evaluate`: columns never touch, shares are in per cent, what is missing is named."""

from typing import Any

from sge2hist.cli.evaluate import columns, summary


def entry(value: float | None) -> dict[str, Any]:
    return {"value": value, "shuffled": {"value": -0.0001218}}


def report() -> dict[str, Any]:
    names = ["a model with a very long name of its own", "b"]
    metric = {"real": {"value": 0.3768}, "sets": {name: entry(0.0075) for name in names}}
    return {
        "extractor": {"name": "texture-v1", "note": ""},
        "notes": ["a note"],
        "data": {"floor": "100 real patches"},
        "sets": [{"name": name} for name in names],
        "metrics": [
            {"name": "Copies of training patches", "share": True, **metric},
            {"name": "Expression recovery", "share": False, **metric},
        ],
        "slides": {},
        "types_omitted": [{"type": "Immune", "n": 35, "reason": "fewer than 50 evaluated cells"}],
        "omitted": ["Type agreement: none."],
    }


def test_columns_never_touch() -> None:
    table = summary(report())[2:5]
    assert len({len(line) for line in table}) == 1
    for line in table:
        assert len([cell for cell in line.split("  ") if cell]) == 6


def test_shares_are_in_per_cent_everywhere() -> None:
    text = "\n".join(summary(report()))
    assert "0.8 %" in text
    assert "37.7 %" in text
    assert "0.38" in text


def test_what_is_missing_is_named() -> None:
    text = "\n".join(summary(report()))
    assert "fewer than 50 evaluated cells: Immune (35)" in text
    assert "omitted: Type agreement: none." in text


def test_licences_and_small_changes_of_every_extractor() -> None:
    rows = [
        {"change": name, "over_floor": ratio} for name, ratio in (("none (floor)", 1.0), ("JPEG quality 80", 1.234))
    ]
    further = {"name": "UNI2-h", "note": "", "licence": "CC BY-NC-ND 4.0", "metrics": [], "sensitivity": rows}
    lines = summary({**report(), "sensitivity": rows, "further_extractors": [further]})
    assert "UNI2-h: CC BY-NC-ND 4.0" in lines
    for name in ("texture-v1", "UNI2-h"):
        assert f"small changes of real patches, distance over floor, {name}: JPEG quality 80 1.23" in lines


def test_one_column_is_enough() -> None:
    assert columns([["metric"], ["KID"]]) == ["metric", "KID   "]
