import numpy as np
import pytest

from fixtures.painted_nuclei import paint_nuclei
from sge2hist.data.errors import InputError
from sge2hist.data.slides.slide_image import SlideImage
from sge2hist.pairing.segmentation.classical import (
    ClassicalSegmenter,
    NucleiConfig,
    labels_of_seeds,
)
from sge2hist.pairing.segmentation.scores import score_nuclei
from sge2hist.pairing.segmentation.segmenters import choose_segmenter, slide_threshold
from sge2hist.pairing.segmentation.tiles import TilingConfig, segment_slide


@pytest.fixture(scope="module")
def painted() -> tuple[np.ndarray, np.ndarray]:
    return paint_nuclei(height_px=360, width_px=420, seed=0)


def test_painted_nuclei_are_found(painted):
    image, truth = painted
    score = score_nuclei(truth, ClassicalSegmenter()(image))
    assert score.f1 > 0.85
    assert score.mean_iou > 0.7


def test_white_and_flat_images_hold_no_nucleus():
    for value in (0, 120, 255):
        assert ClassicalSegmenter()(np.full((70, 80, 3), value, np.uint8)).max() == 0


def test_area_limits_and_numbering():
    labels = np.zeros((40, 60), bool)
    labels[5:10, 5:10] = labels[5:35, 20:50] = labels[15:17, 5:7] = True
    config = NucleiConfig(min_area_um2=4.0, max_area_um2=100.0)
    found = labels_of_seeds(labels, labels.astype(float), labels, um_per_px=0.5, config=config)
    np.testing.assert_array_equal(found > 0, np.pad(np.ones((5, 5), bool), ((5, 30), (5, 50))))
    assert found.max() == 1


@pytest.mark.parametrize("tile_px", [64, 96, 160])
def test_tiles_give_what_the_whole_image_gives(painted, tile_px):
    image, _ = painted
    segmenter = ClassicalSegmenter(threshold=0.35, config=NucleiConfig(local_window_um=6.0))
    slide = SlideImage.from_array(image)
    config = TilingConfig(tile_px=tile_px, halo_um=24.0, processes=1)
    tiled = segment_slide(slide, 0.5, segmenter, config=config)
    whole = segment_slide(slide, 0.5, segmenter, config=TilingConfig(tile_px=1024, processes=1))
    assert tiled.n_labels == whole.n_labels > 40
    same = (tiled.window(0, 0, 420, 360) > 0) == (whole.window(0, 0, 420, 360) > 0)
    assert same.mean() > 0.9999


def test_result_does_not_depend_on_the_number_of_processes(painted):
    image, _ = painted
    slide, segmenter = SlideImage.from_array(image), ClassicalSegmenter(threshold=0.35)
    steps: list[tuple[int, int]] = []
    one, two = (
        segment_slide(
            slide, 0.5, segmenter, config=TilingConfig(tile_px=256, processes=n), progress=lambda *s: steps.append(s)
        )
        for n in (1, 2)
    )
    for column in ("row", "start", "stop", "label"):
        np.testing.assert_array_equal(getattr(one, column), getattr(two, column))
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)] * 2


def test_a_slide_at_another_resolution_is_looked_up_in_its_own_px(painted):
    image, truth = painted
    fine = SlideImage.from_array(np.kron(image, np.ones((2, 2, 1), np.uint8)))
    runs = segment_slide(fine, 0.25, ClassicalSegmenter(), config=TilingConfig(processes=1))
    y, x = np.mgrid[:360, :420]
    found = runs.at(np.stack([x.ravel() * 2 + 1.0, y.ravel() * 2 + 1.0], 1)).reshape(360, 420) + 1
    assert score_nuclei(truth, found).f1 > 0.85
    assert runs.centroid_xy_px()[:, 0].max() > 420


def test_slide_threshold_lies_between_nuclei_and_the_rest(painted):
    image, truth = painted
    segmenter = ClassicalSegmenter()
    threshold = slide_threshold(SlideImage.from_array(image), 0.5, segmenter, window_px=128)
    amount, _ = segmenter.haematoxylin_in_tissue(image)
    assert np.median(amount[truth == 0]) < threshold < np.median(amount[truth > 0])


def test_choice_of_segmenter(painted):
    slide = SlideImage.from_array(painted[0])
    assert choose_segmenter("auto", slide, 0.5)[0] == "network"
    assert choose_segmenter("classical", slide, 0.5)[1].threshold is not None
    with pytest.raises(InputError, match="--cells bins"):
        choose_segmenter("auto", slide, 2.0)
    with pytest.raises(InputError, match="segmenter 'cellpose'"):
        choose_segmenter("cellpose", slide, 0.5)


def test_configs_check_their_ranges():
    for bad in ({"min_area_um2": 500.0}, {"smoothing_um": -1.0}, {"local_window_um": 0.0}):
        with pytest.raises(InputError):
            NucleiConfig(**bad)
    for bad in ({"tile_px": 8}, {"halo_um": -1.0}, {"processes": -1}, {"white_level": 300}):
        with pytest.raises(InputError):
            TilingConfig(**bad)
    with pytest.raises(InputError, match="um per px"):
        segment_slide(SlideImage.from_array(np.zeros((9, 9, 3), np.uint8)), 0.0, ClassicalSegmenter())
