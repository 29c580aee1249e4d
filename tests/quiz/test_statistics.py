"""Statistics against closed forms, published examples and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, roc_auc_score, roc_curve

from sge2hist.quiz import statistics as st

FLEISS_1971 = [  # 10 subjects, 14 raters, 5 categories; kappa 0.210 (the worked example of the method)
    *([0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1]),
    *([7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7]),
]


@pytest.mark.parametrize(("k", "n"), [(0, 10), (10, 10), (37, 60), (1, 3)])
def test_wilson(k, n):
    z = 1.959964
    centre = (k + z**2 / 2) / (n + z**2)
    half = z / (n + z**2) * np.sqrt(k * (n - k) / n + z**2 / 4)
    np.testing.assert_allclose(st.wilson(k, n), (centre - half, centre + half), atol=1e-6)


def test_auc_and_roc_with_ties():
    rng = np.random.default_rng(0)
    is_real = rng.random(80) < 0.5
    score = rng.choice([-5, -4, -3, -2, -1, 1, 2, 3, 4, 5], 80) + ~is_real
    assert st.auc(is_real, score) == pytest.approx(roc_auc_score(~is_real, score))
    x, y, _ = roc_curve(~is_real, score, drop_intermediate=False)
    np.testing.assert_allclose(st.roc(is_real, score), np.stack([x, y], 1))


def test_confidence_counts_away_from_the_middle():
    found = st.suspicion(np.array([1, 1, 0, 0]), np.array([5, 1, 1, 5]))
    assert found.tolist() == [-5, -1, 1, 5]


def test_kappas():
    rng = np.random.default_rng(1)
    a = rng.integers(0, 2, 50)
    b = np.where(rng.random(50) < 0.7, a, 1 - a)
    assert st.cohen_kappa(a, b) == pytest.approx(cohen_kappa_score(a, b))
    assert st.fleiss_kappa(np.array(FLEISS_1971)) == pytest.approx(0.210, abs=5e-4)
    assert np.isnan(st.cohen_kappa(np.ones(5), np.ones(5)))
    assert np.isnan(st.fleiss_kappa(np.array([[3, 0], [3, 0]])))


def test_bootstrap_over_readers_and_images_covers_what_readers_vary():
    """Readers of different skill: the interval of the pooled accuracy is wider than Wilson's, and as wide as theory says."""
    rng = np.random.default_rng(2)
    is_real = np.arange(60) < 30
    skill = np.array([0.5, 0.6, 0.7, 0.8, 0.9, 0.55, 0.65, 0.75, 0.85, 0.7])
    right = rng.random((10, 60)) < skill[:, None]

    def accuracy(readers, images):
        return float(right[np.ix_(readers, images)].mean())

    low, high = st.bootstrap(accuracy, is_real, 10, 2000, rng)
    wilson_low, wilson_high = st.wilson(int(right.sum()), right.size)
    assert high - low > 1.5 * (wilson_high - wilson_low)
    # variance of a mean over crossed readers and images: of readers, of images, of what is left (the bootstrap counts it thrice)
    readers, images = right.mean(1), right.mean(0)
    rest = (right - readers[:, None] - images[None] + right.mean()).var()
    variance = readers.var() / 10 + images.var() / 60 + rest / 600
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(variance), rel=0.15)


def test_one_reader_is_not_resampled_and_certainty_has_no_interval():
    is_real = np.arange(10) < 5
    rng = np.random.default_rng(0)
    assert np.isnan(st.bootstrap(lambda r, k: 1.0, is_real, 1, 50, rng)).all()
    seen = []
    st.bootstrap(lambda r, k: float(seen.append((tuple(r), is_real[k].sum())) or len(seen)), is_real, 1, 20, rng)
    assert set(seen) == {((0,), 5)}
