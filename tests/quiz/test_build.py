"""A quiz shows what it should, and nothing but pixels differs between real and generated images."""

from __future__ import annotations

import base64
import io
import json
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fixtures.paired import write_tiny_paired
from quiz.sets import numbered_images, write_set
from sge2hist.data.errors import InputError
from sge2hist.data.paired import PairedDataset
from sge2hist.evaluation.open_images import open_image_set
from sge2hist.quiz.build import build_quiz
from sge2hist.quiz.choose import choose_pairs
from sge2hist.quiz.config import QuizConfig

N = 40


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PairedDataset:
    return write_tiny_paired(tmp_path_factory.mktemp("quiz") / "tiny.paired", side=60, patch_px=16)


@pytest.fixture(scope="module")
def generated(data: PairedDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = np.random.default_rng(0).choice(data.rows("test"), N, replace=False)
    return write_set(tmp_path_factory.mktemp("set") / "a.generated", data, rows, numbered_images(N, data.patch_px))


@pytest.fixture(scope="module")
def quiz(data: PairedDataset, generated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out") / "quiz"
    build_quiz(generated, data, folder, config=QuizConfig(n=20))
    return folder


def content(folder: Path) -> dict:
    page = (folder / "quiz.html").read_text(encoding="utf-8")
    found = re.search(r'<script id="content" type="application/json">(.*?)</script>', page)
    assert found is not None
    return json.loads(found[1])


def pngs(folder: Path) -> list[bytes]:
    return [base64.b64decode(text) for text in content(folder)["images"]]


def chunks(png: bytes) -> list[tuple[bytes, int]]:
    """Type and length of every chunk of a PNG (PNG specification, section 5.3)."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    found, at = [], 8
    while at < len(png):
        length, name = struct.unpack(">I4s", png[at : at + 8])
        found.append((name, length))
        at += 12 + length
    return found


def test_images_are_those_that_the_key_names(quiz, data, generated):
    key = json.loads((quiz / "key.json").read_text())
    images = open_image_set(generated, data)
    assert len(key["images"]) == len(pngs(quiz)) == 20
    for entry, png in zip(key["images"], pngs(quiz), strict=True):
        shown = np.asarray(Image.open(io.BytesIO(png)))
        if entry["real"]:
            assert data.obs.index[entry["row"]] == entry["cell_id"]
            np.testing.assert_array_equal(shown, data.patch(entry["row"]))
        else:
            assert (shown == (entry["generated_image"], 255 - entry["generated_image"], 7)).all()
            assert data.obs.index[images.row_M[entry["generated_image"]]] == entry["cell_id"]


def test_half_of_the_images_are_real_and_as_many_of_each_type(quiz):
    entries = json.loads((quiz / "key.json").read_text())["images"]
    of = {real: sorted(one["cell_type"] for one in entries if one["real"] is real) for real in (True, False)}
    assert len(of[True]) == 10
    assert of[True] == of[False]


def test_nothing_but_pixels_differs(quiz):
    assert len({tuple(chunks(png)) for png in pngs(quiz)}) == 1
    assert {name for name, _ in chunks(pngs(quiz)[0])} == {b"IHDR", b"IDAT", b"IEND"}
    assert len({png[:33] for png in pngs(quiz)}) == 1  # signature and header


def test_the_page_holds_no_hint(quiz, data, generated):
    assert set(content(quiz)) == {"quiz", "patch_um", "confidences", "images"}
    page = re.sub(r'"images": \[.*?\]', "", (quiz / "quiz.html").read_text(encoding="utf-8"))
    key = json.loads((quiz / "key.json").read_text())
    for secret in (*(one["cell_id"] for one in key["images"]), *data.types, generated.name, str(data.path)):
        assert secret not in page
    assert len(page) < 30_000


def test_the_page_is_the_same_whichever_images_are_real(data, tmp_path):
    """Real patches in place of the generated ones, and the roles exchanged: everything in the page but pixels is equal."""
    pages = []
    for name, seed in (("a", 0), ("b", 1)):
        rows = np.random.default_rng(seed).choice(data.rows("test"), N, replace=False)
        folder = write_set(tmp_path / f"{name}.generated", data, rows, data.patches(rows))
        page = build_quiz(folder, data, tmp_path / name, config=QuizConfig(n=20, seed=seed)).read_text()
        pages.append(re.sub(r'"[A-Za-z0-9+/=]{200,}"|"quiz": "\w+"', "", page))
    assert pages[0] == pages[1]


def test_the_order_has_no_pattern(data, generated, tmp_path):
    """Over seeds, every place is real half of the time, and neighbours are independent."""
    real = []
    for seed in range(40):
        folder = build_quiz(generated, data, tmp_path / str(seed), config=QuizConfig(n=8, seed=seed)).parent
        real.append([one["real"] for one in json.loads((folder / "key.json").read_text())["images"]])
    share = np.mean(real, 0)
    assert (abs(share - 0.5) < 0.32).all()  # four standard errors
    alike = np.mean(np.diff(np.array(real, int), axis=1) == 0)
    assert abs(alike - 3 / 7) < 0.12  # a random order of 4 and 4


def test_the_same_seed_gives_the_same_page(quiz, data, generated, tmp_path):
    for name, seed in (("again", 0), ("other", 1)):
        build_quiz(generated, data, tmp_path / name, config=QuizConfig(n=20, seed=seed))
    assert (tmp_path / "again" / "quiz.html").read_bytes() == (quiz / "quiz.html").read_bytes()
    assert (tmp_path / "other" / "quiz.html").read_bytes() != (quiz / "quiz.html").read_bytes()


def test_shown_patches_do_not_overlap(data, generated):
    images = open_image_set(generated, data)
    pairs = choose_pairs(images, data, QuizConfig(n=20), data.patch_um)
    rows = np.concatenate([images.row_M[pairs.generated_T], pairs.real_T])
    assert not pairs.overlap
    xy_um = data.centre_xy_px[rows] * data.um_per_px
    distance_um = np.abs(xy_um[:, None] - xy_um[None]).max(-1) + np.eye(len(rows)) * 1e6
    assert distance_um.min() >= data.patch_um
    assert np.isin(rows, data.rows("test")).all()


def test_overlap_is_said_where_cells_are_few(data, generated, tmp_path):
    lines: list[str] = []
    build_quiz(generated, data, tmp_path / "quiz", config=QuizConfig(n=200), log=lines.append)
    assert any("80 images instead of 200" in line for line in lines)
    assert any("overlap" in line for line in lines)
    rows = [one.get("row") for one in json.loads((tmp_path / "quiz" / "key.json").read_text())["images"]]
    real = [row for row in rows if row is not None]
    assert len(real) == len(set(real))


def test_own_cells_on_request(data, generated, tmp_path):
    build_quiz(generated, data, tmp_path / "quiz", config=QuizConfig(n=12, match="cell"))
    entries = json.loads((tmp_path / "quiz" / "key.json").read_text())["images"]
    ids = {real: sorted(one["cell_id"] for one in entries if one["real"] is real) for real in (True, False)}
    assert ids[True] == ids[False]


def test_shuffled_images_are_matched_by_the_type_that_they_show(data, tmp_path):
    rows = data.rows("test")
    by_type = [rows[data.type_of_cell[rows] == t][:10] for t in (0, 1)]
    folder = write_set(
        tmp_path / "s.generated", data, by_type[0], numbered_images(10, data.patch_px), condition_row=by_type[1]
    )
    build_quiz(folder, data, tmp_path / "quiz", config=QuizConfig(n=6))
    entries = json.loads((tmp_path / "quiz" / "key.json").read_text())["images"]
    assert {one["cell_type"] for one in entries} == {data.types[1]}


def test_images_of_another_split_are_refused(data, generated, tmp_path):
    with pytest.raises(InputError, match=r"0 generated images.*--split"):
        build_quiz(generated, data, tmp_path / "quiz", config=QuizConfig(split="val"))
    assert not (tmp_path / "quiz").exists()


@pytest.mark.parametrize("wrong", [{"n": 7}, {"n": 2}, {"match": "colour"}, {"split": "tset"}, {"seed": -1}])
def test_impossible_settings(wrong):
    with pytest.raises(InputError, match=str(next(iter(wrong.values())))):
        QuizConfig(**wrong)
