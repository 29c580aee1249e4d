"""Images that are no 8-bit RGB: one error, whose command works."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from fixtures.tissue import make_tissue
from sge2hist.data.errors import InputError
from sge2hist.data.slides.slide_image import SlideImage

RGB = np.ascontiguousarray(make_tissue(width_px=150, height_px=100).image)


def repaired(path: Path) -> SlideImage:
    """The slide that the command in the error makes."""
    with pytest.raises(InputError) as caught:
        SlideImage.open(path)
    command = re.search(r'python -c ".*?"', str(caught.value))
    assert command, str(caught.value)
    subprocess.run([sys.executable, *shlex.split(command[0])[1:]], check=True, cwd=path.parent)
    return SlideImage.open(next(path.parent.glob("*_rgb8.tif")))


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize(
    ("scale", "dtype"), [(257, "uint16"), (16.05, "uint16"), (1, "uint16"), (1 / 255, "float32"), (1, "float32")]
)
def test_other_depths(tmp_path: Path, scale: float, dtype: str, planar: str) -> None:
    pixels = (RGB * np.float64(scale)).astype(dtype)
    stored = pixels if planar == "contig" else np.moveaxis(pixels, -1, 0)
    options: dict[str, Any] = {"photometric": "rgb", "planarconfig": planar, "tile": (64, 64)}
    tifffile.imwrite(tmp_path / "he.tif", stored, resolution=(20000, 20000), resolutionunit=3, **options)
    slide = repaired(tmp_path / "he.tif")
    assert np.abs(slide.as_array().astype(int) - RGB).max() <= 1
    assert slide.um_per_px == pytest.approx(0.5)


def test_the_page_of_the_slide_is_repaired(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "he.tif") as writer:
        writer.write(RGB[..., 0].copy(), photometric="minisblack")
        writer.write(RGB.astype(np.uint16) * 257, photometric="rgb")
    assert (repaired(tmp_path / "he.tif").as_array() == RGB).all()


@pytest.mark.parametrize("name", ["he.jpg", "he.tif"])
def test_cmyk(tmp_path: Path, name: str) -> None:
    cmyk = Image.fromarray(RGB).convert("CMYK")
    cmyk.save(tmp_path / name)
    assert np.abs(repaired(tmp_path / name).as_array().astype(int) - np.asarray(cmyk.convert("RGB"))).mean() < 6


def test_palette_and_lab_tiffs(tmp_path: Path) -> None:
    palette = Image.fromarray(RGB).quantize(200)
    palette.save(tmp_path / "he.tif")
    assert (repaired(tmp_path / "he.tif").as_array() == np.asarray(palette.convert("RGB"))).all()
    tifffile.imwrite(tmp_path / "lab.tif", RGB, photometric="cielab")
    with pytest.raises(InputError, match=r"CIELab.*vips colourspace"):
        SlideImage.open(tmp_path / "lab.tif")


@pytest.mark.parametrize("mode", ["L", "LA", "1", "I;16"])
def test_grey_pictures_are_no_he(tmp_path: Path, mode: str) -> None:
    Image.fromarray(RGB).convert("L").convert(mode).save(tmp_path / "grey.png")
    with pytest.raises(InputError, match=rf"mode {mode}.*\(grey\).*in colour"):
        SlideImage.open(tmp_path / "grey.png")


@pytest.mark.parametrize("photometric", ["miniswhite", "minisblack"])
def test_grey_tiffs_are_no_he(tmp_path: Path, photometric: Any) -> None:
    tifffile.imwrite(tmp_path / "grey.tif", RGB[..., 0], photometric=photometric)
    with pytest.raises(InputError, match="give the H&E image"):
        SlideImage.open(tmp_path / "grey.tif")


def test_pngs_of_16_bits(tmp_path: Path) -> None:
    imagecodecs = pytest.importorskip("imagecodecs")
    (tmp_path / "full.png").write_bytes(imagecodecs.png_encode(RGB.astype(np.uint16) * 257))
    slide = SlideImage.open(tmp_path / "full.png")
    assert (slide.as_array() == RGB).all()
    assert any("16 bits became 8" in note for note in slide.notes)
    (tmp_path / "dark.png").write_bytes(imagecodecs.png_encode((RGB * 16.05).astype(np.uint16)))
    assert np.abs(repaired(tmp_path / "dark.png").as_array().astype(int) - RGB).max() <= 1
