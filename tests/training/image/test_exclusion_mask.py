"""Excluded areas: no training crop shows a pixel of them, nothing else is lost, bad files are one clear error."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image, ImageDraw
from typer.testing import CliRunner

from sge2hist.cli.main import app
from sge2hist.data.errors import InputError
from sge2hist.training.config import TrainConfig
from sge2hist.training.finetune.upsampler import FineCrops
from sge2hist.training.image.exclusion_mask import ExclusionMask, read_exclusion_mask
from sge2hist.training.image.patches import PatchSource
from sge2hist.training.train import train

TRIANGLE_PX = [[60, 10], [110, 60], [60, 60], [60, 10]]
PEN = np.array([0, 255, 0], np.uint8)


def _write(path, *rings, **properties):
    features = [
        {"type": "Feature", "properties": properties, "geometry": {"type": "Polygon", "coordinates": [ring]}}
        for ring in rings
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


@pytest.fixture
def outline(tmp_path):
    return _write(tmp_path / "pen.geojson", TRIANGLE_PX)


def _source(dataset, excluded: ExclusionMask | None = None) -> PatchSource:
    return PatchSource(dataset, patch_px=16, um_per_px=2.0, receptive_radius_um=28.0, jitter_um=8.0, excluded=excluded)


def _marked(slide_HWC: np.ndarray) -> np.ndarray:
    """The slide with the triangle filled by another library."""
    picture = Image.fromarray(slide_HWC)
    ImageDraw.Draw(picture).polygon([tuple(corner) for corner in TRIANGLE_PX], fill=tuple(PEN.tolist()))
    return np.array(picture)


def _shows_pen(source: PatchSource, share_anywhere: float) -> int:
    pen_3 = PEN / 127.5 - 1
    images = [
        source.batch(64, np.random.default_rng(s), share_anywhere=share_anywhere).image_BCHW.permute(0, 2, 3, 1).numpy()
        for s in range(12)
    ]
    return int(np.isclose(np.concatenate(images), pen_3, atol=1e-3).all(-1).any((1, 2)).sum())


@pytest.mark.parametrize("share_anywhere", [0.0, 1.0])
def test_no_crop_shows_a_pixel_of_an_area(tiny_paired, outline, share_anywhere):
    everything, source = _source(tiny_paired), _source(tiny_paired, read_exclusion_mask(outline, tiny_paired))
    for each in (everything, source):
        each.slides[0] = _marked(each.slides[0])
    assert _shows_pen(everything, share_anywhere) > 10
    assert _shows_pen(source, share_anywhere) == 0


def test_an_outline_takes_away_what_it_covers_and_not_its_bounding_box(tiny_paired, outline):
    kept = _source(tiny_paired, read_exclusion_mask(outline, tiny_paired)).rows
    lost = np.setdiff1d(_source(tiny_paired).rows, kept)
    x_px, y_px = tiny_paired.centre_xy_px[lost].T
    half_px = 16 / 2 + 8.0 / 2.0 + 1
    assert ((x_px > 60 - half_px) & (x_px < 110 + half_px) & (y_px > 10 - half_px) & (y_px < 60 + half_px)).all()
    corner = np.abs(tiny_paired.centre_xy_px[kept] - [108, 12]).max(1)
    assert corner.min() < 8  # the empty corner of the triangle's box is still learnt from
    below_diagonal = tiny_paired.centre_xy_px[kept] - [60, 10]
    assert not (
        (below_diagonal[:, 0] > 0) & (below_diagonal[:, 1] > below_diagonal[:, 0]) & (below_diagonal[:, 1] < 50)
    ).any()


def test_crops_for_an_upsampler_stay_clear_too(tiny_paired, outline):
    excluded = read_exclusion_mask(outline, tiny_paired)
    before, after = FineCrops(tiny_paired, 2.0, 32).rows, FineCrops(tiny_paired, 2.0, 32, excluded).rows
    inside = np.abs(tiny_paired.centre_xy_px - [70, 45]).max(1) < 10
    assert inside[before].any()
    assert not inside[after].any()
    assert 0 < len(before) - len(after) < len(before)


def test_nothing_is_excluded_without_a_file(tiny_paired):
    excluded = read_exclusion_mask(None, tiny_paired)
    assert excluded.fingerprint is None
    assert not excluded.touches(np.array([[130.0, 90.0]]), np.zeros(1, int), 1e6).any()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", "cannot be read"),
        ('{"type": "FeatureCollection", "features": []}', "no feature"),
        ('{"features": [{"geometry": {"type": "Point", "coordinates": [5, 5]}}]}', "no area"),
        ('{"features": [{"geometry": null}, 3]}', "feature 0"),
        (
            '{"features": [{"geometry": {"type": "Polygon", "coordinates": [[[900, 9], [950, 9], [950, 90], [900, 9]]]}}]}',
            "beside the slide of 320 x 320 px",
        ),
        (
            '{"features": [{"properties": {"slide": "s2"}, "geometry": {"type": "Polygon", "coordinates": '
            "[[[0, 0], [9, 0], [9, 9], [0, 0]]]}}]}",
            "'s2', not one of s1",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_one_clear_error_before_any_work(tiny_paired, tmp_path, text, message):
    path = tmp_path / "areas.geojson"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        train(tiny_paired, tmp_path / "x.model", TrainConfig(preset="tiny", exclude=str(path)), log=lambda _: None)
    assert not (tmp_path / "x.model").exists()


def test_an_area_over_all_of_the_tissue_is_an_error(tiny_paired, tmp_path):
    whole = _write(tmp_path / "all.geojson", [[0, 0], [320, 0], [320, 320], [0, 320], [0, 0]], slide="s1")
    with pytest.raises(InputError, match="no training cell whose patch is clear"):
        _source(tiny_paired, read_exclusion_mask(whole, tiny_paired))


def test_other_areas_are_another_run(tiny_paired, tmp_path, outline):
    """The command trains with them, and does not resume when the outline was changed."""
    output = tmp_path / "x.model"
    asked = [
        "train",
        str(tiny_paired.path),
        "-o",
        str(output),
        "--preset",
        "tiny",
        "--steps",
        "2",
        "--exclude",
        str(outline),
    ]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    assert json.loads((output / "config.json").read_text())["provenance"]["training"]["exclude"] == str(outline)
    _write(outline, [[10, 10], [40, 10], [40, 40], [10, 10]])
    again = CliRunner().invoke(app, asked)
    assert isinstance(again.exception, InputError) or again.exit_code != 0
    assert "excluded" in str(again.exception or again.output)
