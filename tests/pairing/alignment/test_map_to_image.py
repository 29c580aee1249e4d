"""What a map that was found says about positions that were stated for the same image."""

import numpy as np
import pytest

from pairing.alignment.test_tiles import tiles
from pairing.sections import make_section
from sge2hist.pairing.alignment import map_to_image
from sge2hist.pairing.alignment.automatic import Registration
from sge2hist.pairing.alignment.cross_validation import cross_validate
from sge2hist.pairing.alignment.map_to_image import map_section


@pytest.mark.parametrize(
    ("moved_px", "warned"),
    [
        ((0.0, 1.0), False),  # 2 um: within what a shift is warned of
        ((6.0, 0.0), True),  # 12 um
        ((300.0, 0.0), False),  # another frame: the stated positions were of another image
    ],
)
def test_stated_positions_that_a_registration_moves_a_little_are_warned_of(monkeypatch, moved_px, warned) -> None:
    matrix = np.eye(3)
    matrix[:2, 2] = moved_px
    evidence = cross_validate(tiles(40, n_wrong=0), 1.0)
    found = Registration(matrix=matrix, evidence=evidence, score=9.0, runner_up=1.0)
    monkeypatch.setattr(map_to_image, "register", lambda *_, **__: found)
    section = make_section(width_px=300, height_px=200)  # 2 um/px
    moved, applied = map_section(section, "auto")
    np.testing.assert_allclose(moved.centre_xy_px, section.centre_xy_px + moved_px)
    length_um = 2 * float(np.hypot(*moved_px))
    assert applied.moved_um == pytest.approx((length_um, length_um))
    assert applied.summary()["moved_um"] == {"median": pytest.approx(length_um), "most": pytest.approx(length_um)}
    assert len(applied.warnings()) == warned
    if warned:
        assert "by 12 um (median; at most 12 um)" in applied.warnings()[0]


def test_a_map_found_on_pixels_that_show_no_nuclei_is_warned_of(monkeypatch) -> None:
    """Spots or a thumbnail: what is seen of a section is seen of the next one too."""
    coarse = cross_validate(tiles(40, n_wrong=0, step=15.0), 1.0, finest_um=12.0)
    assert coarse.convincing
    found = Registration(matrix=np.eye(3), evidence=coarse, score=9.0, runner_up=1.0)
    monkeypatch.setattr(map_to_image, "register", lambda *_, **__: found)
    _, applied = map_section(make_section(width_px=300, height_px=200), "auto")
    (warning,) = applied.warnings()
    assert "on pixels of 15 um" in warning
    assert "serial section" in warning
