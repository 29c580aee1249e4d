"""`X.generated` folders: patches of any channels read back as they were written; slides opened and checked."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image

from sge2hist.data.artifacts import atomic_directory, write_manifest
from sge2hist.data.errors import InputError
from sge2hist.data.generated import GeneratedSet, GeneratedSlide, generated_set_writer, is_generated_slide, read_image
from sge2hist.data.slides.channels import RGB
from sge2hist.data.slides.slide_writer import write_slide


@pytest.mark.parametrize(
    ("channels", "suffix"),
    [(RGB, ".png"), (("DAPI",), ".png"), (("DAPI", "A"), ".ome.tif"), (("a", "b", "c"), ".ome.tif")],
)
def test_images_come_back(tmp_path, channels, suffix):
    images = np.random.default_rng(0).integers(0, 256, (3, 20, 20, len(channels)), dtype=np.uint8)
    obs = pd.DataFrame({"cell_id": ["a", "b", "c"]})
    with generated_set_writer(tmp_path / "x.generated", obs, {}, {"channels": channels}, overwrite=False) as writer:
        writer.add(images)
    found = GeneratedSet.open(tmp_path / "x.generated")
    assert found.channels == channels
    for i, image in enumerate(images):
        assert found.image_path(i).name.endswith(suffix)
        assert np.array_equal(found.image(i), image)


def test_latents_are_read_by_name(tmp_path: Path) -> None:
    z1 = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)
    obs = pd.DataFrame({"cell_id": ["a", "b"]})
    with generated_set_writer(tmp_path / "x.generated", obs, {"X_sge2hist_z1": z1}, {}, overwrite=False) as writer:
        writer.add(np.zeros((2, 8, 8, 3), np.uint8))
    found = GeneratedSet.open(tmp_path / "x.generated")
    assert list(found.latents) == ["z1"]
    np.testing.assert_array_equal(found.latents["z1"], z1)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_image_formats(tmp_path: Path, suffix: str) -> None:
    image = np.full((20, 20, 3), 200, np.uint8)
    path = tmp_path / f"a{suffix}"
    tifffile.imwrite(path, image, photometric="rgb") if suffix == ".tif" else Image.fromarray(image).save(path)
    np.testing.assert_allclose(read_image(path), image, atol=2)


def test_alpha_is_dropped_and_grey_or_16_bit_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8, 4), 9, np.uint8)).save(tmp_path / "rgba.png")
    assert read_image(tmp_path / "rgba.png").shape == (8, 8, 3)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "grey.png")
    tifffile.imwrite(tmp_path / "deep.tif", np.zeros((8, 8, 3), np.uint16), photometric="rgb")
    for name in ("grey.png", "deep.tif"):
        with pytest.raises(InputError, match="8-bit RGB"):
            read_image(tmp_path / name)


def _slide(path: Path, pixels: np.ndarray, **changes: object) -> Path:
    manifest = {"mode": "slide", "slide": "s1", "region_um": [0, 8, 40, 20], "um_per_px": 0.5, "n_images": 0}
    with atomic_directory(path) as partial:
        write_slide(partial / "slide.ome.tif", pixels, 0.5)
        write_manifest(partial, "generated", **{**manifest, **changes})
    return path


def test_a_slide_is_opened_with_its_region(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 80, 3), dtype=np.uint8)
    path = _slide(tmp_path / "s.generated", pixels, seed=3)
    assert is_generated_slide(path)
    slide = GeneratedSlide.open(path)
    assert (slide.slide_id, slide.region_um, slide.um_per_px, slide.seed) == ("s1", (0.0, 8.0, 40.0, 20.0), 0.5, 3)
    np.testing.assert_array_equal(slide.image.as_array(), pixels)
    assert slide.uncertainty is None
    assert slide.cells() is None


def test_patches_and_slides_are_not_mixed_up(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(InputError, match=r"found a generated slide.*GeneratedSlide\.open"):
        GeneratedSet.open(_slide(tmp_path / "a.generated", pixels))
    with pytest.raises(InputError, match=r"found generated patches.*sge2hist generate-slide"):
        GeneratedSlide.open(_slide(tmp_path / "b.generated", pixels, mode="cells"))
    with pytest.raises(InputError, match="an incomplete manifest"):
        GeneratedSlide.open(_slide(tmp_path / "c.generated", pixels, region_um=[1, 2]))
    (tmp_path / "a.generated" / "slide.ome.tif").unlink()
    with pytest.raises(InputError, match=r"found no slide\.ome\.tif"):
        GeneratedSlide.open(tmp_path / "a.generated")


def test_the_dataset_of_a_slide_is_checked(tmp_path: Path, tiny_paired) -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    assert GeneratedSlide.open(_slide(tmp_path / "a.generated", pixels)).slide_number(tiny_paired) == 0
    other = GeneratedSlide.open(_slide(tmp_path / "b.generated", pixels, slide="s9"))
    with pytest.raises(InputError, match=r"no slide 's9'.*expected one of s1"):
        other.slide_number(tiny_paired)
