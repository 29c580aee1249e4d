"""Classifiers of real against generated: blind where nothing differs, sure where something does."""

from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def realism(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    import realism

    return realism


@pytest.fixture(scope="module")
def patches():
    """Two sets of the same random texture, in ten blocks far apart: images, block, places."""
    rng = np.random.default_rng(0)
    images, block = rng.integers(100, 200, (2, 100, 16, 16, 3), np.uint8), np.repeat(np.arange(10), 10)
    return images[0], images[1], block, (np.column_stack([1000.0 * block, np.zeros(100)]), np.zeros(100, int), 16.0)


def test_cosine_features_find_a_change_of_texture_and_nothing_else(realism, patches):
    first, second, block, places = patches
    scores, folds = realism.linear(realism.cosine_features), realism.apart_folds(block, *places)
    alike, _ = realism.area_under_curve(scores, first, second, folds)
    assert 0.3 < alike < 0.7
    smooth = np.repeat(np.repeat(realism.smaller(first, 2), 2, 1), 2, 2)
    found, each = realism.area_under_curve(scores, smooth, second, folds)
    assert found > 0.99
    assert each.shape == (100,)
    assert 0.3 < realism.two_areas(scores, second, block, *places) < 0.7


def test_pixel_network_learns_what_linear_features_of_levels_show(realism, patches):
    first, second, block, places = patches
    folds = realism.apart_folds(block, *places)
    brighter = np.clip(first.astype(int) + 40, 0, 255).astype(np.uint8)
    assert realism.area_under_curve(realism.pixel_network, brighter, second, folds)[0] > 0.95


def test_two_areas_see_a_difference_of_areas(realism, patches):
    """Blocks whose levels differ are separated where the classifier can learn which is which; here it cannot."""
    _, second, block, places = patches
    shift = np.random.default_rng(1).permutation(10)[block][:, None, None, None]
    shifted = (second + shift).astype(np.uint8)
    assert realism.two_areas(realism.linear(realism.cosine_features), shifted, block, *places) < 0.8


def test_no_training_patch_shares_a_pixel_with_a_test_patch(realism):
    """On a lattice closer than a patch, blocks touch; slides at the same place do not."""
    grid = np.stack(np.meshgrid(np.arange(0, 960, 24.0), np.arange(0, 480, 24.0)), -1).reshape(-1, 2)
    centre, slide = np.concatenate([grid, grid]), np.repeat([0, 1], len(grid))
    block = np.unique(np.column_stack([slide, centre // 120]), axis=0, return_inverse=True)[1].ravel()
    folds = realism.apart_folds(block, centre, slide, 60.0)
    np.testing.assert_array_equal(np.sort(np.concatenate([test for _, test in folds])), np.arange(len(centre)))
    for train, test in folds:
        gap = np.abs(centre[train][:, None] - centre[test][None]).max(-1)
        assert gap[slide[train][:, None] == slide[test][None]].min() >= 60
        assert len(train) > 0.2 * len(centre)
        rest = np.setdiff1d(np.arange(len(centre)), np.concatenate([train, test]))
        assert len(rest) > 0  # touching patches were there
        near = np.abs(centre[rest][:, None] - centre[test][None]).max(-1)
        assert (
            np.where(slide[rest][:, None] == slide[test][None], near, np.inf).min(1) < 60
        ).all()  # and no others went


def test_statistics_of_pixels(realism):
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 3, (4, 50, 50, 1))
    glass = np.clip(240 + noise + np.zeros(3), 0, 255).astype(np.uint8)
    assert realism.roughness(glass) == pytest.approx(3, rel=0.15)
    assert np.isnan(realism.roughness(np.full((2, 50, 50, 3), 100, np.uint8)))
    assert (
        realism.smaller(np.array([[[[0] * 3, [4] * 3], [[8] * 3, [12] * 3]]], np.uint8), 2).ravel().tolist() == [6] * 3
    )
    tissue = rng.normal(120, 10, (4, 64, 64, 3))
    louder = 120 + 2 * (tissue - 120)
    assert realism.fine_power(louder) / realism.fine_power(tissue) == pytest.approx(4, rel=1e-6)
    x = np.arange(64)[None, :, None, None] * np.ones((1, 64, 64, 3))
    wave, ramp = 128 + np.sin(2 * np.pi * 0.3 * x), 3 * x  # a ramp has no fine detail, though its edges do not meet
    assert realism.fine_power(ramp) < 0.01 * realism.fine_power(wave)
