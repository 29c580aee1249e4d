import numpy as np
import pytest
import tifffile
from skimage.measure import block_reduce

from sge2hist.data.errors import InputError
from sge2hist.data.slides.slide_image import SlideImage
from sge2hist.data.slides.slide_writer import write_slide


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (700, 1100, 3)).astype(np.uint8)


def test_round_trip_is_lossless_and_metadata_are_those_of_ome(tmp_path, pixels) -> None:
    write_slide(tmp_path / "a.ome.tif", pixels, 0.5, description="toy")
    image = SlideImage.open(tmp_path / "a.ome.tif")
    np.testing.assert_array_equal(image.as_array(), pixels)
    assert image.um_per_px == pytest.approx(0.5)
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as tiff:  # a second library's view
        np.testing.assert_array_equal(tiff.asarray(), pixels)
        assert 'PhysicalSizeX="0.5"' in tiff.ome_metadata
        assert 'PhysicalSizeYUnit="µm"' in tiff.ome_metadata
        levels = tiff.series[0].levels
        assert [level.shape[:2] for level in levels] == [(700, 1100), (350, 550), (175, 275)]
        assert all(level.keyframe.is_tiled for level in levels)
        half = block_reduce(pixels.astype(float), (2, 2, 1), np.mean)
        assert np.abs(levels[1].asarray() - half).max() <= 0.5 + 1e-6


def test_tiles_and_array_give_the_same_pixels_and_hash(tmp_path, pixels) -> None:
    image = SlideImage.from_array(pixels)
    shape, tiles = image.resampled_tiles(1.0, 1.0, 512)
    calls = []
    first = write_slide(tmp_path / "a.ome.tif", tiles, 1.0, shape, on_tile=lambda: calls.append(1))
    second = write_slide(tmp_path / "b.ome.tif", pixels, 1.0)
    assert first == second
    assert len(calls) == 6
    np.testing.assert_array_equal(SlideImage.open(tmp_path / "a.ome.tif").as_array(), pixels)
    changed = pixels.copy()
    changed[699, 1099, 2] ^= 1
    assert write_slide(tmp_path / "c.ome.tif", changed, 1.0) != first
    assert not list(tmp_path.glob(".pyramid*"))


@pytest.mark.parametrize("shape", [(1, 1), (3, 2000), (513, 5), (512, 512)])
def test_odd_shapes(tmp_path, shape) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (*shape, 3)).astype(np.uint8)
    write_slide(tmp_path / "a.ome.tif", pixels, 0.25)
    np.testing.assert_array_equal(SlideImage.open(tmp_path / "a.ome.tif").as_array(), pixels)


def test_wrong_pixels_are_refused(tmp_path) -> None:
    with pytest.raises(InputError, match="uint8"):
        write_slide(tmp_path / "a.ome.tif", np.zeros((4, 4, 3)), 1.0)
