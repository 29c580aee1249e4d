"""Rasters of nuclei, the fit to tiles, and the evidence: against direct sums and known maps."""

from itertools import pairwise

import numpy as np
import pytest

from sge2hist.pairing.alignment.block_matching import TileShifts, apply_map, fit_correction
from sge2hist.pairing.alignment.cross_validation import cross_validate
from sge2hist.pairing.alignment.global_search import scales_between
from sge2hist.pairing.alignment.nuclear_map import NuclearMap, PointNuclei

AFFINE = np.array([[1.01, 0.02, 3.0], [-0.015, 0.99, -2.0], [0, 0, 1]])


def tiles(n: int, *, n_wrong: int, noise: float = 0.0, seed: int = 0, step: float = 2.0) -> TileShifts:
    rng = np.random.default_rng(seed)
    centre = rng.uniform(0, 1000, (n, 2))
    shift = apply_map(AFFINE, centre) - centre + rng.normal(0, noise, (n, 2))
    shift[:n_wrong] = rng.uniform(-24, 24, (n_wrong, 2))
    return TileShifts(centre_T2=centre, shift_T2=shift, peak_T=np.ones(n), step=step)


def test_the_fit_ignores_wrong_tiles() -> None:
    fitted = fit_correction(tiles(40, n_wrong=14))
    assert fitted is not None
    corner = np.array([[0, 0], [1000, 0], [0, 1000], [1000, 1000.0]])
    np.testing.assert_allclose(apply_map(fitted, corner), apply_map(AFFINE, corner), atol=1.5)


def test_tiles_without_a_common_map_have_no_fit() -> None:
    assert fit_correction(tiles(40, n_wrong=40)) is None
    assert fit_correction(tiles(2, n_wrong=0)) is None


def test_cross_validation_measures_the_noise_of_a_tile() -> None:
    evidence = cross_validate(tiles(60, n_wrong=0, noise=0.5), um_per_unit=1.0)
    assert evidence.n_agreeing == 60
    # median length of a 2D normal vector: sigma sqrt(2 ln 2); a fit to 48 tiles adds some of its own
    assert evidence.residual_um == pytest.approx(0.5 * np.sqrt(2 * np.log(2)), rel=0.2)
    assert 0.05 < evidence.uncertainty_um < 0.5
    assert evidence.convincing
    assert cross_validate(tiles(60, n_wrong=0, noise=0.5), um_per_unit=0.2).residual_um == pytest.approx(
        evidence.residual_um * 0.2
    )


def test_chance_is_no_evidence() -> None:
    assert "0 of 40 pieces of tissue agree" in (cross_validate(tiles(40, n_wrong=40), 1.0).objection() or "")
    assert "6 are needed" in (cross_validate(tiles(5, n_wrong=0), 1.0).objection() or "")
    assert not cross_validate(tiles(40, n_wrong=30), 1.0).convincing


def test_agreement_on_coarse_pixels_is_no_evidence_where_finer_ones_exist() -> None:
    """A serial section, or cells displaced at random, have the same groups of nuclei and other nuclei."""
    coarse = tiles(40, n_wrong=0, noise=2.0, step=15.0)
    assert "only coarse structures agree (on pixels of 15 um)" in (cross_validate(coarse, 1.0).objection() or "")
    assert cross_validate(coarse, 1.0, finest_um=12.0).convincing  # spots, whose positions show no more


def test_a_raster_of_cells_is_a_sum_of_gaussians() -> None:
    rng = np.random.default_rng(0)
    xy = rng.uniform(0, 60, (30, 2))
    weight = rng.uniform(1, 3, 30)
    window = PointNuclei(xy, 1.0, sigma_um=4.0, weight_N=weight).window(10.0, 5.0, 40, 30, 1.0)
    distance2 = ((window.centres_xy()[:, :, None, :] - xy) ** 2).sum(axis=-1)
    exact = (weight * np.exp(-distance2 / 32) / (2 * np.pi * 16)).sum(axis=-1)
    np.testing.assert_allclose(window.values_HW, exact, atol=0.02 * exact.max())


def test_what_lies_far_from_all_cells_is_unknown() -> None:
    xy = np.random.default_rng(0).uniform([0, 0], [300, 200], (500, 2))
    window = PointNuclei(xy, 1.0, sigma_um=3.0).window(-200.0, -200.0, 70, 60, 10.0)
    assert window.known_HW[25, 25]  # (55, 55): among the cells
    assert not window.known_HW[5, 5]  # (-145, -145)
    assert window.values_HW[5, 5] == 0


def test_a_coarser_map_averages_what_is_known() -> None:
    values = np.arange(24, dtype=np.float32).reshape(4, 6)
    known = np.ones((4, 6), bool)
    known[0, 0] = False
    coarse = NuclearMap(values_HW=values, known_HW=known, origin_xy=np.zeros(2), step=1.0).coarser(2.0)
    assert coarse.step == 2.0
    assert coarse.values_HW[0, 0] == pytest.approx((1 + 6 + 7) / 3)
    assert coarse.values_HW[1, 2] == pytest.approx((16 + 17 + 22 + 23) / 4)


def test_scales_cover_their_range() -> None:
    scales = sorted(scales_between(0.1, 10))
    assert 1.0 in scales
    assert scales[0] < 0.115
    assert scales[-1] > 8.9
    assert max(b / a for a, b in pairwise(scales)) < 1.13
