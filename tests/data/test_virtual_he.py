"""Virtual H&E against the equation computed pixel by pixel, and against the formula of the trial that chose the weights."""

import math

import numpy as np
import pytest

from sge2hist.data.errors import InputError
from sge2hist.data.he_stain import stain_amounts
from sge2hist.data.slides.channels import RGB
from sge2hist.data.slides.stain_scale import StainScale
from sge2hist.data.virtual_he import choose_stains, mark_of, render, tables_of_scales

XENIUM = ("DAPI", "ATP1A1/CD45/E-Cadherin", "18S", "AlphaSMA/Vimentin")
HIGH = (93.0, 167.0, 186.0, 212.0)  # 99.95th percentiles near the cells of the section of the trial


def scales(high=HIGH, channels=XENIUM) -> dict[str, StainScale]:
    return {name: StainScale(low=0.0, high=value) for name, value in zip(channels, high, strict=True)}


def test_colours_are_those_of_the_equation() -> None:
    stains, unused = choose_stains(XENIUM)
    assert unused == []
    values = np.random.default_rng(0).integers(0, 256, (40, 4)).astype(np.uint8)
    values[:3] = [[0, 0, 0, 0], [93, 167, 186, 212], [255, 255, 255, 255]]
    found = render(values, tables_of_scales(stains, scales(), 256))
    for pixel, colour in zip(values.tolist(), found.tolist(), strict=True):
        share = [min(v / high, 1.0) for v, high in zip(pixel, HIGH, strict=True)]
        h, e = 2.0 * share[0], 0.55 * (0.4 * share[1] + 0.6 * share[2] + 0.4 * share[3])
        expected = [
            255 * math.exp(-(h * a + e * b)) for a, b in zip((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), strict=True)
        ]
        assert np.abs(np.array(colour) - expected).max() <= 0.51
    assert found[0].tolist() == [255, 255, 255]
    assert found[1].tolist() == found[2].tolist()  # light above the maximum is cut


def test_it_is_the_picture_of_the_trial() -> None:
    """h = DAPI / 60, e = .6 18S / 195 + .35 boundary / 150 + .3 protein / 150; OD 1.3 (.65, .70, .29) and .55 (.07, .99, .11)."""
    values = np.stack(np.meshgrid([0, 20, 50, 90], [0, 40, 150], [0, 60, 180], [0, 50, 200]), -1).reshape(-1, 4)
    h = values[:, 0] / 60
    e = 0.6 * values[:, 2] / 195 + 0.35 * values[:, 1] / 150 + 0.3 * values[:, 3] / 150
    density = np.outer(h, 1.3 * np.array([0.65, 0.70, 0.29])) + np.outer(e, 0.55 * np.array([0.07, 0.99, 0.11]))
    found = render(values.astype(np.uint8), tables_of_scales(choose_stains(XENIUM)[0], scales(), 256))
    assert np.abs(found - 255 * np.exp(-density)).max() < 4


def test_levels_of_a_square_root_give_the_colours_of_the_light() -> None:
    """What a model of stains generates is rendered as the section itself is."""
    stains, _ = choose_stains(XENIUM)
    values = np.random.default_rng(1).integers(0, 256, (30, 20, 4)).astype(np.uint8)
    levels = np.stack(
        [StainScale(low=0, high=high, transform="sqrt").levels(values[..., c]) for c, high in enumerate(HIGH)], -1
    )
    direct = render(values, tables_of_scales(stains, scales(), 256)).astype(int)
    assert np.abs(stains.render_levels(levels, XENIUM, "sqrt") - direct).max() <= 2
    assert np.abs(stains.render_levels(levels, XENIUM, "linear") - direct).mean() > 5


@pytest.mark.parametrize(
    ("channels", "haematoxylin", "eosin"),
    [
        (("DAPI",), {"DAPI": 1.0}, {}),
        (("18S", "dapi"), {"dapi": 1.0}, {"18S": 1.4}),
        (("DAPI", "Boundary", "Interior RNA", "Interior protein"), {"DAPI": 1.0}, None),
        (("Hoechst 33342", "CD8", "E-Cadherin"), {"Hoechst 33342": 1.0}, {"E-Cadherin": 1.4}),
        (("DAPI", "X", "Y"), {"DAPI": 1.0}, {"X": 0.7, "Y": 0.7}),
    ],
)
def test_roles_by_name(channels, haematoxylin, eosin) -> None:
    stains, unused = choose_stains(channels)
    assert stains.haematoxylin == haematoxylin
    if eosin is None:
        eosin = {"Boundary": 0.4, "Interior RNA": 0.6, "Interior protein": 0.4}
    assert stains.eosin == pytest.approx(eosin)
    assert set(unused) == set(channels) - {*haematoxylin, *eosin}


def test_a_nuclear_stain_alone_is_haematoxylin_on_white() -> None:
    stains, _ = choose_stains(("DAPI",))
    image = stains.render_levels(np.array([[[[0], [128], [255]]]], np.uint8), ("DAPI",))
    haematoxylin, eosin = stain_amounts(image[0])
    assert haematoxylin[0].tolist() == pytest.approx(
        [0, 1.0 * np.linalg.norm([0.65, 0.70, 0.29]), 2.0 * np.linalg.norm([0.65, 0.70, 0.29])], abs=0.04
    )
    assert np.abs(eosin).max() < 0.04


def test_roles_of_the_user_replace_those_by_name() -> None:
    stains, unused = choose_stains(XENIUM, "dapi=haematoxylin:1.5, 18S=eosin:0.8")
    assert (stains.haematoxylin, stains.eosin) == ({"DAPI": 1.5}, {"18S": 0.8})
    assert unused == ["ATP1A1/CD45/E-Cadherin", "AlphaSMA/Vimentin"]


@pytest.mark.parametrize(
    ("channels", "roles", "message"),
    [
        (("Boundary", "18S"), None, r'none named after a nuclear stain.*--stain-roles "Boundary=haematoxylin"'),
        (XENIUM, "18S=eosin", "without haematoxylin"),
        (XENIUM, "DAPI=blue", r"DAPI=blue.*CHANNEL=haematoxylin"),
        (XENIUM, "PanCK=eosin", "with a channel of DAPI, ATP1A1"),
        (XENIUM, "DAPI=haematoxylin:-1", "WEIGHT"),
        (XENIUM, "DAPI=haematoxylin:x", "WEIGHT"),
        (RGB, None, "an RGB image"),
    ],
)
def test_what_cannot_be_shown_is_refused(channels, roles, message) -> None:
    with pytest.raises(InputError, match=message):
        choose_stains(channels, roles)


def test_only_marked_manifests_are_virtual() -> None:
    assert mark_of({"virtual_he": {"eosin": {}}}) == mark_of({"virtual_he": True}) != ""
    assert mark_of({}) == ""
