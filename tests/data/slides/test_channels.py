import numpy as np
import pytest

from sge2hist.data.errors import InputError
from sge2hist.data.slides.channels import (
    ALL,
    RGB,
    choose_channels,
    composite,
    nuclear_channel,
    parse_channels,
    require_same_channels,
)
from sge2hist.data.slides.glass import glass_colour
from sge2hist.data.slides.slide_image import SlideImage


def test_rgb_is_shown_as_it_is_and_one_channel_in_grey():
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (5, 4, 3), dtype=np.uint8)
    assert composite(picture, RGB) is picture
    assert np.array_equal(composite(picture[..., :1], ("DAPI",)), picture[..., [0, 0, 0]])


def test_nuclei_are_blue_wherever_they_stand_and_channels_add_up():
    image = np.array([[[200, 0, 0], [0, 90, 0], [0, 0, 80], [255, 255, 255]]], np.uint8)
    shown = composite(image, ("18S", "DAPI", "Boundary"))
    assert shown[0].tolist() == [[0, 200, 0], [0, 0, 90], [80, 0, 0], [255, 255, 255]]
    assert nuclear_channel(("18S", "Hoechst 33342")) == 1
    assert nuclear_channel(("a", "b")) == 0


def test_what_a_person_asks_for():
    assert parse_channels(None) is None
    assert parse_channels("all") == ALL
    assert parse_channels("DAPI, Boundary") == ("DAPI", "Boundary")
    for wrong in ("", "DAPI,", "DAPI,DAPI"):
        with pytest.raises(InputError, match="--channels"):
            parse_channels(wrong)


def test_channels_are_found_by_name_in_the_order_asked_for():
    assert choose_channels(("b", "dapi"), ["DAPI", "A", "B"], 3, "f") == ([2, 0], ("B", "DAPI"))
    assert choose_channels(ALL, ["DAPI", "A"], 2, "f") == ([0, 1], ("DAPI", "A"))
    with pytest.raises(InputError, match=r"no channel CD45; expected names of its channels: DAPI, A"):
        choose_channels(("CD45",), ["DAPI", "A"], 2, "f")


def test_channels_without_names_must_be_named_all():
    assert choose_channels(("DAPI", "A"), [], 2, "f") == ([0, 1], ("DAPI", "A"))
    for asked in (ALL, ("DAPI",)):
        with pytest.raises(InputError, match=r"2 channel\(s\) without names"):
            choose_channels(asked, [], 2, "f")


def test_other_channels_are_one_error_that_names_both():
    with pytest.raises(InputError, match="images of RGB; expected images of DAPI, A, in this order"):
        require_same_channels(RGB, ("DAPI", "A"), where="x.paired")


def test_glass_of_fluorescence_is_dark():
    rng = np.random.default_rng(0)
    pixels = np.full((300, 300, 2), (3, 6), np.int16)
    pixels[:, :200] = (90, 60)
    noisy = (pixels + rng.normal(0, 1, pixels.shape)).clip(0, 255).astype(np.uint8)
    found = glass_colour(SlideImage.from_array(noisy, channels=("DAPI", "A")))
    assert found is not None
    assert np.abs(np.array(found) - (3, 6)).max() <= 2


def test_beyond_the_edge_of_fluorescence_is_black():
    slide = SlideImage.from_array(np.full((10, 10, 2), 50, np.uint8), channels=("DAPI", "A"))
    assert slide.read(-5, 0, 5, 5).max() == 0
    assert slide.read_patch((0, 0), 8.0, 8, 1.0)[:4].max() == 0
