import numpy as np
import pytest
from scipy import ndimage

from sge2hist.evaluation.features.descriptors import thumbnails
from sge2hist.evaluation.metrics import memorisation
from sge2hist.evaluation.resampling import make_resampling


def tissue_like(n: int, rng: np.random.Generator) -> np.ndarray:
    """Smooth random colour images, uint8 [n, 32, 32, 3]."""
    smooth = ndimage.gaussian_filter(rng.normal(size=(n, 32, 32, 3)), sigma=(0, 3, 3, 0), mode="wrap")
    return np.clip(150 + 400 * smooth, 0, 255).astype(np.uint8)


def shares(generated: np.ndarray, train: np.ndarray, held_out: np.ndarray) -> tuple[float, float]:
    """Return the share of copies among generated and held-out images."""
    blocks = memorisation.training_thumbnails(np.arange(len(train)), lambda rows: train[rows], block=70)
    real, found = memorisation.nearest_training([thumbnails(held_out), thumbnails(generated)], blocks)
    threshold = memorisation.copy_threshold(real.distance_N)
    resampling = make_resampling(np.arange(len(generated)), n_replicates=20, n_groups=5, rng=np.random.default_rng(0))
    copied = memorisation.copied_share(found.distance_N, threshold, resampling).value
    return copied, float((real.distance_N < threshold).mean())


@pytest.fixture(scope="module")
def images() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"train": tissue_like(300, rng), "held_out": tissue_like(200, rng), "fresh": tissue_like(200, rng)}


def test_fresh_images_are_no_copies(images: dict[str, np.ndarray]) -> None:
    copied, real = shares(images["fresh"], images["train"], images["held_out"])
    assert copied < 0.06
    assert real == pytest.approx(0.01, abs=0.006)


@pytest.mark.parametrize("turn", ["unchanged", "mirrored", "rotated", "noisy", "darker"])
def test_training_patches_are_copies_however_turned(images: dict[str, np.ndarray], turn: str) -> None:
    rng = np.random.default_rng(1)
    copies = images["train"][:200]
    changed = {
        "unchanged": copies,
        "mirrored": copies[:, :, ::-1],
        "rotated": np.rot90(copies, axes=(1, 2)),
        "noisy": np.clip(copies + rng.normal(0, 10, copies.shape), 0, 255).astype(np.uint8),
        "darker": (copies * 0.85).astype(np.uint8),
    }[turn]
    assert shares(changed, images["train"], images["held_out"])[0] > 0.99


def test_blurred_fresh_images_are_no_copies(images: dict[str, np.ndarray]) -> None:
    """Plain pixel distance calls blur a copy, because a blurred image is close to everything."""
    blurred = ndimage.gaussian_filter(images["fresh"], sigma=(0, 1.5, 1.5, 0))
    assert shares(blurred, images["train"], images["held_out"])[0] < 0.06


def test_nearest_names_the_training_patch(images: dict[str, np.ndarray]) -> None:
    order = np.random.default_rng(2).permutation(300)[:50]
    blocks = memorisation.training_thumbnails(np.arange(300), lambda rows: images["train"][rows], block=64)
    (found,) = memorisation.nearest_training([thumbnails(images["train"][order])], blocks)
    assert found.train_N.tolist() == order.tolist()
    assert found.distance_N.max() < 1e-3


def test_distances_equal_a_plain_search(images: dict[str, np.ndarray]) -> None:
    queries, train = (memorisation.standardised(thumbnails(images[k])) for k in ("fresh", "train"))
    views = [memorisation.standardised(v) for v in memorisation.symmetries(thumbnails(images["fresh"]))]
    slow = np.min([np.linalg.norm(v[:, None] - train[None], axis=2).min(axis=1) for v in views], axis=0)
    blocks = memorisation.training_thumbnails(np.arange(300), lambda rows: images["train"][rows])
    (found,) = memorisation.nearest_training([thumbnails(images["fresh"])], blocks)
    np.testing.assert_allclose(found.distance_N, slow, atol=1e-3)
    assert len(views) == 8
    assert queries.shape == (200, 192)
