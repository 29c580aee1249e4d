import numpy as np
import pytest

from sge2hist.toy.patch_traits import TRAIT_NAMES, PatchTraits, measure_patches, true_patches, unmix
from sge2hist.toy.recovery import correlation, derangement, means_by_type, recover, recover_requested
from sge2hist.toy.render import StainMaps, stain_to_rgb

SIDE_PX = 64
TRAITS_OF_CELLS = ("nucleus_area_um2", "nucleus_haematoxylin", "cytoplasm_eosin")


@pytest.fixture(scope="module")
def patches(tiny_tissue):
    """Rendered patches at 16 um bins with their centres and types."""
    centre, types = tiny_tissue.bin_centre_xy_px(16), tiny_tissue.bin_types(16)
    inside = (centre > SIDE_PX / 2).all(axis=1) & (centre < tiny_tissue.config.side_px - SIDE_PX / 2).all(axis=1)
    chosen = np.flatnonzero(inside & (types >= 0))
    corner = np.rint(centre[chosen] - SIDE_PX / 2).astype(int)
    images = np.stack([tiny_tissue.image[y : y + SIDE_PX, x : x + SIDE_PX] for x, y in corner])
    return images, centre[chosen], types[chosen]


def _traits(tissue):
    return {name: getattr(tissue.cells, name) for name in TRAITS_OF_CELLS}


def test_unmixing_inverts_the_stain_model():
    rng = np.random.default_rng(0)
    amounts = [np.full((48, 48), value, np.float32) for value in (0.5, 0.2)]
    haematoxylin, eosin = unmix(stain_to_rgb(StainMaps(haematoxylin=amounts[0], eosin=amounts[1]), 1.0, rng))
    assert abs(haematoxylin.mean() - 0.5) < 0.005
    assert abs(eosin.mean() - 0.2) < 0.005


def test_truth_of_patches_agrees_with_a_slow_count(tiny_tissue, patches):
    _, centre, _ = patches
    cells = tiny_tissue.cells
    traits = true_patches(cells.xy_um, _traits(tiny_tissue), centre, 64.0)
    for i in range(0, len(centre), 101):
        near = (np.abs(cells.xy_um - centre[i]) <= 32.0).all(axis=1)
        assert np.isclose(traits.nuclei_per_mm2[i], near.sum() / 0.064**2)
        if near.any():
            assert np.isclose(traits.nucleus_area_um2[i], cells.nucleus_area_um2[near].mean())
            assert np.isclose(traits.eosin[i], cells.cytoplasm_eosin[near].mean())


def test_a_lone_disc_is_measured_as_it_is():
    y, x = np.mgrid[:64, :64] + 0.5
    disc = (np.hypot(x - 32, y - 32) < 6.0).astype(np.float32)
    stains = StainMaps(haematoxylin=0.8 * disc, eosin=np.full_like(disc, 0.3))
    image = stain_to_rgb(stains, 0.5, np.random.default_rng(0))
    traits = measure_patches(np.stack([image, np.full_like(image, 243)]), 0.5)
    np.testing.assert_allclose(traits.nuclei_per_mm2, [1.0 / 0.032**2, 0.0])
    assert abs(traits.nucleus_area_um2[0] / (np.pi * 3.0**2) - 1.0) < 0.12
    assert np.isnan(traits.nucleus_area_um2[1])
    assert abs(traits.eosin[0] - 0.3) < 0.03


def test_perfect_images_recover_the_truth_and_shuffled_ones_do_not(tiny_tissue, patches):
    images, centre, types = patches
    half = np.random.default_rng(0).uniform(size=len(images)) < 0.5
    truth = true_patches(tiny_tissue.cells.xy_um, _traits(tiny_tissue), centre[half], 64.0)
    recovery = recover(
        generated=images[half],
        real=images[half],
        truth=truth,
        type_N=types[half],
        training_images=images[~half],
        training_types=types[~half],
        um_per_px=1.0,
    )
    assert recovery.types.accuracy == recovery.types.accuracy_real > 0.7
    assert recovery.types.accuracy_shuffled < 0.35
    assert [trait.trait for trait in recovery.traits] == list(TRAIT_NAMES)
    for trait in recovery.traits:
        assert trait.over_cells == trait.over_cells_real > 0.5
        assert trait.over_types > 0.5
        assert abs(trait.over_cells_shuffled) < 0.2
        assert trait.n_types == 6
    assert recovery.as_dict()["toy"] is True
    assert len(recovery.lines()) == 2 + 2 * len(TRAIT_NAMES)


def test_images_requested_by_type(tiny_tissue, patches):
    images, centre, types = patches
    half = np.random.default_rng(0).uniform(size=len(images)) < 0.5
    training = {
        "training_images": images[~half],
        "training_types": types[~half],
        "training_truth": true_patches(tiny_tissue.cells.xy_um, _traits(tiny_tissue), centre[~half], 64.0),
        "um_per_px": 1.0,
    }
    right = recover_requested(generated=images[half], requested_type_N=types[half], **training)
    assert right.accuracy > 0.7
    assert min(right.over_types.values()) > 0.5
    wrong = recover_requested(generated=images[half], requested_type_N=(types[half] + 1) % 6, **training)
    assert wrong.accuracy < 0.3
    assert right.as_dict()["toy"] is True


def test_empty_patches_give_unknown_rather_than_errors():
    images = np.full((4, 16, 16, 3), 243, np.uint8)
    traits = measure_patches(images, 1.0)
    assert (traits.nuclei_per_mm2 == 0).all()
    assert np.isnan(traits.eosin).all()
    one_cell = {name: np.ones(1) for name in TRAITS_OF_CELLS}
    none = true_patches(np.zeros((1, 2)), one_cell, np.full((3, 2), 99.0), 10.0)
    assert isinstance(none, PatchTraits)
    assert np.isnan(none.eosin).all()
    assert np.isnan(correlation(traits.eosin, traits.eosin))


def test_small_helpers():
    for n in (2, 3, 17):
        order = derangement(n, np.random.default_rng(n))
        assert sorted(order) == list(range(n))
        assert (order != np.arange(n)).all()
    values, types = np.array([1.0, 3.0, np.nan, 5.0, 9.0]), np.array([0, 0, 0, 2, -1])
    np.testing.assert_array_equal(means_by_type(values, types, 3), [2.0, np.nan, 5.0])
