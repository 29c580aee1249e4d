"""Ranges of stains against percentiles of the whole array, and what `prepare` makes of them."""

import numpy as np
import pytest

from pairing.sections import make_section
from sge2hist.data.errors import InputError
from sge2hist.data.slides.glass import glass_colour
from sge2hist.data.slides.pixel_source import ArrayPixels
from sge2hist.data.slides.slide_image import SlideImage
from sge2hist.pairing import stain_ranges
from sge2hist.pairing.alignment.tissue import map_tissue
from sge2hist.pairing.config import PrepareConfig
from sge2hist.pairing.prepare import prepare
from sge2hist.pairing.stain_ranges import choose_transform, measure_scales, with_stain_scale

CHANNELS = ("DAPI", "Boundary")


def stained(dtype: type = np.uint8, seed: int = 0, **options):
    """A section whose stains grow with the darkness of the made H&E; its right half has no tissue but a bright speck."""
    he = make_section(seed=seed, **options)
    dark = 255 - he.image.as_array()[..., 0].astype(np.float32)
    light = np.stack([dark * 0.3, dark * 0.9 + 5], -1) * (1 if dtype == np.uint8 else 20)
    light[:, 250:] = 0
    light[:50, 450:] = np.iinfo(dtype).max
    image = SlideImage("stains.tif", [ArrayPixels(light.astype(dtype))], he.um_per_px, channels=CHANNELS)
    section = make_section(seed=seed, image=image, **options)
    keep = section.centre_xy_px[:, 0] < 240
    centre = np.where(keep[:, None], section.centre_xy_px, section.centre_xy_px - [240, 0])  # all cells on the left
    return section.moved(lambda _: centre), light.astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_ranges_are_percentiles_near_cells(monkeypatch, dtype) -> None:
    monkeypatch.setattr(stain_ranges, "TILE_PX", 96)
    section, light = stained(dtype)
    scales = measure_scales(section, "sqrt")
    for channel, name in enumerate(CHANNELS):
        near = light[:, :264, channel]  # 240 px of cells, in squares of 12 px, and one more
        expected = np.percentile(near, 99.95, method="inverted_cdf")
        assert scales[name].high == pytest.approx(expected, abs=1)
        assert scales[name].high < 0.7 * np.iinfo(dtype).max  # not that of the speck
        assert scales[name].low == 0  # half of the image is dark


def test_of_a_large_image_evenly_spread_tiles_are_measured(monkeypatch) -> None:
    monkeypatch.setattr(stain_ranges, "TILE_PX", 10)
    monkeypatch.setattr(stain_ranges, "MAX_MEASURED_PX", 2500)
    tiles = list(stain_ranges.tiles_to_measure(100, 100))
    assert len(tiles) == 25
    assert {tile[0] for tile in tiles} == {tile[1] for tile in tiles} == set(range(0, 100, 10))
    assert len(list(stain_ranges.tiles_to_measure(45, 55))) == 30


def test_the_default_is_the_square_root_for_8_bits_and_for_all_slides_beside_them() -> None:
    eight, sixteen = stained(np.uint8)[0], stained(np.uint16)[0]
    assert choose_transform([eight], None) == "sqrt"
    assert choose_transform([sixteen], None) == "linear"
    assert choose_transform([sixteen, eight], None) == "sqrt"
    assert choose_transform([sixteen], "sqrt") == "sqrt"
    assert choose_transform([make_section()], None) == "linear"
    with pytest.raises(InputError, match="--stain-transform sqrt with an H&E"):
        choose_transform([make_section()], "sqrt")
    with pytest.raises(InputError, match="stain_transform = 'log'"):
        PrepareConfig(stain_transform="log")


def test_tissue_is_measured_on_light_whatever_the_levels() -> None:
    section, _ = stained()
    scaled = with_stain_scale(section, "sqrt")
    share = {name: scale.high / 255 for name, scale in scaled.image.scales.items()}
    before, after = map_tissue(section, 4.0), map_tissue(scaled, 4.0)
    left = np.s_[30:, :110]
    expected = before.nuclear[left] / share["DAPI"]
    assert np.abs(after.nuclear[left] - expected).mean() < 0.02
    assert after.mask[left].mean() > 0.9
    assert not after.mask[30:, 130:].any()
    assert glass_colour(scaled.image) == (0, 0)


def test_prepare_writes_levels_and_how_to_invert_them(tmp_path) -> None:
    section, light = stained(width_px=500, height_px=400)
    config = PrepareConfig(
        patch_um=40.0, patch_px=20, types="region", split_block_um=150.0, check_alignment=False, min_counts=5
    )
    data = prepare(section, tmp_path / "s.paired", config, log=lambda _: None)
    assert data.stain_transform == data.slides[0].transform == "sqrt"
    ranges = data.manifest["slides"][0]["ranges"]
    stored = data.slides[0].as_array()
    for channel, name in enumerate(CHANNELS):
        low, high = ranges[name]
        expected = np.floor(255 * np.sqrt(np.clip(light[..., channel] / high, 0, 1)) + 0.5)
        assert low == 0
        assert np.array_equal(stored[..., channel], expected)
    assert f"DAPI 0 to {ranges['DAPI'][1]:g}" in data.manifest["notes"]["one"][-1]
    linear = prepare(section, tmp_path / "l.paired", config, stain_transform="linear", log=lambda _: None)
    assert linear.stain_transform == "linear"
    assert np.array_equal(linear.slides[0].as_array(), light)
