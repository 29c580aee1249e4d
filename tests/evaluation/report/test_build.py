"""The page: its sentences say what the figures say, its charts hold the data, and a browser renders it."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sge2hist.evaluation.config import EvaluateConfig
from sge2hist.evaluation.evaluate import evaluate
from sge2hist.evaluation.report import charts, sentences, tables
from tests.fixtures.browser import PHONE, barriers


def figure(value: float, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "n": 500, "interval": "none" if low is None else "95 % bootstrap"}


def report_with(**metrics: dict[str, Any]) -> dict[str, Any]:
    return {
        "metrics": [
            {"id": name, "real": entry.pop("real", None), "sets": {"a": entry}} for name, entry in metrics.items()
        ]
    }


@pytest.mark.parametrize(
    ("distance", "coverage", "answer"),
    [
        (1.0, 0.9, "Yes, to this extractor"),
        (1.5, 0.9, "Nearly"),
        (3.0, 0.9, "Nearly"),
        (9.0, 0.9, "Not yet"),
        (1.2, 0.2, "Too uniform"),
        (0.8, 0.9, "Closer than real tissue is"),
    ],
)
def test_looks_real(distance: float, coverage: float, answer: str) -> None:
    report = report_with(
        frechet={**figure(distance), "real": figure(1.0)}, coverage={**figure(coverage), "real": figure(0.9)}
    )
    sentence = sentences.opening(report, "a")[0]
    assert sentence.answer == answer
    assert "500 patches each" in sentence.text


def test_below_the_floor_is_never_a_green_yes() -> None:
    sentence = sentences.opening(report_with(frechet={**figure(140.0), "real": figure(245.0)}), "a")[0]
    assert sentence.tone == "none"
    assert "too uniform or copied" in sentence.text
    assert "see too little" in sentence.text


def test_patches_of_other_places_give_no_verdict() -> None:
    report = report_with(frechet={**figure(1.0), "real": figure(1.0)})
    report["data"] = {"comparison": {"problem": "the comparison patches come from other tissue"}}
    sentence = sentences.opening(report, "a")[0]
    assert (sentence.answer, sentence.tone) == ("Cannot say", "none")
    assert "Cannot say: the comparison patches come from other tissue." in sentence.text


@pytest.mark.parametrize(
    ("value", "low", "answer"), [(0.6, 0.5, "Yes"), (0.1, 0.05, "In part"), (0.1, -0.1, "Not shown")]
)
def test_follows_rna_needs_a_certain_gain(value: float, low: float, answer: str) -> None:
    entry = {
        **figure(value, low, value + 0.1),
        "shuffled": figure(0.0),
        "conditioning_gain": figure(value, low, value + 0.1),
    }
    assert sentences.opening(report_with(morphometry_correlation=entry), "a")[1].answer == answer


@pytest.mark.parametrize(
    ("share", "low", "answer"), [(0.01, 0.0, "No"), (0.04, 0.01, "No"), (0.2, 0.15, "Yes, in part"), (0.98, 0.9, "Yes")]
)
def test_is_copy(share: float, low: float, answer: str) -> None:
    report = report_with(copied={**figure(share, low, share), "real": figure(0.01)})
    assert sentences.opening(report, "a")[2].answer == answer


def test_nothing_measured_is_said() -> None:
    assert [s.answer for s in sentences.opening({"metrics": []}, "a")] == ["Not measured"] * 3


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0, "0"),
        (0.123456, "0.12"),
        (-0.5, "−0.50"),
        (0.0123, "0.012"),
        (12.34, "12.3"),
        (12345.6, "12,346"),
        (2e-5, "2.0e−05"),
        (5.6e-17, "0"),
    ],
)
def test_numbers(value: float | None, text: str) -> None:
    assert sentences.number(value) == text


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3.0, 4.0), (0.2, 0.23), (1e-4, 5e4)])
def test_ticks_are_few_and_inside(low: float, high: float) -> None:
    ticks = charts.nice_ticks(low, high)
    assert 1 <= len(ticks) <= 6
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in ticks)


def test_map_paints_each_cell_at_its_place() -> None:
    centre = np.array([[0.0, 0.0], [100.0, 0.0], [0.0, 50.0]])
    picture = charts.map_png(centre, np.array([0.0, 1.0, 1.0]), 0.0, 1.0)
    assert picture.shape[1] == charts.MAP_PX
    assert picture[4, 4, 3] == 255
    assert picture[-1, -1, 3] == 0
    assert picture[4, charts.MAP_PX - 4].tolist() == picture[-5, 4].tolist()
    assert picture[4, 4].tolist() != picture[-5, 4].tolist()


def test_one_outlier_does_not_empty_a_scatter() -> None:
    rng = np.random.default_rng(0)
    points = {"real": rng.normal(size=(500, 2)), "a": np.vstack([rng.normal(size=(499, 2)), [[1e4, -1e4]]])}
    low, high = charts.plane_frame(points)
    assert (high - low < 12).all()
    assert charts.points_beyond(points) == 1
    placed = charts.in_frame(points)
    assert placed["a"][-1].tolist() == [470.0, 10.0]
    assert np.ptp(placed["real"], axis=0).min() > 150


def test_without_outliers_the_frame_holds_all_points() -> None:
    points = {"a": np.random.default_rng(0).uniform(size=(300, 2))}
    assert charts.points_beyond(points) == 0
    low, high = charts.plane_frame(points)
    assert low.tolist() == points["a"].min(axis=0).tolist()
    assert high.tolist() == points["a"].max(axis=0).tolist()


def test_a_single_value_has_no_plus_minus() -> None:
    assert tables.plus_minus(None) == ""
    assert tables.plus_minus(0.0) == "<small>± 0</small>"


def test_types_without_a_row_are_named_with_the_reason() -> None:
    missing = [{"type": "Immune", "n": 35, "reason": "fewer than 50 evaluated cells"}]
    page = tables.type_table({"per_type": [], "types_omitted": missing})
    assert "fewer than 50 evaluated cells: Immune (35)" in page


def test_a_browser_renders_it_without_asking_the_network(tissue, tmp_path: Path, open_page) -> None:
    rows = tissue.data.rows("test")[:30]
    path = tissue.write(tmp_path / "set", tissue.fresh(rows, 0), rows)
    config = EvaluateConfig(extractor="texture-v1", n_bootstrap=10, max_train=100, umap=False, gallery=3)
    evaluate([path], tissue.data, tmp_path / "report", config=config)
    page = open_page(tmp_path / "report" / "report.html", viewport={"width": 1100, "height": 1400})
    page.wait_for_function("() => [...document.images].every((image) => image.complete && image.naturalWidth > 0)")
    assert page.evaluate("() => document.images.length + document.querySelectorAll('svg').length") >= 3
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    shot = Image.open(io.BytesIO(page.screenshot()))
    # Something is shown over most of the page's height: text, tables and patches, not an empty sheet.
    assert (np.asarray(shot.convert("RGB")).std(axis=(1, 2)) > 1).mean() > 0.5
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        assert barriers(page) == [], theme
    _pictures_are_enlarged(page)
    _a_phone_shows_words_whole(page)


def _pictures_are_enlarged(page: Any) -> None:
    first, second = page.locator("button.enlarge").nth(0), page.locator("button.enlarge").nth(1)
    small = first.bounding_box()
    first.click()
    large = page.locator("dialog img")
    assert large.bounding_box()["width"] > 4 * small["width"]
    assert large.get_attribute("src") == first.locator("img").get_attribute("src")
    page.keyboard.press("ArrowRight")
    assert large.get_attribute("src") == second.locator("img").get_attribute("src")
    assert page.locator("dialog p").text_content() == second.locator("img").get_attribute("alt")
    page.keyboard.press("Escape")
    assert not large.is_visible()


def _a_phone_shows_words_whole(page: Any) -> None:
    """The page does not scroll sideways, and labels break between words."""
    page.set_viewport_size(PHONE)
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    broken = page.evaluate(
        """() => [...document.querySelectorAll(".gallery th, thead th, .card p, dt")].flatMap((label) => {
          const text = document.createTreeWalker(label, NodeFilter.SHOW_TEXT), found = [];
          for (let node = text.nextNode(); node; node = text.nextNode()) {
            for (const word of node.data.matchAll(/[A-Za-z]+/g)) {
              const range = document.createRange();
              range.setStart(node, word.index);
              range.setEnd(node, word.index + word[0].length);
              if (new Set([...range.getClientRects()].map((box) => Math.round(box.top))).size > 1) found.push(word[0]);
            }
          }
          return found;
        })"""
    )
    assert broken == []
