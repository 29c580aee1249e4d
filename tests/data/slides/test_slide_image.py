import pickle

import numpy as np
import pytest
import tifffile
from PIL import Image
from skimage.measure import block_reduce

from sge2hist.data.errors import InputError
from sge2hist.data.slides import pixel_source
from sge2hist.data.slides.slide_image import SlideImage


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (30, 41, 3)).astype(np.uint8)
    return coarse.repeat(7, 0).repeat(7, 1)[:203, :281]


LAYOUTS = {
    "striped": {"photometric": "rgb", "rowsperstrip": 37, "compression": "lzw"},
    "tiled": {"photometric": "rgb", "tile": (64, 64), "compression": "zlib", "predictor": True},
    "big": {"photometric": "rgb", "bigtiff": True},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_read_as_tifffile_reads_them(tmp_path, pixels, layout) -> None:
    tifffile.imwrite(tmp_path / "a.tif", pixels, **LAYOUTS[layout])
    image = SlideImage.open(tmp_path / "a.tif")
    assert (image.width_px, image.height_px) == (281, 203)
    np.testing.assert_array_equal(image.as_array(), pixels)


def test_channel_axes_alpha_and_leading_axis(tmp_path, pixels) -> None:
    planar = np.moveaxis(pixels, -1, 0)
    tifffile.imwrite(tmp_path / "planar.tif", planar, photometric="rgb", planarconfig="separate", tile=(64, 64))
    tifffile.imwrite(tmp_path / "pages.ome.tif", planar, photometric="minisblack", metadata={"axes": "CYX"})
    tifffile.imwrite(tmp_path / "extra.tif", pixels[None], photometric="rgb")
    rgba = np.concatenate([pixels, np.full_like(pixels[..., :1], 255)], -1)
    tifffile.imwrite(tmp_path / "rgba.tif", rgba, photometric="rgb", extrasamples=["unassalpha"])
    for name in ("planar.tif", "pages.ome.tif", "extra.tif", "rgba.tif"):
        np.testing.assert_array_equal(SlideImage.open(tmp_path / name).as_array(), pixels, err_msg=name)


def test_largest_colour_page_is_taken_and_page_option_overrides(tmp_path, pixels) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(pixels[:50, :50], photometric="rgb")
        writer.write(pixels, photometric="rgb")
        writer.write(np.zeros((400, 400), np.uint8), photometric="minisblack")
    image = SlideImage.open(tmp_path / "a.tif")
    assert image.height_px == 203
    assert "page 1" in image.notes[0]
    assert SlideImage.open(tmp_path / "a.tif", page=0).height_px == 50
    with pytest.raises(InputError, match="page 7"):
        SlideImage.open(tmp_path / "a.tif", page=7)
    with pytest.raises(InputError, match="RGB"):
        SlideImage.open(tmp_path / "a.tif", page=2)


def test_pictures_and_exif_rotation(tmp_path, pixels) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.png")
    np.testing.assert_array_equal(SlideImage.open(tmp_path / "a.png").as_array(), pixels)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif, quality=95)
    image = SlideImage.open(tmp_path / "a.jpg")
    assert (image.width_px, image.height_px) == (203, 281)
    assert "EXIF" in image.notes[0]


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_other_pixel_types_are_refused(tmp_path, pixels, dtype) -> None:
    tifffile.imwrite(tmp_path / "a.tif", pixels.astype(dtype), photometric="rgb")
    with pytest.raises(InputError, match="8-bit RGB"):
        SlideImage.open(tmp_path / "a.tif")
    Image.fromarray(pixels[..., 0]).save(tmp_path / "grey.png")
    with pytest.raises(InputError, match="mode L"):
        SlideImage.open(tmp_path / "grey.png")


def test_um_per_px_from_metadata(tmp_path, pixels) -> None:
    cases = {
        "ome.ome.tif": ({"metadata": {"axes": "YXS", "PhysicalSizeX": 250.0, "PhysicalSizeXUnit": "nm"}}, 0.25),
        "tag.tif": ({"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}, 0.5),
        "print.tif": ({"resolution": (72, 72), "resolutionunit": "INCH"}, None),
        "aperio.tif": ({"description": "Aperio|AppMag = 20|MPP = 0.4990", "metadata": None}, 0.499),
        "none.tif": ({}, None),
    }
    for name, (options, expected) in cases.items():
        tifffile.imwrite(tmp_path / name, pixels, photometric="rgb", **options)
        assert SlideImage.open(tmp_path / name).um_per_px == (pytest.approx(expected) if expected else None), name


def test_outside_is_white(pixels) -> None:
    image = SlideImage.from_array(pixels)
    got = image.read(-3, 200, 10, 10)
    assert (got[:, :3] == 255).all()
    assert (got[3:] == 255).all()
    np.testing.assert_array_equal(got[:3, 3:], pixels[200:203, :7])
    assert (image.read(1000, 1000, 4, 4) == 255).all()


def test_patch_at_native_scale_is_an_exact_crop(pixels) -> None:
    image = SlideImage.from_array(pixels)
    for x, y in ((100.0, 90.0), (100.49, 90.0), (99.51, 89.6)):
        np.testing.assert_array_equal(image.read_patch((x, y), 32, 32, 1.0), pixels[74:106, 84:116])


def test_patch_against_block_means_and_scale(pixels) -> None:
    """A patch of 40 um at 0.5 um per px is 80 px; 20 px out means blocks of 4 x 4."""
    image = SlideImage.from_array(pixels)
    got = image.read_patch((100.0, 90.0), 40.0, 20, 0.5)
    expected = block_reduce(pixels[50:130, 60:140].astype(float), (4, 4, 1), np.mean)
    assert np.abs(got - expected).max() <= 0.5 + 1e-3


def test_patch_across_the_border_has_the_white_outside_averaged_in() -> None:
    image = SlideImage.from_array(np.zeros((20, 20, 3), np.uint8))
    got = image.read_patch((0.0, 10.0), 8.0, 2, 1.0)
    assert got[:, 0].min() == 255
    assert got[:, 1].max() == 0


def test_tile_cache_is_bounded_and_survives_pickling(tmp_path, pixels) -> None:
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", tile=(16, 16))
    image = SlideImage.open(tmp_path / "a.tif")
    source = image.levels[0]
    assert isinstance(source, pixel_source.TiffPixels)
    source._cache_bytes = 5 * 16 * 16 * 3
    np.testing.assert_array_equal(image.as_array(), pixels)
    assert len(source._cache) <= 5
    again = pickle.loads(pickle.dumps(image))
    np.testing.assert_array_equal(again.read(10, 20, 30, 40), pixels[20:60, 10:40])


def test_resampled_slide_agrees_with_block_means(pixels) -> None:
    image = SlideImage.from_array(pixels[:200, :280])
    got = image.as_array(0.5, 2.0)
    expected = block_reduce(pixels[:200, :280].astype(float), (4, 4, 1), np.mean)
    assert got.shape == (50, 70, 3)
    assert np.abs(got - expected).max() <= 0.5 + 1e-3


def test_thumbnail_uses_the_pyramid_and_keeps_proportions(pixels) -> None:
    small, factor = SlideImage.from_array(pixels).thumbnail(100)
    assert small.shape[:2] == (72, 100)
    assert factor == pytest.approx(2.81)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.9, 0.97])
@pytest.mark.parametrize("name", ["a.tif", "tiled.tif", "a.png", "a.jpg"])
def test_truncated_images_are_input_errors(tmp_path, pixels, name, share) -> None:
    path = tmp_path / name
    if name.endswith(".tif"):
        tifffile.imwrite(path, pixels, photometric="rgb", **({"tile": (64, 64)} if name == "tiled.tif" else {}))
    else:
        Image.fromarray(pixels).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match=name):
        SlideImage.open(path).as_array()


def test_missing_file_names_the_option(tmp_path) -> None:
    with pytest.raises(InputError, match="--image"):
        SlideImage.open(tmp_path / "none.tif")
