import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.measure import block_reduce

from sge2hist.data.slides.resample import input_span, resample, window_taps


def window(pixels, x, y, side, out):
    first_x, n_x = input_span(x, side, out)
    first_y, n_y = input_span(y, side, out)
    part = pixels[first_y : first_y + n_y, first_x : first_x + n_x]
    return resample(part, window_taps(y, side, out, first_y, n_y), window_taps(x, side, out, first_x, n_x))


@settings(max_examples=60, deadline=None)
@given(start=st.floats(5, 40), length=st.floats(3, 60), n_out=st.integers(1, 40))
def test_a_linear_ramp_is_resampled_exactly(start, length, n_out) -> None:
    """Bilinear weights reproduce a linear function exactly; means over parts of pixels to an eighth of a pixel."""
    first, n_in = input_span(start, length, n_out)
    taps = window_taps(start, length, n_out, first, n_in)
    ramp = first + np.arange(n_in) + 0.5
    got = (taps.weight * ramp[taps.pixel]).sum(axis=1)
    expected = start + length / n_out * (np.arange(n_out) + 0.5)
    np.testing.assert_allclose(got, expected, atol=0.126 if length >= n_out else 1e-3, rtol=1e-5)
    np.testing.assert_allclose(taps.weight.sum(axis=1), 1, rtol=1e-5)


def test_whole_factor_agrees_with_block_means() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 60, 3)).astype(np.uint8)
    expected = block_reduce(pixels.astype(float), (3, 3, 1), np.mean)[2:12, 2:12]
    got = window(pixels, 6, 6, 30, 10)
    assert np.abs(got - expected).max() <= 0.5 + 1e-3


def test_fractional_area_agrees_with_fine_subsampling() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    x, y, side, out = 3.7, 5.2, 23.4, 13
    fine = 60
    steps = side / out * (np.arange(out * fine) + 0.5) / fine
    sampled = pixels[np.floor(y + steps).astype(int)][:, np.floor(x + steps).astype(int)].astype(float)
    expected = sampled.reshape(out, fine, out, fine, 3).mean(axis=(1, 3))
    assert np.abs(window(pixels, x, y, side, out) - expected).max() < 3
