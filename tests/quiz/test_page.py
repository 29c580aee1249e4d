"""The page in a browser: keyboard and mouse, times, progress that stays, the file; phone width, dark mode, no barrier."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from fixtures.browser import barriers
from fixtures.paired import write_tiny_paired
from quiz.sets import numbered_images, write_set
from sge2hist.quiz.build import build_quiz
from sge2hist.quiz.config import QuizConfig
from sge2hist.quiz.score import score_quiz

PHONE = {"viewport": {"width": 360, "height": 640}, "has_touch": True, "is_mobile": True}


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    data = write_tiny_paired(folder / "tiny.paired", patch_px=16)
    rows = np.random.default_rng(0).choice(data.rows("test"), 20, replace=False)
    write_set(folder / "a.generated", data, rows, numbered_images(20, 16))
    return build_quiz(folder / "a.generated", data, folder / "quiz", config=QuizConfig(n=4), log=lambda _: None)


def begin(page, name: str = "Dr. Ünal"):
    page.fill("#reader", name)
    page.keyboard.press("Enter")
    page.wait_for_function("document.getElementById('count').textContent === '1 of 4'")
    return page


def test_keyboard_alone_and_a_reload_on_the_way(page_file, open_page, tmp_path):
    page = begin(open_page(page_file))
    page.keyboard.press("Enter")  # nothing chosen yet
    assert page.inner_text("#count") == "1 of 4"
    page.keyboard.press("r")
    page.keyboard.press("5")
    page.keyboard.press("c")
    page.keyboard.type("regular nuclei, g3")
    page.keyboard.press("Escape")
    page.wait_for_timeout(300)
    page.keyboard.press("Enter")
    assert page.inner_text("#count") == "2 of 4"
    page.keyboard.press("g")
    page.keyboard.press("2")
    page.wait_for_timeout(300)
    page.reload()
    page.wait_for_function("document.getElementById('count').textContent === '2 of 4'")
    assert page.get_attribute("[data-answer=generated]", "aria-pressed") == "true"
    page.keyboard.press("p")
    page.wait_for_timeout(700)
    assert page.is_hidden("#patch")
    page.keyboard.press("r")  # no answer while paused
    page.keyboard.press("p")
    page.keyboard.press("Enter")
    for _ in range(2):
        page.click("[data-answer=generated]")
        page.click("[data-confidence='1']")
        page.keyboard.press("Enter")  # with the focus on a button of the scale
    assert page.is_visible("#end")
    with page.expect_download() as caught:
        page.click("#download")
    assert caught.value.suggested_filename.startswith("answers-Dr_Ünal-")
    caught.value.save_as(tmp_path / "one.json")
    file = json.loads((tmp_path / "one.json").read_text())
    given = [(one["image"], one["answer"], one["confidence"], one["comment"]) for one in file["answers"]]
    assert given == [
        (1, "real", 5, "regular nuclei, g3"),
        (2, "generated", 2, ""),
        (3, "generated", 1, ""),
        (4, "generated", 1, ""),
    ]
    assert set(file) == {
        *("kind", "format_version", "quiz", "n", "reader"),
        *("experience", "started", "finished", "answers"),
    }
    first, second = (one["seconds"] for one in file["answers"][:2])
    assert 0.3 <= first < 60
    assert second >= 0.3  # time before the reload counts
    scores = score_quiz([tmp_path / "one.json"], key=page_file.parent / "key.json", n_resamples=20)
    assert scores["readers"][0]["reader"] == "Dr. Ünal"


def test_a_pause_does_not_count(page_file, open_page):
    before = time.monotonic()
    page = begin(open_page(page_file))
    page.click("#pause")
    page.wait_for_timeout(3000)
    page.click("#pause")
    page.keyboard.press("r")
    page.keyboard.press("3")
    page.keyboard.press("Enter")
    page.wait_for_function("document.getElementById('count').textContent === '2 of 4'")
    saved = json.loads(page.evaluate("Object.values(localStorage)[0]"))
    assert saved["answers"][0]["seconds"] < time.monotonic() - before - 2.5


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone_width_without_barriers(page_file, open_page, scheme):
    page = open_page(page_file, color_scheme=scheme, **PHONE)
    assert barriers(page) == []
    begin(page)
    page.tap("[data-answer=real]")
    page.tap("[data-confidence='4']")
    assert barriers(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    box = page.locator("#patch").bounding_box()
    assert box["width"] == pytest.approx(box["height"], abs=1)
    assert box["width"] >= 200
    assert page.locator("[data-answer=real]").bounding_box()["height"] >= 44
