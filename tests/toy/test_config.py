import numpy as np
import pytest
from skimage.transform import EuclideanTransform

from sge2hist.data.errors import InputError
from sge2hist.toy.config import ArrayFrame, ToyTissueConfig


def test_all_fields_out_of_range_are_reported_at_once():
    with pytest.raises(InputError) as error:
        ToyTissueConfig(side_um=10.0, dispersion=float("nan"), n_markers=0)
    for name in ("side_um", "dispersion", "n_markers"):
        assert name in str(error.value)


def test_tiny_has_forty_genes():
    assert ToyTissueConfig.tiny().n_genes == 40
    assert ToyTissueConfig().n_genes == 250


@pytest.mark.parametrize("rotation_deg", [-40.0, -3.0, 0.0, 3.0, 45.0])
def test_round_trip_and_agreement_with_skimage(rotation_deg):
    frame = ArrayFrame.from_config(ToyTissueConfig(rotation_deg=rotation_deg))
    array_xy_um = np.random.default_rng(0).uniform(0.0, frame.side_um, (50, 2))
    image_xy_um = frame.to_image(array_xy_um)
    np.testing.assert_allclose(frame.to_array(image_xy_um), array_xy_um, atol=1e-9)
    reference = EuclideanTransform(rotation=np.radians(rotation_deg))
    centred = reference(array_xy_um - frame.side_um / 2.0)
    np.testing.assert_allclose(image_xy_um, centred + 1500.0, atol=1e-9)


@pytest.mark.parametrize("rotation_deg", [-40.0, 3.0])
def test_the_array_is_whole_bins_and_stays_inside_the_image(rotation_deg):
    frame = ArrayFrame.from_config(ToyTissueConfig(rotation_deg=rotation_deg))
    assert frame.side_um % 16 == 0
    side = frame.side_um
    corners = frame.to_image(np.array([[0.0, 0.0], [side, 0.0], [0.0, side], [side, side]]))
    assert corners.min() >= -1e-9
    assert corners.max() <= 3000.0 + 1e-9
