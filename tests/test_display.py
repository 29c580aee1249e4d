"""Contact sheets and what notebooks show of models and datasets."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import sge2hist
from sge2hist import InputError, SGE2Hist
from sge2hist.display import MAX_IMAGES, contact_sheet, sheet_of_rows


def _filled(n: int, channel: int, side: int = 8) -> np.ndarray:
    images = np.zeros((n, side, side, 3), np.uint8)
    images[..., channel] = 255
    return images


def test_images_stand_in_rows_under_their_titles():
    sheet = contact_sheet(np.concatenate([_filled(3, 0), _filled(2, 2)]), titles=list("abcde"), columns=3)
    pixels = np.asarray(sheet.picture).astype(int)
    side = 12 * 8  # enlarged by a whole factor to about 96 px
    assert ((pixels == [255, 0, 0]).all(axis=2)).sum() == 3 * side * side
    assert ((pixels == [0, 0, 255]).all(axis=2)).sum() == 2 * side * side
    red_rows = np.flatnonzero((pixels == [255, 0, 0]).all(axis=2).any(axis=1))
    blue_rows = np.flatnonzero((pixels == [0, 0, 255]).all(axis=2).any(axis=1))
    assert red_rows.max() < blue_rows.min()
    assert (pixels.sum(axis=2) < 300).sum() > 5 * 5  # titles in black


def test_cells_times_samples_are_rows(tmp_path):
    images = np.stack([_filled(4, 0), _filled(4, 2)])
    sheet = sge2hist.contact_sheet(images, titles=["first", "second"])
    path = sheet.save(tmp_path / "sheet.png")
    with Image.open(path) as picture:
        assert picture.size == sheet.picture.size
        assert ((np.asarray(picture) == [255, 0, 0]).all(axis=2)).sum() == 4 * 96 * 96
    assert sheet._repr_png_().startswith(b"\x89PNG")
    assert repr(sheet) == f"ContactSheet({sheet.picture.width} x {sheet.picture.height} px)"


def test_many_images_are_cut_and_channels_are_coloured():
    many = contact_sheet(_filled(MAX_IMAGES + 30, 0))
    assert ((np.asarray(many.picture) == [255, 0, 0]).all(axis=2)).sum() == MAX_IMAGES * 96 * 96
    dapi = np.zeros((1, 8, 8, 2), np.uint8)
    dapi[..., 0] = 255
    coloured = np.asarray(contact_sheet(dapi, channels=("DAPI", "Boundary")).picture)
    assert ((coloured == [0, 0, 255]).all(axis=2)).sum() == 96 * 96


def test_blocks_of_rows():
    sheet = sheet_of_rows([("cells", [("real", _filled(2, 0))]), ("types", [("A", _filled(1, 2))])])
    pixels = np.asarray(sheet.picture)
    assert ((pixels == [255, 0, 0]).all(axis=2)).sum() == 2 * 96 * 96
    assert ((pixels == [0, 0, 255]).all(axis=2)).sum() == 96 * 96


@pytest.mark.parametrize(
    ("images", "options", "match"),
    [
        (_filled(2, 0)[0], {}, "image\\[None\\]"),
        (_filled(0, 0), {}, "at least one"),
        (_filled(2, 0).astype(float), {}, "uint8"),
        (_filled(2, 0)[..., :2], {}, "channels="),
        ([_filled(1, 0)[0], _filled(1, 0, side=4)[0]], {}, "images of one size"),
        (_filled(2, 0), {"titles": ["a"]}, "1 titles for 2"),
        (_filled(2, 0), {"titles": "ab"}, "one text"),
        (_filled(2, 0), {"columns": 0}, "columns=0"),
    ],
)
def test_what_is_no_image_is_refused(images, options, match):
    with pytest.raises(InputError, match=match):
        contact_sheet(images, **options)


def test_notebooks_show_models_and_datasets(tiny_model, tiny_paired):
    model = SGE2Hist.from_pretrained(tiny_model)
    for value, facts in (
        (model, ("alpha", "genes", "sampler", "cpu")),
        (tiny_paired, ("image/png", "train ", "alpha")),
    ):
        shown = value._repr_html_()
        assert all(fact in shown for fact in facts)
        assert shown.count("<table>") == shown.count("</table>")
    for value, name in ((model, "SGE2Hist("), (tiny_paired, "PairedDataset(")):
        assert repr(value).startswith(name)
        assert "\n" not in repr(value)
