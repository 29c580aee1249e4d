import dataclasses

import numpy as np
import pytest

from pairing.sections import make_section
from sge2hist.data.errors import InputError
from sge2hist.data.section import ImageReference
from sge2hist.data.slides.slide_image import SlideImage
from sge2hist.pairing.alignment.image_checks import check_image

PREVIEWS = {"tissue_hires_image.png": (125, 100)}
REFERENCE = ImageReference(size_px=(500.0, 400.0), source="tissue_hires_image.png", preview_sizes_px=PREVIEWS)


def blank(width: int, height: int) -> SlideImage:
    return SlideImage.from_array(np.full((height, width, 3), 200, np.uint8), None, "given.tif")


def test_the_right_image_passes_unchanged() -> None:
    section = make_section(um_per_px=0.5, bin_um=4.0, reference=REFERENCE)
    checked, warnings = check_image(section)
    assert checked is section
    assert warnings == []


def test_rounding_of_a_preview_is_tolerated() -> None:
    reference = dataclasses.replace(REFERENCE, size_px=(503.0, 398.0))
    section = make_section(um_per_px=0.5, bin_um=4.0, reference=reference)
    assert check_image(section)[0] is section


def test_uniform_factor_rescales_positions_and_warns() -> None:
    section = make_section(um_per_px=0.5, bin_um=4.0, reference=REFERENCE, image=blank(250, 200))
    checked, warnings = check_image(section)
    np.testing.assert_allclose(checked.centre_xy_px, section.centre_xy_px / 2)
    assert checked.um_per_px == pytest.approx(1.0)
    assert checked.um_per_px_sources == {"made, scaled": pytest.approx(1.0)}
    assert "0.5 times" in warnings[0]
    again, more = check_image(checked)
    assert again is checked
    assert more == []


def test_preview_is_named_and_refused_when_too_coarse() -> None:
    section = make_section(um_per_px=0.5, bin_um=4.0, reference=REFERENCE, image=blank(125, 100))
    assert "tissue_hires_image.png" in check_image(section)[1][0]
    section = make_section(um_per_px=1.0, bin_um=4.0, reference=REFERENCE, image=blank(125, 100))
    with pytest.raises(InputError, match=r"preview tissue_hires_image\.png"):
        check_image(section)


@pytest.mark.parametrize(
    ("image", "message"),
    [(blank(400, 500), "transposed"), (blank(500, 200), "another shape"), (blank(200, 250), "transposed")],
)
def test_rotated_and_other_images_are_refused(image, message) -> None:
    with pytest.raises(InputError, match=message):
        check_image(make_section(um_per_px=0.5, bin_um=4.0, reference=REFERENCE, image=image))


def test_cytassist_image_given_and_cytassist_run() -> None:
    reference = dataclasses.replace(REFERENCE, cytassist_size_px=(300, 310))
    with pytest.raises(InputError, match="the CytAssist image"):
        check_image(make_section(um_per_px=0.5, reference=reference, image=blank(300, 310)))
    reference = dataclasses.replace(REFERENCE, cytassist_size_px=(500, 400))
    with pytest.raises(InputError, match="without a microscope image"):
        check_image(make_section(um_per_px=0.5, reference=reference))


@pytest.mark.parametrize(("um_per_px", "outcome"), [(0.5, ""), (2.0, "coarse"), (4.5, "CytAssist")])
def test_scale_alone(um_per_px, outcome) -> None:
    section = make_section(um_per_px=um_per_px, bin_um=4 * um_per_px)
    if outcome == "CytAssist":
        with pytest.raises(InputError, match=outcome):
            check_image(section)
    else:
        assert [outcome in w for w in check_image(section)[1]] == ([True] if outcome else [])


def test_disagreeing_sources_of_scale_are_reported() -> None:
    section = dataclasses.replace(make_section(um_per_px=0.5), um_per_px_sources={"made": 0.5, "image metadata": 0.25})
    assert any("'image metadata' states 0.25" in warning for warning in check_image(section)[1])


def test_positions_outside_the_image() -> None:
    section = make_section(um_per_px=0.5, width_px=600, height_px=150)
    moved = dataclasses.replace(section, centre_xy_px=section.centre_xy_px + np.array([3.0, 0.0]))
    assert check_image(moved)[1] == []  # half a bin: none leaves
    partly = dataclasses.replace(section, centre_xy_px=section.centre_xy_px + np.array([60.0, 0.0]))
    assert "outside the image" in check_image(partly)[1][0]
    with pytest.raises(InputError, match="swapped"):
        check_image(dataclasses.replace(section, centre_xy_px=section.centre_xy_px[:, ::-1] * [0.99, 1]))
    with pytest.raises(InputError, match="smaller than the positions need"):
        check_image(dataclasses.replace(section, centre_xy_px=section.centre_xy_px * 4))
