import dataclasses
import re

import numpy as np
import pytest

from pairing.sections import make_section
from sge2hist.data.errors import InputError
from sge2hist.pairing.alignment import registration
from sge2hist.pairing.alignment.registration import estimate_shift
from sge2hist.pairing.alignment.tissue import map_tissue
from sge2hist.pairing.alignment.verdict import check_shift, shifted, verdict, version_warnings


def measure(section) -> registration.Shift:
    counts = np.asarray(section.read_counts(None, None).sum(axis=1)).ravel()
    shift = estimate_shift(map_tissue(section, 4.0), section.centre_xy_px, counts)
    assert shift is not None
    return shift


@pytest.mark.parametrize("known_um", [(0.0, 0.0), (13.0, -6.0), (-70.0, 40.0)])
def test_a_known_shift_is_found(known_um) -> None:
    shift = measure(make_section(shift_um=known_um, width_px=700, height_px=600))
    assert shift.x_um == pytest.approx(known_um[0], abs=3)
    assert shift.y_um == pytest.approx(known_um[1], abs=3)
    assert shift.confidence == "high"


def test_shuffled_counts_give_no_confidence() -> None:
    section = make_section(width_px=700, height_px=600)
    counts = np.random.default_rng(0).permutation(np.asarray(section.read_counts(None, None).sum(axis=1)).ravel())
    shift = estimate_shift(map_tissue(section, 4.0), section.centre_xy_px, counts)
    assert shift.confidence == "low"
    assert "could not be measured" in check_shift(shift, section, (0.0, 0.0))[0]


def test_surface_agrees_with_a_slow_correlation() -> None:
    """Pearson correlation of values with the map at shifted points, by direct summing."""
    rng = np.random.default_rng(0)
    feature = rng.normal(size=(40, 50)).astype(np.float32)
    number = (rng.uniform(size=(40, 50)) < 0.3).astype(np.float32)
    number[:6] = number[-6:] = 0
    number[:, :6] = number[:, -6:] = 0
    value = (rng.normal(size=(40, 50)) * number).astype(np.float32)
    surface = registration._correlation_surface(value, number, feature, 5)
    row, column = np.nonzero(number)
    for dy, dx in ((0, 0), (-5, 3), (2, 5)):
        expected = np.corrcoef(value[row, column], feature[row + dy, column + dx])[0, 1]
        assert surface[5 + dy, 5 + dx] == pytest.approx(expected, abs=1e-4)


def test_small_shifts_warn_and_large_ones_are_refused() -> None:
    section = make_section(width_px=700, height_px=600)
    good = measure(section)
    assert check_shift(good, section, (0.0, 0.0)) == []
    near = dataclasses.replace(good, x_um=9.0, y_um=0.0)
    assert "--shift-um 12,0" in check_shift(near, section, (3.0, 0.0))[0]
    assert "--shift-um one=12,0" in check_shift(near, section, (3.0, 0.0), one_of_several=True)[0]
    gross = dataclasses.replace(good, x_um=80.0, y_um=0.0)
    with pytest.raises(InputError, match="--shift-um 80,0"):
        check_shift(gross, section, (0.0, 0.0))
    unsure = dataclasses.replace(gross, confidence="moderate")
    assert "confidence moderate" in check_shift(unsure, section, (0.0, 0.0))[0]
    assert "too few" in check_shift(None, section, (0.0, 0.0))[0]


def test_correction_moves_by_um() -> None:
    section = make_section(um_per_px=2.0)
    moved = shifted(section, (4.0, -2.0))
    np.testing.assert_allclose(moved.centre_xy_px - section.centre_xy_px, [[2.0, -1.0]] * section.n_obs)
    assert shifted(section, (0.0, 0.0)) is section


def test_few_observations_are_not_measured() -> None:
    section = make_section(width_px=60, height_px=50)
    assert estimate_shift(map_tissue(section, 4.0), section.centre_xy_px, np.ones(section.n_obs)) is None


def test_a_shift_with_a_small_overlap_is_not_reported() -> None:
    section = make_section(width_px=130, height_px=100, bin_um=8.0)
    shift = measure(section)
    overlap = (1 - abs(shift.x_um) / 260) * (1 - abs(shift.y_um) / 200)
    assert overlap > 0.45
    assert np.isnan(shift.surface[0, 0])
    assert np.hypot(shift.x_um, shift.y_um) < 10


def test_a_slide_smaller_than_the_peak_gives_no_confidence() -> None:
    rng = np.random.default_rng(0)
    section = make_section(width_px=30, height_px=25, um_per_px=2.0, bin_um=2.0)
    shift = estimate_shift(map_tissue(section, 4.0), section.centre_xy_px, rng.integers(1, 9, section.n_obs))
    assert shift.confidence == "low"


@pytest.mark.parametrize("known_um", [(0.0, 0.0), (2.0, 1.0), (-1.0, 2.5)])
def test_the_verdict_names_a_distance_that_holds_the_known_shift(known_um) -> None:
    words = verdict(measure(make_section(shift_um=known_um, width_px=700, height_px=600)))
    found = re.fullmatch(r"image and counts fit within (\d+) um", words)
    assert found is not None, words
    assert np.hypot(*known_um) <= int(found[1]) <= np.hypot(*known_um) + 4


def test_the_verdict_says_that_image_and_counts_do_not_fit_or_that_it_cannot_say() -> None:
    shift = measure(make_section(shift_um=(13.0, -6.0), width_px=700, height_px=600))
    assert re.fullmatch(r"image and counts do not fit: shifted by 1[345] um", verdict(shift))
    moderate = dataclasses.replace(shift, confidence="moderate", x_um=1.0, y_um=0.0)
    assert verdict(moderate) == "image and counts probably fit within 3 um"
    assert verdict(dataclasses.replace(shift, confidence="low")).startswith("cannot say")
    assert verdict(None).startswith("not measured: too few observations")


@pytest.mark.parametrize(
    ("technology", "software", "warned"),
    [
        ("Visium HD", "spaceranger-3.0.1", True),
        ("Visium HD", "spaceranger-3.1.1", True),
        ("Visium HD", "spaceranger-3.1.2", False),
        ("Visium HD", "spaceranger-4.0.1", False),
        ("Visium HD", "", False),
        ("Visium HD", "sge2hist toy tissue 0.1.0", False),
        ("Visium", "spaceranger-2.1.0", False),
        ("Xenium", "xenium-3.0.0.15", False),
    ],
)
def test_space_ranger_before_the_fix_of_its_shift_is_warned_of(technology: str, software: str, warned: bool) -> None:
    section = dataclasses.replace(make_section(shift_um=(16.0, 0.0)), technology=technology, software=software)
    warnings = version_warnings(section, None)
    assert len(warnings) == warned
    if warned:
        assert software in warnings[0]
        assert "16 um off" in warnings[0]
        assert "Here: not measured" in warnings[0]
