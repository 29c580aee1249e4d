import numpy as np
import pytest

from sge2hist.data.errors import InputError
from sge2hist.data.slides.slide_image import SlideImage
from sge2hist.pairing.segmentation import segmenters
from sge2hist.pairing.segmentation.stardist import StarDistSegmenter, stardist_installed
from sge2hist.pairing.segmentation.tiles import TilingConfig, segment_slide


class StandIn:
    """Has the interface of StarDist2D: labels and a dictionary of details."""

    def predict_instances(self, image: np.ndarray) -> tuple[np.ndarray, dict[str, object]]:
        assert image.dtype == np.float32
        assert 0 <= image.min() <= image.max() <= 1
        return (image[..., 0] < 0.5).astype(np.uint16), {"prob": []}


def test_labels_come_through_and_one_process_is_used():
    image = np.full((100, 120, 3), 255, np.uint8)
    image[40:60, 30:50] = 60
    segmenter = StarDistSegmenter(StandIn())
    config = TilingConfig(tile_px=64, processes=4)
    runs = segment_slide(SlideImage.from_array(image), 0.5, segmenter, config=config)
    assert runs.n_labels == 1
    np.testing.assert_allclose(runs.centroid_xy_px(), [[40, 50]])


def test_auto_selects_it_when_it_is_installed(monkeypatch):
    monkeypatch.setattr(segmenters, "stardist_installed", lambda: True)
    monkeypatch.setattr(segmenters, "StarDistSegmenter", lambda: StarDistSegmenter(StandIn()))
    slide = SlideImage.from_array(np.zeros((20, 20, 3), np.uint8))
    assert segmenters.choose_segmenter("auto", slide, 0.5)[0] == "stardist"


@pytest.mark.skipif(stardist_installed(), reason="StarDist is installed here")
def test_the_error_names_what_to_install():
    with pytest.raises(InputError, match="pip install stardist"):
        StarDistSegmenter()
