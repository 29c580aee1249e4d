import numpy as np

from sge2hist.data.slides.glass import glass_colour
from sge2hist.data.slides.slide_image import SlideImage


def test_colour_of_glass_and_not_of_pale_tissue():
    rng = np.random.default_rng(0)
    pixels = np.full((400, 600, 3), (200, 120, 160), np.int16)  # tissue
    pixels[:, 400:] = (241, 238, 243)  # glass
    pixels[100:140, 100:200] = (230, 215, 225)  # a pale lumen
    noisy = (pixels + rng.normal(0, 2, pixels.shape)).clip(0, 255).astype(np.uint8)
    found = glass_colour(SlideImage.from_array(noisy))
    assert found is not None
    assert np.abs(np.array(found) - (241, 238, 243)).max() <= 2


def test_a_slide_full_of_tissue_tells_nothing():
    assert glass_colour(SlideImage.from_array(np.full((50, 50, 3), 120, np.uint8))) is None
