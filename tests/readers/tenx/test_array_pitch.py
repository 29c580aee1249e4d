"""The scale from a printed array, against maps known in closed form."""

import numpy as np
import pytest

from sge2hist.data.errors import InputError
from sge2hist.readers.tenx.visium import fit_array

GRID_UM = np.stack(np.meshgrid(np.arange(5) * 100.0, np.arange(4) * 100.0), axis=-1).reshape(-1, 2)


@pytest.mark.parametrize("turn_degrees", [0.0, 90.0, 180.0, 33.0])
@pytest.mark.parametrize("mirror", [1.0, -1.0])
def test_the_scale_survives_turn_and_mirror(turn_degrees: float, mirror: float) -> None:
    angle = np.radians(turn_degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre_xy_px = GRID_UM @ (turn @ np.diag([1.0, mirror])).T / 0.7 + 1000
    fit = fit_array(GRID_UM, centre_xy_px, pitch_um=100, where="here")
    assert fit.um_per_px == pytest.approx(0.7)
    assert fit.rms_um == pytest.approx(0, abs=1e-6)
    assert fit.mirrored == (mirror < 0)
    assert fit.turn_degrees % 360 == pytest.approx(turn_degrees)


def test_spots_on_a_line_cannot_give_a_scale() -> None:
    line = GRID_UM[:5]
    with pytest.raises(InputError, match=r"on one line.*--image-um-per-px"):
        fit_array(line, line * 2, pitch_um=100, where="here")


def test_unrelated_positions_are_refused() -> None:
    centre_xy_px = np.random.default_rng(0).uniform(0, 1000, GRID_UM.shape)
    with pytest.raises(InputError, match="away from their array"):
        fit_array(GRID_UM, centre_xy_px, pitch_um=100, where="here")
