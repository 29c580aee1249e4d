import numpy as np
import pytest
from skimage.color import hed2rgb, hed_from_rgb, rgb2hed

from sge2hist.data.he_stain import (
    EOSIN_OD_RGB,
    HAEMATOXYLIN_OD_RGB,
    glass_mask,
    haematoxylin_log10,
    optical_density,
    optical_density_log10,
    stain_amounts,
    stain_statistics,
)


def mixed(haematoxylin: float, eosin: float) -> np.ndarray:
    """One pixel of known stain amounts, by the Beer-Lambert law."""
    h, e = (np.array(v) / np.linalg.norm(v) for v in (HAEMATOXYLIN_OD_RGB, EOSIN_OD_RGB))
    return np.round(256 * np.exp(-(haematoxylin * h + eosin * e)) - 1).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(("haematoxylin", "eosin"), [(0.0, 0.0), (1.0, 0.0), (0.0, 0.8), (0.7, 0.5), (1.5, 0.2)])
def test_known_mixtures_come_back(haematoxylin: float, eosin: float) -> None:
    h, e = stain_amounts(mixed(haematoxylin, eosin)[None, None, None])
    assert h.item() == pytest.approx(haematoxylin, abs=0.03)
    assert e.item() == pytest.approx(eosin, abs=0.03)


def test_ranks_pixels_as_scikit_image_does() -> None:
    """scikit-image uses the same vectors with a measured third stain: the two must agree on pure H&E pixels."""
    assert hed_from_rgb.shape == (3, 3)
    hed = np.zeros((1, 64, 3))
    hed[0, :, 0] = np.linspace(0, 0.15, 64)
    rgb = (hed2rgb(hed) * 255).round().astype(np.uint8)
    ours = stain_amounts(rgb[None])[0].ravel()
    theirs = rgb2hed(rgb)[..., 0].ravel()
    assert np.corrcoef(ours, theirs)[0, 1] > 0.999


def test_glass_is_bright_and_tissue_is_not() -> None:
    image = np.array([[[250, 250, 250], [225, 130, 180], [90, 60, 140], [231, 229, 230]]], np.uint8)[None]
    assert glass_mask(image).ravel().tolist() == [True, False, False, True]


def test_optical_density_of_white_is_zero_and_black_is_finite() -> None:
    density = optical_density(np.array([[[255, 255, 255], [0, 0, 0]]], np.uint8))
    assert density[0, 0].tolist() == [0.0, 0.0, 0.0]
    assert density[0, 1, 0] == pytest.approx(np.log(256))


def test_statistics_of_a_half_empty_patch() -> None:
    image = np.full((1, 8, 8, 3), 255, np.uint8)
    image[:, :4] = mixed(1.0, 0.5)
    found = stain_statistics(image)
    assert found["lumen_fraction"].item() == 0.5
    assert found["haematoxylin_mean"].item() == pytest.approx(0.5, abs=0.02)
    assert found["haematoxylin_sd"].item() == pytest.approx(0.5, abs=0.02)


def test_haematoxylin_is_the_first_row_of_ruifroks_unmixing():
    image = np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    # skimage stores the inverse of rows that are normalised up to rounding of the published numbers
    expected = optical_density_log10(image) @ np.linalg.inv(np.linalg.inv(hed_from_rgb) / _norms())[:, 0]
    np.testing.assert_allclose(haematoxylin_log10(image), expected, atol=1e-5)


def _norms() -> np.ndarray:
    return np.linalg.norm(np.linalg.inv(hed_from_rgb), axis=1, keepdims=True)


def test_the_two_units_of_density_differ_by_the_logarithm_of_ten():
    levels = np.arange(256, dtype=np.uint8)
    np.testing.assert_allclose(optical_density(levels), np.log(10) * optical_density_log10(levels), atol=1e-6)
