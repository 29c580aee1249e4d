import numpy as np
import pytest
from scipy import ndimage

from sge2hist.evaluation.metrics.seams import border_energies, seam_score


def tissue_like(rng: np.random.Generator, side: int) -> np.ndarray:
    return 150 + 200 * ndimage.gaussian_filter(rng.normal(size=(side, side, 3)), sigma=(3, 3, 0))


def test_seamless_is_one_within_its_interval() -> None:
    rng = np.random.default_rng(0)
    found = seam_score([tissue_like(rng, 320) for _ in range(3)], 32)
    low, high = found.interval()
    assert low < 1 < high
    assert found.n == 3 * 2 * 9


@pytest.mark.parametrize("origin", [(0, 0), (5, 11)])
def test_tiles_that_disagree_are_seen_where_they_meet(origin: tuple[int, int]) -> None:
    """An offset of each tile adds its squared difference to the border lines and nothing elsewhere."""
    rng = np.random.default_rng(1)
    image = tissue_like(rng, 160)
    y, x = np.indices((160, 160))
    tile = (y - origin[1]) // 32 * 100 + (x - origin[0]) // 32
    offsets = dict(zip(np.unique(tile), rng.normal(0, 20, len(np.unique(tile))), strict=True))
    tiled = image + np.vectorize(offsets.get)(tile)[..., None]
    assert seam_score([tiled], 32, origin).value > 5
    np.testing.assert_allclose(
        border_energies(tiled, 32, origin)[1].mean(), border_energies(image, 32, origin)[1].mean()
    )


def test_blended_borders_are_below_one() -> None:
    image = tissue_like(np.random.default_rng(2), 160)
    for border in range(32, 160, 32):
        image[border] = image[border - 1]
        image[:, border] = image[:, border - 1]
    assert seam_score([image], 32).value < 0.2


def test_a_grid_of_the_network_is_no_seam() -> None:
    """Every eighth line is louder, borders as the others: a seam against all lines, none against those that lie alike."""
    rng = np.random.default_rng(3)
    image = tissue_like(rng, 320)
    image += np.cumsum(np.where(np.arange(320) % 8 == 0, rng.choice([-3.0, 3.0], 320), 0))[:, None, None]
    image += np.cumsum(np.where(np.arange(320) % 8 == 0, rng.choice([-3.0, 3.0], 320), 0))[None, :, None]
    assert seam_score([image], 32).value > 1.15
    low, high = seam_score([image], 32, (0, 0), 8).interval()
    assert low < 1 < high
    with pytest.raises(ValueError, match="no multiple of 7"):
        border_energies(image, 32, (0, 0), 7)


def test_images_without_a_border_are_refused() -> None:
    with pytest.raises(ValueError, match="no border"):
        seam_score([np.zeros((10, 10, 3))], 32)
    with pytest.raises(ValueError, match="at least 2"):
        border_energies(np.zeros((10, 10, 3)), 1)
