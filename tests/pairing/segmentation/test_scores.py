import numpy as np
import pytest

from sge2hist.pairing.segmentation.scores import score_images, score_nuclei


def test_scores_by_hand():
    truth, found = np.zeros((4, 12), int), np.zeros((4, 12), int)
    truth[:, 0:4], truth[:, 5:9] = 1, 2
    found[:, 0:3], found[:, 5:6], found[:, 10:] = 7, 8, 9
    score = score_nuclei(truth, found)
    assert (score.n_truth, score.n_found, score.n_matched) == (2, 3, 1)
    assert score.f1 == pytest.approx(2 / 5)
    assert score.mean_iou == pytest.approx((0.75 + 0.25) / 2)
    assert score.matched_iou == pytest.approx(0.75)
    assert (score.precision, score.recall) == (pytest.approx(1 / 3), pytest.approx(1 / 2))


def test_scores_of_images_are_pooled_and_nothing_is_perfect():
    truth = np.kron(np.arange(6).reshape(2, 3), np.ones((4, 4), int))
    assert score_images([(truth, truth)] * 2).n_matched == 10
    assert score_nuclei(truth, truth).f1 == score_nuclei(truth, truth).mean_iou == 1.0
    nothing = score_nuclei(np.zeros((3, 3), int), np.zeros((3, 3), int))
    assert (nothing.f1, nothing.mean_iou) == (1.0, 0.0)
    assert score_nuclei(truth, np.zeros_like(truth)).f1 == 0.0
