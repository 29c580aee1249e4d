"""Transparent glass is white in every path: whole, by regions, by levels, thumbnails, pictures, OpenSlide, generated sets."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from fixtures.tissue import make_tissue
from sge2hist.data.generated import read_image
from sge2hist.data.slides.slide_image import SlideImage

TISSUE = np.ascontiguousarray(make_tissue(width_px=150, height_px=100).image)
ALPHA = np.full((100, 150), 255, np.uint8)
ALPHA[:, 90:] = 0  # glass that a scanner skipped, black below
ALPHA[40:60, 20:50] = 128
RGBA = np.dstack([np.where(ALPHA[..., None] == 0, 0, TISSUE), ALPHA])
PREMULTIPLIED = np.dstack([(RGBA[..., :3] * (ALPHA[..., None] / 255)).round().astype(np.uint8), ALPHA])


def by_pillow(rgba: np.ndarray) -> np.ndarray:
    white = Image.new("RGBA", (rgba.shape[1], rgba.shape[0]), "white")
    return np.asarray(Image.alpha_composite(white, Image.fromarray(rgba)).convert("RGB"))


WHITE_GLASS = by_pillow(RGBA)


def assert_white_glass(slide: SlideImage, tolerance: int = 1) -> None:
    for got in (slide, pickle.loads(pickle.dumps(slide))):
        assert np.abs(got.as_array().astype(int) - WHITE_GLASS).max() <= tolerance
        assert np.abs(got.read(70, 30, 60, 40).astype(int) - WHITE_GLASS[30:70, 70:130]).max() <= tolerance
        small, _ = got.thumbnail(50)
        assert (small[:, 32:] >= 255 - tolerance).all()
        assert (small[:, :10] < 250).any()
        for source in got.levels:
            edge = source.region(0, source.width_px * 2 // 3, source.height_px, source.width_px)
            assert (edge >= 255 - tolerance).all()


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("tile", [None, (64, 64)], ids=["strips", "tiles"])
@pytest.mark.parametrize("extra", ["unassalpha", "assocalpha", "unspecified"])
def test_rgba_tiff_pyramid(tmp_path: Path, extra: Any, tile: Any, planar: str) -> None:
    pixels = PREMULTIPLIED if extra == "assocalpha" else RGBA
    path = tmp_path / "he.ome.tif"
    axes = "YXS" if planar == "contig" else "SYX"
    with tifffile.TiffWriter(path, ome=True) as writer:
        for number, step in enumerate((1, 2)):
            level = pixels[::step, ::step]
            level = level if planar == "contig" else np.moveaxis(level, -1, 0)
            writer.write(
                np.ascontiguousarray(level),
                photometric="rgb",
                planarconfig=planar,
                extrasamples=[extra],
                tile=tile,
                subifds=1 - number,
                subfiletype=number,
                metadata={"axes": axes} if not number else None,
            )
    slide = SlideImage.open(path)
    assert len(slide.levels) == 2
    assert_white_glass(slide)


@pytest.mark.parametrize("compression", ["jpeg2000", "webp", "png", "lzw"])
def test_rgba_by_codec(tmp_path: Path, compression: str) -> None:
    args = {"webp": {"lossless": True}, "jpeg2000": {"reversible": True}}.get(compression, {})
    tifffile.imwrite(
        tmp_path / "he.tif", RGBA, photometric="rgb", tile=(64, 64), compression=compression, compressionargs=args
    )
    got = SlideImage.open(tmp_path / "he.tif")
    assert_white_glass(got)


def test_a_page_for_each_of_red_green_blue_alpha(tmp_path: Path) -> None:
    planes = np.ascontiguousarray(np.moveaxis(RGBA, -1, 0))
    tifffile.imwrite(tmp_path / "he.ome.tif", planes, photometric="minisblack", metadata={"axes": "CYX"}, tile=(64, 64))
    assert_white_glass(SlideImage.open(tmp_path / "he.ome.tif"))


@pytest.mark.parametrize("extra", ["unassalpha", "unspecified"])
def test_a_fourth_sample_of_zeros_is_padding(tmp_path: Path, extra: str) -> None:
    padded = np.dstack([TISSUE, np.zeros_like(ALPHA)])
    tifffile.imwrite(tmp_path / "he.tif", padded, photometric="rgb", extrasamples=[extra], tile=(64, 64))
    slide = SlideImage.open(tmp_path / "he.tif")
    assert (slide.as_array() == TISSUE).all()
    assert any("0 everywhere" in note for note in slide.notes)


def test_an_undeclared_fourth_sample_of_any_values_is_no_transparency(tmp_path: Path) -> None:
    stain = np.dstack([TISSUE, TISSUE[..., 0] // 2])
    tifffile.imwrite(tmp_path / "he.tif", stain, photometric="rgb", extrasamples=["unspecified"])
    slide = SlideImage.open(tmp_path / "he.tif")
    assert (slide.as_array() == TISSUE).all()
    assert any("not declared as transparency" in note for note in slide.notes)


def test_one_opaque_tile_among_many_transparent_ones_is_found(tmp_path: Path) -> None:
    rgba = np.zeros((16 * 30, 16 * 30, 4), np.uint8)
    rgba[16 * 29 :, 16 * 29 :] = (90, 40, 120, 255)
    tifffile.imwrite(tmp_path / "he.tif", rgba, photometric="rgb", tile=(16, 16))
    slide = SlideImage.open(tmp_path / "he.tif")
    assert (slide.as_array() == by_pillow(rgba)).all()


@pytest.mark.parametrize("name", ["he.png", "he.webp", "he.jp2"])
def test_rgba_pictures(tmp_path: Path, name: str) -> None:
    Image.fromarray(RGBA).save(tmp_path / name, **({"lossless": True, "exact": True} if name == "he.webp" else {}))
    slide = SlideImage.open(tmp_path / name)
    assert np.abs(slide.as_array().astype(int) - WHITE_GLASS).max() <= 1
    if name != "he.jp2":
        assert np.abs(read_image(tmp_path / name).astype(int) - WHITE_GLASS).max() <= 1


def test_one_transparent_colour_and_palettes(tmp_path: Path) -> None:
    """A colour key (tRNS) and a palette, with and without transparency."""
    keyed = np.where(ALPHA[..., None] == 0, 0, TISSUE.clip(1)).astype(np.uint8)
    Image.fromarray(keyed).save(tmp_path / "key.png", transparency=(0, 0, 0))
    expected = np.where(ALPHA[..., None] == 0, 255, keyed)
    assert (SlideImage.open(tmp_path / "key.png").as_array() == expected).all()
    assert (read_image(tmp_path / "key.png") == expected).all()
    palette = Image.fromarray(TISSUE).quantize(200)
    palette.save(tmp_path / "palette.png")
    slide = SlideImage.open(tmp_path / "palette.png")
    assert (slide.as_array() == np.asarray(palette.convert("RGB"))).all()
    assert any("palette" in note for note in slide.notes)
    clear = Image.fromarray(np.where(ALPHA[..., None] == 0, 0, TISSUE).astype(np.uint8)).quantize(200)
    glass = clear.getpixel((149, 0))
    clear.save(tmp_path / "clear.png", transparency=glass)
    assert (SlideImage.open(tmp_path / "clear.png").as_array()[:, 90:] == 255).all()


def test_a_picture_transparent_everywhere_is_shown_as_it_is(tmp_path: Path) -> None:
    Image.fromarray(np.dstack([TISSUE, np.zeros_like(ALPHA)])).save(tmp_path / "he.png")
    slide = SlideImage.open(tmp_path / "he.png")
    assert (slide.as_array() == TISSUE).all()
    assert any("transparen" in note for note in slide.notes)


def test_openslide_levels(tmp_path: Path) -> None:
    """Tiles that a scanner skipped are transparent in OpenSlide."""
    pytest.importorskip("openslide")
    path = tmp_path / "he.svslide"
    with tifffile.TiffWriter(path) as writer:
        for number, step in enumerate((1, 2)):
            tiles = (
                TISSUE[y : y + 64, x : x + 64].copy() if x == 0 else None
                for y in range(0, -(-100 // step), 64)
                for x in range(0, -(-150 // step), 64)
            )
            if number:
                level = np.ascontiguousarray(np.where(ALPHA[::step, ::step, None] == 0, 255, TISSUE[::step, ::step]))
                writer.write(level, photometric="rgb", tile=(64, 64), subfiletype=1)
                continue
            padded = (None if t is None else np.pad(t, ((0, 64 - t.shape[0]), (0, 0), (0, 0))) for t in tiles)
            writer.write(padded, shape=TISSUE.shape, dtype=np.uint8, photometric="rgb", tile=(64, 64))
    slide = SlideImage.open(path)
    assert any("OpenSlide" in note for note in slide.notes)
    assert (slide.read(0, 0, 64, 100) == TISSUE[:, :64]).all()
    assert (slide.read(64, 0, 86, 100) == 255).all()
