import numpy as np
import pytest
from skimage.measure import regionprops_table

from sge2hist.evaluation.metrics.nuclei import NucleiSegmenter, nuclear_statistics, shapes

EOSIN, HAEMATOXYLIN = (225, 130, 180), (90, 60, 140)


def patch_with(ellipses: list[tuple[float, float, float, float]], side: int = 96) -> np.ndarray:
    """Eosin with dark ellipses (x, y, half axis along x, half axis along y)."""
    y, x = np.mgrid[:side, :side] + 0.5
    image = np.broadcast_to(np.array(EOSIN, np.uint8), (side, side, 3)).copy()
    for cx, cy, rx, ry in ellipses:
        image[((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1] = HAEMATOXYLIN
    return image


def test_counts_and_measures_separate_nuclei() -> None:
    """Four discs of radius 3.5 um at 0.5 um/px: 38.5 um2 each."""
    image = patch_with([(20, 20, 7, 7), (70, 25, 7, 7), (25, 70, 7, 7), (70, 72, 7, 7)])[None]
    found = nuclear_statistics(NucleiSegmenter.fit(image, 0.5), image)
    assert found["nuclei_count"].item() == 4
    assert found["nuclear_area_um2"].item() == pytest.approx(np.pi * 3.5**2, rel=0.12)
    assert found["nuclear_eccentricity"].item() < 0.35
    assert found["nuclear_solidity"].item() > 0.93


def test_touching_nuclei_are_parted() -> None:
    image = patch_with([(40, 48, 7, 7), (53, 48, 7, 7)])[None]
    assert nuclear_statistics(NucleiSegmenter.fit(image, 0.5), image)["nuclei_count"].item() == 2


def test_shapes_agree_with_scikit_image() -> None:
    y, x = np.mgrid[:80, :80]
    labels = np.zeros((1, 80, 80), np.int32)
    for number, (cx, cy, rx, ry) in enumerate([(15, 15, 9, 5), (50, 15, 6, 6), (20, 55, 4, 12)], start=1):
        labels[0][((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 <= 1] = number
    labels[0, 50:70, 45:70] = 4
    labels[0, 50:62, 55:70] = 0  # an L
    found = shapes(labels)
    other = regionprops_table(labels[0], properties=("area", "eccentricity", "solidity"))
    np.testing.assert_allclose(found["area_px"], other["area"])
    np.testing.assert_allclose(found["eccentricity"], other["eccentricity"], atol=0.003)
    np.testing.assert_allclose(found["solidity"], other["solidity"], atol=0.06)
    assert found["solidity"][3] < 0.8 < found["solidity"][:3].min()


def test_batches_do_not_mix_images() -> None:
    rng = np.random.default_rng(0)
    images = np.stack([patch_with([(*rng.uniform(10, 54, 2), 6, 5) for _ in range(4)], 64) for _ in range(6)])
    segmenter = NucleiSegmenter.fit(images, 0.5)
    together = nuclear_statistics(segmenter, images)
    for i in range(len(images)):
        alone = nuclear_statistics(segmenter, images[i : i + 1])
        for name, values in alone.items():
            assert values[0] == pytest.approx(together[name][i])


def test_empty_patches_have_no_nuclei_and_unknown_shape() -> None:
    white = np.full((2, 32, 32, 3), 250, np.uint8)
    found = nuclear_statistics(NucleiSegmenter.fit(white, 0.5), white)
    assert found["nuclei_count"].tolist() == [0, 0]
    assert np.isnan(found["nuclear_area_um2"]).all()


def test_coarse_pixels_give_no_shape() -> None:
    image = patch_with([(20, 20, 2, 2)])[None]
    found = nuclear_statistics(NucleiSegmenter.fit(image, 2.0), image)
    assert set(found) == {"nuclei_count", "nuclear_area_um2"}
