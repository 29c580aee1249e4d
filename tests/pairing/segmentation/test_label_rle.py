import numpy as np
from scipy import ndimage

from sge2hist.pairing.segmentation.label_rle import join_runs, runs_of_image, runs_of_labels


def random_labels(seed: int = 0, shape: tuple[int, int] = (37, 53)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4, shape).astype(np.int32)


def test_window_gives_the_image_back():
    labels = random_labels()
    runs = runs_of_image(labels)
    np.testing.assert_array_equal(runs.window(0, 0, 53, 37), labels)
    np.testing.assert_array_equal(runs.window(5, 7, 20, 11), labels[7:18, 5:25])


def test_lookup_is_the_pixel_under_the_position():
    labels, rng = random_labels(), np.random.default_rng(1)
    xy_px = rng.uniform(-3, 60, (2000, 2))
    expected = np.full(2000, -1)
    for index, (x, y) in enumerate(np.floor(xy_px).astype(int)):
        if 0 <= x < 53 and 0 <= y < 37:
            expected[index] = labels[y, x] - 1
    np.testing.assert_array_equal(runs_of_image(labels).at(xy_px), expected)


def test_lookup_on_a_label_image_of_another_resolution():
    labels = random_labels()
    fine = np.kron(labels, np.ones((4, 4), int))
    xy_px = np.random.default_rng(2).uniform(0, [53 * 4, 37 * 4], (500, 2))
    np.testing.assert_array_equal(runs_of_image(labels, image_px=4.0).at(xy_px), runs_of_image(fine).at(xy_px))


def test_area_and_centroid_agree_with_scipy():
    labels = ndimage.label(random_labels() > 1)[0].astype(np.int32)
    runs = runs_of_image(labels)
    index = np.arange(1, labels.max() + 1)
    np.testing.assert_array_equal(runs.area_px(), ndimage.sum_labels(labels > 0, labels, index))
    expected = np.array(ndimage.center_of_mass(labels > 0, labels, index))[:, ::-1] + 0.5
    np.testing.assert_allclose(runs.centroid_xy_px(), expected)


def test_parts_that_overlap_keep_every_pixel_once():
    left, right = np.zeros((4, 20), np.int32), np.zeros((4, 20), np.int32)
    left[1:3, 2:12], right[:, 8:15] = 1, 1
    row, start, stop, label = runs_of_labels(right)
    joined = join_runs([runs_of_labels(left), (row, start, stop, label + 1)], width_px=20, height_px=4, n_labels=2)
    expected = np.where(left > 0, 1, np.where(right > 0, 2, 0))
    np.testing.assert_array_equal(joined.window(0, 0, 20, 4), expected)


def test_a_run_inside_another_does_not_hide_what_follows():
    parts = [tuple(np.array([v], np.int32) for v in run) for run in ((0, 2, 18, 0), (0, 5, 8, 1), (0, 10, 19, 2))]
    joined = join_runs(parts, width_px=20, height_px=1, n_labels=3)
    np.testing.assert_array_equal(
        joined.at(np.column_stack([np.arange(20) + 0.5, np.full(20, 0.5)]))[[5, 17, 18, 19]], [0, 0, 2, -1]
    )


def test_runs_beyond_the_image_are_cut():
    part = tuple(np.array(v, np.int32) for v in ([-1, 0, 0, 3], [0, -4, 8, 0], [5, 2, 30, 5], [0, 0, 1, 1]))
    runs = join_runs([part], width_px=10, height_px=3, n_labels=2)
    np.testing.assert_array_equal(runs.area_px(), [2, 2])


def test_nothing():
    runs = runs_of_image(np.zeros((3, 4), np.int32))
    assert runs.n_labels == 0
    np.testing.assert_array_equal(runs.at(np.array([[1.0, 1.0]])), [-1])
