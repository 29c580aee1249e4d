"""The scale of a stain against the formula computed by hand, and its inverse."""

import math

import numpy as np
import pytest

from sge2hist.data.slides.pixel_source import ArrayPixels, ScaledPixels
from sge2hist.data.slides.stain_scale import StainScale, linear_light


@pytest.mark.parametrize(("low", "high"), [(0, 80), (0, 255), (120, 3000)])
def test_levels_are_the_square_root_of_the_share_of_the_range(low: float, high: float) -> None:
    scale = StainScale(low=low, high=high, transform="sqrt")
    values = [0, 1, 7, 40, 79, 80, 81, 254, 255, 700, 2999, 3000, 60000]
    expected = [min(255, math.floor(255 * math.sqrt(min(max((v - low) / (high - low), 0), 1)) + 0.5)) for v in values]
    assert scale.levels(np.array(values, np.uint16)).tolist() == expected


def test_a_linear_scale_of_8_bits_is_no_change() -> None:
    scale = StainScale(low=0.0, high=255.0)
    values = np.arange(256, dtype=np.uint8)
    assert scale.is_identity
    assert np.array_equal(scale.levels(values), values)


@pytest.mark.parametrize("transform", ["linear", "sqrt"])
def test_values_come_back_to_half_a_level(transform: str) -> None:
    scale = StainScale(low=100, high=4000, transform=transform)
    values = np.linspace(100, 4000, 77)
    levels = scale.levels(values).astype(float)
    low, high = (scale.values(np.clip(levels + step, 0, 255)) for step in (-0.51, 0.51))
    assert (low <= values + 1e-2).all()
    assert (values <= high + 1e-2).all()


def test_light_of_a_square_root_is_its_square() -> None:
    assert linear_light(np.array([0, 51, 255], np.uint8), "sqrt").tolist() == pytest.approx([0, 0.04, 1])
    assert linear_light(np.array([0, 51, 255], np.uint8), "linear").tolist() == pytest.approx([0, 0.2, 1])


def test_each_channel_has_its_own_scale_in_any_region() -> None:
    values = np.random.default_rng(0).integers(0, 60000, (50, 40, 2)).astype(np.uint16)
    scales = [StainScale(low=0, high=1000, transform="sqrt"), StainScale(low=500, high=60000, transform="sqrt")]
    source = ScaledPixels(ArrayPixels(values), scales)
    region = source.region(10, 5, 30, 40)
    for channel, scale in enumerate(scales):
        assert np.array_equal(region[..., channel], scale.levels(values[10:30, 5:40, channel]))
