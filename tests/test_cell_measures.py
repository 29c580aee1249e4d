"""Measures of single cells in patches, on painted nuclei that are known exactly."""

from pathlib import Path

import numpy as np
import pytest

UM, SIDE, RADIUS_UM = 0.425, 128, 3.0


@pytest.fixture
def measures(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    import cell_measures

    return cell_measures


@pytest.fixture
def painted(measures):
    """Three patches of discs on a lattice with jitter, each with its own level; the cells that they belong to."""
    rng = np.random.default_rng(0)
    images, patches, places = np.full((3, SIDE, SIDE, 2), 20, np.uint8), [], []
    levels = []
    y, x = np.mgrid[:SIDE, :SIDE]
    for patch in range(3):
        for cy in range(24, SIDE - 16, 24):
            for cx in range(24, SIDE - 16, 24):
                place = np.array([cx, cy]) + rng.uniform(-3, 3, 2)
                inside = np.hypot(x - place[0], y - place[1]) <= RADIUS_UM / UM
                levels.append(rng.integers(120, 250))
                images[patch, inside, 0] = levels[-1]
                patches.append(patch)
                places.append(place)
    cells = measures.PatchCells(
        patch_N=np.array(patches), xy_px_N2=np.array(places), row_N=np.arange(len(places)), outline_px_NV2=None
    )
    return images, cells, np.array(levels, float)


def test_every_painted_nucleus_is_found_once_with_its_shape(measures, painted):
    images, cells, levels = painted
    finder = measures.NucleusFinder.fit(images, UM)
    found = measures.nuclei_of_cells(images, cells, finder, 0.0)
    assert found.f1 == 1.0
    np.testing.assert_array_equal(found.n_found_B, np.bincount(cells.patch_N))
    area, eccentricity, intensity, _ = found.shape_N4.T
    assert area.mean() == pytest.approx(np.pi * RADIUS_UM**2, rel=0.25)
    assert eccentricity.max() < 0.5
    assert np.corrcoef(intensity, levels)[0, 1] > 0.9


def test_nuclei_elsewhere_are_no_nuclei_of_the_cells(measures, painted):
    images, cells, _ = painted
    finder = measures.NucleusFinder.fit(images, UM)
    moved = np.roll(images, round(3 * measures.MATCH_UM / UM / 2), axis=(1, 2))
    assert measures.nuclei_of_cells(moved, cells, finder, 0.0).f1 < 0.6
    assert measures.nuclei_of_cells(np.full_like(images, 20), cells, finder, 0.0).f1 == 0


def test_mean_of_a_stain_is_that_of_the_pixels_inside_the_outline(measures):
    images = np.random.default_rng(0).integers(0, 255, (1, 64, 64, 2), np.uint8)
    square = np.array([[10, 20], [29, 20], [29, 39], [10, 39]], float)  # x, y
    cells = measures.PatchCells(
        patch_N=np.zeros(1, int),
        xy_px_N2=np.array([[20.0, 30.0]]),
        row_N=np.zeros(1, int),
        outline_px_NV2=square[None],
    )
    expected = images[0, 20:40, 10:30].reshape(-1, 2).mean(0)
    np.testing.assert_allclose(measures.stain_means(images, cells, UM)[0], expected)


def test_match_is_one_to_one_and_near(measures):
    first = np.array([[0.0, 0], [10, 0], [50, 50]])
    second = np.array([[1.0, 0], [2, 0], [11, 0]])
    one, other = measures.match(first, second, limit=3.0)
    assert dict(zip(one.tolist(), other.tolist(), strict=True)) == {0: 0, 1: 2}


def test_features_tell_what_is_at_the_cell(measures, painted):
    """The blurred stain at the centre follows the level of the painted nucleus, and nothing else of the patch does."""
    images, cells, levels = painted
    features = measures.cell_features(images, cells, max_sigma=3.0)
    assert features.shape == (len(levels), 2 * 3 * 5)
    assert np.corrcoef(features[:, 0], levels)[0, 1] > 0.99
    shuffled = np.random.default_rng(1).permutation(levels)
    assert abs(np.corrcoef(features[:, 0], shuffled)[0, 1]) < 0.3


def test_patches_do_not_overlap(measures):
    xy = np.random.default_rng(0).uniform(0, 300, (500, 2))
    chosen = measures.spread_patches(xy, np.arange(500), 20, 50.0, np.random.default_rng(1))
    gap = np.abs(xy[chosen][:, None] - xy[chosen][None]).max(2)
    assert 5 < len(chosen) <= 20
    assert gap[~np.eye(len(chosen), dtype=bool)].min() >= 50
